//! What is claimed about MongoDB where operators have something done about events, each claim as one test body.

use bson::{DateTime, RawDocumentBuf, rawdoc};

use super::{
    Server,
    bodies::{event, id, outcome, write},
};
use crate::{
    log::{EventLog, LogSource, Mend},
    model::{
        document::Class,
        event::EventKey,
        position::LogId,
        skip::{FILLER_CLIENT, Skip, SkippedEvent, SkippedVersions},
    },
    simulation::world::COLLECTION,
    store::{Documents, Filler, RowOutcome, SkipAboveOutcome, SkipOutcome, SkipRows},
};

fn skip(document: &str, version: i64) -> Skip {
    Skip {
        key: EventKey { document: id(document), version },
        through: version,
        told: vec![SkippedEvent { version, client: "c".into(), seq: version }],
        class: Class::BadPatch,
        reason: "because".into(),
        skipped_at: DateTime::from_millis(5),
    }
}

pub(super) async fn a_skip_is_on_record_together_with_its_row_or_not_at_all(server: &impl Server) {
    let store = server.store();
    let skipped = async || store.load_skips_of(&id("a"), None).await.unwrap();
    let version = async || {
        let rows = store.load(&[id("a")]).await.unwrap();
        rows.first().map(|row| row.get_i64("version").unwrap())
    };
    let first = write(0, 1, rawdoc! {});
    assert_eq!(store.skip(&skip("a", 1), &first).await.unwrap(), SkipOutcome::Done);
    assert_eq!((skipped().await, version().await), (only(&[1]), Some(1)));
    // The same again, as after a lost answer.
    assert_eq!(store.skip(&skip("a", 1), &first).await.unwrap(), SkipOutcome::Existed);
    let next = write(1, 2, rawdoc! {});
    assert_eq!(outcome(server, next.clone()).await, RowOutcome::Written);
    for late in [next, write(0, 2, rawdoc! {}), write(5, 6, rawdoc! {})] {
        let version = late.version;
        assert_eq!(store.skip(&skip("a", version), &late).await.unwrap(), SkipOutcome::Stale);
    }
    server.refuse_name("bad").await;
    let refused = write(2, 3, rawdoc! { "state": { "name": "bad" } });
    let refused = store.skip(&skip("a", 3), &refused).await.unwrap();
    assert!(matches!(refused, SkipOutcome::Rejected { code: 121, .. }), "{refused:?}");
    assert_eq!((skipped().await, version().await), (only(&[1]), Some(2)));
    let third = write(2, 3, rawdoc! {});
    assert_eq!(store.skip(&skip("a", 3), &third).await.unwrap(), SkipOutcome::Done);
    assert_eq!((skipped().await, version().await), (only(&[1, 3]), Some(3)));
    assert_eq!(store.load_skips().await.unwrap().of(&id("a")), Some(&only(&[1, 3])));
    assert_eq!(store.load_skips_of(&id("b"), None).await.unwrap(), only(&[]));
}

fn only(versions: &[i64]) -> SkippedVersions {
    versions.iter().map(|version| (*version, *version)).collect()
}

fn filler(version: i64) -> RawDocumentBuf {
    rawdoc! {
        "_id": { "d": "a", "s": version }, "client": FILLER_CLIENT, "op": "update", "patch": {},
        "at": DateTime::MIN,
    }
}

pub(super) async fn what_is_above_a_gap_is_skipped_together_with_the_event_that_fills_it(
    server: &impl Server,
) {
    let store = server.store();
    server.append(&[event("a", 1), event("a", 3), event("a", 4)]).await;
    let log = server.source().open_existing(COLLECTION).await.unwrap();
    let found = log.id();
    let skipped = async || store.load_skips_of(&id("a"), None).await.unwrap();
    let told = (2..=4).map(|version| {
        let client = if version == 2 { FILLER_CLIENT } else { "c" };
        SkippedEvent { version, client: client.into(), seq: version - 1 }
    });
    let skip = Skip { through: 4, told: told.collect(), class: Class::Gap, ..skip("a", 2) };
    let filler = |log: LogId, leaves_newer| Filler { log, event: filler(2), leaves_newer };
    // A log that is another one gets nothing.
    let other = LogId(bson::Uuid::from_bytes([9; 16]));
    assert_eq!(store.skip_above(&skip, &filler(other, false)).await.unwrap_err().code(), Some(361));
    server.append(&[event("a", 5)]).await;
    let newer = store.skip_above(&skip, &filler(found, false)).await.unwrap();
    assert_eq!((newer, skipped().await), (SkipAboveOutcome::Newer, only(&[])));
    let done = store.skip_above(&skip, &filler(found, true)).await.unwrap();
    let range: SkippedVersions = [(2, 4)].into_iter().collect();
    assert_eq!((done, skipped().await), (SkipAboveOutcome::Done, range.clone()));
    assert_eq!(store.load_skips().await.unwrap().of(&id("a")), Some(&range));
    let now = server.source().now().await.unwrap();
    let batch = log.read(&id("a"), 1, 1, Some(now)).await.unwrap();
    let first = batch.documents().unwrap().next().unwrap().unwrap().to_owned();
    assert_eq!(first, filler(found, true).event);
    // The same again, as after a lost answer; and where the missing event has come.
    let again = store.skip_above(&skip, &filler(found, false)).await.unwrap();
    assert_eq!(again, SkipAboveOutcome::Existed);
    let taken = Skip { key: EventKey { document: id("a"), version: 3 }, through: 5, ..skip };
    let at_three = Filler { event: event("a", 3), ..filler(found, false) };
    let taken = store.skip_above(&taken, &at_three).await.unwrap();
    assert_eq!((taken, skipped().await), (SkipAboveOutcome::Taken, range));
}

pub(super) async fn what_fills_a_gap_takes_the_place_of_nothing(server: &impl Server) {
    server.append(&[event("a", 1), event("a", 3)]).await;
    let log = server.source().open_existing(COLLECTION).await.unwrap();
    for _ in 0..2 {
        log.insert(&[filler(3), filler(2)]).await.unwrap();
    }
    let now = server.source().now().await.unwrap();
    let batch = log.read(&id("a"), 0, 9, Some(now)).await.unwrap();
    let found: Vec<_> = batch.documents().unwrap().map(|event| event.unwrap().to_owned()).collect();
    assert_eq!(found, [event("a", 1), filler(2), event("a", 3)]);
}
