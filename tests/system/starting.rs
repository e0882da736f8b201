//! Starting: wherever a daemon begins, it ends up level with the log, without a gap and without
//! doing anything twice.

use bson::{Bson, DateTime, Document, doc, oid::ObjectId};

use alluvium::status::CollectionStatus;

use crate::{
    common::{wait_for, wait_until},
    scene::{Running, Scene, change, event, events},
};

fn filled(documents: i64, versions: i64) -> Vec<Document> {
    (0..documents).flat_map(|document| events(format!("d{document}"), 1..=versions)).collect()
}

fn scanned(daemon: &Running) -> f64 {
    daemon.metric("scanned_events_total", "").unwrap()
}

fn restarts(daemon: &Running, reason: &str) -> f64 {
    daemon.metric("stream_restarts_total", &format!("reason=\"{reason}\"")).unwrap()
}

async fn checkpoint(scene: &Scene, collection: &str) -> Document {
    let checkpoints = scene.collection("alluvium.checkpoints");
    // A leader takes the row before it has a place to save.
    let filter = doc! { "_id": collection, "clusterTime": { "$exists": true } };
    wait_for("a checkpoint", async || checkpoints.find_one(filter.clone()).await.unwrap()).await
}

/// Waits until the checkpoint of `games` stands behind everything that was appended before.
pub(crate) async fn checkpoint_passes(scene: &Scene) {
    let reply = scene.db.run_command(doc! { "ping": 1 }).await.unwrap();
    let now = reply.get_timestamp("operationTime").unwrap();
    wait_until("the checkpoint has passed", async || {
        checkpoint(scene, "games").await.get_timestamp("clusterTime").unwrap() >= now
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_filled_before_the_daemon_ever_ran_is_projected_and_then_followed() {
    let scene = Scene::new().await;
    scene.append(filled(50, 20)).await;
    let daemon = scene.start().await;
    scene.level("games").await;
    scene.append(events("d0", 21..=30)).await;
    scene.level("games").await;
    assert_eq!(scene.judged().await.events, 1010);
    daemon.says("everything is counted", |_| daemon.applied() == 1010.0).await;
    assert_eq!(scanned(&daemon), 1000.0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_clustered_is_projected_the_same() {
    let scene = Scene::new().await;
    scene.collection("games.events").drop().await.unwrap();
    scene.db.create_collection("games.events").await.unwrap();
    scene.append(filled(10, 10)).await;
    let daemon = scene.start().await;
    scene.level("games").await;
    scene.append(events("d0", 11..=12)).await;
    scene.level("games").await;
    scene.judged().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_every_type_are_documents_and_equal_numbers_are_one() {
    let scene = Scene::new().await;
    let uuid = bson::Uuid::new();
    let ids = [
        Bson::String("a.b/ü".into()),
        Bson::String("x".repeat(1024)),
        Bson::ObjectId(ObjectId::new()),
        uuid.into(),
        Bson::Int64(-5),
        Bson::Int64((1 << 53) - 1),
    ];
    let daemon = scene.start().await;
    for id in &ids {
        scene.append(events(id.clone(), 1..=3)).await;
    }
    scene.append([event(Bson::Int32(7), 1), event(Bson::Double(7.0), 2)]).await;
    let javascript = change(7_i64, 3, doc! { "op": "delete" });
    let mut third = javascript.clone();
    third.insert("_id", doc! { "d": 7_i64, "s": 3.0 });
    scene.append([third]).await;
    for id in ids {
        scene.reached(id, 3).await;
    }
    let row = scene.reached(7, 3).await;
    assert_eq!(row.get("deleted"), Some(&Bson::Boolean(true)));
    assert_eq!(scene.judged().await.documents, 7);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_resumes_at_its_checkpoint_and_does_nothing_twice() {
    let scene = Scene::new().await;
    scene.append(filled(10, 10)).await;
    let daemon = scene.start().await;
    scene.level("games").await;
    checkpoint_passes(&scene).await;
    daemon.stop().await;
    scene
        .append(
            filled(10, 12)
                .into_iter()
                .filter(|event| event.get_document("_id").unwrap().get_i64("s").unwrap() > 10),
        )
        .await;
    let daemon = scene.start().await;
    scene.level("games").await;
    daemon.says("everything is counted", |_| daemon.applied() == 20.0).await;
    assert_eq!(scanned(&daemon), 0.0);
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_cannot_be_resumed_leads_to_a_scan_and_then_a_tail() {
    let tokens = [
        ("not hexadecimal", doc! { "_data": "82not a token" }.into()),
        ("of no known type", doc! { "_data": "99000F4240000000012B0229296E04" }.into()),
        ("without data", doc! {}.into()),
        ("of another type", Bson::Int32(5)),
    ];
    for (name, token) in tokens {
        println!("a token {name}");
        let scene = Scene::new().await;
        scene.append(filled(5, 10)).await;
        let daemon = scene.start().await;
        scene.level("games").await;
        checkpoint_passes(&scene).await;
        daemon.stop().await;
        let set = doc! { "$set": { "token": token } };
        let checkpoints = scene.collection("alluvium.checkpoints");
        checkpoints.update_one(doc! { "_id": "games" }, set).await.unwrap();
        scene.append(events("down", 1..=3)).await;
        let daemon = scene.start().await;
        scene.level("games").await;
        scene.append(events("tailed", 1..=3)).await;
        scene.level("games").await;
        daemon.says("everything is counted", |_| daemon.applied() == 6.0).await;
        assert_eq!(scanned(&daemon), 53.0);
        assert_eq!(restarts(&daemon, "lost_token"), 1.0);
        daemon.stop().await;
        scene.judged().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_set_of_collections_is_resumed_by_its_time() {
    let both = Scene::new().await.with("players").await;
    let daemon = both.start().await;
    both.append(events("a", 1..=3)).await;
    both.append_to("players", events("p", 1..=3)).await;
    both.level("games").await;
    both.level("players").await;
    checkpoint_passes(&both).await;
    daemon.stop().await;
    // A token of an event that the stream of `games` alone does not have.
    let mut only_games = both.clone();
    only_games.collections.pop();
    both.append(events("a", 4..=5)).await;
    let daemon = only_games.start().await;
    both.level("games").await;
    daemon.says("everything is counted", |_| daemon.applied() == 2.0).await;
    assert_eq!(scanned(&daemon), 0.0);
    daemon.stop().await;
    both.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_between_a_scan_and_the_tail() {
    let scene = Scene::new().await;
    scene.append(filled(100, 50)).await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let scene = scene.clone();
            tokio::spawn(async move {
                for version in 51..=80 {
                    for document in (0..100).filter(|document| document % 4 == writer) {
                        scene.append([event(format!("d{document}"), version)]).await;
                    }
                }
            })
        })
        .collect();
    let daemon = scene.start().await;
    for writer in writers {
        writer.await.unwrap();
    }
    scene.level("games").await;
    daemon.says("everything is counted", |_| daemon.applied() == 8000.0).await;
    daemon.stop().await;
    assert_eq!(scene.judged().await.events, 8000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_added_later_is_scanned_while_the_others_resume() {
    let one = Scene::new().await;
    one.append(filled(5, 5)).await;
    let daemon = one.start().await;
    one.level("games").await;
    checkpoint_passes(&one).await;
    daemon.stop().await;
    let both = one.with("players").await;
    both.append_to("players", filled(20, 5)).await;
    both.append(events("down", 1..=3)).await;
    let daemon = both.start().await;
    both.append_to("players", events("new", 1..=3)).await;
    both.level("players").await;
    both.level("games").await;
    both.append(events("new", 1..=3)).await;
    both.level("games").await;
    assert_eq!(scanned(&daemon), 0.0);
    // Counted once the flush has returned, a little after its rows are there.
    let counted = async || {
        daemon.metric_of("players", "scanned_events_total", "").unwrap_or_default() >= 100.0
    };
    wait_until("what was scanned is counted", counted).await;
    daemon.stop().await;
    both.judged_as("games", Vec::new()).await;
    both.judged_as("players", Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_of_an_idle_collection_moves_on() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=2)).await;
    scene.level("games").await;
    let first = checkpoint(&scene, "games").await.get_timestamp("clusterTime").unwrap();
    scene.collection("unrelated").insert_one(doc! { "at": DateTime::now() }).await.unwrap();
    wait_until("the checkpoint moves on", async || {
        checkpoint(&scene, "games").await.get_timestamp("clusterTime").unwrap() > first
    })
    .await;
    checkpoint_passes(&scene).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_the_checkpoint_stays_within_the_oplog_is_told() {
    let scene = Scene::new().await;
    scene.append(events("a", 1..=3)).await;
    let daemon = scene.start().await;
    // The oplog is as old as the server, which the checkpoint is not.
    let told = |status: &CollectionStatus| status.oplog_headroom_seconds.is_some_and(|s| s >= 0.0);
    daemon.says("its headroom", told).await;
    assert!(daemon.metric("oplog_headroom_seconds", "").is_some());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_set_back_by_hand_only_leads_to_replays() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.append(filled(5, 2)).await;
    // A document whose very first event comes again is not looked up, and so not counted as a replay.
    scene.append(events("late", 1..=1)).await;
    scene.level("games").await;
    checkpoint_passes(&scene).await;
    let early = checkpoint(&scene, "games").await;
    scene.append(events("late", 2..=50)).await;
    scene.level("games").await;
    checkpoint_passes(&scene).await;
    daemon.stop().await;
    let before = scene.row("late").await;
    let checkpoints = scene.collection("alluvium.checkpoints");
    checkpoints.replace_one(doc! { "_id": "games" }, early).await.unwrap();
    let daemon = scene.start().await;
    scene.append(events("new", 1..=1)).await;
    scene.level("games").await;
    let replays = || daemon.metric("events_skipped_total", "reason=\"replay\"").unwrap();
    daemon.says("the replays are counted", |_| replays() >= 49.0).await;
    daemon.says("everything is counted", |_| daemon.applied() == 1.0).await;
    assert_eq!(scene.row("late").await, before);
    daemon.stop().await;
    scene.judged().await;
}
