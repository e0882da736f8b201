//! A collection that cannot be written keeps no other from going on.

use bson::doc;

use crate::{
    common::wait_until,
    scene::{Scene, change, events},
    starting::checkpoint_passes,
    trouble::{failpoint, set_failpoint, struck},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_cannot_be_flushed_and_whose_cache_is_full_stops_no_other() {
    let _turn = failpoint().await;
    let mut scene = Scene::new().await.with("others").await;
    scene.games_config().cache_bytes = 256 << 10;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=1)).await;
    scene.append_to("others", events("a", 1..=1)).await;
    scene.level("games").await;
    scene.level("others").await;
    checkpoint_passes(&scene).await;

    // A code that is tried again, and by which the driver does not take the whole server to be away.
    let failing = doc! {
        "failCommands": ["insert", "update"], "errorCode": 262, "appName": scene.db.name(),
        "namespace": format!("{}.games", scene.db.name()),
    };
    set_failpoint(&scene, "alwaysOn".into(), failing).await;
    // More than the cache, and then than what waits in front of the projector.
    let large = |number: i64, version: i64| {
        let state = doc! { "n": version, "large": "x".repeat(16 << 10) };
        change(format!("d{number}"), version, doc! { "op": "create", "state": state })
    };
    for number in 0..400 {
        scene.append([large(number, 1)]).await;
    }
    for version in 2..=200 {
        scene.append_to("others", events("a", version..=version)).await;
    }
    scene.level("others").await;
    scene.append_to("others", events("b", 1..=3)).await;
    scene.level("others").await;
    daemon
        .says("it is said which of them is in trouble", |status| {
            status.last_error.is_some() && status.lag_seconds != Some(0.0)
        })
        .await;
    assert_eq!(scene.collection("games").count_documents(doc! {}).await.unwrap(), 1);

    assert!(struck(&scene).await > 0);
    scene.level("games").await;
    // Both go on, the one with the other again.
    scene.append(events("e", 1..=3)).await;
    scene.append_to("others", events("e", 1..=3)).await;
    scene.level("games").await;
    scene.level("others").await;
    wait_until("it came back to the shared stream", async || {
        daemon.metric("stream_restarts_total", "reason=\"collections_changed\"") >= Some(1.0)
    })
    .await;
    daemon.stop().await;
    scene.judged().await;
}
