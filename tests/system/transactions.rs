//! Many rows are replaced in one transaction, and where the server refuses that, without one: whatever becomes of a
//! transaction, each row is written, once.

use bson::{Document, doc};
use futures::TryStreamExt;

use crate::{
    common::wait_until,
    scene::{Running, Scene, event},
    trouble::{fail, failpoint, struck},
};

/// As many as are worth a transaction, and some more.
const DOCUMENTS: i64 = 150;

/// A daemon that has projected the first event of every document.
async fn projected() -> (Scene, Running) {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    append_to_all(&scene, 1).await;
    scene.level("games").await;
    (scene, daemon)
}

/// Appends the event of this version to every document, so that all of them are flushed together.
async fn append_to_all(scene: &Scene, version: i64) {
    scene.append((0..DOCUMENTS).map(|document| event(format!("d{document}"), version))).await;
}

/// The entries of the oplog that replaced rows, of many in one and of one each.
async fn entries(scene: &Scene) -> (usize, usize) {
    let name = format!("{}.games", scene.db.name());
    let oplog = scene.db.client().database("local").collection::<Document>("oplog.rs");
    let find = async |filter| oplog.count_documents(filter).await.unwrap() as usize;
    let many = find(doc! { "o.applyOps.ns": &name }).await;
    (many, find(doc! { "ns": &name, "op": "u" }).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_that_are_replaced_are_one_entry_of_the_oplog_and_few_are_one_each() {
    let (scene, daemon) = projected().await;
    append_to_all(&scene, 2).await;
    scene.level("games").await;
    let (many, each) = entries(&scene).await;
    assert!(many > 0 && each < DOCUMENTS as usize, "{many}, {each}");
    scene.append([event("d0", 3)]).await;
    scene.level("games").await;
    assert_eq!(entries(&scene).await, (many, each + 1));
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_transaction_each_row_is_written() {
    let (scene, daemon) = projected().await;
    let mut version = 1;
    for command in ["update", "commitTransaction"] {
        // WriteConflict, NoSuchTransaction, the primary steps down, the answer never comes.
        for how in [
            doc! { "errorCode": 112, "errorLabels": ["TransientTransactionError"] },
            doc! { "errorCode": 251, "errorLabels": ["TransientTransactionError"] },
            doc! { "errorCode": 189 },
            doc! { "closeConnection": true },
        ] {
            let _turn = failpoint().await;
            println!("{command} with {how}");
            let before = struck(&scene).await;
            fail(&scene, &[command], 2, how).await;
            version += 1;
            append_to_all(&scene, version).await;
            scene.level("games").await;
            assert!(struck(&scene).await > before);
        }
    }
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_else_is_writing_is_written_once_he_is_done() {
    let (scene, daemon) = projected().await;
    let mut session = scene.db.client().start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let touch = doc! { "$set": { "touched": true } };
    let games = scene.collection("games");
    games.update_one(doc! { "_id": "d7" }, touch).session(&mut session).await.unwrap();
    append_to_all(&scene, 2).await;
    // Nothing of it may be written without the row that is locked, or everything else: both are right.
    let waits = doc! { "currentOp": true, "ns": format!("{}.games", scene.db.name()) };
    let admin = scene.db.client().database("admin");
    wait_until("the daemon waits for the row", async || {
        let reply = admin.run_command(waits.clone()).await.unwrap();
        let conflicts = reply
            .get_array("inprog")
            .unwrap()
            .iter()
            .filter_map(|op| op.as_document()?.get("writeConflicts")?.as_i64());
        conflicts.sum::<i64>() > 0
    })
    .await;
    session.abort_transaction().await.unwrap();
    scene.level("games").await;
    daemon.stop().await;
    scene.judged().await;
    let rows: Vec<Document> =
        games.find(doc! { "touched": true }).await.unwrap().try_collect().await.unwrap();
    assert_eq!(rows, []);
}
