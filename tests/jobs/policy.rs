//! Snapshots that nobody asks for: by number of events, by time, and how many are kept.

use std::time::Duration;

use alluvium::model::snapshot::Snapshot;
use bson::{DateTime, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;

use crate::{
    became,
    common::{wait_for, wait_until},
    insert, run,
    scene::{Running, Scene, change, event, events},
};

/// The versions of a document's snapshots.
async fn versions(scene: &Scene, id: &str) -> Vec<i64> {
    let snapshots = scene.collection("games.snapshots");
    let all = snapshots.find(doc! { "_id.d": id }).sort(doc! { "_id": 1 }).await.unwrap();
    let all: Vec<Document> = all.try_collect().await.unwrap();
    all.iter().map(|row| row.get_document("_id").unwrap().get_i64("s").unwrap()).collect()
}

/// Waits for a snapshot, and proves it.
async fn taken(scene: &Scene, id: &str, version: i64) -> Document {
    let key = doc! { "_id": { "d": id, "s": version } };
    let snapshots = scene.collection("games.snapshots");
    let what = format!("the snapshot of {id} at version {version}");
    let row = wait_for(&what, async || snapshots.find_one(key.clone()).await.unwrap()).await;
    let raw = RawDocumentBuf::try_from(&row).unwrap();
    assert_eq!(Snapshot::from_raw(&raw).unwrap().version, version);
    row
}

/// Appends so that one flush ends exactly at this version.
async fn up_to(scene: &Scene, id: &str, version: i64) {
    let row = scene.row(id).await;
    let from = row.map_or(0, |row| row.get_i64("version").unwrap()) + 1;
    scene.append(events(id, from..=version)).await;
    scene.reached(id, version).await;
}

async fn with_policy(every_events: u32, every: u64, keep: u32) -> (Scene, Running) {
    let mut scene = Scene::new().await;
    let policy = &mut scene.games_config().snapshots;
    (policy.every_events, policy.every, policy.keep) =
        (every_events, Duration::from_secs(every), keep);
    let daemon = scene.start().await;
    (scene, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_passes_so_many_events_gets_a_snapshot_and_the_newest_are_kept() {
    let (scene, daemon) = with_policy(10, 0, 2).await;
    for version in [9, 10] {
        up_to(&scene, "a", version).await;
    }
    let first = taken(&scene, "a", 10).await;
    assert_eq!(first.get_str("reason").unwrap(), "events");
    assert_eq!(first.get("state"), Some(&doc! { "n": 10 }.into()));
    for version in [20, 30, 39, 40] {
        up_to(&scene, "a", version).await;
        if version % 10 == 0 {
            taken(&scene, "a", version).await;
        }
    }
    wait_until("the older one is deleted", async || versions(&scene, "a").await == [30, 40]).await;
    assert_eq!(daemon.metric("snapshots_taken_total", "reason=\"events\""), Some(4.0));
    // One that is asked for is one of the newest, too.
    up_to(&scene, "a", 41).await;
    let id = insert(&scene, doc! { "kind": "snapshot", "collection": "games" }).await;
    became(&scene, &id, "done").await;
    wait_until("the older one is deleted", async || versions(&scene, "a").await == [40, 41]).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_after_a_restart_knows_the_youngest_of_all_events() {
    let (scene, first) = with_policy(10, 0, 9).await;
    let far = DateTime::from_millis(9_000_000_000_000);
    let young = doc! { "op": "create", "state": { "n": 1 }, "at": far };
    scene.append([change("a", 1, young.clone()), change("b", 1, young)]).await;
    scene.reached("a", 1).await;
    scene.reached("b", 1).await;
    up_to(&scene, "a", 10).await;
    taken(&scene, "a", 10).await;
    up_to(&scene, "b", 9).await;
    up_to(&scene, "a", 12).await;
    first.stop().await;

    // From here on the projection itself has not seen the first events.
    let second = scene.start().await;
    up_to(&scene, "b", 10).await;
    for version in [20, 30] {
        up_to(&scene, "a", version).await;
        let snapshot = taken(&scene, "a", version).await;
        assert_eq!(snapshot.get_datetime("at_max").unwrap(), &far, "version {version}");
    }
    let snapshot = taken(&scene, "b", 10).await;
    assert_eq!(snapshot.get_datetime("at_max").unwrap(), &far);
    assert_eq!(snapshot.get("state"), Some(&doc! { "n": 10 }.into()));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_has_changed_gets_a_snapshot_once_its_last_one_is_old() {
    let (scene, daemon) = with_policy(0, 1, 3).await;
    scene.append([event("a", 1), event("b", 1)]).await;
    let first = taken(&scene, "a", 1).await;
    assert_eq!(first.get_str("reason").unwrap(), "time");
    taken(&scene, "b", 1).await;
    up_to(&scene, "a", 3).await;
    let second = taken(&scene, "a", 3).await;
    let taken_at = |row: &Document| row.get_datetime("taken_at").unwrap().timestamp_millis();
    assert!(taken_at(&second) - taken_at(&first) >= 1_000, "{first} {second}");
    assert_eq!(versions(&scene, "b").await, [1], "it has not changed");

    // What is not what its log makes of it gets none, and keeps nobody waiting.
    daemon.stop().await;
    scene.append([event("b", 2)]).await;
    let changed = doc! { "$set": { "version": 2_i64, "clock.x": 2_i64, "state.n": 7 } };
    scene.collection("games").update_one(doc! { "_id": "b" }, changed).await.unwrap();
    let daemon = scene.start().await;
    up_to(&scene, "a", 4).await;
    up_to(&scene, "c", 1).await;
    taken(&scene, "a", 4).await;
    taken(&scene, "c", 1).await;
    assert_eq!(versions(&scene, "b").await, [1]);
    let verified = run(&scene, &["verify", "games"]).await;
    assert_eq!(verified.code, Some(3), "{verified:?}");
    daemon.stop().await;
}
