//! Reads of one collection on a real server.

#[path = "../common/mod.rs"]
mod common;
mod histories;
mod suffix;

use alluvium::{
    model::{id::DocumentId, position::LogId},
    read::{MissingQuery, ReadError, ReadLimits, Reader},
    store::format::FORMAT,
    writer::EventSourced,
};
use bson::doc;
use common::history::{append, at, event, folded, make_log, project};
use futures::TryStreamExt;
use mongodb::{
    Database,
    options::{Acknowledgment, WriteConcern},
};

/// A document of five events in a log, projected.
async fn five(db: &Database, clustered: bool) -> (DocumentId, Reader) {
    let id = DocumentId::from_text("five").unwrap();
    make_log(db, "games", clustered).await;
    let mut log = vec![event(&id, 1, "server", doc! { "op": "create", "state": { "n": 1 } })];
    for version in 2..=5 {
        let fields = doc! { "op": "update", "patch": { "$inc": { "n": 1 } } };
        log.push(event(&id, version, "panel", fields));
    }
    append(db, "games", &log).await;
    project(db, "games", &folded(&id, &log)).await;
    (id, Reader::new(db, "games", ReadLimits::default()))
}

fn query(clock: &[(&str, i64)]) -> MissingQuery {
    MissingQuery { clock: clock.iter().copied().collect(), limit: 100, ..MissingQuery::default() }
}

#[tokio::test]
async fn a_read_looks_at_no_more_of_the_log_than_its_answer_needs() {
    for clustered in [true, false] {
        let db = common::database().await.db;
        let (id, reader) = five(&db, clustered).await;
        for name in ["after", "before"] {
            let other = DocumentId::from_text(name).unwrap();
            let update = doc! { "op": "update", "patch": {} };
            let log: Vec<_> =
                (2..300).map(|version| event(&other, version, "c", update.clone())).collect();
            append(&db, "games", &log).await;
        }
        db.run_command(doc! { "profile": 2 }).await.unwrap();
        reader.current(&id).await.unwrap().unwrap();
        reader.missing(&id, &query(&[("server", 1), ("panel", 3)])).await.unwrap().unwrap();
        reader.missing(&id, &query(&[("server", 0), ("panel", 4)])).await.unwrap().unwrap();
        reader.history(&id, 3, 100).await.unwrap();
        reader.at_version(&id, 2).await.unwrap().unwrap();
        db.run_command(doc! { "profile": 0 }).await.unwrap();
        let profile = db.collection::<bson::Document>("system.profile");
        let of_the_log = doc! { "ns": format!("{}.games.events", db.name()) };
        let reads: Vec<bson::Document> =
            profile.find(of_the_log).await.unwrap().try_collect().await.unwrap();
        let examined: Vec<i32> =
            reads.iter().map(|read| read.get_i32("docsExamined").unwrap()).collect();
        // Nothing behind the row. The last event for a client that lacks it, the row, and what stands first. For one that
        // lacks the first: the last, which it has, the row, and what stands first; then nothing behind the row, what
        // stands first, the last again, one to walk over and to read whole. What stands first and two of history, and
        // as many to fold. On a clustered collection a range ends by looking at what comes after it.
        let bound =
            [0, 3, 3, 0, 1, 1, 1, 1, 1, 2, 1, 2].map(|events| events + i32::from(clustered));
        assert_eq!(examined.len(), bound.len(), "{examined:?}");
        let bounded = examined.iter().zip(bound).all(|(examined, bound)| *examined <= bound);
        assert!(bounded, "clustered: {clustered}: {examined:?} is beyond {bound:?}");
    }
}

#[tokio::test]
async fn a_clock_that_claims_more_than_exists_is_refused() {
    let db = common::database().await.db;
    let (id, reader) = five(&db, true).await;
    let error = reader.missing(&id, &query(&[("server", 2)])).await.unwrap_err();
    assert!(
        error.to_string().contains("claims 2 events of client `server`, but the document has 1")
    );
    let unknown = DocumentId::from_text("unknown").unwrap();
    assert!(reader.missing(&unknown, &query(&[("server", 2)])).await.unwrap().is_none());
}

#[tokio::test]
async fn a_clock_that_knows_an_event_before_the_majority_does_is_waited_for() {
    let db = common::database().await.db;
    let (id, reader) = five(&db, true).await;
    let log = db.collection::<bson::Document>("games.events");
    for version in 6..=30 {
        let fields = doc! { "op": "update", "patch": {} };
        let unjournaled =
            WriteConcern::builder().w(Acknowledgment::Nodes(1)).journal(false).build();
        let insert = log.insert_one(event(&id, version, "mobile", fields));
        insert.write_concern(unjournaled).await.unwrap();
        let clock = query(&[("mobile", version - 5), ("server", 1), ("panel", 4)]);
        let answer = reader.missing(&id, &clock).await.unwrap().unwrap();
        assert_eq!((answer.version, answer.events.len()), (version, 0));
    }
}

#[tokio::test]
async fn a_client_of_another_log_gets_the_document_as_a_snapshot() {
    let db = common::database().await.db;
    let (id, reader) = five(&db, true).await;
    let other = LogId(bson::Uuid::from_bytes([7; 16]));
    let ahead_there = MissingQuery { log: Some(other), ..query(&[("gone", 9)]) };
    let answer = reader.missing(&id, &ahead_there).await.unwrap().unwrap();
    assert_eq!(answer.snapshot.unwrap().version, 5);
    assert_eq!((answer.events.len(), answer.next_clock, answer.more), (0, answer.clock, false));
    let known = MissingQuery { log: Some(answer.log), ..query(&[]) };
    assert_eq!(reader.missing(&id, &known).await.unwrap().unwrap().events.len(), 5);
}

#[tokio::test]
async fn where_the_log_no_longer_reaches_the_answer_says_so() {
    let db = common::database().await.db;
    let (id, reader) = five(&db, false).await;
    let log = db.collection::<bson::Document>("games.events");
    log.delete_one(doc! { "_id": { "d": "five", "s": 2_i64 } }).await.unwrap();
    for read in [reader.at_version(&id, 3).await, reader.at_time(&id, at(3)).await] {
        assert!(matches!(read, Err(ReadError::BelowFloor { floor: 5 })), "{read:?}");
    }
    assert_eq!(reader.at_version(&id, 1).await.unwrap().unwrap().version, 1);
    assert_eq!(reader.at_version(&id, 5).await.unwrap().unwrap().version, 5);
    let all = reader.missing(&id, &query(&[])).await.unwrap().unwrap();
    assert_eq!((all.snapshot.unwrap().version, all.more), (5, false));
    let last = reader.missing(&id, &query(&[("server", 1), ("panel", 3)])).await.unwrap().unwrap();
    assert!(last.snapshot.is_none());
    assert_eq!(last.events.iter().map(|event| event.version).collect::<Vec<_>>(), [5]);
}

#[tokio::test]
async fn without_a_log_there_is_no_missing_answer() {
    let db = common::database().await.db;
    let (id, reader) = five(&db, true).await;
    db.collection::<bson::Document>("games.events").drop().await.unwrap();
    let answer = reader.missing(&id, &query(&[])).await;
    assert!(matches!(answer, Err(ReadError::NoLog(_))), "{answer:?}");
    assert_eq!(reader.document(&id).await.unwrap().unwrap().version, 5);
}

#[tokio::test]
async fn a_row_that_is_not_a_projected_document_is_named() {
    let db = common::database().await.db;
    let (_, reader) = five(&db, true).await;
    let rows = db.collection::<bson::Document>("games");
    rows.insert_one(doc! { "_id": "mine", "name": "x" }).await.unwrap();
    let error = reader.document(&DocumentId::from_text("mine").unwrap()).await.unwrap_err();
    assert!(
        error.to_string().contains("mine") && error.to_string().contains("`version`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_reader_refuses_a_newer_format_when_it_begins_and_does_not_ask_again_at_every_read() {
    let db = common::database().await.db;
    let (id, first) = five(&db, true).await;
    first.current(&id).await.unwrap();
    let newer = doc! { "_id": "format", "version": FORMAT + 1 };
    db.collection("alluvium.meta").insert_one(newer).await.unwrap();
    // It has looked a moment ago; the daemons alone look with every beat.
    assert_eq!(first.current(&id).await.unwrap().unwrap().document.version, 5);
    let later = Reader::new(&db, "games", ReadLimits::default());
    let reads = [
        later.document(&id).await.map(drop),
        later.current(&id).await.map(drop),
        later.at_version(&id, 1).await.map(drop),
        later.at_time(&id, bson::DateTime::now()).await.map(drop),
        later.history(&id, 0, 10).await.map(drop),
        later.missing(&id, &query(&[])).await.map(drop),
    ];
    for read in reads {
        let error = read.unwrap_err();
        assert!(matches!(&error, ReadError::Newer(newer) if newer.found == FORMAT + 1), "{error}");
    }
    let writer = EventSourced::<bson::Document>::new(&db, "games");
    let refused = writer.delete(&id, "x").await.unwrap_err();
    assert!(refused.to_string().contains("the data is in format"), "{refused}");
}
