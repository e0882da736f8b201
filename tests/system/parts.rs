//! A collection in parts: several daemons share it, parts move as daemons come and go, and the number of parts
//! changes under load, with no event lost, none applied twice, and no scan of the log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use alluvium::status::Phase;
use bson::{Document, doc};
use futures::TryStreamExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    common::wait_until,
    scene::{Running, Scene, event},
};

const DOCUMENTS: i64 = 40;

/// Appends one event after the other to each of some documents, at majority, until it is told to end.
struct Load {
    rounds: Arc<AtomicI64>,
    stop: CancellationToken,
    task: JoinHandle<Vec<Document>>,
}

impl Load {
    fn start(scene: &Scene) -> Load {
        let (scene, stop, rounds) =
            (scene.clone(), CancellationToken::new(), Arc::new(AtomicI64::new(0)));
        let (until, round) = (stop.clone(), rounds.clone());
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            while !until.is_cancelled() {
                let version = round.load(Ordering::Relaxed) + 1;
                let events: Vec<Document> =
                    (0..DOCUMENTS).map(|number| event(format!("d{number}"), version)).collect();
                scene.append(events.clone()).await;
                acknowledged.extend(events);
                round.store(version, Ordering::Relaxed);
            }
            acknowledged
        });
        Load { rounds, stop, task }
    }

    /// Waits until so much more was appended.
    async fn goes_on(&self, rounds: i64) {
        let target = self.rounds.load(Ordering::Relaxed) + rounds;
        let reached = async || self.rounds.load(Ordering::Relaxed) >= target;
        wait_until("the load goes on", reached).await;
    }

    /// What was acknowledged.
    async fn end(self) -> Vec<Document> {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

/// Waits until the daemons lead so many parts each, in any order, and follow the stream in all of them.
async fn shared(daemons: &[&Running], mut counts: Vec<usize>) {
    counts.sort_unstable();
    let mut told = Vec::new();
    let spread = async || {
        told = daemons.iter().map(|daemon| daemon.leads()).collect();
        told.sort_unstable();
        let tailing =
            |daemon: &&&Running| daemon.leads() == 0 || daemon.status().phase == Phase::Tailing;
        told == counts && daemons.iter().all(|daemon| tailing(&daemon))
    };
    wait_until(&format!("parts are led as {counts:?}"), spread).await;
}

/// Nothing was ever read by scanning the log.
fn has_not_scanned(daemons: &[&Running]) {
    for daemon in daemons {
        assert_eq!(daemon.metric("scanned_events_total", ""), Some(0.0));
    }
}

/// Waits until checkpoints and leases of other divisions are gone.
async fn only_parts_of(scene: &Scene, of: u32) {
    let (checkpoints, leases) =
        (scene.collection("alluvium.checkpoints"), scene.collection("alluvium.leases"));
    // That of the whole says which log the documents come from, and stays.
    let parts = (0..of).filter(|_| of > 1).map(|index| format!("games#{index}/{of}"));
    let expected: Vec<String> = std::iter::once("games".into()).chain(parts).collect();
    wait_until(&format!("what is left is of {of} parts"), async || {
        let rows = checkpoints.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
        let rows: Vec<Document> = rows.try_collect().await.unwrap();
        let ids: Vec<&str> = rows.iter().map(|row| row.get_str("_id").unwrap()).collect();
        let others = doc! { "_id.c": "games", "_id.of": { "$ne": i64::from(of) } };
        ids == expected && leases.count_documents(others).await.unwrap() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_move_as_daemons_come_and_go_and_nothing_is_lost_or_doubled() {
    let mut scene = Scene::new().await;
    scene.lease_time = Duration::from_secs(5);
    scene.divide(4).await;
    let first = scene.start().await;
    shared(&[&first], vec![4]).await;
    let load = Load::start(&scene);
    let second = scene.start().await;
    shared(&[&first, &second], vec![2, 2]).await;
    load.goes_on(10).await;
    let third = scene.start().await;
    shared(&[&first, &second, &third], vec![2, 1, 1]).await;
    load.goes_on(10).await;
    second.stop().await;
    shared(&[&first, &third], vec![2, 2]).await;
    load.goes_on(10).await;
    first.crash().await;
    shared(&[&third], vec![4]).await;
    let fourth = scene.start().await;
    shared(&[&third, &fourth], vec![2, 2]).await;
    load.goes_on(10).await;
    let acknowledged = load.end().await;
    scene.level("games").await;
    // Where each part goes on is what its checkpoint says, whoever leads it.
    has_not_scanned(&[&third, &fourth]);
    third.stop().await;
    fourth.stop().await;
    scene.judged_as("games", acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_parts_changes_under_load_up_and_down_and_back() {
    let mut scene = Scene::new().await;
    scene.lease_time = Duration::from_secs(60);
    let (first, second) = (scene.start().await, scene.start().await);
    shared(&[&first, &second], vec![0, 1]).await;
    let load = Load::start(&scene);
    for of in [4, 3, 1, 4, 6] {
        load.goes_on(5).await;
        scene.divide(of).await;
        let more = of.div_ceil(2) as usize;
        shared(&[&first, &second], vec![of as usize - more, more]).await;
        load.goes_on(5).await;
    }
    only_parts_of(&scene, 6).await;
    scene.divide(1).await;
    shared(&[&first, &second], vec![0, 1]).await;
    let acknowledged = load.end().await;
    scene.level("games").await;
    has_not_scanned(&[&first, &second]);
    only_parts_of(&scene, 1).await;
    first.stop().await;
    second.stop().await;
    scene.judged_as("games", acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_goes_on_at_its_checkpoint_after_a_restart() {
    let scene = Scene::new().await;
    scene.write_on(DOCUMENTS, 1..=5).await;
    scene.divide(3).await;
    let first = scene.start().await;
    scene.level("games").await;
    shared(&[&first], vec![3]).await;
    // Each event belongs to one part. It is counted once the flush has returned, a little after its row is there.
    let all = Some(5.0 * DOCUMENTS as f64);
    let scanned = async || first.metric("scanned_events_total", "") >= all;
    wait_until("every event is counted", scanned).await;
    assert_eq!(first.metric("scanned_events_total", ""), all);
    // Saved once the stream has come to where the scan ended.
    let checkpoints = scene.collection("alluvium.checkpoints");
    let saved = async || {
        let with_place = doc! { "token": { "$exists": true } };
        checkpoints.count_documents(with_place).await.unwrap() == 3
    };
    wait_until("every part has a checkpoint", saved).await;
    first.stop().await;
    scene.write_on(DOCUMENTS, 6..=10).await;
    let second = scene.start().await;
    scene.level("games").await;
    has_not_scanned(&[&second]);
    second.crash().await;
    scene.forget_leases().await;
    scene.write_on(DOCUMENTS, 11..=15).await;
    let third = scene.start().await;
    scene.level("games").await;
    has_not_scanned(&[&third]);
    third.stop().await;
    assert_eq!(scene.judged().await.events, 15 * DOCUMENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_one_division_waits_in_the_next() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.write_on(DOCUMENTS, 1..=2).await;
    let poison = doc! { "op": "update", "patch": { "$inc": { "n": "one" } } };
    scene.append([event("d1", 4), crate::scene::change("d2", 3, poison)]).await;
    scene.recorded("d1", "gap", 3).await;
    scene.parked("d2", 3).await;
    let waiting = |daemon: &Running| {
        let status = daemon.status();
        (status.version_gaps, status.quarantined)
    };
    for of in [3, 2, 1] {
        scene.divide(of).await;
        shared(&[&daemon], vec![of as usize]).await;
        wait_until("all that waits is known", async || waiting(&daemon) == (Some(1), Some(1)))
            .await;
        assert_eq!(daemon.metric("quarantined_documents", "class=\"bad_patch\""), Some(1.0));
    }
    scene.divide(5).await;
    shared(&[&daemon], vec![5]).await;
    scene.append([event("d1", 3)]).await;
    scene.reached("d1", 4).await;
    wait_until("the hole is closed", async || waiting(&daemon) == (Some(0), Some(1))).await;
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_an_earlier_division_left_behind_is_only_old() {
    let scene = Scene::new().await;
    let first = scene.start().await;
    scene.write_on(DOCUMENTS, 1..=3).await;
    scene.level("games").await;
    first.stop().await;
    let checkpoints = scene.collection("alluvium.checkpoints");
    let old = checkpoints.find_one(doc! { "_id": "games" }).await.unwrap().unwrap();
    scene.divide(2).await;
    let second = scene.start().await;
    shared(&[&second], vec![2]).await;
    scene.write_on(DOCUMENTS, 4..=6).await;
    scene.level("games").await;
    only_parts_of(&scene, 2).await;
    second.stop().await;
    // As an instance saves it that led before and wakes up late.
    checkpoints.replace_one(doc! { "_id": "games" }, old).await.unwrap();
    scene.write_on(DOCUMENTS, 7..=9).await;
    scene.divide(1).await;
    let third = scene.start().await;
    scene.level("games").await;
    has_not_scanned(&[&third]);
    // The two parts vouch for more than it does: nothing that they have done is done again.
    assert_eq!(third.metric("events_skipped_total", "reason=\"replay\""), Some(0.0));
    third.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_another_log_is_refused_whatever_its_division() {
    let scene = Scene::new().await;
    scene.divide(2).await;
    let first = scene.start().await;
    scene.write_on(DOCUMENTS, 1..=3).await;
    scene.level("games").await;
    first.stop().await;
    scene.collection("games.events").drop().await.unwrap();
    scene.make_log("games").await;
    scene.divide(3).await;
    let second = scene.start().await;
    let reason = second.refuses().await;
    assert!(reason.contains("those of all its parts"), "{reason}");
    second.stop().await;
}
