//! Looking again at what waits: when a projection begins, and every minute. A record may come late, from an
//! instance that sent it before it died or was relieved, and would stay for ever although nothing
//! waits; and such an instance may have taken the mark from the row of a parked document.

use std::time::Duration;

use super::{
    run::Run,
    work::{Work, drive},
};
use crate::{
    database::{Error, Result},
    log::{EventLog, LogSource},
    model::{
        document::{Class, Document},
        id::DocumentId,
    },
    planted::{Bug, planted},
    store::{QuarantineRow, QuarantineRows, Store},
    time::Time,
};

/// The shortest time between two reviews.
const INTERVAL: Duration = Duration::from_secs(60);
/// A review that takes long is the rarer: it may take a hundredth of the time.
const PAUSE_PER_REVIEW: u32 = 100;
/// How many rows of parked documents one review looks at; the next one goes on behind them.
const ROWS_MAX: usize = 1_000;

impl<S: LogSource, D: Store, T: Time> Run<S, D, T> {
    pub(super) async fn review_if_due(&mut self) -> Result<()> {
        let now = self.work.time.now();
        if self.walk.is_some() || now < self.review_at {
            return Ok(());
        }
        self.work.review().await?;
        let parked = self.work.waiting.parked(self.reviewed.as_ref(), ROWS_MAX);
        self.reviewed = parked.last().filter(|_| parked.len() == ROWS_MAX).cloned();
        self.work.look_at_parked(&parked).await?;
        let took = self.work.time.now().saturating_sub(now);
        self.review_at = self.work.time.now() + INTERVAL.max(took * PAUSE_PER_REVIEW);
        Ok(())
    }

    /// When the first review is due of a projection that begins at `now`.
    pub(super) fn first_review(now: Duration) -> Duration {
        now + INTERVAL
    }
}

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// Looks at every document of whose record nothing is known here.
    async fn review(&mut self) -> Result<()> {
        self.load_skips().await?;
        let records = self.records().await?;
        for row in records {
            let (id, is_gap) = (row.document.clone(), row.mark.class == Class::Gap);
            // A row that is about to be written is not read again; the next review finds it at rest.
            if !is_gap && self.cache.is_worked_on(&id) {
                continue;
            }
            if self.waiting.learn(row) {
                if !is_gap {
                    self.cache.evict(&id);
                }
                self.read_on(&id, 0).await?;
            }
        }
        Ok(())
    }

    /// Loads the rows of documents that are parked: each has to bear its mark, and to be as far as it can be.
    pub(super) async fn look_at_parked(&mut self, parked: &[DocumentId]) -> Result<()> {
        for chunk in parked.chunks(ROWS_MAX) {
            let mut at_rest = chunk.to_vec();
            at_rest.retain(|id| self.cache.is_unchanged(id));
            at_rest.iter().for_each(|id| self.cache.evict(id));
            self.load(&at_rest).await?;
            for id in &at_rest {
                match self.cache.edit(id) {
                    Some(slot) if slot.document.quarantine.is_none() => {
                        self.read_on(id, 0).await?;
                    }
                    Some(slot) if slot.changed() => self.note_change(),
                    _ => {}
                }
            }
            self.cache.rest_unchanged();
        }
        Ok(())
    }

    /// Reads the records again when a row bears a mark of which nothing is known here: an operator has
    /// removed its record, or another instance has parked the document and this one leads no more.
    pub(super) async fn learn_of_parked(&mut self, documents: &[Document]) -> Result<()> {
        let unknown = |document: &&Document| {
            document.quarantine.is_some() && self.waiting.park(&document.id).is_none()
        };
        let unknown: Vec<&Document> = documents.iter().filter(unknown).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        for row in self.records().await? {
            if unknown.iter().any(|document| document.id == row.document) {
                self.waiting.learn(row);
            }
        }
        Ok(())
    }

    async fn records(&mut self) -> Result<Vec<QuarantineRow>> {
        let (store, time, observer) = (&self.store, &self.time, &self.observer);
        let report = |error: &Error, _| observer.tried(error, time);
        let load = self.settings.backoff.retry(time, report, || records(store));
        drive(&mut self.flush, &mut self.flushed, load).await
    }
}

/// What is on record as waiting.
pub(super) async fn records(store: &impl QuarantineRows) -> Result<Vec<QuarantineRow>> {
    let mut rows = store.load_quarantine().await?;
    rows.retain(|_| !planted(Bug::ParkedEventForgotten));
    Ok(rows)
}
