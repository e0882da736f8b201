//! How long the oplog will still reach the checkpoint, on a server whose oplog is so small that it forgets
//! while a test runs.

use alluvium::{
    embedded::{Mongod, Options},
    status::Phase,
    store::{Pauses, mongo::MongoPauses},
};
use bson::{Document, Timestamp, doc};
use mongodb::Client;

use crate::{
    common::wait_until,
    scene::{Running, Scene, event, events},
};

/// The size of the oplog in MiB. It forgets a tenth at once.
const OPLOG: u32 = 16;

/// Puts about so many bytes into the oplog.
async fn write(scene: &Scene, number: i32, bytes: usize) {
    let set = doc! { "$set": { "number": number, "text": "x".repeat(bytes) } };
    scene.collection("filler").update_one(doc! { "_id": 1 }, set).upsert(true).await.unwrap();
}

/// The times of the first and the last entry of the oplog.
async fn ends(scene: &Scene) -> (Timestamp, Timestamp) {
    let oplog = scene.db.client().database("local").collection::<Document>("oplog.rs");
    let end = async |order: i32| {
        let entry = oplog.find_one(doc! {}).sort(doc! { "$natural": order }).await.unwrap();
        entry.unwrap().get_timestamp("ts").unwrap()
    };
    (end(1).await, end(-1).await)
}

/// Writes a part of the oplog every second until it begins after `time`, and still reaches back for a while.
async fn forget(scene: &Scene, time: Timestamp) {
    let (mut number, mut second) = (0, 0);
    wait_until("the oplog has forgotten its past", async || {
        let (first, last) = ends(scene).await;
        number += 1;
        write(scene, number, if last.time > second { 1 << 20 } else { 1 }).await;
        second = last.time;
        first > time && last.time > first.time + 12
    })
    .await;
}

/// Pauses the projection, or lets it go on; its checkpoint.
async fn pause(scene: &Scene, daemon: &Running, paused: bool) -> Timestamp {
    MongoPauses::new(&scene.db).set_paused("games", paused, "test").await.unwrap();
    let is_it = |phase| (phase == Phase::Paused) == paused;
    daemon.says("it pauses, or goes on", |status| is_it(status.phase)).await;
    let checkpoints = scene.collection("alluvium.checkpoints");
    let row = checkpoints.find_one(doc! { "_id": "games" }).await.unwrap().unwrap();
    row.get_timestamp("clusterTime").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_the_oplog_is_about_to_forget_is_warned_of_and_one_that_is_lost_loses_no_event()
 {
    // What the storage has no checkpoint of is never forgotten, and by default it makes one a minute.
    let args = ["--syncdelay", "1"].map(str::to_owned).to_vec();
    let options = Options { oplog_mib: OPLOG, args, ..Options::default() };
    let mongod = Mongod::start(options).await.unwrap();
    let client = Client::with_uri_str(mongod.uri()).await.unwrap();
    let scene = Scene::on(mongod.uri().to_owned(), client.database("t")).await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=5)).await;
    scene.reached("a", 5).await;
    daemon.says("the headroom is known", |status| status.oplog_headroom_seconds.is_some()).await;
    let known = daemon.status();
    assert_eq!(known.checkpoint_lost_in_seconds, None, "the oplog has not forgotten anything yet");
    assert_eq!(daemon.metric("checkpoint_lost_in_seconds", ""), None);
    assert!(!known.is_oplog_short, "nothing is in the way of compaction");

    let checkpoint = pause(&scene, &daemon, true).await;
    forget(&scene, checkpoint).await;
    daemon
        .says("it is lost", |status| status.oplog_headroom_seconds.is_some_and(|s| s < 0.0))
        .await;
    let lost = daemon.status();
    assert_eq!(lost.checkpoint_lost_in_seconds, Some(0.0), "{lost:?}");
    assert!(lost.last_error.unwrap().message.contains("does not reach it any more"));

    // The same as it looks a little earlier: the oplog forgets in pieces so large that a test cannot wait for that.
    let checkpoints = scene.collection("alluvium.checkpoints");
    let set = async |time: Timestamp| {
        let update = doc! { "$set": { "clusterTime": time } };
        checkpoints.update_one(doc! { "_id": "games" }, update).await.unwrap();
    };
    let (first, _) = ends(&scene).await;
    set(Timestamp { time: first.time + 1, increment: 1 }).await;
    daemon.says("it is near", |status| status.oplog_headroom_seconds == Some(1.0)).await;
    let near = daemon.status();
    assert!(near.checkpoint_lost_in_seconds.is_some_and(|seconds| seconds > 0.0), "{near:?}");
    assert_eq!(daemon.metric("checkpoint_lost_in_seconds", ""), near.checkpoint_lost_in_seconds);
    assert!(near.is_oplog_short, "compaction, which moves the oplog, waits");
    let last = near.last_error.unwrap();
    assert_eq!(last.class, "oplog_headroom");
    assert!(last.message.contains("will have forgotten it in"), "{last:?}");
    assert!(last.advice.contains("replSetResizeOplog"), "{last:?}");
    set(checkpoint).await;

    // What is lost is a place, and no event.
    scene.append([event("a", 6), event("b", 1)]).await;
    pause(&scene, &daemon, false).await;
    scene.reached("a", 6).await;
    scene.reached("b", 1).await;
    assert_eq!(daemon.metric("stream_restarts_total", "reason=\"lost_token\""), Some(1.0));
    daemon.stop().await;
    scene.judged().await;
    mongod.stop().await.unwrap();
}
