//! What is claimed about MongoDB, each claim as one test body.

use bson::{DateTime, RawDocumentBuf, Timestamp, Uuid, rawdoc};

use super::Server;
pub(super) use super::compacting::{
    a_base_takes_the_place_of_what_it_was_made_of_and_no_stream_tells_of_it,
    a_step_of_pruning_that_finds_too_little_does_nothing,
    marks_and_clients_are_those_of_the_log_and_of_the_documents,
    steps_of_pruning_are_taken_together_or_not_at_all,
    what_came_late_is_kept_on_record_and_taken_out,
    what_is_put_back_takes_free_places_together_with_its_base_or_not_at_all,
};
pub(super) use super::mending::{
    a_skip_is_on_record_together_with_its_row_or_not_at_all,
    what_fills_a_gap_takes_the_place_of_nothing,
    what_is_above_a_gap_is_skipped_together_with_the_event_that_fills_it,
};
pub(super) use super::naming::{
    a_log_is_found_under_its_name_alone, a_read_passes_over_keys_that_are_none,
    a_read_that_does_not_fit_in_one_reply_is_cut, a_scan_of_a_log_that_is_taken_away_fails,
    a_scan_whose_log_was_away_for_a_moment_gives_all_or_fails,
    every_command_is_refused_while_its_log_is_not_there,
};
pub(super) use super::parts::{
    a_division_is_what_was_set_last_and_what_is_left_of_others_goes,
    each_part_has_a_checkpoint_and_records_of_its_own,
    the_first_log_that_is_claimed_stays_on_record_for_every_part,
};
pub(super) use super::rows::{
    an_unreadable_row_gives_way_if_it_is_the_one_that_was_read,
    rows_that_are_taken_away_are_told_of,
};
use crate::{
    database::{Error, Verdict},
    log::{Batch, Bodies, EventLog, LogSource, Scan, Start, Tail, TailBatch, TailItem},
    model::{
        document::{Class, Quarantine},
        event::EventKey,
        id::DocumentId,
        part::Part,
        position::{Checkpoint, LogId, Position},
    },
    simulation::world::{COLLECTION, EVENTS},
    store::{
        Checkpoints, Documents, Lease, LeaseName, Leases, Presence, QuarantineRow, QuarantineRows,
        RowOutcome, RowWrite,
    },
};

pub(super) fn event(document: &str, version: i64) -> RawDocumentBuf {
    rawdoc! { "_id": { "d": document, "s": version }, "client": "c", "op": "update", "patch": {}, "at": DateTime::MIN }
}

pub(super) fn id(document: &str) -> DocumentId {
    DocumentId::String(document.into())
}

/// What a batch of a tail says, in words.
fn told(batch: &TailBatch) -> Vec<String> {
    let told = batch.changes.documents().unwrap().map(|change| {
        match TailItem::decode(change.unwrap(), |name| name == EVENTS).unwrap() {
            TailItem::Event { event, .. } => {
                let key = EventKey::from_event(event).unwrap();
                format!("{} {}", key.document, key.version)
            }
            TailItem::Gone { .. } => "gone".to_owned(),
            other => format!("{other:?}"),
        }
    });
    told.collect()
}

pub(super) async fn tail<S: Server>(server: &S, start: &Start) -> <S::Source as LogSource>::Tail {
    server.source().tail(&[COLLECTION.into()], start, Bodies::All).await.unwrap()
}

/// The first `count` things that a tail tells, and the place after them.
pub(super) async fn first(tail: &mut impl Tail, count: usize) -> (Vec<String>, Position) {
    let mut all = Vec::new();
    loop {
        let batch = tail.next().await.unwrap();
        all.extend(told(&batch));
        if all.len() >= count {
            return (all, batch.position);
        }
    }
}

/// When the first event was appended that a tail from `start` tells. The place after a batch may be later: it
/// moves on with whatever else the server does.
async fn time_of_first(server: &impl Server, start: &Start) -> Timestamp {
    let mut tail = tail(server, start).await;
    loop {
        let batch = tail.next().await.unwrap();
        for change in batch.changes.documents().unwrap() {
            let item = TailItem::decode(change.unwrap(), |name| name == EVENTS).unwrap();
            if let TailItem::Event { cluster_time, .. } = item {
                return cluster_time;
            }
        }
    }
}

pub(super) fn keys(batch: &Batch) -> Vec<EventKey> {
    batch.documents().unwrap().map(|event| EventKey::from_event(event.unwrap()).unwrap()).collect()
}

pub(super) async fn a_tail_delivers_what_follows_in_order(server: &impl Server) {
    server.append(&[event("a", 1)]).await;
    let before = server.source().now().await.unwrap();
    let start = Start::At(Timestamp { time: before.time, increment: before.increment + 1 });
    server.append(&[event("b", 1), event("a", 2), event("b", 2)]).await;
    server.append_elsewhere(&event("z", 1)).await;
    server.append(&[event("a", 3)]).await;
    let (told, _) = first(&mut tail(server, &start).await, 4).await;
    assert_eq!(told, ["b 1", "a 2", "b 2", "a 3"]);
}

pub(super) async fn a_tail_resumes_after_a_token_and_at_a_time(server: &impl Server) {
    let start = Start::At(server.source().now().await.unwrap());
    server.append(&[event("a", 1)]).await;
    let (_, position) = first(&mut tail(server, &start).await, 1).await;
    server.append(&[event("a", 2)]).await;
    let after = Start::After(position);
    assert_eq!(first(&mut tail(server, &after).await, 1).await.0, ["a 2"]);
    let at = Start::At(time_of_first(server, &start).await);
    assert_eq!(first(&mut tail(server, &at).await, 2).await.0, ["a 1", "a 2"]);
}

pub(super) async fn an_idle_tail_moves_its_token(server: &impl Server) {
    let start = Start::At(server.source().now().await.unwrap());
    server.append(&[event("a", 1)]).await;
    let mut stream = tail(server, &start).await;
    let (_, position) = first(&mut stream, 1).await;
    server.append_elsewhere(&event("z", 1)).await;
    let moved = loop {
        let batch = stream.next().await.unwrap();
        assert_eq!(told(&batch), [""; 0]);
        if batch.position != position {
            break batch.position;
        }
    };
    assert!(moved.cluster_time > position.cluster_time);
    server.append(&[event("a", 2)]).await;
    assert_eq!(first(&mut tail(server, &Start::After(moved)).await, 1).await.0, ["a 2"]);
}

pub(super) async fn a_transaction_is_delivered_in_the_order_of_its_inserts(server: &impl Server) {
    let start = Start::At(server.source().now().await.unwrap());
    server.append_together(&[event("a", 2), event("b", 1), event("a", 1)]).await;
    let (told, _) = first(&mut tail(server, &start).await, 3).await;
    assert_eq!(told, ["a 2", "b 1", "a 1"]);
    // They share one cluster time: resuming at it begins with the first of them.
    let at = Start::At(time_of_first(server, &start).await);
    let again = first(&mut tail(server, &at).await, 3).await;
    assert_eq!(again.0, ["a 2", "b 1", "a 1"]);
}

pub(super) async fn a_token_of_another_stream_is_refused_unless_nothing_hangs_on_it(
    server: &impl Server,
) {
    let source = server.source();
    let start = Start::At(source.now().await.unwrap());
    server.append_elsewhere(&event("z", 1)).await;
    // The server looks for the token when there is something to deliver after it.
    server.append(&[event("a", 1)]).await;
    let both = [COLLECTION.to_owned(), "others".to_owned()];
    let mut wide = source.tail(&both, &start, Bodies::All).await.unwrap();
    let batch = loop {
        let batch = wide.next().await.unwrap();
        if !told(&batch).is_empty() {
            break batch;
        }
    };
    // The change's own token: that of the batch may lie behind it already.
    let change = batch.changes.documents().unwrap().next().unwrap().unwrap();
    let token = change.get("_id").unwrap().unwrap().into();
    let position = Position { token, cluster_time: change.get_timestamp("clusterTime").unwrap() };
    let refused = match source.tail(&both[..1], &Start::After(position.clone()), Bodies::All).await
    {
        Err(error) => error,
        Ok(mut tail) => tail.next().await.unwrap_err(),
    };
    assert_eq!((refused.code(), refused.verdict()), (Some(280), Verdict::Reposition));
    let by_time = Start::At(position.cluster_time);
    assert_eq!(first(&mut tail(server, &by_time).await, 1).await.0, ["a 1"]);
}

pub(super) async fn a_log_that_forgot_nothing_is_tailed_from_any_time(server: &impl Server) {
    server.append(&[event("a", 1)]).await;
    let start = Start::At(Timestamp { time: 1, increment: 1 });
    let (told, _) = first(&mut tail(server, &start).await, 1).await;
    assert!(told.contains(&"a 1".to_owned()), "{told:?}");
}

pub(super) async fn a_dropped_log_is_told_of_and_another_takes_its_place(server: &impl Server) {
    let start = Start::At(server.source().now().await.unwrap());
    server.append(&[event("a", 1)]).await;
    server.drop_log().await;
    server.make_log().await;
    server.append(&[event("a", 1)]).await;
    assert_eq!(first(&mut tail(server, &start).await, 3).await.0, ["a 1", "gone", "a 1"]);
}

pub(super) async fn a_renamed_log_is_told_of(server: &impl Server) {
    let start = Start::At(server.source().now().await.unwrap());
    server.append(&[event("a", 1)]).await;
    server.rename_log().await;
    server.rename_log_back().await;
    let arrived = format!("{:?}", TailItem::Arrived { events: EVENTS });
    assert_eq!(first(&mut tail(server, &start).await, 3).await.0, ["a 1", "gone", &arrived]);
}

pub(super) async fn a_scan_sees_everything_before_its_time_in_order(server: &impl Server) {
    let integer =
        rawdoc! { "_id": { "d": 7.0, "s": 1 }, "client": "c", "op": "delete", "at": DateTime::MIN };
    server.append(&[event("b", 2), event("a", 10), event("a", 9), integer, event("b", 1)]).await;
    // Not yet at majority perhaps, but before the time that the scan is given.
    server.append_carelessly(&event("c", 1)).await;
    let now = server.source().now().await.unwrap();
    let log = server.source().open_existing(COLLECTION).await.unwrap();
    let all = scanned(&log, None, now).await.unwrap();
    assert_eq!(all, ["7 1", "a 9", "a 10", "b 1", "b 2", "c 1"]);
    let after = EventKey { document: id("a"), version: 9 };
    assert_eq!(scanned(&log, Some(&after), now).await.unwrap(), ["a 10", "b 1", "b 2", "c 1"]);
}

pub(super) async fn scanned(
    log: &impl EventLog,
    after: Option<&EventKey>,
    at_least: Timestamp,
) -> Result<Vec<String>, Error> {
    let mut scan = log.scan(after, at_least).await?;
    let mut all = Vec::new();
    while let Some(batch) = scan.next().await? {
        all.extend(keys(&batch).iter().map(|key| match &key.document {
            DocumentId::Integer(number) => format!("{number} {}", key.version),
            document => format!("{document} {}", key.version),
        }));
    }
    Ok(all)
}

pub(super) async fn a_read_is_bounded(server: &impl Server) {
    server
        .append(&[event("a", 1), event("a", 2), event("a", 3), event("a", 5), event("b", 4)])
        .await;
    let log = server.source().open_existing(COLLECTION).await.unwrap();
    let now = server.source().now().await.unwrap();
    let versions = async |after: i64, limit: u32| -> Vec<i64> {
        let batch = log.read(&id("a"), after, limit, Some(now)).await.unwrap();
        keys(&batch).iter().map(|key| key.version).collect()
    };
    assert_eq!(versions(0, 10).await, [1, 2, 3, 5]);
    assert_eq!(versions(1, 2).await, [2, 3]);
    assert_eq!(versions(5, 10).await, [0; 0]);
}

pub(super) fn write(expected: i64, version: i64, extra: RawDocumentBuf) -> RowWrite {
    let mut row = rawdoc! { "_id": "a", "version": version };
    extra.iter().flatten().for_each(|(key, value)| row.append(key, value));
    RowWrite::new(id("a"), (expected, version), row)
}

pub(super) async fn outcome(server: &impl Server, write: RowWrite) -> RowOutcome {
    server.store().write(&[write]).await.unwrap().remove(0)
}

pub(super) async fn a_row_is_written_only_over_what_was_read(server: &impl Server) {
    let plain = || rawdoc! {};
    let marked = || rawdoc! { "quarantine": { "class": "gap", "version": 3, "reason": "" } };
    assert_eq!(outcome(server, write(1, 2, plain())).await, RowOutcome::Stale);
    assert_eq!(outcome(server, write(0, 2, plain())).await, RowOutcome::Written);
    // The same again, as after a lost answer.
    assert_eq!(outcome(server, write(0, 2, plain())).await, RowOutcome::Written);
    assert_eq!(outcome(server, write(0, 1, plain())).await, RowOutcome::Stale);
    assert_eq!(outcome(server, write(1, 3, plain())).await, RowOutcome::Stale);
    // At the right version, and another row all the same.
    assert_eq!(outcome(server, write(0, 2, rawdoc! { "state": {} })).await, RowOutcome::Stale);
    // At the right version, but without the mark.
    assert_eq!(outcome(server, write(0, 2, marked())).await, RowOutcome::Stale);
    assert_eq!(outcome(server, write(2, 2, marked())).await, RowOutcome::Written);
    let rows = server.store().load(&[id("a"), id("b")]).await.unwrap();
    assert_eq!(rows, [write(2, 2, marked()).row]);
}

pub(super) async fn a_row_that_must_not_be_replaced_is_deleted_and_followed(server: &impl Server) {
    let anew = |expected, version, state: RawDocumentBuf| RowWrite {
        is_unsound: true,
        ..write(expected, version, rawdoc! { "state": state })
    };
    assert_eq!(outcome(server, anew(1, 2, rawdoc! {})).await, RowOutcome::Stale);
    assert_eq!(outcome(server, write(0, 1, rawdoc! {})).await, RowOutcome::Written);
    assert_eq!(outcome(server, anew(2, 3, rawdoc! {})).await, RowOutcome::Stale);
    assert_eq!(outcome(server, anew(1, 2, rawdoc! { "n": 1 })).await, RowOutcome::Written);
    // The same again, as after a lost answer; and another one of that version.
    assert_eq!(outcome(server, anew(1, 2, rawdoc! { "n": 1 })).await, RowOutcome::Written);
    assert_eq!(outcome(server, anew(1, 2, rawdoc! { "n": 2 })).await, RowOutcome::Stale);
    server.refuse_name("bad").await;
    let refused = outcome(server, anew(2, 3, rawdoc! { "name": "bad" })).await;
    assert!(matches!(refused, RowOutcome::Rejected { code: 121, .. }), "{refused:?}");
    let rows = server.store().load(&[id("a")]).await.unwrap();
    assert_eq!(rows, [anew(1, 2, rawdoc! { "n": 1 }).row]);
}

pub(super) async fn a_refused_row_is_told_of(server: &impl Server) {
    server.refuse_name("bad").await;
    let named = |name: &str| rawdoc! { "state": { "name": name } };
    let refused = outcome(server, write(0, 1, named("bad"))).await;
    assert!(matches!(refused, RowOutcome::Rejected { code: 121, .. }), "{refused:?}");
    assert_eq!(outcome(server, write(0, 1, named("good"))).await, RowOutcome::Written);
    let refused = outcome(server, write(1, 2, named("bad"))).await;
    assert!(matches!(refused, RowOutcome::Rejected { code: 121, .. }), "{refused:?}");
}

pub(super) async fn a_checkpoint_gives_way_to_no_earlier_epoch_and_no_other_log(
    server: &impl Server,
) {
    let store = server.store();
    assert_eq!(store.load_checkpoints().await.unwrap(), []);
    let (one, other) = ([1; 16], [2; 16]);
    let at = |epoch, log, position| Checkpoint {
        rows: None,
        epoch,
        log: LogId(Uuid::from_bytes(log)),
        position,
        passed_events: None,
    };
    let token = rawdoc! { "_data": "82" };
    let cluster_time = Timestamp { time: 5, increment: 6 };
    let position = Position { token: bson::RawBson::Document(token), cluster_time };
    for (checkpoint, saved) in [
        (at(2, one, None), true),
        (at(1, one, Some(position.clone())), false),
        (at(2, one, Some(position.clone())), true),
        (at(3, other, Some(position.clone())), false),
        (at(3, one, Some(position.clone())), true),
    ] {
        assert_eq!(store.save_checkpoint(&checkpoint).await.unwrap(), saved, "{checkpoint:?}");
    }
    let mut saved = at(3, one, Some(position));
    assert_eq!(store.load_checkpoints().await.unwrap(), [(Part::WHOLE, saved.clone())]);
    saved.passed_events = Some(7);
    assert!(store.save_checkpoint(&saved).await.unwrap());
    assert_eq!(store.load_checkpoints().await.unwrap(), [(Part::WHOLE, saved)]);
}

pub(super) async fn the_events_of_a_log_are_counted(server: &impl Server) {
    let log = server.source().open_existing(COLLECTION).await.unwrap();
    let count = async || log.estimated_events().await.unwrap();
    assert_eq!(count().await, 0);
    server.append(&[event("a", 1), event("b", 1)]).await;
    server.append_together(&[event("a", 2), event("c", 7)]).await;
    assert_eq!(count().await, 4);
    // Also what the majority may not have yet, and of no other log.
    server.append_carelessly(&event("a", 3)).await;
    server.append_elsewhere(&event("a", 4)).await;
    assert_eq!(count().await, 5);
    server.rename_log().await;
    assert_eq!(count().await, 0, "of a log that is not there");
    server.make_log().await;
    server.append(&[event("a", 1)]).await;
    server.drop_log().await;
    assert_eq!(count().await, 0);
}

pub(super) async fn a_record_of_quarantine_gives_way_to_later_ones_only(server: &impl Server) {
    let store = server.store();
    let row = |version, class| QuarantineRow {
        document: id("a"),
        mark: Quarantine { class, version, reason: "because".into() },
        since: DateTime::from_millis(5),
    };
    let versions = async || -> Vec<i64> {
        store.load_quarantine().await.unwrap().iter().map(|row| row.mark.version).collect()
    };
    for (put, then) in [(3, 3), (2, 3), (5, 5)] {
        store.put_quarantine(&[row(put, Class::Gap)]).await.unwrap();
        assert_eq!(versions().await, [then]);
    }
    store.put_quarantine(&[row(5, Class::BadPatch)]).await.unwrap();
    assert_eq!(store.load_quarantine().await.unwrap(), [row(5, Class::BadPatch)]);
    for (healed, then) in [(4, &[5][..]), (5, &[])] {
        store.remove_quarantine(&[(id("a"), healed)]).await.unwrap();
        assert_eq!(versions().await, then);
    }
}

pub(super) fn lease(holder: Option<&str>, epoch: i64, beat: i64) -> Lease {
    let name = LeaseName { collection: COLLECTION.into(), part: Part::WHOLE };
    Lease { name, holder: holder.map(str::to_owned), epoch, beat }
}

pub(super) async fn a_lease_changes_hands_only_as_it_was_seen(server: &impl Server) {
    let leases = server.leases();
    let (free, mine, theirs) =
        (lease(None, 1, 2), lease(Some("me"), 1, 0), lease(Some("it"), 2, 0));
    for (wanted, seen, taken) in [
        (&mine, Some(&theirs), false),
        (&mine, None, true),
        (&theirs, None, false),
        (&theirs, Some(&free), false),
        (&theirs, Some(&mine), true),
    ] {
        assert_eq!(leases.take_lease(wanted, seen).await.unwrap(), taken, "{wanted:?} {seen:?}");
    }
    let given_back = lease(None, 2, 3);
    for (renewed, is_held) in [(&lease(Some("me"), 1, 1), false), (&given_back, true)] {
        assert_eq!(leases.renew_lease(renewed).await.unwrap(), is_held, "{renewed:?}");
    }
    assert_eq!(leases.load_roster().await.unwrap().leases, [given_back]);
}

pub(super) async fn a_presence_is_there_until_it_is_removed(server: &impl Server) {
    let leases = server.leases();
    let me = |beat| Presence { instance: "me".into(), beat };
    leases.show_presence(&me(1)).await.unwrap();
    leases.show_presence(&me(2)).await.unwrap();
    assert_eq!(leases.load_roster().await.unwrap().instances, [me(2)]);
    leases.remove_presence("me").await.unwrap();
    leases.remove_presence("me").await.unwrap();
    assert_eq!(leases.load_roster().await.unwrap().instances, []);
}

pub(super) async fn the_clock_of_the_server_is_one_and_goes_on(server: &impl Server) {
    let (leases, store) = (server.leases(), server.store());
    let (first, second) = (leases.server_time().await.unwrap(), store.server_time().await.unwrap());
    // Log and clock are of one time, but for the second to which that of the log is rounded.
    let log = i64::from(server.source().now().await.unwrap().time);
    let third = leases.server_time().await.unwrap();
    assert!(first <= second && second <= third, "{first} {second} {third}");
    let seconds = [first, third].map(|time| time.timestamp_millis() / 1_000);
    assert!(log.abs_diff(seconds[0]) < 60 && log.abs_diff(seconds[1]) < 60, "{log} {seconds:?}");
}

pub(super) async fn the_epoch_of_a_checkpoint_is_the_floor_of_a_lease(server: &impl Server) {
    let (leases, name) = (server.leases(), lease(None, 0, 0).name);
    assert_eq!(leases.epoch_floor(&name).await.unwrap(), 0);
    let log = LogId(Uuid::from_bytes([1; 16]));
    let checkpoint = Checkpoint { epoch: 7, log, position: None, passed_events: None, rows: None };
    server.store().save_checkpoint(&checkpoint).await.unwrap();
    assert_eq!(leases.epoch_floor(&name).await.unwrap(), 7);
}
