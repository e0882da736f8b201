//! Whether the in-memory replica set behaves as MongoDB does: every test body here runs against both,
//! through the same traits. What the simulation rests on, and what is not checked here, is not known.

mod bodies;
mod compacting;
mod mending;
mod naming;
mod parts;
mod real;
mod rows;
mod twin;

use bson::RawDocumentBuf;

use crate::{
    log::{LogSource, Mend},
    model::{
        compaction::{LiveClient, Mark},
        id::DocumentId,
        part::Part,
        position::LogId,
    },
    store::{Bases, Layouts, Leases, Store},
};

/// A server with one log, as a test body drives it.
trait Server {
    type Source: LogSource<Log: Mend>;
    type Store: Store + Bases;
    type Leases: Leases;
    type Layouts: Layouts;

    /// So many events that a scan still has to ask for some after the first batch is here.
    const NOT_READ_AHEAD: i64;

    /// The size of an event of which two do not fit in one reply, and that one by itself does.
    const LARGE_EVENT: usize;

    fn source(&self) -> Self::Source;

    fn store(&self) -> Self::Store {
        self.store_of(Part::WHOLE)
    }

    fn store_of(&self, part: Part) -> Self::Store;

    fn leases(&self) -> Self::Leases;

    fn layouts(&self) -> Self::Layouts;

    /// Appends events in order, at majority, each by itself.
    async fn append(&self, events: &[RawDocumentBuf]);

    /// Appends events in one transaction.
    async fn append_together(&self, events: &[RawDocumentBuf]);

    /// Appends an event without waiting for the majority.
    async fn append_carelessly(&self, event: &RawDocumentBuf);

    /// Appends an event to the log of another collection, `others`.
    async fn append_elsewhere(&self, event: &RawDocumentBuf);

    /// Drops the log.
    async fn drop_log(&self);

    /// Makes the log, which is not there.
    async fn make_log(&self);

    /// Renames the log to `old.events`.
    async fn rename_log(&self);

    /// Gives it its name back.
    async fn rename_log_back(&self);

    /// Deletes a row of `a`, as somebody would who is no daemon.
    async fn delete_row(&self);

    /// Puts a row in the place of that of `a`, in the same way.
    async fn put_row(&self, row: &RawDocumentBuf);

    /// Drops the collection of rows.
    async fn drop_rows(&self);

    /// From now on projected documents whose state has this name are refused.
    async fn refuse_name(&self, name: &str);

    /// Notes how large a document was.
    async fn mark(&self, log: LogId, id: &DocumentId, marks: &[Mark]);

    /// A client tells what it has of a document.
    async fn acknowledge(&self, id: &DocumentId, client: LiveClient);

    /// The late events that were kept, in the order of their places.
    async fn late_on_record(&self) -> Vec<RawDocumentBuf>;
}

macro_rules! conform {
    ($($body:ident),* $(,)?) => {
        mod on_the_twin {
            $(#[test] fn $body() { super::twin::run(|server| Box::pin(async move { super::bodies::$body(&server).await })); })*
        }
        mod on_mongodb {
            $(#[test] fn $body() { super::real::run(async |server| super::bodies::$body(&server).await); })*
        }
    };
}

conform!(
    a_tail_delivers_what_follows_in_order,
    a_tail_resumes_after_a_token_and_at_a_time,
    an_idle_tail_moves_its_token,
    a_transaction_is_delivered_in_the_order_of_its_inserts,
    a_token_of_another_stream_is_refused_unless_nothing_hangs_on_it,
    a_log_that_forgot_nothing_is_tailed_from_any_time,
    a_dropped_log_is_told_of_and_another_takes_its_place,
    a_renamed_log_is_told_of,
    a_scan_sees_everything_before_its_time_in_order,
    a_scan_of_a_log_that_is_taken_away_fails,
    a_scan_whose_log_was_away_for_a_moment_gives_all_or_fails,
    a_log_is_found_under_its_name_alone,
    every_command_is_refused_while_its_log_is_not_there,
    a_read_that_does_not_fit_in_one_reply_is_cut,
    a_read_passes_over_keys_that_are_none,
    the_events_of_a_log_are_counted,
    a_read_is_bounded,
    a_row_is_written_only_over_what_was_read,
    a_row_that_must_not_be_replaced_is_deleted_and_followed,
    a_refused_row_is_told_of,
    rows_that_are_taken_away_are_told_of,
    an_unreadable_row_gives_way_if_it_is_the_one_that_was_read,
    a_checkpoint_gives_way_to_no_earlier_epoch_and_no_other_log,
    a_record_of_quarantine_gives_way_to_later_ones_only,
    a_lease_changes_hands_only_as_it_was_seen,
    a_presence_is_there_until_it_is_removed,
    the_clock_of_the_server_is_one_and_goes_on,
    the_first_log_that_is_claimed_stays_on_record_for_every_part,
    each_part_has_a_checkpoint_and_records_of_its_own,
    a_division_is_what_was_set_last_and_what_is_left_of_others_goes,
    the_epoch_of_a_checkpoint_is_the_floor_of_a_lease,
    a_skip_is_on_record_together_with_its_row_or_not_at_all,
    what_is_above_a_gap_is_skipped_together_with_the_event_that_fills_it,
    what_fills_a_gap_takes_the_place_of_nothing,
    a_base_takes_the_place_of_what_it_was_made_of_and_no_stream_tells_of_it,
    steps_of_pruning_are_taken_together_or_not_at_all,
    a_step_of_pruning_that_finds_too_little_does_nothing,
    what_came_late_is_kept_on_record_and_taken_out,
    what_is_put_back_takes_free_places_together_with_its_base_or_not_at_all,
    marks_and_clients_are_those_of_the_log_and_of_the_documents,
);
