//! A collection that existed before becomes events: the real program, on a real server.

#[path = "../common/mod.rs"]
mod common;

mod beside;
mod killed;

use std::process::Command;

use alluvium::{
    config::CollectionConfig, log::create::Differing, model::id::DocumentId, setup::prepare,
};
use bson::{Document, RawDocumentBuf, doc, oid::ObjectId};
use common::{Daemon, TestDatabase, database, free_port, wait_until};
use futures::TryStreamExt;
use mongodb::Collection;
use serde_json::Value;

/// What imports `old` into `games`.
fn command(db: &TestDatabase, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    command.args(["import", "games", "--from", "old", "--client", "import", "--json"]);
    command.args(options).args(["--uri", &db.uri, "--database", &db.name]);
    command.env("ALLUVIUM_DAEMON__LEASE_TIME", "3s");
    command
}

/// Ends with its exit code, and what it told.
async fn import(db: &TestDatabase, options: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = command(db, options);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let told = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), told, String::from_utf8(output.stderr).unwrap())
}

/// The same, which succeeds: how many it created, updated, deleted, and found to be the same.
async fn imported(db: &TestDatabase, options: &[&str]) -> [u64; 4] {
    let (code, told, complaint) = import(db, options).await;
    assert_eq!(code, Some(0), "{complaint}{told}");
    ["created", "updated", "deleted", "same"].map(|field| told[field].as_u64().unwrap())
}

async fn prepared() -> TestDatabase {
    let db = database().await;
    prepare(&db.db, &[CollectionConfig::new("games")], Differing::Warn).await.unwrap();
    db
}

fn old(db: &TestDatabase) -> Collection<Document> {
    db.db.collection("old")
}

async fn daemon(db: &TestDatabase) -> Daemon {
    let mut daemon = Daemon::start(&format!(
        "[mongodb]\nuri = \"{}\"\ndatabase = \"{}\"\n[http]\nlisten = \"127.0.0.1:{}\"\n\
         [daemon]\nlease_time = \"3s\"\n[[collections]]\nname = \"games\"\n",
        db.uri,
        db.name,
        free_port()
    ));
    daemon.ready().await;
    daemon
}

/// The states of all projected documents, as they would stand in the source.
async fn projected(db: &TestDatabase) -> Vec<(DocumentId, Document)> {
    let games = db.db.collection::<Document>("games");
    let rows = games.find(doc! { "deleted": { "$ne": true } });
    let rows: Vec<Document> =
        rows.sort(doc! { "_id": 1 }).await.unwrap().try_collect().await.unwrap();
    let state = |row: &Document| (id(row), row.get_document("state").unwrap().clone());
    rows.iter().map(state).collect()
}

/// An id, whichever numeric type carries it.
fn id(row: &Document) -> DocumentId {
    DocumentId::from_bson(row.get("_id").unwrap()).unwrap()
}

async fn source(db: &TestDatabase) -> Vec<(DocumentId, Document)> {
    let old = old(db);
    let rows = old.find(doc! {}).sort(doc! { "_id": 1 });
    let rows: Vec<Document> = rows.await.unwrap().try_collect().await.unwrap();
    let state = |mut row: Document| {
        let id = id(&row);
        row.remove("_id");
        (id, row)
    };
    rows.into_iter().map(state).collect()
}

async fn agrees(db: &TestDatabase) {
    let expected = source(db).await;
    wait_until("the projected documents are those of the source", async || {
        projected(db).await == expected
    })
    .await;
}

/// Every row is what its log makes of it.
async fn verified(daemon: &Daemon) {
    let (code, job) = daemon.post("/v1/collections/games/verify", &serde_json::json!({}));
    assert_eq!(code, 202, "{job}");
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    wait_until("verify is done", async || daemon.get(&path).1["state"] == "done").await;
    assert_eq!(daemon.get(&path).1["result"]["differences"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_become_events_and_what_changes_later_is_appended_once() {
    let db = prepared().await;
    let ids = (0..2_500).map(bson::Bson::from).chain([ObjectId::new().into(), "text".into()]);
    let documents =
        ids.map(|id| doc! { "_id": id, "gold": 1, "items": [{ "a": 1.5 }], "at": { "x": null } });
    old(&db).insert_many(documents).await.unwrap();
    let before = source(&db).await;
    assert_eq!(imported(&db, &[]).await, [2_502, 0, 0, 0]);
    assert_eq!(imported(&db, &[]).await, [0, 0, 0, 2_502], "without a daemon, the log decides");

    let daemon = daemon(&db).await;
    agrees(&db).await;
    assert_eq!(imported(&db, &[]).await, [0, 0, 0, 2_502]);
    old(&db).update_one(doc! { "_id": 7 }, doc! { "$set": { "gold": 2 } }).await.unwrap();
    old(&db).update_one(doc! { "_id": 8 }, doc! { "$unset": { "items": 1 } }).await.unwrap();
    old(&db).delete_one(doc! { "_id": 9 }).await.unwrap();
    old(&db).insert_one(doc! { "_id": "new", "gold": 5 }).await.unwrap();
    assert_eq!(imported(&db, &[]).await, [1, 2, 0, 2_499]);
    assert_eq!(imported(&db, &["--deletes"]).await, [0, 0, 1, 2_502]);
    agrees(&db).await;

    // Back to what a row still says that is behind its log.
    daemon.signal("STOP");
    old(&db).update_one(doc! { "_id": 7 }, doc! { "$set": { "gold": 3 } }).await.unwrap();
    assert_eq!(imported(&db, &[]).await, [0, 1, 0, 2_501]);
    old(&db).update_one(doc! { "_id": 7 }, doc! { "$set": { "gold": 2 } }).await.unwrap();
    assert_eq!(imported(&db, &[]).await, [0, 1, 0, 2_501]);
    daemon.signal("CONT");
    agrees(&db).await;
    let events = db.db.collection::<Document>("games.events");
    assert_eq!(events.count_documents(doc! { "_id.d": 7 }).await.unwrap(), 4);
    assert_eq!(before.len(), 2_502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_with_versions_keep_them_and_go_on_from_there() {
    let db = prepared().await;
    let daemon = daemon(&db).await;
    let documents = (1..=300).map(|n| doc! { "_id": n, "v": i64::from(n), "gold": n });
    old(&db).insert_many(documents).await.unwrap();
    let fields = ["--version-field", "v"];
    assert_eq!(imported(&db, &fields).await, [300, 0, 0, 0]);
    agrees(&db).await;
    let (code, document) =
        daemon.get("/v1/collections/games/documents/%7B%22$numberInt%22:%22300%22%7D");
    assert_eq!((code, &document["version"]), (200, &300.into()), "{document}");
    assert_eq!(document["clock"], serde_json::json!({ "import": 300 }));
    assert_eq!(imported(&db, &fields).await, [0, 0, 0, 300]);

    old(&db)
        .update_one(doc! { "_id": 300 }, doc! { "$set": { "gold": 0, "v": 301 } })
        .await
        .unwrap();
    assert_eq!(imported(&db, &fields).await, [0, 1, 0, 299]);
    agrees(&db).await;
    verified(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_taken_over_is_named_and_what_others_wrote_is_left() {
    let db = prepared().await;
    let raw: Collection<RawDocumentBuf> = db.db.collection("old");
    let twice = {
        let mut twice = RawDocumentBuf::new();
        twice.append(bson::raw::cstr!("_id"), "twice");
        twice.append(bson::raw::cstr!("a"), 1);
        twice.append(bson::raw::cstr!("a"), 2);
        twice
    };
    raw.insert_one(twice).await.unwrap();
    let large = "x".repeat(5 << 20);
    old(&db)
        .insert_many([
            doc! { "_id": { "a": 1 } },
            doc! { "_id": 1.5 },
            doc! { "_id": "large", "text": large },
            doc! { "_id": "good", "n": 1 },
            doc! { "_id": "theirs", "n": 1 },
        ])
        .await
        .unwrap();
    let (code, told, complaint) = import(&db, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(complaint.contains("4 documents could not be taken over"), "{complaint}");
    assert_eq!((&told["created"], &told["refused_total"]), (&2.into(), &4.into()));
    let refused: Vec<&str> =
        told["refused"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    for id in [r#"{"a":1}"#, "1.5", r#""large""#, r#""twice""#] {
        assert!(refused.contains(&id), "{refused:?} has no {id}");
    }

    let other = doc! {
        "_id": { "d": "theirs", "s": 2 }, "client": "other", "at": bson::DateTime::now(),
        "op": "update", "patch": { "$set": { "n": 2 } },
    };
    db.db.collection::<Document>("games.events").insert_one(other).await.unwrap();
    let (_, told, _) = import(&db, &["--deletes"]).await;
    let refused = told["refused"].to_string();
    assert!(refused.contains("others than `import` have written to it"), "{refused}");
    assert_eq!((&told["same"], &told["updated"]), (&1.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_makes_no_sense_is_refused_before_it_writes() {
    let db = prepared().await;
    let check = async |options: &[&str], part: &str| {
        let (code, _, complaint) = import(&db, options).await;
        assert_ne!(code, Some(0));
        assert!(complaint.contains(part), "{complaint} does not say {part}");
    };
    check(&[], "`old` in ").await;
    for (from, client, part) in [
        ("games", "import", "rename the original first"),
        ("old", "alluvium", "the client name `alluvium` is reserved"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        command.args(["import", "games", "--from", from, "--client", client]);
        command.args(["--uri", &db.uri, "--database", &db.name]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains(part), "{complaint}");
    }
    old(&db).insert_one(doc! { "_id": 1 }).await.unwrap();
    db.db.collection::<Document>("games.events").drop().await.unwrap();
    check(&[], "run `alluvium init`").await;
}
