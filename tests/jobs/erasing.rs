//! Erasing a document over a real server: afterwards its content is in no collection, in no file of the archive and in no
//! answer, whatever is done.

use std::{
    fs,
    path::{Path, PathBuf},
};

use alluvium::{
    archive::Place,
    model::{id::DocumentId, part::Part},
    store::{PutOutcome, Snapshots, mongo::MongoStore},
};
use bson::{Document, RawDocumentBuf, doc, oid::ObjectId};
use futures::TryStreamExt;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    ask, became,
    common::wait_until,
    compacting::{self, compact, log_of, turn, versions},
    count, insert, run,
    scene::{Running, Scene, event},
};

/// What is searched for. It stands in every place of the document that can hold a text.
const MARKER: &str = "strictly-private-7f3a";

/// A scene with an archive, and the directory that it is in.
async fn scene() -> (Scene, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut scene = compacting::scene(1).await;
    let archive = Place::Directory(directory.path().join("archive"));
    scene.games_config().compaction.archive = Some(archive);
    (scene, directory)
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The segments of an archive that hold something.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| zstd::decode_all(&*fs::read(path).unwrap()).is_ok();
    files(directory).into_iter().filter(is_segment).collect()
}

fn has(bytes: &[u8]) -> bool {
    bytes.windows(MARKER.len()).any(|bytes| bytes == MARKER.as_bytes())
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

/// The collections and the files in which the marker is found, with how often.
async fn found(scene: &Scene, directory: &Path) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for name in scene.db.list_collection_names().await.unwrap() {
        let rows = scene.db.collection::<RawDocumentBuf>(&name).find(doc! {}).await.unwrap();
        let rows: Vec<RawDocumentBuf> = rows.try_collect().await.unwrap();
        found.push((name, rows.iter().filter(|row| has(row.as_bytes())).count()));
    }
    let holds = |path: &&PathBuf| {
        let bytes = fs::read(path).unwrap();
        has(&bytes) || zstd::decode_all(&*bytes).is_ok_and(|content| has(&content))
    };
    found.push(("the archive".into(), files(directory).iter().filter(holds).count()));
    found.retain(|(_, count)| *count > 0);
    found.sort();
    found
}

/// Six events of one document, of which the third is skipped, with snapshots, jobs that tell of it, and most of them in the
/// archive, together with those of another one.
async fn written(scene: &Scene, directory: &Path) -> Running {
    let daemon = scene.start().await;
    scene.append([private("a", 1), private("a", 2)]).await;
    let mut poison = private("a", 3);
    poison.insert("patch", doc! { "$inc": { "name": 1 }, "$set": { "of": MARKER } });
    scene.append([poison]).await;
    scene.append((1..=20).map(|version| turn("b", version))).await;
    scene.reached("b", 20).await;
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
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    assert_eq!(count(&compact(scene, doc! {}).await, "bases"), 2);
    scene.append([private("a", 6)]).await;
    scene.reached("a", 6).await;
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
    let places = found(scene, directory).await;
    let names: Vec<&str> = places.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "alluvium.jobs",
        "alluvium.quarantine",
        "alluvium.skips",
        "games",
        "games.events",
        "games.snapshots",
        "the archive",
    ];
    assert_eq!(names, expected);
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
async fn nothing_of_the_content_is_left_anywhere_and_every_client_is_told() {
    let (scene, directory) = scene().await;
    let directory = directory.path();
    let daemon = written(&scene, directory).await;
    let store = MongoStore::new(&scene.db, "games", Part::WHOLE);
    let id = DocumentId::from_text("a").unwrap();
    let read = store.newest_snapshot(&id, 5).await.unwrap().unwrap();
    // Somebody was killed before he linked it to its name.
    let left = segments(directory).pop().unwrap();
    fs::copy(&left, format!("{}#1", left.display())).unwrap();
    let refused = run(&scene, &["erase", "games", "a"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--yes"), "{refused:?}");
    let ended = run(&scene, &["erase", "games", "a", "--yes"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for told in ["up to version 7: ", "1 segments of the archive", "oplog", "backups"] {
        assert!(ended.out.contains(told), "{told}: {ended:?}");
    }
    assert_eq!(found(&scene, directory).await, []);
    assert!(!files(directory).iter().any(|path| path.display().to_string().contains('#')));
    let job = doc! { "kind": "erase" };
    let job = scene.collection("alluvium.jobs").find_one(job).await.unwrap().unwrap();
    assert!(job.get_str("by").unwrap().starts_with("cli:"), "{job}");

    let (status, row) = answer(&daemon, "").await;
    assert_eq!((status, &row["deleted"], &row["state"]), (200, &true.into(), &Value::Null));
    let (status, missing) = answer(&daemon, "/missing?clock=%7B%22x%22%3A1%7D").await;
    assert_eq!((status, &missing["answer"]), (200, &"snapshot".into()), "{missing}");
    let snapshot = &missing["snapshot"];
    assert_eq!((&snapshot["deleted"], &snapshot["erased"]), (&true.into(), &true.into()));
    let told = run(&scene, &["missing", "games", "a", "--clock", "{}"]).await;
    assert!(told.out.contains("the content of the document was erased"), "{told:?}");
    let another = format!("/missing?clock=%7B%22x%22%3A1%7D&log={}", bson::Uuid::new());
    for asked in ["/missing?reset=true", &another] {
        let (status, missing) = answer(&daemon, asked).await;
        assert_eq!((status, &missing["snapshot"]["erased"]), (200, &true.into()), "{asked}");
    }
    let json = run(&scene, &["missing", "games", "a", "--reset", "--json"]).await;
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["snapshot"]["erased"], true, "{json}");
    let asked = run(&scene, &["missing", "games", "a", "--reset"]).await;
    assert!(asked.code == Some(0) && asked.out.contains("keep nothing of it"), "{asked:?}");
    for gone in
        ["/events?after_version=1", "/events?archive=true", "?at_version=2", "?at_version=5"]
    {
        let (status, told) = answer(&daemon, gone).await;
        assert_eq!((status, &told["floor_version"]), (410, &7.into()), "{gone}: {told}");
    }
    assert_eq!(answer(&daemon, "/events").await.0, 200);

    // What was in the archive beside it is still there.
    let checked = run(&scene, &["archive", "check", "games"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let refused = run(&scene, &["restore", "games", "a"]).await;
    assert!(refused.code == Some(1) && refused.err.contains("erased"), "{refused:?}");
    let restored = run(&scene, &["restore", "games", "b"]).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert_eq!(versions(&log_of(&scene, "b").await), (1..=20).collect::<Vec<_>>());
    let restored = run(&scene, &["restore", "games"]).await;
    assert!(restored.code == Some(0) && restored.out.contains("1 were erased"), "{restored:?}");

    // Whoever had read it before, and stores what he made of it only now, leaves nothing.
    assert_eq!(store.put_snapshots(&[read]).await.unwrap(), [PutOutcome::Stored]);
    assert_eq!(found(&scene, directory).await, []);

    // A writer that was away for long keeps nothing of it either, and nobody is in his way.
    scene.append([private("a", 3)]).await;
    assert_eq!(count(&erase(&scene).await, "version"), 7);
    assert_eq!(found(&scene, directory).await, []);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_of_an_erased_document_is_taken_out_also_while_compaction_is_paused() {
    let (scene, directory) = scene().await;
    let directory = directory.path();
    let daemon = written(&scene, directory).await;
    erase(&scene).await;
    let paused = run(&scene, &["pause", "games", "--compaction"]).await;
    assert_eq!(paused.code, Some(0), "{paused:?}");
    daemon.says("it is paused", |status| status.compaction_stands.is_some()).await;
    scene.append([private("a", 3)]).await;
    wait_until("nothing is left of it", async || found(&scene, directory).await.is_empty()).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_after_an_erasure_is_a_new_life() {
    let (scene, directory) = scene().await;
    let directory = directory.path();
    let daemon = written(&scene, directory).await;
    erase(&scene).await;
    let life = (8..=30).map(|version| {
        let mut event = turn("a", version);
        if version == 8 {
            event.extend(doc! { "op": "create", "state": { "n": 1, "name": "new" } });
            event.remove("patch");
        }
        event
    });
    scene.append(life).await;
    let row = scene.reached("a", 30).await;
    assert_eq!(row.get_document("state").unwrap().get_str("name").unwrap(), "new");
    scene.append([private("a", 2)]).await;
    let done = compact(&scene, doc! { "document": "a" }).await;
    assert_eq!(count(&done, "bases"), 1, "{done}");
    let late = doc! { "_id.late": "games", "_id.s": 2, "event.erased": true };
    let records = scene.collection("alluvium.quarantine");
    wait_until("it is on record", async || records.find_one(late.clone()).await.unwrap().is_some())
        .await;
    assert_eq!(versions(&log_of(&scene, "a").await), [1, 29, 30]);
    assert_eq!(found(&scene, directory).await, []);
    let verified = run(&scene, &["verify", "games"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    // Only the new life comes back.
    let restored = run(&scene, &["restore", "games", "a"]).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    let expected: Vec<i64> = [1].into_iter().chain(8..=30).collect();
    assert_eq!(versions(&log_of(&scene, "a").await), expected);
    assert_eq!(found(&scene, directory).await, []);
    let verified = run(&scene, &["verify", "games"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    daemon.stop().await;

    // From the log alone.
    scene.collection("games").delete_many(doc! {}).await.unwrap();
    scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
    let daemon = scene.start().await;
    assert_eq!(scene.reached("a", 30).await, row);
    assert_eq!(found(&scene, directory).await, []);
    // That life can be erased as well.
    erase(&scene).await;
    assert_eq!(versions(&log_of(&scene, "a").await), [1, 31]);
    let name = |path: &PathBuf| zstd::decode_all(&*fs::read(path).unwrap()).unwrap();
    let holds_new = |content: &Vec<u8>| content.windows(5).any(|bytes| bytes == b"\x01d\x00a\x00");
    assert!(!segments(directory).iter().map(name).any(|content| holds_new(&content)));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_is_not_over_before_its_archive_has_none_of_it() {
    let (scene, directory) = scene().await;
    let directory = directory.path();
    let daemon = written(&scene, directory).await;
    // It is away: nothing is begun.
    let (place, aside) = (directory.join("archive"), directory.join("aside"));
    fs::rename(&place, &aside).unwrap();
    let before = versions(&log_of(&scene, "a").await);
    let failed = run(&scene, &["erase", "games", "a", "--yes"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(
        failed.err.contains("not erased") && failed.err.contains("is it mounted"),
        "{failed:?}"
    );
    assert_eq!(versions(&log_of(&scene, "a").await), before);
    fs::rename(&aside, &place).unwrap();
    // A segment that others rely on is damaged: what can go goes, and it is not said to be all.
    let segment = segments(&place).pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, &whole[..whole.len() / 2]).unwrap();
    let failed = run(&scene, &["erase", "games", "a", "--yes"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    for told in ["not yet in its archive", "erase it again", &name] {
        assert!(failed.err.contains(told), "{told}: {failed:?}");
    }
    fs::write(&segment, &whole).unwrap();
    assert_eq!(found(&scene, directory).await, [("the archive".to_owned(), 1)]);
    let ended = run(&scene, &["erase", "games", "a", "--yes"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("up to version 7: 0 events"), "{ended:?}");
    assert_eq!(found(&scene, directory).await, []);
    assert_eq!(run(&scene, &["archive", "check", "games"]).await.code, Some(0));
    assert_eq!(run(&scene, &["restore", "games", "b"]).await.code, Some(0));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_asks_for_the_archive_that_holds_some_of_the_document() {
    let (mut scene, directory) = scene().await;
    let directory = directory.path();
    written(&scene, directory).await.stop().await;
    let archive = scene.games_config().compaction.archive.take();
    let daemon = scene.start().await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    let failed = run(&scene, &["erase", "games", "a", "--yes"]).await;
    assert!(failed.code == Some(1) && failed.err.contains("set `archive`"), "{failed:?}");
    assert!(scene.row("a").await.unwrap().get_document("state").is_ok());
    daemon.stop().await;
    scene.games_config().compaction.archive = archive;
    let daemon = scene.start().await;
    erase(&scene).await;
    assert_eq!(found(&scene, directory).await, []);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_or_never_was_is_not_erased() {
    let (scene, directory) = scene().await;
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
    // Once the majority has its row.
    wait_until("it is accepted", async || ask(&daemon, "POST", &path("a")).await.status == 202)
        .await;
    wait_until("nothing is left", async || found(&scene, directory.path()).await.is_empty()).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_the_other_goes_on_and_holds_nothing_either() {
    let (scene, directory) = scene().await;
    let daemon = written(&scene, directory.path()).await;
    let other = scene.start().await;
    assert_eq!(count(&erase(&scene).await, "version"), 7);
    assert_eq!(found(&scene, directory.path()).await, []);
    for daemon in [&daemon, &other] {
        assert_eq!(answer(daemon, "/missing?clock=%7B%7D").await.1["snapshot"]["erased"], true);
    }
    // The job was half done when its leader died: whoever follows goes on with the deletion that was found.
    let half = doc! {
        "kind": "erase", "collection": "games", "document": "a", "state": "running", "owner": "gone", "epoch": 0_i64,
        "beat": 1_i64, "place": "a", "progress": { "done": 0_i64 },
        "tally": { "version": 7_i64, "is_deleted": 1, "events": 4_i64 },
    };
    let mut again = event("a", 8);
    again.extend(doc! { "op": "create", "state": { "n": 5 } });
    again.remove("patch");
    scene.append([again]).await;
    scene.reached("a", 8).await;
    daemon.stop().await;
    let half = insert(&scene, half).await;
    let done = became(&scene, &half, "done").await;
    assert_eq!(count(done.get_document("result").unwrap(), "version"), 7, "{done}");
    assert!(scene.row("a").await.unwrap().get_document("state").is_ok());
    other.stop().await;
}
