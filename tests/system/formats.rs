//! Data that an earlier version has written is opened by this one. `tests/formats/<format>/` holds a small dump
//! of each format that there was: BSON, a file for each collection, and `collections.bson`, which tells how they were made.
//!
//! ```sh
//! ALLUVIUM_DUMP=1 cargo test --test system formats::   # makes the dump of the present format anew
//! ```

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use alluvium::{
    log::create::Differing,
    model::id::DocumentId,
    read::{MissingQuery, ReadLimits, Reader},
    setup::prepare,
    store::format::FORMAT,
};
use bson::{Bson, Document, doc, oid::ObjectId, uuid};
use futures::TryStreamExt;

use crate::{
    common::wait_for,
    dump::{Identities, dump, dumped, restore},
    scene::{Scene, change, event, events},
};

const DUMPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/formats");

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_now_is_opened_after_a_restore() {
    let scene = write().await;
    let folder = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("ALLUVIUM_DUMP").map(|_| dump_of(FORMAT));
    let folder = kept.as_deref().unwrap_or(folder.path());
    dump(&scene.db, folder).await;
    scene.db.drop().await.unwrap();
    open(folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_that_there_was_is_opened() {
    for format in 1..=FORMAT {
        open(&dump_of(format)).await;
    }
}

fn dump_of(format: i64) -> PathBuf {
    Path::new(DUMPS).join(format.to_string())
}

/// A database with something of everything, as a daemon leaves it that was stopped.
async fn write() -> Scene {
    let mut scene = Scene::new().await;
    scene.games_config().snapshots.every_events = 4;
    let compaction = &mut scene.games_config().compaction;
    (compaction.min_age, compaction.keep_events) = (Duration::ZERO, 1);
    // As `alluvium run` makes them.
    scene.collection("games.events").drop().await.unwrap();
    prepare(&scene.db, &scene.collections, Differing::Warn).await.unwrap();
    scene.divide(2).await;
    let format = doc! { "$set": { "version": FORMAT } };
    scene.collection("alluvium.meta").update_one(doc! { "_id": "format" }, format).await.unwrap();
    let daemon = scene.start().await;
    scene.write_on(3, 1..=10).await;
    let ids: [Bson; 3] = [
        ObjectId::from_bytes([7; 12]).into(),
        uuid::Uuid::from_bytes([9; 16]).into(),
        Bson::Int64(-5),
    ];
    for id in &ids {
        scene.append(events(id.clone(), 1..=3)).await;
    }
    scene
        .append([
            event("merged", 1),
            change(
                "merged",
                2,
                doc! {
                    "client": "y", "op": "update", "merge": { "n": null, "name": "x" }, "id": 7,
                    "seen": { "x": 1_i64 }, "type": "named", "meta": { "by": "test" },
                },
            ),
            event("deleted", 1),
            change("deleted", 2, doc! { "op": "delete" }),
        ])
        .await;
    let poison = doc! { "op": "update", "patch": { "$inc": { "n": "text" } } };
    for id in ["parked", "skipped"] {
        scene.append([event(id, 1), change(id, 2, poison.clone()), event(id, 3)]).await;
        scene.parked(id, 2).await;
    }
    scene.append([event("waiting", 1), event("waiting", 3)]).await;
    scene.recorded("waiting", "gap", 2).await;
    done(&scene, doc! { "kind": "skip", "collection": "games", "document": "skipped" }).await;
    scene.reached("skipped", 3).await;
    for id in ids {
        scene.reached(id, 3).await;
    }
    for (id, version) in [("d0", 10), ("d1", 10), ("d2", 10), ("merged", 2), ("deleted", 2)] {
        scene.reached(id, version).await;
    }
    done(&scene, doc! { "kind": "snapshot", "collection": "games", "document": "d1" }).await;
    let compact = doc! { "kind": "compact", "collection": "games", "document": "d2" };
    let compacted = done(&scene, compact).await;
    assert_eq!(compacted.get_document("result").unwrap().get_i64("bases").unwrap(), 1);
    daemon.stop().await;
    scene
}

/// Asks for a job and waits until it is done; its row.
async fn done(scene: &Scene, job: Document) -> Document {
    let jobs = scene.collection("alluvium.jobs");
    let id = jobs.insert_one(job).await.unwrap().inserted_id;
    wait_for("the job is done", async || {
        let job = jobs.find_one(doc! { "_id": &id }).await.unwrap().unwrap();
        assert!(!job.contains_key("error"), "{job}");
        job.get_str("state").is_ok_and(|state| state == "done").then_some(job)
    })
    .await
}

/// Restores a dump, starts a daemon on it, and has everything read and verified.
async fn open(folder: &Path) {
    let scene = Scene::new().await;
    restore(&scene.db, folder, Identities::Kept).await;
    let rows = dumped(folder, "games");
    assert!(rows.len() > 5, "{}", folder.display());
    let epochs = |leases: Vec<Document>| {
        let epochs = leases.iter().filter_map(|lease| lease.get_i64("epoch").ok());
        epochs.max().unwrap()
    };
    let before = epochs(dumped(folder, "alluvium.leases"));
    let daemon = scene.start().await;
    let reader = Reader::new(&scene.db, "games", ReadLimits::default());
    for row in &rows {
        let id = DocumentId::from_bson(row.get("_id").unwrap()).unwrap();
        let version = row.get_i64("version").unwrap();
        assert_eq!(reader.document(&id).await.unwrap().unwrap().version, version);
        let read = reader.at_version(&id, version).await.unwrap().unwrap();
        assert_eq!(&Document::try_from(read.to_raw()).unwrap(), row);
        let query = MissingQuery { limit: 1_000, ..MissingQuery::default() };
        let missing = reader.missing(&id, &query).await.unwrap().unwrap();
        let base = missing.snapshot.map_or(0, |base| base.version);
        assert_eq!(base + missing.events.len() as i64, version, "{id}");
        // The event of a base stays in the log, and is not shown beside it.
        assert_eq!(
            reader.history(&id, None, 1_000).await.unwrap().events.len() as i64,
            events_of(folder, &id) - i64::from(base > 0)
        );
    }
    scene.append([event("d0", 11), event("waiting", 2)]).await;
    scene.reached("d0", 11).await;
    scene.reached("waiting", 3).await;
    let verified = done(&scene, doc! { "kind": "verify", "collection": "games" }).await;
    let result = verified.get_document("result").unwrap();
    assert_eq!(result.get_i64("differences").unwrap(), 0, "{verified}");
    assert_eq!(result.get_i64("documents").unwrap(), rows.len() as i64, "{verified}");
    daemon.stop().await;
    scene.judged().await;
    let leases = scene.collection("alluvium.leases").find(doc! {}).await.unwrap();
    assert!(epochs(leases.try_collect().await.unwrap()) > before);
    scene.db.drop().await.unwrap();
}

/// How many events of a document the dump of the log has.
fn events_of(folder: &Path, id: &DocumentId) -> i64 {
    let log = dumped(folder, "games.events");
    let is_of = |event: &&Document| {
        let key = event.get_document("_id").unwrap();
        DocumentId::from_bson(key.get("d").unwrap()).as_ref() == Ok(id)
    };
    log.iter().filter(is_of).count() as i64
}
