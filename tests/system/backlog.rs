//! Backlogs: whether what a daemon has missed comes through the change stream or by a scan of the log, it ends up level
//! with it; and which of the two it is, is the one that is quicker.

use alluvium::status::Phase;
use bson::{Bson, Document, doc};

use crate::{
    common::wait_until,
    scene::{Running, Scene, events},
    trouble::{failpoint, set_failpoint},
};

/// More than come through the stream whatever the size of the log, also when two batches of it have come already.
const LARGE: i64 = 30_000;

/// So many events, of twenty documents that had `before` each.
fn missed(before: i64, events_missed: i64) -> Vec<Document> {
    let versions = before + 1..=before + events_missed / 20;
    (0..20).flat_map(|document| events(format!("d{document}"), versions.clone())).collect()
}

fn scanned(daemon: &Running) -> f64 {
    daemon.metric("scanned_events_total", "").unwrap()
}

/// Waits until the checkpoint says that about so many events precede it: what comes at the moment at which they are
/// counted may count twice.
async fn checkpoint_counts(scene: &Scene, events: i64) {
    let checkpoints = scene.collection("alluvium.checkpoints");
    wait_until(&format!("the checkpoint is behind about {events} events"), async || {
        let found = checkpoints.find_one(doc! { "_id": "games" }).await.unwrap();
        let passed = found.and_then(|row| row.get_i64("passed_events").ok());
        passed.is_some_and(|passed| (events..=2 * events).contains(&passed))
    })
    .await;
}

/// A daemon that has projected a log of a hundred events, and whose checkpoint says so.
async fn level_with_100(scene: &Scene) -> Running {
    scene.append(missed(0, 100)).await;
    let daemon = scene.start().await;
    scene.level("games").await;
    checkpoint_counts(scene, 100).await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_is_a_large_part_of_the_log_is_scanned_and_a_small_one_comes_through_the_stream()
 {
    let scene = Scene::new().await;
    let daemon = level_with_100(&scene).await;
    // What the stream brings is counted along.
    scene.append(missed(5, 20)).await;
    checkpoint_counts(&scene, 120).await;
    daemon.stop().await;

    scene.append(missed(6, LARGE)).await;
    let daemon = scene.start().await;
    daemon.says("it has scanned", |_| scanned(&daemon) == 120.0 + LARGE as f64).await;
    daemon.says("each is applied once", |_| daemon.applied() == LARGE as f64).await;
    daemon.says("it tails", |status| status.phase == Phase::Tailing).await;
    checkpoint_counts(&scene, 120 + LARGE).await;
    scene.level("games").await;
    daemon.stop().await;

    scene.append(missed(6 + LARGE / 20, 200)).await;
    let daemon = scene.start().await;
    scene.level("games").await;
    daemon.says("each is applied once", |_| daemon.applied() == 200.0).await;
    assert_eq!(scanned(&daemon), 0.0);
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_that_makes_no_sense_only_decides_which_way_is_taken() {
    let hints = [Bson::from("many"), Bson::from(-5_i64), Bson::from(i64::MAX)];
    for hint in hints {
        let scene = Scene::new().await;
        let daemon = level_with_100(&scene).await;
        daemon.stop().await;
        let checkpoints = scene.collection("alluvium.checkpoints");
        let set = doc! { "$set": { "passed_events": hint } };
        checkpoints.update_one(doc! { "_id": "games" }, set).await.unwrap();
        scene.append(missed(5, 200)).await;
        let daemon = scene.start().await;
        scene.level("games").await;
        checkpoint_counts(&scene, 300).await;
        daemon.stop().await;
        scene.judged().await;
    }
}

/// The seconds of the cluster time, which goes on with every write.
async fn seconds(scene: &Scene) -> u32 {
    scene.collection("unrelated").insert_one(doc! {}).await.unwrap();
    let reply = scene.db.run_command(doc! { "ping": 1 }).await.unwrap();
    reply.get_timestamp("operationTime").unwrap().time
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_the_writers_leave_far_behind_scans_the_log() {
    let _turn = failpoint().await;
    let scene = Scene::new().await;
    let daemon = level_with_100(&scene).await;
    daemon.stop().await;
    let daemon = scene.start().await;
    scene.append(missed(5, 20)).await;
    scene.level("games").await;
    checkpoint_counts(&scene, 120).await;
    assert_eq!(scanned(&daemon), 0.0);
    // No stream for the daemon, until everything is there and it is late.
    let commands = doc! { "failCommands": ["aggregate", "getMore"], "errorCode": 6 };
    let mut data = commands.clone();
    data.insert("appName", scene.db.name());
    set_failpoint(&scene, "alwaysOn".into(), data).await;
    let late_at = seconds(&scene).await + 7;
    scene.append(missed(6, LARGE)).await;
    wait_until("it is late", async || seconds(&scene).await >= late_at).await;
    set_failpoint(&scene, "off".into(), commands).await;
    daemon.says("it has scanned", |_| scanned(&daemon) >= 120.0 + LARGE as f64).await;
    scene.level("games").await;
    checkpoint_counts(&scene, 120 + LARGE).await;
    daemon.stop().await;
    scene.judged().await;
}
