//! The one way in which a projection asks the database for something. Every request has a time limit and is tried again
//! for as long as the database is merely away; trouble is told; each answer is a turn of the loop; and the flush under way
//! goes on meanwhile.

use std::{future::Future, slice};

use bson::{RawDocumentBuf, Timestamp};
use futures::future::try_join_all;

use super::{flush::flushing::Flushing, rows::Rows};
use crate::{
    database::{Error, Result, Verdict},
    log::{Batch, EventLog},
    model::{
        id::DocumentId,
        skip::{SkippedVersions, Skips},
    },
    observe::Observer,
    planted::{Bug, planted},
    retry::{Backoff, limited},
    store::{QuarantineRow, RowOutcome, RowVersion, RowWrite, Store},
    time::Time,
};

/// How many events of one document are asked for at once.
const READ_EVENTS_MAX: u32 = 1_000;
/// How many documents are loaded by one query, whose reply has 16 MB at most.
const LOAD_DOCUMENTS_MAX: usize = 1_000;
/// How many such queries run at once, where the last replies were small.
const LOADS_AT_ONCE: usize = 4;
/// The largest reply that is.
const SMALL_BYTES_MAX: usize = 2 << 20;

/// See the module.
pub(super) struct Ask<L: EventLog, D: Store, T: Time> {
    pub(super) log: L,
    pub(super) store: D,
    pub(super) time: T,
    pub(super) backoff: Backoff,
    pub(super) observer: Observer,
    pub(super) flushing: Flushing,
    /// The latest cluster time that anything was received with. Events and rows that are read must not be older, whichever
    /// member answers.
    seen: Timestamp,
    are_rows_small: bool,
}

impl<L: EventLog, D: Store, T: Time> Ask<L, D, T> {
    /// Asks this log and this store from now on; reads see everything before `seen`.
    pub(super) fn new(
        (log, store): (L, D),
        (time, backoff): (T, Backoff),
        observer: Observer,
        seen: Timestamp,
    ) -> Self {
        let flushing = Flushing::Idle;
        Self { log, store, time, backoff, observer, flushing, seen, are_rows_small: false }
    }

    /// The latest time of anything that was received.
    pub(super) fn seen(&self) -> Timestamp {
        self.seen
    }

    /// Something was received that was there at this time.
    pub(super) fn has_seen(&mut self, time: Option<Timestamp>) {
        self.seen = time.map_or(self.seen, |time| self.seen.max(time));
    }

    /// Events of one document above a version, in order; an empty batch at the end of its log.
    pub(super) async fn read(&mut self, id: &DocumentId, after: i64) -> Result<Batch> {
        let mut batches = self.read_many(slice::from_ref(&(id.clone(), after))).await?;
        batches.pop().ok_or_else(|| Error::damaged("a read without an answer"))
    }

    /// What stands first in the history of a document.
    pub(super) async fn first(&mut self, id: &DocumentId) -> Result<Batch> {
        let Self { log, time, backoff, observer, flushing, seen, .. } = self;
        let (log, time, observer, seen) = (&*log, &*time, &*observer, Some(*seen));
        let report = |error: &Error, _| observer.tried(error, time);
        let first = flushing.beside(backoff.retry(time, report, || log.first(id, seen))).await?;
        self.has_seen(first.read_at());
        Ok(first)
    }

    /// The same for several documents at once, each with its version.
    pub(super) async fn read_many(&mut self, of: &[(DocumentId, i64)]) -> Result<Vec<Batch>> {
        let Self { log, time, backoff, observer, flushing, seen, .. } = self;
        let (log, time, observer, seen) = (&*log, &*time, &*observer, Some(*seen));
        let mut reads = Vec::with_capacity(of.len());
        for (id, after) in of {
            let report = move |error: &Error, _| observer.tried(error, time);
            let read = move || log.read(id, *after, READ_EVENTS_MAX, seen);
            reads.push(backoff.retry(time, report, read));
        }
        let batches = flushing.beside(try_join_all(reads)).await?;
        observer.turned(time);
        for batch in &batches {
            self.has_seen(batch.read_at());
        }
        Ok(batches)
    }

    /// The rows of some of these documents, which stand in ascending order, of those that have one; and the documents
    /// that are left.
    pub(super) async fn load_some(
        &mut self,
        ids: &[DocumentId],
    ) -> Result<(Vec<RawDocumentBuf>, Vec<DocumentId>)> {
        let Self { store, time, backoff, observer, flushing, seen, are_rows_small, .. } = self;
        // A row may be loaded because it is gone, which another member need not know yet.
        let (store, time, observer, seen) = (&*store, &*time, &*observer, *seen);
        let queries = if *are_rows_small { LOADS_AT_ONCE } else { 1 };
        let asked = ids.chunks(LOAD_DOCUMENTS_MAX).take(queries);
        let mut loads = Vec::new();
        for ids in asked.clone() {
            let report = move |error: &Error, _| observer.tried(error, time);
            loads.push(backoff.retry(time, report, move || store.load_some(ids, seen)));
        }
        let replies = flushing.beside(try_join_all(loads)).await?;
        observer.turned(time);
        let (mut rows, mut left) = (Vec::new(), Vec::new());
        *are_rows_small = true;
        for (ids, reply) in asked.zip(replies) {
            let bytes: usize = reply.rows.iter().map(|row| row.as_bytes().len()).sum();
            *are_rows_small &= bytes <= SMALL_BYTES_MAX;
            rows.extend(reply.rows);
            left.extend(ids.iter().skip(reply.told).cloned());
        }
        left.extend(ids.iter().skip(queries * LOAD_DOCUMENTS_MAX).cloned());
        Ok((rows, left))
    }

    /// Everything that is on record as waiting.
    pub(super) async fn records(&mut self) -> Result<Vec<QuarantineRow>> {
        let store = self.store.clone();
        let mut records = self.retry(|| store.load_quarantine()).await?;
        records.retain(|_| !planted(Bug::ParkedEventForgotten));
        Ok(records)
    }

    /// Which events are skipped.
    pub(super) async fn skips(&mut self) -> Result<Skips> {
        let store = self.store.clone();
        self.retry(|| store.load_skips()).await
    }

    /// Which events of one document are skipped, as of the last thing that was received.
    pub(super) async fn skips_of(&mut self, id: &DocumentId) -> Result<SkippedVersions> {
        let store = self.store.clone();
        let seen = self.seen;
        self.retry(|| store.load_skips_of(id, Some(seen))).await
    }

    /// Writes rows; an outcome for each.
    pub(super) async fn write(&mut self, writes: &[RowWrite]) -> Result<Vec<RowOutcome>> {
        let store = self.store.clone();
        self.retry(|| store.write(writes)).await
    }

    /// About how many events the log holds. Nothing depends on it, so it is asked once and not waited for.
    pub(super) async fn count(&mut self) -> Result<u64> {
        let Self { log, time, backoff, observer, flushing, .. } = self;
        let counting = limited(&*time, backoff.attempt_limit, log.estimated_events());
        let count = flushing.beside(counting).await;
        observer.turned(&*time);
        count
    }

    /// The next row of a walk up to `end`. The walk remembers how far it has come, also where it fails.
    pub(super) async fn next_row(
        &mut self,
        rows: &mut Rows<D>,
        end: Option<&DocumentId>,
    ) -> Result<Option<RowVersion>> {
        loop {
            let Self { store, time, backoff, observer, flushing, .. } = self;
            let asked = limited(&*time, backoff.attempt_limit, rows.next(store, end));
            match flushing.beside(asked).await {
                Err(error) if error.verdict() == Verdict::Retry => {
                    observer.tried(&error, &*time);
                    time.sleep(backoff.shortest).await;
                }
                answer => return answer,
            }
        }
    }

    async fn retry<V, F: Future<Output = Result<V>>>(
        &mut self,
        request: impl FnMut() -> F,
    ) -> Result<V> {
        let Self { time, backoff, observer, flushing, .. } = self;
        let report = |error: &Error, _| observer.tried(error, &*time);
        let answer = flushing.beside(backoff.retry(&*time, report, request)).await;
        observer.turned(&*time);
        answer
    }
}
