//! What is claimed about MongoDB where operators have something done about events, each claim as one test body.

use bson::{DateTime, rawdoc};

use super::{
    Server,
    bodies::{event, id, outcome, write},
};
use crate::{
    log::{EventLog, LogSource, Mend},
    model::{
        document::{Class, Quarantine},
        event::EventKey,
        skip::Skip,
    },
    simulation::world::COLLECTION,
    store::{
        Discarded, DiscardedEvents, Documents, Healed, QuarantineRow, QuarantineRows, RowOutcome,
        SkipOutcome, SkipRows,
    },
};

fn skip(document: &str, version: i64) -> Skip {
    Skip {
        key: EventKey { document: id(document), version },
        client: "c".into(),
        class: Class::BadPatch,
        reason: "because".into(),
        skipped_at: DateTime::from_millis(5),
    }
}

pub(super) async fn a_skip_is_on_record_together_with_its_row_or_not_at_all(server: &impl Server) {
    let store = server.store();
    let skipped = async || store.load_skips_of(&id("a")).await.unwrap();
    let version = async || {
        let rows = store.load(&[id("a")]).await.unwrap();
        rows.first().map(|row| row.get_i64("version").unwrap())
    };
    let first = write(0, 1, rawdoc! {});
    assert_eq!(store.skip(&skip("a", 1), &first).await.unwrap(), SkipOutcome::Done);
    assert_eq!((skipped().await, version().await), ([1].into(), Some(1)));
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
    assert_eq!((skipped().await, version().await), ([1].into(), Some(2)));
    let third = write(2, 3, rawdoc! {});
    assert_eq!(store.skip(&skip("a", 3), &third).await.unwrap(), SkipOutcome::Done);
    assert_eq!((skipped().await, version().await), ([1, 3].into(), Some(3)));
    assert_eq!(store.load_skips().await.unwrap().of(&id("a")), Some(&[1, 3].into()));
    assert_eq!(store.load_skips_of(&id("b")).await.unwrap(), [].into());
}

pub(super) async fn a_discarded_event_is_kept_beside_what_waits(server: &impl Server) {
    let store = server.store();
    let key = |version| EventKey { document: id("a"), version };
    let discarded = Discarded {
        key: key(3),
        event: event("a", 3),
        reason: "because".into(),
        since: DateTime::from_millis(5),
    };
    assert_eq!(store.discards().await.unwrap(), 0);
    for _ in 0..2 {
        store.keep_discarded(std::slice::from_ref(&discarded)).await.unwrap();
        assert!(store.discards().await.unwrap() > 0);
    }
    let known = store.discards().await.unwrap();
    let other = Discarded { key: key(4), event: event("a", 4), ..discarded };
    store.keep_discarded(&[other]).await.unwrap();
    assert!(store.discards().await.unwrap() > known);
    assert_eq!(store.discarded_of(&id("a")).await.unwrap(), [3, 4].into());
    assert_eq!(store.discarded_of(&id("b")).await.unwrap(), [].into());
    assert_eq!(store.load_discarded().await.unwrap(), [key(3), key(4)].into());
    assert_eq!(store.load_quarantine().await.unwrap(), []);
    assert_eq!(store.load_quarantine_of(&id("a")).await.unwrap(), None);
    let mark = Quarantine { class: Class::Gap, version: 2, reason: "because".into() };
    let row = QuarantineRow { document: id("a"), mark, since: DateTime::from_millis(5) };
    store.put_quarantine(std::slice::from_ref(&row)).await.unwrap();
    assert_eq!(store.load_quarantine_of(&id("a")).await.unwrap(), Some(row));
    assert_eq!(store.load_discarded().await.unwrap(), [key(3), key(4)].into());
    store.remove_quarantine(&[(id("a"), Healed::Reached(9))]).await.unwrap();
    assert_eq!(store.discarded_of(&id("a")).await.unwrap(), [3, 4].into());
}

pub(super) async fn what_fills_a_hole_takes_the_place_of_nothing(server: &impl Server) {
    server.append(&[event("a", 1), event("a", 3)]).await;
    let log = server.source().open_existing(COLLECTION).await.unwrap();
    let filler = |version: i64| {
        rawdoc! { "_id": { "d": "a", "s": version }, "client": "alluvium", "op": "update", "patch": {}, "at": DateTime::MIN }
    };
    for _ in 0..2 {
        log.insert(&[filler(3), filler(2)]).await.unwrap();
    }
    let now = server.source().now().await.unwrap();
    let batch = log.read(&id("a"), 0, 9, Some(now)).await.unwrap();
    let found: Vec<_> = batch.documents().unwrap().map(|event| event.unwrap().to_owned()).collect();
    assert_eq!(found, [event("a", 1), filler(2), event("a", 3)]);
}
