//! Erasing a document over a real server: afterwards its content is in no collection and in no answer, whatever is done.

use bson::{Document, RawDocumentBuf, doc, oid::ObjectId};
use futures::TryStreamExt;
use serde_json::Value;

use crate::{
    ask, became,
    common::wait_until,
    count, insert, run,
    scene::{Running, Scene, event},
};

/// What is searched for. It stands in every place of the document that can hold a text.
const MARKER: &str = "strictly-private-7f3a";

async fn scene() -> Scene {
    let scene = Scene::new().await;
    let format = doc! { "_id": "format", "version": 2_i64 };
    scene.collection("alluvium.meta").insert_one(format).await.unwrap();
    scene
}

fn private(document: &str, version: i64) -> Document {
    let mut event = event(document, version);
    let patch = doc! { "$set": { format!("f{version}"): MARKER }, "$inc": { "n": 1 } };
    match version {
        1 => event.insert("state", doc! { "n": 0, "name": MARKER }),
        _ => event.insert("patch", patch),
    };
    event.extend(doc! { "id": format!("{MARKER}-{version}"), "meta": { "note": MARKER } });
    event
}

/// The collections in which the marker is found, with how often.
async fn found(scene: &Scene) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for name in scene.db.list_collection_names().await.unwrap() {
        let rows = scene.db.collection::<RawDocumentBuf>(&name).find(doc! {}).await.unwrap();
        let rows: Vec<RawDocumentBuf> = rows.try_collect().await.unwrap();
        let holds = |row: &&RawDocumentBuf| {
            row.as_bytes().windows(MARKER.len()).any(|bytes| bytes == MARKER.as_bytes())
        };
        let count = rows.iter().filter(holds).count();
        if count > 0 {
            found.push((name, count));
        }
    }
    found.sort();
    found
}

/// Five events of one document, of which the third is skipped, with snapshots, and jobs that tell of it.
async fn written(scene: &Scene) -> Running {
    let daemon = scene.start().await;
    scene.append([private("a", 1), private("a", 2)]).await;
    let mut poison = private("a", 3);
    poison.insert("patch", doc! { "$inc": { "name": 1 }, "$set": { "of": MARKER } });
    scene.append([poison, event("b", 1)]).await;
    scene.parked("a", 3).await;
    let ended = run(scene, &["quarantine", "skip", "games", "a"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    scene.append([private("a", 4), private("a", 5)]).await;
    scene.reached("a", 5).await;
    // The server's words tell of the value.
    let skips = scene.collection("alluvium.skips");
    let told = doc! { "$set": { "reason": format!("cannot add to {MARKER}") } };
    skips.update_one(doc! { "_id.d": "a" }, told).await.unwrap();
    let ended = run(scene, &["snapshot", "games", "a"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let finding =
        |document: &str| doc! { "document": document, "version": 1_i64, "problem": MARKER };
    let jobs = [
        doc! { "kind": "verify", "collection": "games", "state": "done", "result": { "differences": 1, "findings": [finding("a")] } },
        doc! { "kind": "retry", "collection": "games", "document": "a", "state": "failed", "error": MARKER },
    ];
    scene.collection("alluvium.jobs").insert_many(jobs).await.unwrap();
    let late = doc! { "late": "games", "d": "a", "s": 2, "n": ObjectId::new() };
    let late = doc! { "_id": late, "class": "late", "event": private("a", 2), "since": bson::DateTime::now() };
    scene.collection("alluvium.quarantine").insert_one(late).await.unwrap();
    let places = found(scene).await;
    let names: Vec<&str> = places.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "alluvium.jobs",
        "alluvium.quarantine",
        "alluvium.skips",
        "games",
        "games.events",
        "games.snapshots",
    ];
    assert_eq!(names, expected);
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    daemon
}

async fn erase(scene: &Scene) -> Document {
    let job = doc! { "kind": "erase", "collection": "games", "document": "a" };
    let id = insert(scene, job).await;
    became(scene, &id, "done").await.get_document("result").unwrap().clone()
}

async fn answer(daemon: &Running, path: &str) -> (u16, Value) {
    let path = format!("/v1/collections/games/documents/a{path}");
    let answer = ask(daemon, "GET", &path).await;
    assert!(!answer.json.to_string().contains(MARKER), "{answer:?}");
    (answer.status, answer.json)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_content_is_left_in_any_collection_or_answer_and_every_client_is_told() {
    let scene = scene().await;
    let daemon = written(&scene).await;
    let refused = run(&scene, &["erase", "games", "a"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--yes"), "{refused:?}");
    let ended = run(&scene, &["erase", "games", "a", "--yes"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for told in ["up to version 6: 4 events", "oplog", "backups"] {
        assert!(ended.out.contains(told), "{told}: {ended:?}");
    }
    assert_eq!(found(&scene).await, []);
    let job = doc! { "kind": "erase" };
    let job = scene.collection("alluvium.jobs").find_one(job).await.unwrap().unwrap();
    assert!(job.get_str("by").unwrap().starts_with("cli:"), "{job}");

    let (status, row) = answer(&daemon, "").await;
    assert_eq!((status, &row["deleted"], &row["state"]), (200, &true.into(), &Value::Null));
    let (status, missing) = answer(&daemon, "/missing?clock=%7B%22x%22%3A1%7D").await;
    assert_eq!((status, &missing["answer"]), (200, &"snapshot".into()), "{missing}");
    let snapshot = &missing["snapshot"];
    assert_eq!((&snapshot["deleted"], &snapshot["erased"]), (&true.into(), &true.into()));
    assert_eq!(answer(&daemon, "/events?after_version=1").await.0, 410);
    assert_eq!(answer(&daemon, "/events").await.0, 200);
    assert_eq!(answer(&daemon, "?at_version=4").await.0, 410);

    // A writer that was away for long keeps nothing of it either, and nobody is in his way.
    scene.append([private("a", 3)]).await;
    assert_eq!(count(&erase(&scene).await, "version"), 6);
    assert_eq!(found(&scene).await, []);

    // It may live again, and what is written then is as any other.
    let mut again = event("a", 7);
    again.extend(doc! { "op": "create", "state": { "n": 1, "name": "new" } });
    again.remove("patch");
    scene.append([again]).await;
    let row = scene.reached("a", 7).await;
    assert_eq!(row.get_document("state").unwrap().get_str("name").unwrap(), "new");
    scene.append([private("a", 2)]).await;
    let compacted =
        insert(&scene, doc! { "kind": "compact", "collection": "games", "document": "a" });
    became(&scene, &compacted.await, "done").await;
    assert_eq!(found(&scene).await, []);
    let verified = run(&scene, &["verify", "games"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    daemon.stop().await;

    // From the log alone.
    scene.collection("games").delete_many(doc! {}).await.unwrap();
    scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
    let daemon = scene.start().await;
    assert_eq!(scene.reached("a", 7).await, row);
    assert_eq!(found(&scene).await, []);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_or_never_was_is_not_erased() {
    let scene = scene().await;
    let daemon = scene.start().await;
    scene.append([private("a", 1), private("a", 3)]).await;
    scene.recorded("a", "gap", 2).await;
    let path = |id: &str| format!("/v1/collections/games/documents/{id}/erase");
    let refused = ask(&daemon, "POST", &path("a")).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(ask(&daemon, "POST", &path("never")).await.status, 404);
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    let id = insert(&scene, doc! { "kind": "erase", "collection": "games", "document": "a" }).await;
    let failed = became(&scene, &id, "failed").await;
    assert!(failed.get_str("error").unwrap().contains("waits for version 2 as `gap`"), "{failed}");
    assert_eq!(scene.collection("games.events").count_documents(doc! {}).await.unwrap(), 2);
    scene.append([private("a", 2)]).await;
    scene.reached("a", 3).await;
    let accepted = ask(&daemon, "POST", &path("a")).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    wait_until("nothing is left", async || found(&scene).await.is_empty()).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_the_other_goes_on_and_holds_nothing_either() {
    let scene = scene().await;
    let daemon = written(&scene).await;
    let other = scene.start().await;
    assert_eq!(count(&erase(&scene).await, "version"), 6);
    assert_eq!(found(&scene).await, []);
    for daemon in [&daemon, &other] {
        assert_eq!(answer(daemon, "/missing?clock=%7B%7D").await.1["snapshot"]["erased"], true);
    }
    // The job was half done when its leader died: whoever follows goes on with the deletion that was found.
    let half = doc! {
        "kind": "erase", "collection": "games", "document": "a", "state": "running", "owner": "gone", "epoch": 0_i64,
        "beat": 1_i64, "place": "a", "progress": { "done": 0_i64 },
        "tally": { "version": 6_i64, "is_deleted": 1, "events": 4_i64 },
    };
    let mut again = event("a", 7);
    again.extend(doc! { "op": "create", "state": { "n": 5 } });
    again.remove("patch");
    scene.append([again]).await;
    scene.reached("a", 7).await;
    daemon.stop().await;
    let half = insert(&scene, half).await;
    let done = became(&scene, &half, "done").await;
    assert_eq!(count(done.get_document("result").unwrap(), "version"), 6, "{done}");
    assert!(scene.row("a").await.unwrap().get_document("state").is_ok());
    other.stop().await;
}
