//! Trouble with the database while the daemon runs: it backs off, says so, loses nothing, does nothing
//! twice, and goes on by itself when the trouble is over.

use std::time::Duration;

use alluvium::{
    embedded::{Mongod, Options},
    status::Phase,
};
use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::Client;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    common::wait_until,
    scene::{Running, Scene, change, event, events},
    starting::checkpoint_passes,
};

/// The server has one failpoint of this name for all tests.
pub(crate) async fn failpoint() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Lets the next `times` of these commands by the daemon of `scene` fail.
pub(crate) async fn fail(scene: &Scene, commands: &[&str], times: i32, how: Document) {
    let mut data = doc! { "failCommands": commands, "appName": scene.db.name() };
    data.extend(how);
    set_failpoint(scene, doc! { "times": times }.into(), data).await;
}

pub(crate) async fn set_failpoint(scene: &Scene, mode: bson::Bson, data: Document) {
    let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
    scene.db.client().database("admin").run_command(command).await.unwrap();
}

/// How often the failpoint has struck since the server began.
pub(crate) async fn struck(scene: &Scene) -> i64 {
    let command = doc! { "configureFailPoint": "failCommand", "mode": "off" };
    let reply = scene.db.client().database("admin").run_command(command).await.unwrap();
    reply.get("count").and_then(|count| count.as_i64().or(count.as_i32().map(i64::from))).unwrap()
}

/// What one round of events makes of the documents: new rows, changed ones, one healed hole.
async fn round(scene: &Scene, round: i64) {
    let hole = format!("hole {round}");
    scene.append([event(hole.as_str(), 1), event(hole.as_str(), 3)]).await;
    scene.append(events(format!("new {round}"), 1..=3)).await;
    scene.append([event("old", round)]).await;
    scene.recorded(&hole, "gap", 2).await;
    scene.append([event(hole.as_str(), 2)]).await;
    scene.level("games").await;
    let records = scene.collection("alluvium.quarantine");
    wait_until("the record is gone", async || records.count_documents(doc! {}).await.unwrap() == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_commands_are_tried_again_and_nothing_is_lost_or_doubled() {
    const WRITES: [&str; 3] = ["insert", "update", "delete"];
    let close = || doc! { "closeConnection": true };
    let code = |code: i32| doc! { "errorCode": code };
    let concern =
        |code: i32| doc! { "writeConcernError": { "code": code, "errmsg": "as planned" } };
    let faults: Vec<(&[&str], i32, Document)> = vec![
        (&["insert"], 3, close()),
        (&["update"], 3, close()),
        (&["delete"], 3, close()),
        (&["find"], 3, close()),
        (&["getMore"], 2, close()),
        (&["aggregate", "getMore"], 4, close()),
        (&WRITES, 4, code(10107)),
        (&WRITES, 4, code(91)),
        (&WRITES, 4, code(50)),
        (&["find"], 4, code(189)),
        (&["find"], 2, code(6)),
        // Written, and yet reported as if it might not be.
        (&["insert"], 3, concern(64)),
        (&["update"], 3, concern(91)),
        (&["delete"], 3, concern(64)),
        // What cursors and streams meet.
        (&["getMore"], 1, code(43)),
        (&["getMore"], 1, code(237)),
        (&["getMore"], 1, code(234)),
        (&["getMore"], 1, code(280)),
        (&["getMore"], 1, code(260)),
        (&["getMore"], 1, code(286)),
        (&["getMore"], 1, code(136)),
        (&["getMore"], 3, code(10334)),
        (&["aggregate", "getMore"], 4, code(11600)),
    ];
    let _turn = failpoint().await;
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.append([event("old", 1)]).await;
    scene.reached("old", 1).await;
    for ((commands, times, how), number) in faults.iter().zip(2..) {
        let before = struck(&scene).await;
        fail(&scene, commands, *times, how.clone()).await;
        round(&scene, number).await;
        assert!(struck(&scene).await > before, "{commands:?} never failed with {how}");
        daemon.says("it follows", |status| status.phase == Phase::Tailing).await;
    }
    let events = scene.collection("games.events").count_documents(doc! {}).await.unwrap();
    // Never less. A new document whose first event comes again, after a fault, counts again.
    daemon.says("everything is counted", |_| daemon.applied() >= events as f64).await;
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_the_oplog_no_longer_holds_leads_to_a_scan_and_then_a_tail() {
    for code in [286, 136, 260] {
        let _turn = failpoint().await;
        let scene = Scene::new().await;
        scene.append(events("a", 1..=20)).await;
        let daemon = scene.start().await;
        scene.level("games").await;
        checkpoint_passes(&scene).await;
        daemon.stop().await;
        scene.append(events("b", 1..=3)).await;
        fail(&scene, &["aggregate"], 1, doc! { "errorCode": code }).await;
        let daemon = scene.start().await;
        scene.level("games").await;
        scene.append(events("c", 1..=3)).await;
        scene.level("games").await;
        daemon.says("everything is counted", |_| daemon.applied() == 6.0).await;
        assert_eq!(daemon.metric("stream_restarts_total", "reason=\"lost_token\""), Some(1.0));
        assert_eq!(daemon.metric("scanned_events_total", ""), Some(23.0));
        daemon.stop().await;
        scene.judged().await;
    }
}

/// Whether the stream of the daemon of `scene` leaves large bodies out.
async fn is_bodiless(scene: &Scene) -> bool {
    let all = doc! { "$currentOp": { "allUsers": true, "idleCursors": true } };
    let of_daemon = doc! { "$match": { "appName": scene.db.name() } };
    let operations = scene.db.client().database("admin").aggregate([all, of_daemon]).await.unwrap();
    let operations: Vec<Document> = operations.try_collect().await.unwrap();
    operations.iter().any(|operation| operation.to_string().contains("$bsonSize"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_twice_at_one_place_goes_on_without_large_bodies() {
    let _turn = failpoint().await;
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=2)).await;
    scene.reached("a", 2).await;
    let restarts = || daemon.metric("stream_restarts_total", "reason=\"lost_connection\"").unwrap();
    let data = doc! {
        "failCommands": ["aggregate", "getMore"], "appName": scene.db.name(), "closeConnection": true,
    };
    set_failpoint(&scene, "alwaysOn".into(), data).await;
    daemon.says("it was lost twice", |_| restarts() >= 2.0).await;
    assert!(struck(&scene).await > 0);
    wait_until("the stream is bodiless", async || is_bodiless(&scene).await).await;
    let large = doc! { "op": "update", "merge": { "large": "x".repeat(2 << 20) } };
    scene.append([change("a", 3, large.clone()), event("a", 4), event("b", 1)]).await;
    scene.append([change("b", 2, large), event("b", 3)]).await;
    scene.level("games").await;
    assert!(is_bodiless(&scene).await, "it was opened again with bodies");
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_withheld_stops_with_advice_and_its_return_lets_it_go_on() {
    let _turn = failpoint().await;
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=2)).await;
    scene.reached("a", 2).await;
    fail(
        &scene,
        &["update"],
        1,
        doc! { "errorCode": 13, "namespace": format!("{}.games", scene.db.name()) },
    )
    .await;
    scene.append([event("a", 3)]).await;
    let refusal = daemon.refuses().await;
    assert!(refusal.contains("grant the user"), "{refusal}");
    scene.reached("a", 3).await;
    daemon.stop().await;
    scene.judged().await;
}

/// A server of the test's own, with a projected document.
async fn private() -> (Mongod, Scene, Running) {
    let mongod = Mongod::start(Options::default()).await.unwrap();
    let client = Client::with_uri_str(mongod.uri()).await.unwrap();
    let mut scene = Scene::on(mongod.uri().to_owned(), client.database("t")).await;
    scene.shutdown_timeout = Duration::from_secs(2);
    let daemon = scene.start().await;
    scene.append(events("a", 1..=5)).await;
    scene.append([event("hole", 1), event("hole", 3)]).await;
    let poison = doc! { "op": "update", "patch": { "$push": { "n": 1 } } };
    scene.append([event("poison", 1), change("poison", 2, poison)]).await;
    scene.reached("a", 5).await;
    scene.recorded("hole", "gap", 2).await;
    scene.recorded("poison", "bad_patch", 2).await;
    follows(&daemon).await;
    (mongod, scene, daemon)
}

async fn follows(daemon: &Running) {
    daemon.says("the lag is known", |status| status.lag_seconds == Some(0.0)).await;
}

/// Waits until the daemon admits that it does not know how far behind it is.
async fn knows_nothing(daemon: &Running) {
    daemon
        .says("the lag is unknown", |status| {
            status.lag_seconds.is_none() && status.lag_events.is_none()
        })
        .await;
    assert_eq!(daemon.metric("apply_lag_seconds", ""), None);
    assert_eq!(daemon.metric("apply_lag_known", ""), Some(0.0));
}

/// Everything is as it was, and what is appended now arrives.
async fn goes_on(scene: &Scene, daemon: &Running) {
    scene.append([event("a", 6), event("hole", 2)]).await;
    scene.append(events("later", 1..=3)).await;
    scene.reached("a", 6).await;
    scene.reached("hole", 3).await;
    scene.reached("later", 3).await;
    scene.record("hole", |record| record.is_none()).await;
    follows(daemon).await;
    assert_eq!(scene.judged().await.poisoned, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_freezes_makes_the_lag_unknown_and_is_followed_again_when_it_wakes() {
    let (mut mongod, scene, daemon) = private().await;
    daemon.is_ready(true).await;
    mongod.pause().await.unwrap();
    knows_nothing(&daemon).await;
    let reasons = daemon.is_ready(false).await;
    assert!(reasons[0].contains("`games` is not known"), "{reasons:?}");
    daemon.is_alive().await;
    let (_, status) = daemon.get("/v1/status").await;
    assert!(status["collections"][0]["lag_seconds"].is_null(), "{status}");
    // Longer than the lease: who leads is not known any more either.
    daemon.says("nobody knows who leads", |status| status.role.is_none()).await;
    let reasons = daemon.is_ready(false).await;
    assert!(reasons[0].contains("the leases could not be read"), "{reasons:?}");
    daemon.is_alive().await;
    mongod.resume().await.unwrap();
    goes_on(&scene, &daemon).await;
    daemon.is_ready(true).await;
    daemon.stop().await;
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_followed_again_when_it_is_back() {
    let (mut mongod, scene, daemon) = private().await;
    for _ in 0..2 {
        mongod.kill().await.unwrap();
        knows_nothing(&daemon).await;
        assert_eq!(daemon.status().last_error.unwrap().class, "unavailable");
        mongod.restart().await.unwrap();
        follows(&daemon).await;
    }
    goes_on(&scene, &daemon).await;
    daemon.stop().await;
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_a_server_ends_within_its_bound_and_loses_nothing() {
    let (mut mongod, scene, daemon) = private().await;
    mongod.kill().await.unwrap();
    knows_nothing(&daemon).await;
    daemon.stop().await;
    mongod.restart().await.unwrap();
    let daemon = scene.start().await;
    goes_on(&scene, &daemon).await;
    daemon.stop().await;
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_before_its_server_waits_for_it() {
    let (mut mongod, scene, daemon) = private().await;
    daemon.stop().await;
    mongod.kill().await.unwrap();
    let daemon = scene.start().await;
    assert_eq!(daemon.status().role, None);
    mongod.restart().await.unwrap();
    goes_on(&scene, &daemon).await;
    daemon.stop().await;
    mongod.stop().await.unwrap();
}
