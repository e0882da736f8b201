//! Folding batches of events into documents: load what is not in memory, offer each event to its
//! document, and for whoever lacks an earlier event read the log itself. Where the events come from,
//! and when to flush, is decided elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Poll,
};

use bson::{DateTime, RawDocument, Timestamp};
use futures::{future::BoxFuture, poll};

use super::{
    Settings,
    cache::Cache,
    flush::Flushed,
    observe::{Counts, Observer},
    waiting::Waiting,
};
use crate::{
    database::{Error, Result},
    log::EventLog,
    model::{
        document::{Outcome, Quarantine},
        event::EventKey,
        id::DocumentId,
        part::Part,
        position::LogId,
        skip::Skips,
    },
    planted::{Bug, planted},
    store::{QuarantineRow, Store},
    time::Time,
};

/// How many events are folded at a stretch, while the flush under way has to wait.
const STEP_EVENTS: usize = 512;
/// After so many events it is said that the loop still turns: each may take some seconds.
const EVENTS_PER_BEAT: u64 = 8;
/// How many events of one document are asked for at once.
const READ_EVENTS_MAX: u32 = 1_000;

/// Everything that a projector holds in memory, and the means to get more of it.
pub(super) struct Work<L: EventLog, D: Store, T: Time> {
    pub(super) log: L,
    /// Which log that is: one that takes its place is not followed.
    pub(super) followed: LogId,
    /// Whose events it folds.
    pub(super) part: Part,
    pub(super) store: D,
    pub(super) time: T,
    pub(super) settings: Settings,
    pub(super) observer: Observer,
    pub(super) cache: Cache,
    /// Parked documents that are to be looked at once the flush under way has returned.
    pub(super) doubtful: BTreeSet<DocumentId>,
    /// The events of the collection that an operator has skipped.
    pub(super) skips: Skips,
    pub(super) waiting: Waiting,
    pub(super) counts: Counts,
    /// How many events have been offered to their documents.
    pub(super) offered: u64,
    /// When the first change since the last flush was folded.
    pub(super) changed_at: Option<std::time::Duration>,
    /// When the oldest event since the last flush was appended.
    pub(super) oldest: Option<DateTime>,
    /// The latest cluster time that anything was received with: what is read from the log must not be
    /// older, whichever member answers.
    pub(super) seen: Timestamp,
    /// Up to this time it is not proven that what the log did not show is not in it (`away.rs`): no checkpoint
    /// may be saved before the stream has come there.
    pub(super) unproven_until: Option<Timestamp>,
    /// The flush under way.
    pub(super) flush: Option<BoxFuture<'static, Result<Flushed>>>,
    /// What the flush under way became, if it returned while something else was awaited.
    pub(super) flushed: Option<Result<Flushed>>,
}

/// One event to fold.
#[derive(Clone)]
pub(super) struct Arrival<'a> {
    pub(super) key: EventKey,
    pub(super) event: &'a RawDocument,
}

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// Folds a chunk of events. Afterwards every document among them either holds its events or is on
    /// record as waiting.
    pub(super) async fn fold(&mut self, chunk: &[Arrival<'_>]) -> Result<()> {
        if !self.waiting.is_empty() {
            chunk.iter().for_each(|arrival| self.doubt_parked(&arrival.key));
        }
        self.load_missing(chunk).await?;
        self.renew_skips(chunk.iter().map(|arrival| arrival.event)).await?;
        // With the last version that is known to be there.
        let mut behind = BTreeMap::new();
        for step in chunk.chunks(STEP_EVENTS) {
            for events in step.chunk_by(|a, b| a.key.document == b.key.document) {
                if let Some(first) = events.first()
                    && self.offer(&first.key.document, events)
                {
                    let known = behind.entry(first.key.document.clone()).or_insert(0);
                    *known = events.iter().map(|event| event.key.version).fold(*known, i64::max);
                }
            }
            self.advance_flush().await;
        }
        for (id, known) in behind {
            self.read_on(&id, known).await?;
        }
        Ok(())
    }

    /// Offers events to their document, which is in memory. True when the log must be read on from the
    /// document's version: an earlier event is missing here, or the one that was missing arrived.
    pub(super) fn offer(&mut self, id: &DocumentId, events: &[Arrival<'_>]) -> bool {
        let hole = self.waiting.hole(id);
        let skips = self.skips.of(id);
        let Some(slot) = self.cache.edit(id) else { return false };
        let (mut applied, mut reads_on, mut waits, mut poison) = (false, false, false, None);
        for Arrival { key, event } in events {
            self.offered = self.offered.wrapping_add(1);
            if self.offered.is_multiple_of(EVENTS_PER_BEAT) {
                self.observer.turned(&self.time);
            }
            let is_skipped = skips.is_some_and(|skips| skips.contains(key.version))
                && !planted(Bug::SkipsForgotten);
            match slot.document.offer(key, event, is_skipped, &self.settings.limits) {
                Outcome::Replay => self.counts.replayed += 1,
                Outcome::Parked => waits = true,
                Outcome::Applied(op) => {
                    self.counts.applied(op);
                    applied = true;
                }
                Outcome::Skipped => {
                    self.counts.skipped += 1;
                    applied = true;
                }
                // A hole that is on record already needs no second look, unless this event fills it.
                Outcome::Gap { expected } => {
                    waits = true;
                    reads_on |= hole != Some(expected);
                }
                Outcome::Poison(mark) => {
                    poison = Some(mark);
                    break;
                }
            }
        }
        // Another instance may have written the row that was read.
        let has_passed = hole.is_some_and(|hole| slot.document.version >= hole);
        if applied {
            self.cache.edited(id);
            self.note_change();
        }
        if waits && self.waiting.rest_on(id) {
            self.note_change();
        }
        if let Some(mark) = poison {
            self.park(id, mark);
            return false;
        }
        // Whatever it waited for has passed.
        reads_on || has_passed || (applied && self.waiting.waits(id))
    }

    /// Folds what the log holds above the document's version, up to the end or a hole, which goes on record.
    /// An end below `known`, a version that was seen to be there, is one as well: a log that has another
    /// name for a moment reads as empty.
    pub(super) async fn read_on(&mut self, id: &DocumentId, known: i64) -> Result<()> {
        if !self.cache.holds(id) {
            self.load(std::slice::from_ref(id)).await?;
        }
        self.load_skips_of(id).await?;
        let known = known.max(self.waiting.seen_above(id));
        loop {
            let Some(after) = self.cache.edit(id).map(|slot| slot.document.version) else {
                return Ok(());
            };
            // With the last event that the document has: where that is seen, the log was there.
            let (batch, seen_at) = self.read(id, (after - 1).max(0), READ_EVENTS_MAX).await?;
            let mut met = None;
            for event in batch.documents()? {
                let event = event?;
                let key = EventKey::from_event(event)
                    .map_err(|error| Error::damaged(error.to_string()))?;
                met = Some(key.version);
                // The answer whether to read on does not matter: this is reading on.
                let _reading_already = self.offer(id, &[Arrival { key, event }]);
            }
            let Some(slot) = self.cache.edit(id) else { return Ok(()) };
            let (version, parked) = (slot.document.version, slot.document.quarantine.is_some());
            match met {
                _ if parked => return Ok(()),
                Some(met) if met > version => {
                    self.record_hole(id, version + 1, met.max(known));
                    return Ok(());
                }
                Some(_) if version > after => {}
                _ if version < known => {
                    self.record_hole(id, version + 1, known);
                    return Ok(());
                }
                _ => {
                    let unproven = met.is_none().then_some(seen_at);
                    self.unproven_until = self.unproven_until.max(unproven);
                    if self.waiting.heal(id, version, unproven) {
                        self.note_change();
                    }
                    return Ok(());
                }
            }
        }
    }

    fn record_hole(&mut self, id: &DocumentId, missing: i64, known: i64) {
        self.waiting.see_above(id, known);
        if self.waiting.hole(id) == Some(missing) || planted(Bug::HoleNotRecorded) {
            return;
        }
        let mark = Quarantine::gap(missing);
        self.waiting.put(QuarantineRow { document: id.clone(), mark, since: self.time.wall() });
        self.note_change();
    }

    /// Parks a document at its present version.
    pub(super) fn park(&mut self, id: &DocumentId, mark: Quarantine) {
        tracing::warn!(
            collection = self.observer.collection(), document = %id, version = mark.version,
            class = mark.class.name(), reason = mark.reason, "parked"
        );
        if let Some(slot) = self.cache.edit(id) {
            slot.document.quarantine = Some(mark.clone());
        }
        self.cache.edited(id);
        let since = self.waiting.parked_since(id, &mark).unwrap_or_else(|| self.time.wall());
        self.waiting.put(QuarantineRow { document: id.clone(), mark, since });
        self.note_change();
    }

    /// Lets the flush under way take its next step, without waiting for it.
    pub(super) async fn advance_flush(&mut self) {
        let Some(flush) = &mut self.flush else { return };
        if let Poll::Ready(flushed) = poll!(flush) {
            self.flush = None;
            self.flushed = Some(flushed);
        }
    }

    /// Something was received that was there at this time.
    pub(super) fn has_seen(&mut self, time: Option<Timestamp>) {
        self.seen = time.map_or(self.seen, |time| self.seen.max(time));
    }

    pub(super) fn note_change(&mut self) {
        if self.changed_at.is_none() {
            self.changed_at = Some(self.time.now());
        }
    }
}

/// Awaits `work` while the flush under way goes on beside it.
pub(super) async fn drive<V>(
    flush: &mut Option<BoxFuture<'static, Result<Flushed>>>,
    flushed: &mut Option<Result<Flushed>>,
    work: impl Future<Output = V>,
) -> V {
    tokio::pin!(work);
    if let Some(running) = flush {
        tokio::select! {
            biased;
            result = &mut *running => {
                *flush = None;
                *flushed = Some(result);
            }
            value = &mut work => return value,
        }
    }
    work.await
}
