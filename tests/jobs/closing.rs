//! Filling gaps.

use std::time::Duration;

use bson::{DateTime, doc};
use serde_json::json;

use crate::{
    ask,
    common::wait_until,
    operating::{GAPS, agree, hasty},
    run,
    scene::{Scene, change, event, events},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_filled_with_events_that_change_nothing() {
    let scene = hasty().await;
    let daemon = scene.start().await;
    // Two gaps, the second of two versions.
    scene.append(events("a", 1..=2)).await;
    scene.append([event("a", 4), event("a", 7)]).await;
    scene.recorded("a", "gap", 3).await;
    let listed = ask(&daemon, "GET", GAPS).await.json;
    assert_eq!(
        (&listed["gaps"][0]["document"], &listed["gaps"][0]["version"]),
        (&json!("a"), &json!(3))
    );
    let filled = ask(&daemon, "POST", &format!("{GAPS}/a/fill")).await;
    assert_eq!(filled.status, 200, "{filled:?}");
    assert_eq!(
        filled.json["result"],
        json!({ "gap": 3, "filled": 3, "version": 7, "waits": null })
    );
    let row = scene.reached("a", 7).await;
    assert_eq!(row.get_document("clock").unwrap(), &doc! { "alluvium": 3_i64, "x": 4_i64 });
    assert_eq!(row.get_document("state").unwrap(), &doc! { "n": 4 });
    let log = scene.collection("games.events");
    let late = log.insert_one(event("a", 3)).await.unwrap_err();
    assert!(late.to_string().contains("E11000"), "{late}");
    agree(&scene, &daemon, "a").await;
    assert_eq!(scene.judged().await.filled, 3);

    // What is absent or deleted cannot be left as it is by a patch: it is created, empty.
    scene.append([event("b", 2)]).await;
    scene.append(events("c", 1..=1)).await;
    scene.append([change("c", 2, doc! { "op": "delete" }), event("c", 4)]).await;
    for (id, gap) in [("b", 1), ("c", 3)] {
        scene.recorded(id, "gap", gap).await;
        let filled = run(&scene, &["gap", "fill", "games", id]).await;
        assert_eq!(filled.code, Some(0), "{filled:?}");
        assert!(filled.out.starts_with("1 missing versions filled\n"), "{filled:?}");
        let row = scene.reached(id, gap + 1).await;
        assert_eq!(row.get_document("state").unwrap(), &doc! { "n": 1 });
        agree(&scene, &daemon, id).await;
    }
    daemon.says("no gaps", |status| status.version_gaps == Some(0)).await;
    wait_until("no gap is old", async || daemon.metric("oldest_gap_seconds", "") == Some(0.0))
        .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_as_old_as_the_server_says_whatever_the_daemons_machine_does() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let now = DateTime::now().timestamp_millis();
    for ahead in [HOUR.as_millis() as i64, -(HOUR.as_millis() as i64)] {
        let mut scene = Scene::new().await;
        // Half of what the clock is off by.
        scene.games_config().gap_grace = HOUR / 2;
        let daemon = scene.start_at(DateTime::from_millis(now + ahead)).await;
        // What a scan brings is not timed.
        daemon.says("tailing", |status| status.lag_seconds == Some(0.0)).await;
        scene.append([event("a", 1), event("a", 3)]).await;
        scene.recorded("a", "gap", 2).await;
        let records = scene.collection("alluvium.quarantine");
        let record = records.find_one(doc! { "_id.d": "a" }).await.unwrap().unwrap();
        let since = record.get_datetime("since").unwrap().timestamp_millis();
        assert!(since.abs_diff(now) < 300_000, "{record} {now}");
        wait_until("the age of the gap is told", async || {
            let age = daemon.metric("oldest_gap_seconds", "");
            age.is_some_and(|age| age > 0.0 && age < 300.0)
        })
        .await;
        wait_until("a flush is told", async || {
            daemon.metric("append_to_visible_seconds_count", "") > Some(0.0)
        })
        .await;
        let visible = daemon.metric("append_to_visible_seconds_sum", "");
        assert!(visible.is_some_and(|seconds| seconds < 300.0), "{visible:?}");
        let refused = ask(&daemon, "POST", &format!("{GAPS}/a/fill")).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(refused.json["detail"].as_str().unwrap().contains("gap_grace"), "{refused:?}");
        // Whoever takes over has a clock that is off the other way, and the gap was open for long enough.
        daemon.stop().await;
        let long_ago = DateTime::from_millis(now - HOUR.as_millis() as i64 / 2);
        let set = doc! { "$set": { "since": long_ago } };
        records.update_one(doc! { "_id.d": "a" }, set).await.unwrap();
        let daemon = scene.start_at(DateTime::from_millis(now - ahead)).await;
        wait_until("somebody leads", async || {
            ask(&daemon, "POST", &format!("{GAPS}/a/fill")).await.status == 200
        })
        .await;
        scene.reached("a", 3).await;
        daemon.stop().await;
    }
}
