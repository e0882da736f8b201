//! The two ends of a flush: choosing what it writes, and taking in what became of it. A row that was
//! stale or gone is folded again from what is stored; a row that the server refuses parks its document.

use futures::FutureExt;

use super::{
    cache::Slot,
    flush::{CheckpointOutcome, Flush, Flushed},
    refuse::refusal,
    work::Work,
};
use crate::{
    database::Result,
    log::EventLog,
    model::{document::Youngest, position::Checkpoint},
    planted::{Bug, planted},
    store::{RowOutcome, RowWrite, Store},
    time::Time,
};

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// Starts a flush of everything that has changed, and of `checkpoint` after it.
    pub(super) fn start_flush(&mut self, checkpoint: Option<Checkpoint>) {
        let mut flush = Flush {
            waiting: self.waiting.take_changes(),
            checkpoint,
            oldest: self.oldest.take(),
            ..Flush::default()
        };
        for slot in self.cache.changed() {
            flush.writes.push(RowWrite {
                id: slot.document.id.clone(),
                expected: slot.stored,
                version: slot.document.version,
                row: slot.document.to_raw(),
            });
            flush.marks.push(slot.document.quarantine.clone());
            flush.due.push(snapshot_due(slot, self.settings.snapshot_events));
        }
        self.changed_at = None;
        if flush.is_empty() {
            return;
        }
        // Told once it has returned, and not what is folded meanwhile.
        flush.counts = std::mem::take(&mut self.counts);
        flush.classes = self.waiting.classes();
        let (store, time, observer) =
            (self.store.clone(), self.time.clone(), self.observer.clone());
        let backoff = self.settings.backoff;
        self.flush =
            Some(async move { flush.run(&store, &time, backoff, &observer).await }.boxed());
    }

    /// Takes in what became of a flush. Rows that could not be written are brought in order here, so that
    /// the next flush can carry them.
    pub(super) async fn settle(&mut self, mut flushed: Flushed) -> Result<CheckpointOutcome> {
        for row in &flushed.rows {
            match &row.outcome {
                RowOutcome::Stale if planted(Bug::StaleRowKept) => {}
                RowOutcome::Written => {
                    self.cache.stored(&row.id, row.version, row.mark.clone());
                }
                RowOutcome::Stale => {
                    tracing::info!(
                        collection = self.observer.collection(), document = %row.id,
                        "the stored row is not what was read: folding the document again"
                    );
                    self.cache.evict(&row.id);
                    self.read_on(&row.id, row.version).await?;
                }
                RowOutcome::Rejected { code, reason } => {
                    let reason = refusal(*code, reason);
                    self.reject(&row.id, row.version, reason).await?;
                }
            }
        }
        for (document, healed) in &flushed.still_recorded {
            self.waiting.still_recorded(document, *healed);
        }
        self.look_at_doubtful().await?;
        self.observer.flushed(&flushed, self.cache.bytes());
        self.observer.snapshots_due(flushed.take_due());
        Ok(flushed.checkpoint)
    }
}

/// Whether the flush of a document passes a multiple of `every` events. Stateless, so that neither a restart
/// nor an eviction from the cache needs to know of earlier snapshots.
fn snapshot_due(slot: &Slot, every: u32) -> Option<Youngest> {
    let every = i64::from(every);
    let passes = every > 0 && slot.stored / every < slot.document.version / every;
    slot.document.youngest.filter(|_| passes)
}
