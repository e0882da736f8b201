//! A daemon that erases is killed after each of its steps: whoever comes after it leaves nothing of the content, in no
//! collection and in no file of the archive, and takes nothing from what stands beside it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;

use crate::{
    Stage,
    common::{wait_for, wait_until},
};

/// The events of each document.
const EVENTS: i64 = 200;
/// Nobody erases this one.
const NEIGHBOUR: &str = "neighbour";

/// What the daemon has done when it dies.
#[derive(Clone, Copy, Debug)]
enum Step {
    Taken,
    Deleted,
    Based,
    Pruned,
    SnapshotsGone,
    WrittenAnew,
    Forgotten,
}

const STEPS: [Step; 7] = [
    Step::Taken,
    Step::Deleted,
    Step::Based,
    Step::Pruned,
    Step::SnapshotsGone,
    Step::WrittenAnew,
    Step::Forgotten,
];

fn marker(document: &str) -> String {
    format!("private of {document};")
}

fn event(document: &str, version: i64) -> Document {
    let mut event = doc! {
        "_id": { "d": document, "s": version }, "client": "x", "at": DateTime::from_millis(version),
    };
    let text = format!("{} {version}", marker(document));
    event.extend(match version {
        1 => doc! { "op": "create", "state": { "text": text } },
        _ => doc! { "op": "update", "patch": { "$set": { "text": text } } },
    });
    event
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The collections and files that hold something of a document.
async fn found(stage: &Stage, directory: &Path, document: &str) -> Vec<String> {
    let marker = marker(document).into_bytes();
    let has = |bytes: &[u8]| bytes.windows(marker.len()).any(|bytes| bytes == marker);
    let mut found = Vec::new();
    for name in stage.scene.db.list_collection_names().await.unwrap() {
        let rows = stage.scene.db.collection::<RawDocumentBuf>(&name).find(doc! {}).await.unwrap();
        let rows: Vec<RawDocumentBuf> = rows.try_collect().await.unwrap();
        found.extend(rows.iter().any(|row| has(row.as_bytes())).then_some(name));
    }
    for path in files(directory) {
        let bytes = fs::read(&path).unwrap();
        let holds = has(&bytes) || zstd::decode_all(&*bytes).is_ok_and(|content| has(&content));
        found.extend(holds.then(|| path.display().to_string()));
    }
    found
}

async fn ask(stage: &Stage, job: Document) -> Bson {
    let mut row = doc! { "collection": "games" };
    row.extend(job);
    stage.scene.collection("alluvium.jobs").insert_one(row).await.unwrap().inserted_id
}

async fn done(stage: &Stage, job: &Bson) -> Document {
    let jobs = stage.scene.collection("alluvium.jobs");
    let ended = doc! { "_id": job, "state": { "$in": ["done", "failed"] } };
    let job = wait_for("the job", async || jobs.find_one(ended.clone()).await.unwrap()).await;
    job.get_document("result").unwrap_or_else(|_| panic!("{job}")).clone()
}

/// Waits until an erasure has come so far.
async fn came_to(stage: &Stage, step: Step, (job, document): (&Bson, &str), segments: usize) {
    let base = |fields: Document| {
        let mut base = doc! { "_id": { "d": document, "s": 1 }, "erased": true };
        base.extend(fields);
        base
    };
    let (name, wanted, count) = match step {
        Step::Taken => ("alluvium.jobs", doc! { "_id": job, "state": { "$exists": true } }, 1),
        Step::Deleted => ("games", doc! { "_id": document, "deleted": true }, 1),
        Step::Based => ("games.events", base(doc! {}), 1),
        Step::Pruned => ("games.events", base(doc! { "pruned": EVENTS }), 1),
        Step::SnapshotsGone => ("games.snapshots", doc! { "_id.d": document }, 0),
        Step::WrittenAnew => {
            let rows = stage.scene.collection("alluvium.archive");
            wait_until("a segment is written anew", async || {
                rows.distinct("segment", doc! {}).await.unwrap().len() != segments
                    || rows.find_one(doc! { "_id.d": document }).await.unwrap().is_none()
            })
            .await;
            return;
        }
        Step::Forgotten => ("alluvium.archive", doc! { "_id.d": document }, 0),
    };
    let rows = stage.scene.collection(name);
    wait_until(&format!("{step:?}"), async || {
        rows.count_documents(wanted.clone()).await.unwrap() == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_step_of_an_erasure_leaves_nothing_and_takes_nothing_else() {
    let mut stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let format = doc! { "_id": "format", "version": 2_i64 };
    stage.scene.collection("alluvium.meta").insert_one(format).await.unwrap();
    let policy = format!(
        "[collections.compaction]\nmin_age = \"0s\"\nkeep_events = 50\narchive = \"file://{}/archive\"\n",
        directory.display()
    );
    stage.policy = policy.leak();
    let mut daemon = stage.daemon();
    let documents: Vec<String> = STEPS.iter().map(|step| format!("{step:?}")).collect();
    for document in documents.iter().map(String::as_str).chain([NEIGHBOUR]) {
        stage.scene.append((1..=EVENTS).map(|version| event(document, version))).await;
        stage.scene.reached(document, EVENTS).await;
    }
    done(&stage, &ask(&stage, doc! { "kind": "snapshot" }).await).await;
    let compacted = done(&stage, &ask(&stage, doc! { "kind": "compact" }).await).await;
    assert_eq!(compacted.get_i64("bases").unwrap(), 8, "{compacted}");
    for (step, document) in STEPS.into_iter().zip(&documents) {
        assert!(found(&stage, directory, document).await.len() >= 4, "{document}");
        let rows = stage.scene.collection("alluvium.archive");
        let segments = rows.distinct("segment", doc! {}).await.unwrap().len();
        let job = ask(&stage, doc! { "kind": "erase", "document": document }).await;
        came_to(&stage, step, (&job, document), segments).await;
        daemon.kill();
        stage.scene.forget_leases().await;
        daemon = stage.daemon();
        let result = done(&stage, &job).await;
        assert_eq!(result.get_i64("version").unwrap(), EVENTS + 1, "{step:?}: {result}");
        assert_eq!(found(&stage, directory, document).await, Vec::<String>::new(), "{step:?}");
    }
    let checked = done(&stage, &ask(&stage, doc! { "kind": "archive_check" }).await).await;
    assert_eq!(checked.get_i64("bad").unwrap(), 0, "{checked}");
    let restore = doc! { "kind": "restore", "document": NEIGHBOUR };
    done(&stage, &ask(&stage, restore).await).await;
    let log = stage.scene.collection("games.events");
    let log = log.find(doc! { "_id.d": NEIGHBOUR }).sort(doc! { "_id": 1 }).await.unwrap();
    let log: Vec<Document> = log.try_collect().await.unwrap();
    let expected: Vec<Document> = (1..=EVENTS).map(|version| event(NEIGHBOUR, version)).collect();
    assert_eq!(log, expected);
    let verified = done(&stage, &ask(&stage, doc! { "kind": "verify" }).await).await;
    assert_eq!(verified.get_i64("differences").unwrap(), 0, "{verified}");
    assert!(daemon.stop().await.success(), "{}", daemon.log());
    stage.mongod.stop().await.unwrap();
}
