//! The protocol is the data: writers in other languages, with their ordinary driver and no code of
//! ours, lead to the same documents. Needs `python3` with pymongo, and `mongosh`, on PATH.

#[path = "../common/mod.rs"]
mod common;

use std::{process::Command, time::Duration};

use alluvium::{
    config::{CollectionConfig, Config, DaemonConfig, HttpConfig, MongoConfig},
    daemon::Daemon,
    model::{clock::Clock, id::DocumentId},
    writer::EventSourced,
};
use bson::{Bson, Document, doc, oid::ObjectId};
use common::{TestDatabase, database, wait_for};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Runs a writer that is not ours and gives what it says that it appended.
fn run(program: &str, arguments: &[&str]) -> Vec<(String, i64)> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("`{program}` cannot be run ({error}); see .ci/run for how to install it")
    });
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} failed: {complaint}{said}");
    let place = |line: &str| {
        let place: Value = serde_json::from_str(line).unwrap();
        (place["d"].as_str().unwrap().to_owned(), place["version"].as_i64().unwrap())
    };
    said.lines().map(place).collect()
}

fn script(name: &str) -> String {
    format!("{}/tests/raw_protocol/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A daemon in this process, on a log with the validator in force.
async fn projecting(test: &TestDatabase) -> CancellationToken {
    let config = Config {
        mongodb: MongoConfig { uri: test.uri.parse().unwrap(), database: test.name.clone() },
        http: HttpConfig { listen: "127.0.0.1:0".parse().unwrap() },
        daemon: DaemonConfig {
            checkpoint_interval: Duration::from_secs(1),
            shutdown_timeout: Duration::from_secs(10),
        },
        collections: vec![CollectionConfig::new("games")],
    };
    let key = mongodb::options::ClusteredIndex::default();
    test.db.create_collection("games.events").clustered_index(key).await.unwrap();
    let daemon = Daemon::start(&test.db, &config).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(daemon.run_until(stop.clone().cancelled_owned()));
    stop
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
    let stop = projecting(&test).await;
    let appended = run("python3", &[&script("append.py"), &test.uri, &test.name]);
    let versions: Vec<i64> = appended.iter().map(|(_, version)| *version).collect();
    assert_eq!(versions, [1, 2, 3, 4, 1, 2, 3, 4]);

    let id = "65a000000000000000000001";
    let row = projected(&test, ObjectId::parse_str(id).unwrap(), 4).await;
    assert_eq!(content(&row), the_game());
    let row = projected(&test, 7, 4).await;
    let clock = json!({ "a": 2, "b": 2 });
    assert_eq!(content(&row), json!({ "version": 4, "clock": clock, "state": null }));
    assert!(row.get_bool("deleted").unwrap());
    check_missing(&test, id).await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongosh_needs_nothing_of_ours_whatever_javascript_does_to_integers() {
    let test = database().await;
    let stop = projecting(&test).await;
    let uri = test.uri.replacen("/?", &format!("/{}?", test.name), 1);
    let appended = run("mongosh", &["--quiet", &uri, &script("append.js")]);
    let versions: Vec<i64> = appended.iter().map(|(_, version)| *version).collect();
    assert_eq!(versions, [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]);

    let id = "65a000000000000000000002";
    let row = projected(&test, ObjectId::parse_str(id).unwrap(), 4).await;
    assert_eq!(content(&row), the_game());
    let row = projected(&test, 8, 4).await;
    assert!(row.get_bool("deleted").unwrap());
    let row = projected(&test, 1_i64 << 40, 2).await;
    let n = json!(8_589_934_592.0);
    assert_eq!(content(&row)["state"]["n"], n, "what JavaScript sent as a double stays one");
    check_missing(&test, id).await;
    stop.cancel();
}
