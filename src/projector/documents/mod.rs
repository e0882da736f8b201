//! The documents of a projection: events are folded into them, rows are loaded for it, and what was written is taken
//! note of. Where events come from, and when to flush, is decided elsewhere.

pub(super) mod cache;
pub(super) mod memory;
mod reading;
pub(super) mod recheck;
pub(super) mod refused;
pub(super) mod remake;
pub(super) mod review;
pub(super) mod waiting;

use futures::FutureExt;
use tokio::sync::oneshot;

use super::{
    ask::Ask,
    flush::{CheckpointOutcome, Flush, Flushed, flushing::Flushing},
};
use crate::{
    database::Result,
    log::{EventLog, history},
    model::{
        compaction::Notice,
        document::{Document, Youngest},
        event::is_base,
        id::DocumentId,
        part::Part,
        position::Checkpoint,
        skip::has_fillers,
    },
    planted::{Bug, planted},
    store::{RowOutcome, Store},
    time::Time,
};
use cache::Slot;
use memory::{Arrival, Memory, SkipsAre};
use recheck::Recheck;

/// How many events are folded at a stretch, while the flush under way has to wait.
const STEP_EVENTS: usize = 512;
/// How many documents are looked at again at once.
const RECHECKS_AT_ONCE: usize = 64;
/// Of how many the log is read at once: each answer may have 16 MB.
const READS_AT_ONCE: usize = 4;

/// See the module.
pub(super) struct Documents<L: EventLog, D: Store, T: Time> {
    pub(super) ask: Ask<L, D, T>,
    pub(super) memory: Memory<T>,
    /// Whose documents these are.
    pub(super) part: Part,
    /// A snapshot is due when a document passes a multiple of so many events; never at 0.
    pub(super) snapshot_events: u32,
    /// It is noted when it passes a multiple of so many; never at 0.
    pub(super) mark_events: i64,
    /// When rows that the server refuses are tried again.
    pub(super) tries: refused::Tries,
    /// Who is to be told, once what became of their documents is written.
    pub(super) askers: Vec<oneshot::Sender<()>>,
}

impl<L: EventLog, D: Store, T: Time> Documents<L, D, T> {
    /// Folds a chunk of events. Afterwards every document among them holds its events, or is on record as
    /// waiting, or has to be looked at again. Events of documents for which there is no room are left: they come back,
    /// in their order, and are folded once something has been written.
    pub(super) async fn fold<'a>(
        &mut self,
        mut chunk: Vec<Arrival<'a>>,
    ) -> Result<Vec<Arrival<'a>>> {
        self.memory.doubt_parked(&chunk);
        let mut left = Vec::new();
        if !self.load_missing(&chunk).await? {
            let cache = &self.memory.cache;
            left = chunk.extract_if(.., |arrival| !cache.holds(&arrival.key.document)).collect();
        }
        for step in chunk.chunks(STEP_EVENTS) {
            for events in step.chunk_by(|a, b| a.key.document == b.key.document) {
                if let Some(first) = events.first() {
                    self.memory.offer(&first.key.document, events, SkipsAre::Known);
                }
            }
            self.ask.flushing.advance().await;
        }
        Ok(left)
    }

    /// Hands on the documents of which an event seems to have come late.
    pub(super) fn tell_suspects(&mut self) {
        let suspects = self.memory.suspects.take();
        if !suspects.is_empty() {
            self.ask.observer.notice(Notice::Late(suspects));
        }
    }

    /// Brings the documents of a chunk into memory, until that is full; whether all of them are there. One whose first
    /// event comes is taken to be new: should it have a row after all, because the event comes again, the insert tells.
    async fn load_missing(&mut self, chunk: &[Arrival<'_>]) -> Result<bool> {
        let mut missing = Vec::new();
        for Arrival { key, event, .. } in chunk {
            if self.memory.cache.holds(&key.document) {
                continue;
            }
            if key.version == 1 && !is_base(event) {
                self.memory.admit(history::start(&key.document), 0);
            } else {
                missing.push(key.document.clone());
            }
        }
        missing.sort_unstable();
        missing.dedup();
        while !missing.is_empty() {
            missing = self.load_some(&missing).await?;
            if self.memory.cache.is_full() {
                break;
            }
        }
        Ok(missing.is_empty())
    }

    /// Brings documents into memory; those without a row, or whose row cannot be read, at version 0.
    pub(super) async fn load(&mut self, ids: &[DocumentId]) -> Result<()> {
        let mut left = ids.to_vec();
        while !left.is_empty() {
            left = self.load_some(&left).await?;
        }
        Ok(())
    }

    /// Brings some of these documents into memory, which stand in ascending order; the others.
    async fn load_some(&mut self, ids: &[DocumentId]) -> Result<Vec<DocumentId>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (rows, left) = self.ask.load_some(ids).await?;
        self.memory.counts.loaded += (ids.len() - left.len()) as u64;
        let mut documents = Vec::with_capacity(rows.len());
        for row in &rows {
            match Document::from_raw(row) {
                Ok(document) => documents.push(document),
                Err(error) => self.memory.unreadable(row, &error),
            }
        }
        self.learn_of_parked(&documents).await?;
        for document in documents {
            // What is known of its skips may be older than the row.
            if has_fillers(&document.clock) {
                self.look_up_skips(&document.id).await?;
            }
            let stored = document.version;
            self.memory.admit(document, stored);
        }
        for id in ids {
            if !self.memory.cache.holds(id) && left.binary_search(id).is_err() {
                self.memory.admit(history::start(id), 0);
            }
        }
        Ok(left)
    }

    /// Reads the records again when a row bears a mark of which nothing is known here: an operator has
    /// removed its record, or another instance has parked the document and this one leads no more.
    async fn learn_of_parked(&mut self, documents: &[Document]) -> Result<()> {
        let waiting = &self.memory.waiting;
        let unknown = |document: &&Document| {
            document.quarantine.is_some() && waiting.park(&document.id).is_none()
        };
        let unknown: Vec<&Document> = documents.iter().filter(unknown).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        for row in self.ask.records().await? {
            if unknown.iter().any(|document| document.id == row.document) {
                self.memory.waiting.learn(row);
            }
        }
        Ok(())
    }

    /// Notes that every document behind a gap is to be looked at: the gap may have been filled meanwhile.
    pub(super) fn look_at_gaps(&mut self) {
        for (id, _) in self.memory.waiting.gaps() {
            self.memory.rechecks.look(&id);
        }
    }

    /// Notes that every row that is on record as refused is to be tried again.
    pub(super) fn learn_refused(&mut self) {
        let now = self.ask.time.now();
        for (id, version) in self.memory.waiting.refused() {
            self.tries.learn(&id, version, now);
        }
    }

    /// Whether documents can be looked at again now.
    pub(super) fn can_recheck(&self) -> bool {
        self.ask.flushing.is_idle() && !self.memory.rechecks.is_empty()
    }

    /// Looks again at everything that holds back the checkpoint, as far as it is not being written.
    pub(super) async fn recheck_urgent(&mut self) -> Result<()> {
        while self.memory.rechecks.are_urgent() && self.recheck(true).await? {}
        Ok(())
    }

    /// Looks again at some documents; whether there were any.
    pub(super) async fn recheck_some(&mut self) -> Result<bool> {
        match self.memory.rechecks.is_empty() {
            true => Ok(false),
            false => self.recheck(false).await,
        }
    }

    /// Whether there is room for more documents. Those that were merely looked at make room.
    fn has_room(&mut self) -> bool {
        let cache = &mut self.memory.cache;
        if cache.is_full() {
            cache.rest_unchanged();
        }
        !cache.is_full()
    }

    async fn recheck(&mut self, only_urgent: bool) -> Result<bool> {
        let has_room = self.has_room();
        let Memory { rechecks, cache, .. } = &mut self.memory;
        // What a flush under way makes of a document must not be taken for what becomes of it here.
        let is_idle = self.ask.flushing.is_idle();
        // Where there is no room, those that take it may be the ones to look at.
        let may_pass = |id: &DocumentId, why: &Recheck| {
            (has_room || cache.holds(id)) && (is_idle || !why.is_afresh || cache.is_unchanged(id))
        };
        let taken = rechecks.take(RECHECKS_AT_ONCE, only_urgent, may_pass);
        let has_taken = !taken.is_empty();
        self.look_again(taken).await?;
        Ok(has_taken)
    }

    async fn look_again(&mut self, taken: Vec<(DocumentId, Recheck)>) -> Result<()> {
        let (remade, taken): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|(_, why)| why.is_remade && !planted(Bug::RowNotMadeAgain));
        if !remade.is_empty() {
            remake::remake(self, remade).await?;
        }
        let Memory { cache, .. } = &mut self.memory;
        taken.iter().filter(|(_, why)| why.is_afresh).for_each(|(id, _)| cache.evict(id));
        let absent = taken.iter().map(|(id, _)| id).filter(|id| !cache.holds(id));
        let absent: Vec<DocumentId> = absent.cloned().collect();
        let left = self.load_some(&absent).await?;
        let mut behind = Vec::new();
        for (id, why) in taken {
            if left.binary_search(&id).is_ok() {
                self.memory.rechecks.note(&id, why);
                continue;
            }
            let Memory { cache, waiting, .. } = &mut self.memory;
            let Some(slot) = cache.edit(&id) else { continue };
            if why.is_retried {
                slot.document.quarantine = None;
            }
            let (version, is_parked) = (slot.document.version, slot.document.quarantine.is_some());
            let is_level =
                !why.is_afresh && why.known > 0 && version >= why.known && !waiting.waits(&id);
            if slot.changed() || why.is_retried {
                self.memory.note_change();
            }
            if is_parked {
                // What came above it is passed because it waits, which has to be on record.
                if why.known > 0 && self.memory.waiting.rest_on(&id) {
                    self.memory.note_change();
                }
            } else if !is_level {
                behind.push((id, version));
            }
            self.askers.extend(why.askers);
        }
        self.read_all_on(&behind).await
    }

    /// Starts a flush of everything that has changed, and of `checkpoint` after it; whether there was anything.
    pub(super) fn start_flush(&mut self, checkpoint: Option<Checkpoint>) -> bool {
        self.memory.take_change();
        let Memory { cache, waiting, oldest, counts, .. } = &mut self.memory;
        let mut flush = Flush {
            waiting: waiting.take_changes(),
            checkpoint,
            oldest: oldest.take(),
            ..Flush::default()
        };
        for slot in cache.changed() {
            flush.writes.push(slot.write());
            flush.marks.push(slot.document.quarantine.clone());
            flush.due.push(snapshot_due(slot, self.snapshot_events));
        }
        if flush.is_empty() {
            return false;
        }
        // Told once it has returned, and not what is folded meanwhile.
        flush.counts = std::mem::take(counts);
        flush.classes = waiting.classes();
        let Ask { store, time, observer, backoff, .. } = &self.ask;
        let (store, time, observer, backoff) =
            (store.clone(), time.clone(), observer.clone(), *backoff);
        let run = async move { flush.run(&store, &time, backoff, &observer).await };
        self.ask.flushing = Flushing::Running(run.boxed());
        true
    }

    /// Takes in what became of a flush. A row that was stale or gone is looked at again; a row that the server
    /// refuses parks its document.
    pub(super) async fn settle(&mut self, mut flushed: Flushed) -> Result<CheckpointOutcome> {
        let mut grown = Vec::new();
        for row in &flushed.rows {
            match &row.outcome {
                RowOutcome::Stale if planted(Bug::StaleRowKept) => {}
                RowOutcome::Written => {
                    let before = self.memory.cache.stored(&row.id, row.version, row.mark.clone());
                    if passes(self.mark_events, (before.unwrap_or(row.version), row.version)) {
                        grown.push((row.id.clone(), row.version));
                    }
                }
                RowOutcome::Stale => {
                    tracing::info!(
                        collection = self.ask.observer.collection(), document = %row.id,
                        "the stored row is not what was read: folding the document again"
                    );
                    self.memory.rechecks.afresh(&row.id, row.version);
                }
                RowOutcome::Rejected { code, reason } => {
                    let reason = refused::refusal(*code, reason);
                    // Boxed: the compiler follows futures within futures only so far.
                    refused::park(self, &row.id, row.version, reason).boxed().await?;
                }
            }
        }
        for (document, version) in &flushed.still_recorded {
            self.memory.waiting.still_recorded(document, *version);
        }
        self.ask.observer.flushed(&flushed.written(self.memory.cache.bytes()));
        self.ask.observer.snapshots_due(flushed.take_due());
        if !grown.is_empty() {
            self.ask.observer.notice(Notice::Grown(grown));
        }
        Ok(flushed.checkpoint)
    }
}

/// Whether the flush of a document passes a multiple of `every` events. Stateless, so that neither a restart
/// nor an eviction from the cache needs to know of earlier snapshots.
fn snapshot_due(slot: &Slot, every: u32) -> Option<Youngest> {
    let versions = (slot.stored, slot.document.version);
    slot.document.youngest.filter(|_| passes(every.into(), versions))
}

/// Whether a document passes a multiple of `every` events on its way from a version to another.
fn passes(every: i64, (from, to): (i64, i64)) -> bool {
    every > 0 && from / every < to / every
}
