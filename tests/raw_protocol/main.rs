//! The protocol is the data: writers in other languages, with their ordinary driver and no code of
//! ours, lead to the same documents. Needs `python3` with pymongo, and `mongosh`, on PATH.

mod replicas;

#[path = "../common/mod.rs"]
mod common;

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use alluvium::{
    model::{clock::Clock, id::DocumentId},
    writer::EventSourced,
};
use bson::{Bson, Document, doc, oid::ObjectId};
use common::{Daemon, TestDatabase, database, free_port, wait_for};
use serde_json::{Value, json};

/// Runs a program that is not ours and gives the JSON that it prints, line by line.
fn run(program: &str, arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("`{program}` cannot be run ({error}); see .ci/run for how to install it")
    });
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} failed: {complaint}{said}");
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The versions that a writer says that it appended.
fn versions(appended: &[Value]) -> Vec<i64> {
    appended.iter().map(|place| place["version"].as_i64().unwrap()).collect()
}

fn script(name: &str) -> String {
    format!("{}/tests/raw_protocol/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The real daemon, which has made the log with its validator.
async fn projecting(test: &TestDatabase) -> Daemon {
    projecting_on(test, free_port(), "").await
}

/// The same on this port, with these settings of the collection.
async fn projecting_on(test: &TestDatabase, port: u16, settings: &str) -> Daemon {
    let TestDatabase { uri, name, .. } = test;
    let mut daemon = Daemon::start(&format!(
        "[mongodb]\nuri = \"{uri}\"\ndatabase = \"{name}\"\n\
         [http]\nlisten = \"127.0.0.1:{port}\"\n\
         [[collections]]\nname = \"games\"\n{settings}"
    ));
    daemon.ready().await;
    daemon
}

async fn projected(test: &TestDatabase, id: impl Into<Bson>, version: i64) -> Document {
    let filter = doc! { "_id": id.into(), "version": version };
    let games = test.db.collection::<Document>("games");
    let what = format!("the row of {filter}");
    wait_for(&what, async || games.find_one(filter.clone()).await.unwrap()).await
}

/// The row's parts that do not depend on who wrote, as JSON, which does not tell number types apart.
fn content(row: &Document) -> Value {
    let part = |name: &str| row.get(name).cloned().map(Bson::into_relaxed_extjson);
    json!({ "version": part("version"), "clock": part("clock"), "state": part("state") })
}

/// What the game must be after the four events that every script appends.
fn the_game() -> Value {
    json!({
        "version": 4,
        "clock": { "admin-panel": 2, "game-server": 1, "mobile-client": 1 },
        "state": {
            "name": "Dragon's Hollow", "gold": 50, "level": 2, "experience": 100,
            "tags": ["new", "rich"],
        },
    })
}

async fn check_missing(test: &TestDatabase, id: &str) {
    let games = EventSourced::<Document>::new(&test.db, "games");
    let id = DocumentId::ObjectId(ObjectId::parse_str(id).unwrap());
    let phone: Clock = [("game-server", 1), ("admin-panel", 1)].into_iter().collect();
    let missing = games.missing_events(&id, &phone).await.unwrap().events;
    let missing: Vec<_> =
        missing.iter().map(|event| (event.version, &*event.client, event.seq)).collect();
    assert_eq!(missing, [(3, "mobile-client", 1), (4, "admin-panel", 2)]);
    let updated = games.update(&id, "ours", |game| drop(game.insert("gold", 51))).await.unwrap();
    assert_eq!(updated.version, 5, "our writer goes on where the other stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pymongo_needs_nothing_of_ours() {
    let test = database().await;
    let mut daemon = projecting(&test).await;
    let appended = run("python3", &[&script("append.py"), &test.uri, &test.name]);
    assert_eq!(versions(&appended), [1, 2, 3, 4, 1, 2, 3, 4]);

    let id = "65a000000000000000000001";
    let row = projected(&test, ObjectId::parse_str(id).unwrap(), 4).await;
    assert_eq!(content(&row), the_game());
    let row = projected(&test, 7, 4).await;
    let clock = json!({ "a": 2, "b": 2 });
    assert_eq!(content(&row), json!({ "version": 4, "clock": clock, "state": null }));
    assert!(row.get_bool("deleted").unwrap());
    check_missing(&test, id).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongosh_needs_nothing_of_ours_whatever_javascript_does_to_integers() {
    let test = database().await;
    let mut daemon = projecting(&test).await;
    let uri = test.uri.replacen("/?", &format!("/{}?", test.name), 1);
    let appended = run("mongosh", &["--quiet", &uri, &script("append.js")]);
    assert_eq!(versions(&appended), [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]);

    let id = "65a000000000000000000002";
    let row = projected(&test, ObjectId::parse_str(id).unwrap(), 4).await;
    assert_eq!(content(&row), the_game());
    let row = projected(&test, 8, 4).await;
    assert!(row.get_bool("deleted").unwrap());
    let row = projected(&test, 1_i64 << 40, 2).await;
    let n = json!(8_589_934_592.0);
    assert_eq!(content(&row)["state"]["n"], n, "what JavaScript sent as a double stays one");
    check_missing(&test, id).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongosh_asks_for_a_job_by_a_row_and_reads_its_result_there() {
    let test = database().await;
    let mut daemon = projecting(&test).await;
    let uri = test.uri.replacen("/?", &format!("/{}?", test.name), 1);
    run("mongosh", &["--quiet", &uri, &script("append.js")]);
    projected(&test, 1_i64 << 40, 2).await;
    let job = run("mongosh", &["--quiet", &uri, &script("job.js")]);
    let found = json!({ "documents": 3, "events": 10, "differences": 0, "findings": [] });
    let progress = json!({ "done": 3, "total": 3 });
    let done = json!({ "state": "done", "progress": progress, "result": found, "error": null });
    assert_eq!(job, [done]);
    assert!(daemon.stop().await.success());
}

/// Types a text into mongosh, as somebody who pastes it.
fn paste(uri: &str, text: &str) {
    let mut mongosh = Command::new("mongosh");
    mongosh.args(["--quiet", "--norc", uri]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut mongosh = mongosh.stderr(Stdio::null()).spawn().unwrap();
    mongosh.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    mongosh.wait().unwrap();
}

#[tokio::test]
async fn the_printed_roles_can_be_pasted_into_mongosh_again_and_again() {
    let test = database().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alluvium.toml");
    fs::write(&file, "[[collections]]\nname = \"games\"\n").unwrap();
    let roles = Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(["init", "--roles", "--uri", &test.uri, "--database", &test.name, "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8(roles.stdout).unwrap();
    let writer = format!("alluvium-{}-writer", test.name);
    let admin = test.client.database("admin");
    let privileges = async || {
        let info = doc! { "rolesInfo": &writer, "showPrivileges": true };
        let info = admin.run_command(info).await.unwrap();
        let role = info.get_array("roles").unwrap()[0].as_document().unwrap();
        role.get_array("privileges").unwrap().len()
    };
    paste(&test.uri, &text);
    let granted = privileges().await;
    assert!(granted > 3, "{granted}");
    // An earlier version granted less.
    let less = doc! { "updateRole": &writer, "privileges": [] };
    admin.run_command(less).await.unwrap();
    paste(&test.uri, &text);
    assert_eq!(privileges().await, granted);
}
