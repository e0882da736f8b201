//! The log has an identity: a collection whose log was dropped, replaced or lost events is refused
//! with advice, and nothing that was projected or noted is touched.

use bson::{Document, doc};
use futures::TryStreamExt;

use crate::scene::{Running, Scene, event, events};

/// Everything that must stay as it is when a collection is refused.
async fn everything(scene: &Scene) -> Vec<Document> {
    let mut all = Vec::new();
    for name in ["games", "alluvium.checkpoints", "alluvium.quarantine"] {
        let mut rows = rows(scene, name).await;
        // The place of a checkpoint moves while a daemon lives, its epoch with every leader; the log must not.
        for row in &mut rows {
            row.remove("token");
            row.remove("clusterTime");
            row.remove("epoch");
        }
        all.extend(rows);
    }
    all
}

async fn rows(scene: &Scene, name: &str) -> Vec<Document> {
    let rows = scene.collection(name).find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
    rows.try_collect().await.unwrap()
}

/// A projected collection with a hole on record, and its daemon.
async fn projected() -> (Scene, Running) {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=3)).await;
    scene.append([event("b", 1), event("b", 3)]).await;
    scene.reached("a", 3).await;
    scene.recorded("b", "gap", 2).await;
    // A checkpoint exists after a stop.
    daemon.stop().await;
    let daemon = scene.start().await;
    daemon.says("it follows", |status| status.lag_seconds.is_some()).await;
    (scene, daemon)
}

async fn rename(scene: &Scene, from: &str, to: &str, replace: bool) {
    let name = |collection: &str| format!("{}.{collection}", scene.db.name());
    let command = doc! { "renameCollection": name(from), "to": name(to), "dropTarget": replace };
    scene.db.client().database("admin").run_command(command).await.unwrap();
}

/// Takes the log away in one way.
async fn take_away(scene: &Scene, how: &str) {
    let log = scene.collection("games.events");
    match how {
        "dropped" => log.drop().await.unwrap(),
        "dropped and made anew" => {
            log.drop().await.unwrap();
            scene.make_log("games").await;
            scene.append(events("a", 1..=9)).await;
        }
        "renamed away" => rename(scene, "games.events", "old", false).await,
        "replaced by a rename" => {
            scene.make_log("other").await;
            scene.append_to("other", events("a", 1..=9)).await;
            rename(scene, "other.events", "games.events", true).await;
        }
        other => panic!("{other}"),
    }
}

const WAYS: [&str; 4] =
    ["dropped", "dropped and made anew", "renamed away", "replaced by a rename"];

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_taken_away_under_the_daemon_is_refused_and_nothing_is_touched() {
    for how in WAYS {
        println!("{how}");
        let (scene, daemon) = projected().await;
        let before = everything(&scene).await;
        take_away(&scene, how).await;
        let refusal = daemon.refuses().await;
        assert!(refusal.contains("log"), "{refusal}");
        daemon.stop().await;
        assert_eq!(everything(&scene).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_taken_away_while_the_daemon_was_down_is_refused_and_nothing_is_touched() {
    for how in WAYS {
        println!("{how}");
        let (scene, daemon) = projected().await;
        daemon.stop().await;
        let before = everything(&scene).await;
        take_away(&scene, how).await;
        let daemon = scene.start().await;
        let refusal = daemon.refuses().await;
        let expected = if how.contains("anew") || how.contains("replaced") {
            "delete the rows of this collection in `alluvium.checkpoints`"
        } else {
            "does not exist"
        };
        assert!(refusal.contains(expected), "{refusal}");
        daemon.stop().await;
        assert_eq!(everything(&scene).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_database_is_refused() {
    let (scene, daemon) = projected().await;
    scene.db.drop().await.unwrap();
    daemon.refuses().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_collection_does_not_stop_the_others() {
    let scene = Scene::new().await.with("players").await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=3)).await;
    scene.append_to("players", events("p", 1..=3)).await;
    scene.level("games").await;
    scene.level("players").await;
    scene.collection("games.events").drop().await.unwrap();
    daemon.refuses().await;
    scene.append_to("players", events("p", 4..=5)).await;
    scene.level("players").await;
    daemon.stop().await;
    scene.judged_as("players", Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_comes_back_is_followed_again_with_what_it_got_meanwhile() {
    let (scene, daemon) = projected().await;
    take_away(&scene, "renamed away").await;
    daemon.refuses().await;
    scene.collection("old").insert_many(events("a", 4..=5)).await.unwrap();
    rename(&scene, "old", "games.events", false).await;
    scene.append([event("a", 6), event("b", 2)]).await;
    scene.level("games").await;
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_is_accepted_once_the_operator_has_removed_the_checkpoint() {
    let (scene, daemon) = projected().await;
    daemon.stop().await;
    take_away(&scene, "replaced by a rename").await;
    scene.append(events("b", 1..=3)).await;
    scene.collection("alluvium.checkpoints").delete_one(doc! { "_id": "games" }).await.unwrap();
    let daemon = scene.start().await;
    scene.level("games").await;
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_ahead_of_their_log_are_refused_with_advice() {
    // Where in the order of the log the document stands must not matter.
    for (ahead, after_its_first) in
        [("a", true), ("m", true), ("z", true), ("a", false), ("m", false), ("z", false)]
    {
        println!("{ahead}, of which something is left: {after_its_first}");
        let scene = Scene::new().await;
        for id in ["a", "m", "z"] {
            scene.append(events(id, 1..=3)).await;
        }
        let daemon = scene.start().await;
        scene.level("games").await;
        daemon.stop().await;
        // What a restored backup looks like: the last events are not there, nor a checkpoint.
        let from = if after_its_first { 2 } else { 1 };
        let lost =
            doc! { "_id": { "$gte": { "d": ahead, "s": from }, "$lte": { "d": ahead, "s": 3 } } };
        scene.collection("games.events").delete_many(lost).await.unwrap();
        scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
        let before = rows(&scene, "games").await;
        let daemon = scene.start().await;
        let refusal = daemon.refuses().await;
        let words = if after_its_first { "is at version 3" } else { "its log is empty" };
        assert!(refusal.contains(words) && refusal.contains(ahead), "{refusal}");
        assert!(refusal.contains("restore the log"), "{refusal}");
        daemon.stop().await;
        assert_eq!(rows(&scene, "games").await, before);
    }
}
