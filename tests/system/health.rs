//! What a daemon says of its health, by the faults that it has to tell: each turns red what it should, with
//! the reason, and leaves the rest green.

use std::time::Duration;

use alluvium::status::{Phase, Role};
use bson::{Bson, Document, doc};

use crate::{
    common::{wait_for, wait_until},
    scene::{Running, Scene, change, event, events},
    trouble::{failpoint, set_failpoint, struck},
};

/// The names of the loops that liveness holds to be dead, and what it says.
async fn dead(daemon: &Running) -> (Vec<String>, String) {
    let (status, body) = daemon.get("/healthz").await;
    let loops = body["loops"].as_array().unwrap();
    let name = |pulse: &serde_json::Value| pulse["name"].as_str().unwrap().to_owned();
    let dead: Vec<String> =
        loops.iter().filter(|pulse| pulse["alive"] == false).map(name).collect();
    assert_eq!(status == 200, dead.is_empty(), "{body}");
    assert_eq!(body["reasons"].as_array().unwrap().len(), dead.len(), "{body}");
    (dead, body["reasons"].to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_turns_readiness_red_with_the_reason_and_leaves_liveness_green() {
    let _turn = failpoint().await;
    let mut scene = Scene::new().await;
    scene.max_ready_lag = Duration::from_secs(1);
    let daemon = scene.start().await;
    scene.append(events("a", 1..=2)).await;
    scene.reached("a", 2).await;
    daemon.is_ready(true).await;
    let data = doc! {
        "failCommands": ["update"], "errorCode": 91, "appName": scene.db.name(),
        "namespace": format!("{}.games", scene.db.name()),
    };
    set_failpoint(&scene, "alwaysOn".into(), data).await;
    scene.append([event("a", 3)]).await;
    daemon.says("it falls behind", |status| status.lag_seconds.is_some_and(|lag| lag > 2.0)).await;
    let reasons = daemon.is_ready(false).await;
    for part in
        ["`games` is ", " s behind, more than 1 s; the last error, at ", "it is tried again"]
    {
        assert!(reasons[0].contains(part), "{reasons:?} does not say `{part}`");
    }
    daemon.is_alive().await;
    let (_, status) = daemon.get("/v1/status").await;
    let games = &status["collections"][0];
    assert_eq!((&games["role"], &games["phase"]), (&"leader".into(), &"tailing".into()));
    assert_eq!(games["last_error"]["class"], "unavailable", "{games}");
    assert_ne!(games["last_error"]["advice"], "", "{games}");
    assert!(daemon.metric("apply_lag_seconds", "").is_some_and(|lag| lag > 1.0));
    assert!(struck(&scene).await > 0);
    scene.reached("a", 3).await;
    daemon.is_ready(true).await;
    daemon.stop().await;
    scene.judged().await;
}

/// A state and a small patch of it that take some seconds to match in a build without optimisation, since each
/// of so many levels can be read as an index and as a name.
fn heavy(levels: usize) -> (Document, Document) {
    let nested = (0..=levels).fold(Bson::Int32(0), |inner, _| doc! { "0": [inner] }.into());
    let path = vec!["0"; levels].join(".");
    (doc! { "a": [nested] }, doc! { "$pull": { "a": { path: 7 } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_does_not_turn_within_its_limit_turns_liveness_red_by_its_name() {
    let mut scene = Scene::new().await;
    scene.liveness_limit = Duration::from_secs(1);
    let daemon = scene.start().await;
    let (state, patch) = heavy(HEAVY_LEVELS);
    scene.append([change("a", 1, doc! { "op": "create", "state": state })]).await;
    scene.reached("a", 1).await;
    scene.append([change("a", 2, doc! { "op": "update", "patch": patch })]).await;
    let what = "the projector is said to be dead";
    let reasons = wait_for(what, async || {
        let (dead, reasons) = dead(&daemon).await;
        dead.contains(&"projector of games".to_owned()).then_some(reasons)
    })
    .await;
    let said = "the loop `projector of games` has not turned for ";
    assert!(reasons.contains(said) && reasons.contains("its limit is 1 s"), "{reasons}");
    scene.reached("a", 2).await;
    wait_until("it is alive again", async || {
        !dead(&daemon).await.0.contains(&"projector of games".to_owned())
    })
    .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_collection_has_its_own_role_phase_and_last_error_with_advice() {
    let scene = Scene::new().await.with("users").await;
    let daemon = scene.start().await;
    scene.append([event("a", 1)]).await;
    scene.append_to("users", [event("u", 1)]).await;
    scene.level("games").await;
    scene.level("users").await;
    daemon.is_ready(true).await;
    scene.collection("users.events").drop().await.unwrap();
    let reasons = daemon.is_ready(false).await;
    assert!(reasons.len() == 1 && reasons[0].starts_with("`users` is "), "{reasons:?}");
    let users = wait_for("users is refused", async || {
        let (_, status) = daemon.get("/v1/status").await;
        let mut all = status["collections"].as_array().unwrap().iter();
        all.find(|one| one["name"] == "users" && one["phase"] == "refused").cloned()
    })
    .await;
    assert_eq!(users["last_error"]["class"], "refused", "{users}");
    assert!(users["last_error"]["advice"].as_str().unwrap().contains("bring the log back"));
    let games = daemon.status();
    assert_eq!((games.role, games.phase), (Some(Role::Leader), Phase::Tailing));
    assert_eq!(games.last_error, None);
    scene.append([event("a", 2)]).await;
    scene.reached("a", 2).await;
    daemon.is_alive().await;
    daemon.stop().await;
    scene.judged().await;
}

/// Each more takes 1.6 times as long.
const HEAVY_LEVELS: usize = 34;
