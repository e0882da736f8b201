//! Making progress durable: the records of what waits, then the rows, then the records that are
//! healed, and last the checkpoint, each majority-acknowledged before the next. A crash between any
//! two leaves nothing that a restart would not repeat.

pub(in crate::projector) mod flushing;

use std::{collections::HashSet, time::Duration};

use bson::DateTime;
use tracing::warn;

use crate::{
    database::{Error, Result},
    model::{
        document::{Quarantine, Youngest},
        id::DocumentId,
        position::{Checkpoint, Position},
        snapshot::Due,
    },
    observe::{Counts, Observer, Written},
    planted::{Bug, planted},
    retry::Backoff,
    status::WaitingClasses,
    store::{QuarantineRow, RowOutcome, RowWrite, Store},
    time::Time,
};

/// A document whose record can go, with the version that it has come to.
pub(in crate::projector) type Removal = (DocumentId, i64);

/// What has to be written about documents that wait.
#[derive(Debug, Default)]
pub(in crate::projector) struct WaitingChanges {
    pub(in crate::projector) put: Vec<QuarantineRow>,
    pub(in crate::projector) remove: Vec<Removal>,
}

/// Everything that one flush writes.
#[derive(Debug, Default)]
pub(in crate::projector) struct Flush {
    pub(in crate::projector) writes: Vec<RowWrite>,
    /// For each write, the quarantine mark that the row bears.
    pub(in crate::projector) marks: Vec<Option<Quarantine>>,
    /// For each write, whether a snapshot of the row is due, with what is known of its events' times.
    pub(in crate::projector) due: Vec<Option<Youngest>>,
    pub(in crate::projector) waiting: WaitingChanges,
    /// The place that is reached once all of this is written.
    pub(in crate::projector) checkpoint: Option<Checkpoint>,
    /// When the oldest event in it was appended, by the server's clock.
    pub(in crate::projector) oldest: Option<DateTime>,
    /// What it covers, to be told once it has returned.
    pub(in crate::projector) counts: Counts,
    pub(in crate::projector) classes: WaitingClasses,
}

/// What became of a flush.
#[derive(Debug)]
pub(in crate::projector) struct Flushed {
    pub(in crate::projector) rows: Vec<FlushedRow>,
    /// Records of healed documents that had to stay, since the row was not written.
    pub(in crate::projector) still_recorded: Vec<Removal>,
    pub(in crate::projector) checkpoint: CheckpointOutcome,
    pub(in crate::projector) oldest: Option<DateTime>,
    pub(in crate::projector) counts: Counts,
    pub(in crate::projector) classes: WaitingClasses,
    pub(in crate::projector) took: Duration,
}

/// What became of one row.
#[derive(Debug)]
pub(in crate::projector) struct FlushedRow {
    pub(in crate::projector) id: DocumentId,
    pub(in crate::projector) version: i64,
    pub(in crate::projector) mark: Option<Quarantine>,
    pub(in crate::projector) outcome: RowOutcome,
    /// The row, if a snapshot of it is due.
    pub(in crate::projector) due: Option<Due>,
}

/// What became of the checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::projector) enum CheckpointOutcome {
    /// None was due, or a row was not written, so that it must not pass.
    NotSaved,
    /// It is saved, with this place.
    Saved(Option<Position>),
    /// A later epoch has saved its own: this instance leads no more.
    Fenced,
}

impl Flushed {
    /// Whether every row is stored as it was meant to be.
    pub(in crate::projector) fn all_written(&self) -> bool {
        self.rows.iter().all(|row| row.outcome == RowOutcome::Written)
    }

    /// What it has written, for whoever is told.
    pub(in crate::projector) fn written(&self, cache_bytes: usize) -> Written<'_> {
        let is_written = |row: &&FlushedRow| row.outcome == RowOutcome::Written;
        Written {
            counts: self.counts,
            rows: self.rows.iter().filter(is_written).count(),
            took: self.took,
            oldest: self.oldest,
            classes: &self.classes,
            cache_bytes,
        }
    }

    /// Takes out the stored rows of which a snapshot is due.
    pub(in crate::projector) fn take_due(&mut self) -> Vec<Due> {
        let written = self.rows.iter_mut().filter(|row| row.outcome == RowOutcome::Written);
        written.filter_map(|row| row.due.take()).collect()
    }
}

impl Flush {
    pub(in crate::projector) fn is_empty(&self) -> bool {
        self.writes.is_empty()
            && self.waiting.put.is_empty()
            && self.waiting.remove.is_empty()
            && self.checkpoint.is_none()
    }

    /// Parts the healed documents into those whose rows are written, and the others: a record may only
    /// go once nothing depends on it.
    fn healed(&self, outcomes: &[RowOutcome]) -> (Vec<Removal>, Vec<Removal>) {
        let unwritten: HashSet<&DocumentId> = self
            .writes
            .iter()
            .zip(outcomes)
            .filter(|(_, outcome)| **outcome != RowOutcome::Written)
            .map(|(write, _)| &write.id)
            .collect();
        self.waiting.remove.iter().cloned().partition(|(document, _)| !unwritten.contains(document))
    }

    /// Writes it all, trying again for as long as the database is merely away.
    ///
    /// # Errors
    /// When trying again cannot help. How much was written is then unknown; nothing of it does harm.
    pub(in crate::projector) async fn run(
        self,
        store: &impl Store,
        time: &impl Time,
        backoff: Backoff,
        observer: &Observer,
    ) -> Result<Flushed> {
        let started = time.now();
        let report = |error: &Error, pause: Duration| {
            warn!(%error, pause_ms = pause.as_millis() as u64, "a flush failed and is tried again");
            observer.tried(error, time);
        };
        if let (true, Some(early)) = (planted(Bug::CheckpointBeforeFlush), &self.checkpoint) {
            store.save_checkpoint(early).await?;
        }
        if !self.waiting.put.is_empty() {
            backoff.retry(time, report, || store.put_quarantine(&self.waiting.put)).await?;
        }
        if planted(Bug::RecordRemovedBeforeRow) && !self.waiting.remove.is_empty() {
            store.remove_quarantine(&self.waiting.remove).await?;
        }
        let outcomes = match self.writes.is_empty() {
            true => Vec::new(),
            false => backoff.retry(time, report, || store.write(&self.writes)).await?,
        };
        observer.turned(time);
        let (healed, still_recorded) = self.healed(&outcomes);
        if !healed.is_empty() {
            backoff.retry(time, report, || store.remove_quarantine(&healed)).await?;
        }
        observer.turned(time);
        let all_written = outcomes.iter().all(|outcome| *outcome == RowOutcome::Written);
        let checkpoint = match self.checkpoint {
            Some(mut checkpoint) if all_written => {
                // However late that is looked up: what took rows away since then, the stream tells behind this place.
                checkpoint.rows = backoff.retry(time, report, || store.rows_id()).await?;
                match backoff.retry(time, report, || store.save_checkpoint(&checkpoint)).await? {
                    true => CheckpointOutcome::Saved(checkpoint.position),
                    false => CheckpointOutcome::Fenced,
                }
            }
            _ => CheckpointOutcome::NotSaved,
        };
        let rows = self.writes.into_iter().zip(self.marks).zip(self.due).zip(outcomes);
        let rows = rows.map(|(((write, mark), due), outcome)| FlushedRow {
            id: write.id,
            version: write.version,
            mark,
            outcome,
            due: due.map(|youngest| Due { row: write.row, youngest: Some(youngest) }),
        });
        let took = time.now().saturating_sub(started);
        Ok(Flushed {
            rows: rows.collect(),
            still_recorded,
            checkpoint,
            oldest: self.oldest,
            counts: self.counts,
            classes: self.classes,
            took,
        })
    }
}
