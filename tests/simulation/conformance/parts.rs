//! The test bodies of collections in parts.

use bson::{DateTime, Timestamp, Uuid, rawdoc};

use super::{
    Server,
    bodies::{id, lease},
};
use crate::{
    model::{
        document::{Class, Quarantine},
        id::DocumentId,
        part::Part,
        position::{Checkpoint, LogId, Position},
    },
    simulation::world::COLLECTION,
    store::{
        Checkpoints, Layout, Layouts, Lease, LeaseName, Leases, QuarantineRow, QuarantineRows,
    },
};

fn checkpoint(time: u32) -> Checkpoint {
    let cluster_time = Timestamp { time, increment: 1 };
    let token = bson::RawBson::Document(rawdoc! { "_data": "82" });
    let position = Some(Position { token, cluster_time }).filter(|_| time > 0);
    Checkpoint {
        epoch: 1,
        log: LogId(Uuid::from_bytes([1; 16])),
        position,
        passed_events: None,
        rows: None,
    }
}

pub(super) async fn the_first_log_that_is_claimed_stays_on_record_for_every_part(
    server: &impl Server,
) {
    let halves = [0, 1].map(|index| Part { index, of: 2 });
    let (one, other) = ([1; 16], [2; 16]);
    let log = |bytes| LogId(Uuid::from_bytes(bytes));
    for (part, claimed, is_it) in [
        (halves[1], one, true),
        (halves[0], one, true),
        (halves[0], other, false),
        (Part::WHOLE, other, false),
    ] {
        let claim = server.store_of(part).claim_log(log(claimed)).await.unwrap();
        assert_eq!(claim, is_it, "{part} {claimed:?}");
    }
    let claimed =
        Checkpoint { position: None, log: log(one), epoch: 0, passed_events: None, rows: None };
    assert_eq!(server.store().load_checkpoints().await.unwrap(), [(Part::WHOLE, claimed)]);
    server.store().save_checkpoint(&checkpoint(3)).await.unwrap();
    assert!(server.store_of(halves[0]).claim_log(log(one)).await.unwrap());
    let saved = server.store().load_checkpoints().await.unwrap();
    assert_eq!(saved, [(Part::WHOLE, checkpoint(3))], "a claim changes nothing");
}

pub(super) async fn each_part_has_a_checkpoint_and_records_of_its_own(server: &impl Server) {
    let halves = [0, 1].map(|index| Part { index, of: 2 });
    let all = [(Part::WHOLE, 3), (halves[0], 4), (halves[1], 0)];
    for (part, time) in all {
        assert!(server.store_of(part).save_checkpoint(&checkpoint(time)).await.unwrap());
    }
    for part in [Part::WHOLE, halves[1]] {
        let mut saved = server.store_of(part).load_checkpoints().await.unwrap();
        saved.sort_by_key(|(part, _)| (part.of, part.index));
        assert_eq!(saved, all.map(|(part, time)| (part, checkpoint(time))));
    }
    let documents = ["a", "b", "c", "d"].map(id);
    let mark = Quarantine { class: Class::Gap, version: 2, reason: "because".into() };
    let since = DateTime::from_millis(5);
    let row = |document: &DocumentId| QuarantineRow {
        document: document.clone(),
        mark: mark.clone(),
        since,
    };
    let rows: Vec<QuarantineRow> = documents.iter().map(row).collect();
    server.store().put_quarantine(&rows).await.unwrap();
    for part in [Part::WHOLE, halves[0], halves[1]] {
        let found = server.store_of(part).load_quarantine().await.unwrap();
        let found: Vec<&DocumentId> = found.iter().map(|row| &row.document).collect();
        let held: Vec<&DocumentId> = documents.iter().filter(|id| part.holds(id)).collect();
        assert_eq!(found, held, "{part}");
    }
}

pub(super) async fn a_division_is_what_was_set_last_and_what_is_left_of_others_goes(
    server: &impl Server,
) {
    let (layouts, leases, store) = (server.layouts(), server.leases(), server.store());
    let whole = lease(Some("me"), 1, 0);
    leases.take_lease(&whole, None).await.unwrap();
    store.save_checkpoint(&checkpoint(3)).await.unwrap();
    let third = server.store_of(Part { index: 0, of: 3 });
    third.save_checkpoint(&checkpoint(3)).await.unwrap();
    for of in [3, 2] {
        layouts.set_layout(COLLECTION, of, "me").await.unwrap();
        let known = layouts.load_layouts().await.unwrap();
        assert_eq!(known.get(COLLECTION).map(|known| &known.0), Some(&Layout::Parts(of)));
    }
    let halves = [0, 1].map(|index| Part { index, of: 2 });
    let saved = async || -> Vec<Part> {
        let saved = store.load_checkpoints().await.unwrap();
        saved.iter().map(|(part, _)| *part).collect()
    };
    for (part, time, is_enough) in
        [(halves[0], 4, false), (halves[1], 0, false), (halves[1], 4, true)]
    {
        server.store_of(part).save_checkpoint(&checkpoint(time)).await.unwrap();
        assert!(!layouts.retire_layouts(COLLECTION, 3).await.unwrap(), "another one by now");
        let name = LeaseName { collection: COLLECTION.into(), part };
        let lease = Lease { name, ..lease(Some("me"), 2, 0) };
        leases.take_lease(&lease, None).await.unwrap();
        assert_eq!(layouts.retire_layouts(COLLECTION, 2).await.unwrap(), is_enough);
    }
    let thirds = saved().await.iter().filter(|part| part.of == 3).count();
    assert_eq!((thirds, saved().await.len()), (0, 3), "that of the whole says which log it is");
    let roster = leases.load_roster().await.unwrap();
    assert_eq!(roster.leases.iter().map(|lease| lease.name.part).collect::<Vec<_>>(), halves);
}
