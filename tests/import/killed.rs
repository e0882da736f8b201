//! An import that is killed and run again: nothing twice, nothing lost, and the original is what it was, byte for byte.

use std::{collections::BTreeMap, process::Stdio};

use bson::{Bson, RawDocumentBuf};

use super::*;
use crate::common::Guarded;

const DOCUMENTS: u64 = 2_500;
/// How many documents are there when it is killed: in the middle of a batch, between two, and while all is looked at again.
const POINTS: [u64; 5] = [1, 700, 1_000, 2_300, DOCUMENTS];

/// All of the original.
async fn original(db: &TestDatabase) -> Vec<RawDocumentBuf> {
    let old: Collection<RawDocumentBuf> = db.db.collection("old");
    old.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap().try_collect().await.unwrap()
}

fn events(db: &TestDatabase) -> Collection<Document> {
    db.db.collection("games.events")
}

/// The versions that the log has of each document.
async fn places(db: &TestDatabase) -> BTreeMap<DocumentId, Vec<i64>> {
    let found = events(db).find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
    let found: Vec<Document> = found.try_collect().await.unwrap();
    let mut places: BTreeMap<DocumentId, Vec<i64>> = BTreeMap::new();
    for event in &found {
        let key = event.get_document("_id").unwrap();
        let id = DocumentId::from_bson(key.get("d").unwrap()).unwrap();
        places.entry(id).or_default().push(key.get_i64("s").unwrap());
    }
    places
}

/// Has the server end those of a client that has gone after some seconds, not after a minute.
async fn end_transactions_early(db: &TestDatabase) {
    let limit = doc! { "setParameter": 1, "transactionLifetimeLimitSeconds": 5 };
    db.client.database("admin").run_command(limit).await.unwrap();
}

/// Imports until the log has so many events, and is killed. How many it has then.
async fn killed(db: &TestDatabase, options: &[&str], least: u64) -> u64 {
    let mut command = command(db, options);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut import = Guarded::new(quiet.spawn().unwrap());
    let log = events(db);
    wait_until("the log grows", async || log.count_documents(doc! {}).await.unwrap() >= least)
        .await;
    import.process.kill().unwrap();
    import.process.wait().unwrap();
    log.count_documents(doc! {}).await.unwrap()
}

/// `each`: how many events a document begins with.
async fn check(options: &[&str], each: u64) {
    let db = prepared().await;
    end_transactions_early(&db).await;
    let id = |n: u64| match n % 3 {
        0 => Bson::from(n as i64),
        1 => Bson::from(format!("d{n}")),
        _ => Bson::from(ObjectId::new()),
    };
    let documents = (0..DOCUMENTS).map(|n| {
        doc! { "_id": id(n), "v": (n % 5 + 2) as i64, "text": "x".repeat((n % 40) as usize) }
    });
    old(&db).insert_many(documents).await.unwrap();
    let before = original(&db).await;

    let mut halfway = 0;
    for point in POINTS {
        let found = killed(&db, options, point * each).await;
        halfway += u64::from(found < DOCUMENTS * each);
    }
    assert!(halfway > 1, "no import was killed halfway");

    let [created, updated, deleted, same] = imported(&db, options).await;
    assert_eq!((created + same, updated, deleted), (DOCUMENTS, 0, 0));
    let expected = before.iter().map(|document| {
        let id = DocumentId::of_row(document).unwrap();
        let version = document.get_i64("v").unwrap();
        (id, if each == 1 { vec![1] } else { vec![1, version] })
    });
    assert_eq!(places(&db).await, expected.collect());
    assert!(original(&db).await == before, "the original was touched");
    let daemon = daemon(&db).await;
    agrees(&db).await;
    verified(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_was_killed_is_run_again() {
    check(&[], 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_with_versions_that_was_killed_is_run_again() {
    check(&["--version-field", "v"], 2).await;
}

/// What an import leaves that was killed between writing and committing: its places are nobody's until the server ends that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_a_killed_import_left_is_waited_for() {
    for options in [&[][..], &["--version-field", "v"]] {
        let db = prepared().await;
        end_transactions_early(&db).await;
        let documents = (1..=50).map(|n| doc! { "_id": n, "v": 7_i64 });
        old(&db).insert_many(documents).await.unwrap();
        let mut session = db.client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let left = doc! {
            "_id": { "d": 20, "s": 1_i64 }, "client": "import", "at": bson::DateTime::now(),
            "op": "create", "state": { "left": true },
        };
        events(&db).insert_one(left).session(&mut session).await.unwrap();
        assert_eq!(imported(&db, options).await, [50, 0, 0, 0], "{options:?}");
        assert!(session.commit_transaction().await.is_err(), "the server has ended it");
        let _daemon = daemon(&db).await;
        agrees(&db).await;
    }
}
