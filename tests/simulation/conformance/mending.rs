//! What is claimed about MongoDB where operators have something done about events, each claim as one test body.

use bson::{DateTime, rawdoc};

use super::{
    Server,
    bodies::{event, id, outcome, write},
};
use crate::{
    log::{EventLog, LogSource, Mend},
    model::{document::Class, event::EventKey, skip::Skip},
    simulation::world::COLLECTION,
    store::{Documents, RowOutcome, SkipOutcome, SkipRows},
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
