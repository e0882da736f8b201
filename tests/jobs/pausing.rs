//! Pausing a collection, and going on.

use alluvium::status::Phase;
use bson::doc;

use crate::{
    ask, became,
    common::wait_until,
    insert, run,
    scene::{Scene, event, events},
};

/// Waits until another collection of the same daemon has moved on: the paused one had its time, too.
async fn others_move_on(scene: &Scene, version: i64) {
    scene.append_to("users", [event("u", version)]).await;
    let users = scene.collection("users");
    wait_until("another collection moves on", async || {
        let moved = doc! { "_id": "u", "version": version };
        users.find_one(moved).await.unwrap().is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_collection_stays_where_it_is_also_after_a_restart_until_it_is_resumed() {
    let scene = Scene::new().await.with("users").await;
    let first = scene.start().await;
    scene.append(events("a", 1..=3)).await;
    scene.reached("a", 3).await;
    let paused = ask(&first, "POST", "/v1/collections/games/pause").await;
    assert_eq!((paused.status, &paused.json["changed"]), (200, &true.into()));
    first.says("it pauses", |status| status.phase == Phase::Paused).await;
    let checkpoints = scene.collection("alluvium.checkpoints");
    let checkpoint = checkpoints.find_one(doc! { "_id": "games" }).await.unwrap().unwrap();
    assert!(checkpoint.contains_key("token"), "its place is saved");
    scene.append([event("a", 4), event("b", 1)]).await;
    others_move_on(&scene, 1).await;
    assert_eq!(scene.row("a").await.unwrap().get_i64("version").unwrap(), 3);
    let again = ask(&first, "POST", "/v1/collections/games/pause").await;
    assert_eq!((again.status, &again.json["changed"]), (200, &false.into()));
    let ready = ask(&first, "GET", "/readyz").await;
    assert_eq!(ready.status, 200, "an operator wants it so: {ready:?}");
    first.stop().await;

    let second = scene.start().await;
    second.says("it is paused", |status| status.phase == Phase::Paused).await;
    others_move_on(&scene, 2).await;
    assert_eq!(scene.row("a").await.unwrap().get_i64("version").unwrap(), 3);
    let resumed = run(&scene, &["resume", "games"]).await;
    assert_eq!((resumed.code, resumed.out.as_str()), (Some(0), "`games` is now not paused\n"));
    scene.reached("a", 4).await;
    scene.reached("b", 1).await;
    let paused = run(&scene, &["pause", "games", "--json"]).await;
    assert!(paused.out.contains("\"changed\": true"), "{paused:?}");
    second.says("it pauses", |status| status.phase == Phase::Paused).await;
    let resumed = ask(&second, "POST", "/v1/collections/games/resume").await;
    assert_eq!((resumed.status, &resumed.json["paused"]), (200, &false.into()));
    scene.append([event("a", 5)]).await;
    scene.reached("a", 5).await;
    let unknown = run(&scene, &["pause", "gmaes"]).await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("no daemon has ever led `gmaes`"), "{unknown:?}");
    second.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_compaction_is_paused_nothing_is_compacted_and_everybody_is_told() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=3)).await;
    scene.reached("a", 3).await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    let paused = run(&scene, &["pause", "games", "--compaction"]).await;
    assert_eq!(paused.code, Some(0), "{paused:?}");
    daemon.says("it tells", |status| status.compaction_stands.is_some()).await;
    let why = "compaction of `games` is paused; `alluvium resume games --compaction` first";
    let status = ask(&daemon, "GET", "/v1/status").await.json;
    assert_eq!(status["collections"][0]["compaction_stands"], why, "{status}");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("alluvium.toml");
    std::fs::write(&config, "[[collections]]\nname = \"games\"\n").unwrap();
    let config = config.to_str().unwrap();
    // The presence row follows with a beat.
    wait_until("the command tells", async || {
        let told = run(&scene, &["status", "--config", config]).await;
        told.code == Some(4) && told.out.contains(why)
    })
    .await;
    let refused = run(&scene, &["compact", "games"]).await;
    assert!(refused.code == Some(1) && refused.err.contains(why), "{refused:?}");
    for fields in [doc! {}, doc! { "document": "a" }] {
        let mut job = doc! { "kind": "compact", "collection": "games" };
        job.extend(fields);
        let id = insert(&scene, job).await;
        let failed = became(&scene, &id, "failed").await;
        assert_eq!(failed.get_str("error").unwrap(), why);
    }
    let dry = run(&scene, &["compact", "games", "--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");

    let resumed = run(&scene, &["resume", "games", "--compaction"]).await;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    daemon.says("it tells no more", |status| status.compaction_stands.is_none()).await;
    let compacted = run(&scene, &["compact", "games"]).await;
    assert!(!compacted.err.contains("is paused"), "{compacted:?}");
    daemon.stop().await;
}
