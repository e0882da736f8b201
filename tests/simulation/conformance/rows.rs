//! What is claimed about rows that somebody touches who is no daemon.

use bson::{RawDocumentBuf, Timestamp, raw::cstr, rawdoc};

use super::{
    Server,
    bodies::{event, id, outcome, write},
};
use crate::{
    log::{Bodies, LogSource, Start, Tail, TailItem},
    simulation::world::{COLLECTION, EVENTS},
    store::{Documents, NO_VERSION, RowOutcome, RowWrite},
};

/// What a tail from `start` tells, until it has told so many things.
async fn told(server: &impl Server, start: Timestamp, count: usize) -> Vec<String> {
    let start = Start::At(start);
    let mut tail = server.source().tail(&[COLLECTION.into()], &start, Bodies::All).await.unwrap();
    let mut told = Vec::new();
    while told.len() < count {
        let batch = tail.next().await.unwrap();
        for change in batch.changes.documents().unwrap() {
            let watched = |name: &str| name == EVENTS || name == COLLECTION;
            told.push(match TailItem::decode(change.unwrap(), watched).unwrap() {
                TailItem::Event { .. } => "event".to_owned(),
                TailItem::Deleted { rows, id } => format!("{id:?} of {rows}"),
                item if item.moves(COLLECTION) => "rows".to_owned(),
                other => format!("{other:?}"),
            });
        }
    }
    told
}

pub(in crate::simulation::conformance) async fn rows_that_are_taken_away_are_told_of(
    server: &impl Server,
) {
    let store = server.store();
    let first = store.rows_id().await.unwrap();
    assert!(first.is_some());
    let now = server.source().now().await.unwrap();
    let start = Timestamp { increment: now.increment + 1, ..now };
    // Neither inserts nor updates of rows are.
    assert_eq!(outcome(server, write(0, 1, rawdoc! {})).await, RowOutcome::Written);
    assert_eq!(outcome(server, write(1, 2, rawdoc! {})).await, RowOutcome::Written);
    server.append(&[event("a", 1)]).await;
    server.delete_row().await;
    server.drop_rows().await;
    assert_eq!(store.rows_id().await.unwrap(), None);
    // The next row makes the collection again, which is another one.
    assert_eq!(outcome(server, write(0, 3, rawdoc! {})).await, RowOutcome::Written);
    server.append(&[event("a", 2)]).await;
    let deleted = "String(\"a\") of games";
    assert_eq!(told(server, start, 4).await, ["event", deleted, "rows", "event"]);
    let second = store.rows_id().await.unwrap();
    assert!(second.is_some() && second != first);
}

pub(in crate::simulation::conformance) async fn an_unreadable_row_gives_way_if_it_is_the_one_that_was_read(
    server: &impl Server,
) {
    let anew =
        |expected, version| RowWrite { is_unsound: true, ..write(expected, version, rawdoc! {}) };
    let rows: [RawDocumentBuf; 4] = [
        rawdoc! { "_id": "a" },
        rawdoc! { "_id": "a", "version": "2" },
        rawdoc! { "_id": "a", "version": 2.5 },
        rawdoc! { "_id": "a", "version": -2_i64 },
    ];
    for row in rows {
        server.put_row(&row).await;
        assert_eq!(outcome(server, anew(2, 3)).await, RowOutcome::Stale, "{row:?}");
        assert_eq!(outcome(server, write(0, 3, rawdoc! {})).await, RowOutcome::Stale, "{row:?}");
        assert_eq!(outcome(server, anew(NO_VERSION, 3)).await, RowOutcome::Written, "{row:?}");
    }
    // By now it has a version.
    assert_eq!(outcome(server, anew(NO_VERSION, 4)).await, RowOutcome::Stale);
    let mut twice = rawdoc! { "_id": "a", "version": 3_i64, "state": 1 };
    twice.append(cstr!("state"), 2);
    server.put_row(&twice).await;
    assert_eq!(outcome(server, anew(2, 4)).await, RowOutcome::Stale);
    assert_eq!(outcome(server, anew(3, 2)).await, RowOutcome::Written);
    // A lost answer is found out.
    assert_eq!(outcome(server, anew(3, 2)).await, RowOutcome::Written);
    let stored = server.store().load(&[id("a")]).await.unwrap();
    assert_eq!(stored, [write(3, 2, rawdoc! {}).row]);
}
