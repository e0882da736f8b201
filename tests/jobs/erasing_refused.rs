//! Erasures that are refused: nothing is changed by them, and nothing else waits for them.

use alluvium::{
    model::{id::DocumentId, part::Part, position::LogId},
    store::{Bases, mongo::MongoStore},
};
use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::{IndexModel, options::IndexOptions};

use crate::{
    became,
    compacting::{self, compact, log_of, turn},
    count, insert, run,
    scene::{Scene, event},
};

/// A document of thirty events.
async fn written(scene: &Scene) {
    scene.append((1..=30).map(|version| turn("a", version))).await;
    scene.reached("a", 30).await;
}

async fn is_refused(scene: &Scene, told: &[&str]) {
    let before = (log_of(scene, "a").await, scene.row("a").await);
    let failed = run(scene, &["erase", "games", "a", "--yes"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    for told in told.iter().chain(&["is not erased", "verify it first; nothing was changed"]) {
        assert!(failed.err.contains(told), "{told}: {failed:?}");
    }
    assert_eq!((log_of(scene, "a").await, scene.row("a").await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_over_a_log_that_is_damaged() {
    let scene = compacting::scene(5).await;
    let daemon = scene.start().await;
    written(&scene).await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    assert_eq!(count(&compact(&scene, doc! { "document": "a" }).await, "bases"), 1);
    let log = scene.collection("games.events");
    let first = doc! { "_id.d": "a", "_id.s": 1 };
    let whole = log.find_one(first.clone()).await.unwrap().unwrap();
    daemon.stop().await;
    // By hand, while nobody looks.
    log.update_one(first.clone(), doc! { "$set": { "state.n": -7 } }).await.unwrap();
    let daemon = scene.start().await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    is_refused(&scene, &["bad_base"]).await;
    // What stands for events of before is whole, and the last of them is gone.
    log.replace_one(first, whole.clone()).await.unwrap();
    let base = whole.get_i64("version").unwrap();
    let own = doc! { "_id.d": "a", "_id.s": base };
    let kept = log.find_one_and_delete(own).await.unwrap().unwrap();
    is_refused(&scene, &["the event of its base"]).await;
    log.insert_one(kept).await.unwrap();
    let ended = run(&scene, &["erase", "games", "a", "--yes"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_where_the_row_is_ahead_of_its_log_or_another() {
    let scene = compacting::scene(5).await;
    let daemon = scene.start().await;
    written(&scene).await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    let rows = scene.collection("games");
    let row = scene.row("a").await.unwrap();
    rows.update_one(doc! { "_id": "a" }, doc! { "$set": { "state.n": -7 } }).await.unwrap();
    is_refused(&scene, &["`state.n` differs"]).await;
    rows.replace_one(doc! { "_id": "a" }, row).await.unwrap();
    let lost = doc! { "_id.d": "a", "_id.s": { "$gt": 20 } };
    scene.collection("games.events").delete_many(lost).await.unwrap();
    is_refused(&scene, &["its log ends at version 20"]).await;
    daemon.stop().await;
}

async fn erased(scene: &Scene, document: &str, state: &str) -> Document {
    let job = doc! { "kind": "erase", "collection": "games", "document": document };
    let id = insert(scene, job).await;
    became(scene, &id, state).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_refuses_the_deletion_makes_the_job_fail_and_no_other() {
    let scene = compacting::scene(5).await;
    let daemon = scene.start().await;
    scene.append([event("a", 1), event("b", 1), event("c", 1), event("c", 3)]).await;
    scene.recorded("c", "gap", 2).await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    erased(&scene, "b", "done").await;
    let log = scene.collection("games.events");
    let some = doc! { "op": "delete" };
    let options = IndexOptions::builder().unique(true).partial_filter_expression(some).build();
    let index = |keys: Document, options: IndexOptions| {
        IndexModel::builder().keys(keys).options(options).build()
    };
    let unique = log.create_index(index(doc! { "client": 1, "op": 1 }, options)).await;
    let failed = erased(&scene, "a", "failed").await;
    let error = failed.get_str("error").unwrap();
    assert!(error.contains("client_1_op_1"), "{error}");
    assert_eq!(log_of(&scene, "a").await.len(), 1);
    assert!(scene.row("a").await.unwrap().get_document("state").is_ok());
    compact(&scene, doc! { "document": "a" }).await;
    log.drop_index(unique.unwrap().index_name).await.unwrap();
    // One on the marks of writers refuses two events without any.
    let others = doc! { "_id.d": { "$ne": "b" } };
    log.update_many(others, vec![doc! { "$set": { "id": "$_id" } }]).await.unwrap();
    let unique = IndexOptions::builder().unique(true).build();
    log.create_index(index(doc! { "id": 1 }, unique)).await.unwrap();
    let done = erased(&scene, "a", "done").await;
    assert_eq!(count(done.get_document("result").unwrap(), "version"), 2, "{done}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_first_version_is_told_so() {
    let scene = compacting::scene(5).await;
    let daemon = scene.start().await;
    let mut poison = event("a", 1);
    poison.insert("op", "bless");
    scene.append([poison, event("b", 2)]).await;
    scene.recorded("a", "bad_event", 1).await;
    scene.recorded("b", "gap", 1).await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    for (document, class) in [("a", "bad_event"), ("b", "gap")] {
        let failed = erased(&scene, document, "failed").await;
        let told = format!("waits for version 1 as `{class}`");
        assert!(failed.get_str("error").unwrap().contains(&told), "{failed}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_document_is_not_held_any_more() {
    let scene = compacting::scene(5).await;
    let daemon = scene.start().await;
    written(&scene).await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    let mut specs =
        scene.db.list_collections().filter(doc! { "name": "games.events" }).await.unwrap();
    let spec = specs.try_next().await.unwrap().unwrap();
    let log = LogId(spec.info.uuid.unwrap().to_uuid().unwrap());
    let id = DocumentId::from_text("a").unwrap();
    let store = MongoStore::new(&scene.db, "games", Part::WHOLE);
    store.hold(log, &id, true).await.unwrap();
    assert!(store.held(log, std::slice::from_ref(&id)).await.unwrap().contains(&id));
    erased(&scene, "a", "done").await;
    assert!(store.held(log, std::slice::from_ref(&id)).await.unwrap().is_empty());
    daemon.stop().await;
}
