//! Reading the records of what waits again. They are read when a projection begins; but one may come later,
//! from an instance that sent it before it died or was relieved, and would stay for ever although
//! nothing waits.

use std::time::Duration;

use super::{
    run::Run,
    work::{Work, drive},
};
use crate::{
    database::{Error, Result},
    log::{EventLog, LogSource},
    model::document::{Class, Document},
    store::{QuarantineRow, Store},
    time::Time,
};

/// The shortest time between two reviews.
const INTERVAL: Duration = Duration::from_secs(60);
/// A review that takes long is the rarer: it may take a hundredth of the time.
const PAUSE_PER_REVIEW: u32 = 100;

impl<S: LogSource, D: Store, T: Time> Run<S, D, T> {
    pub(super) async fn review_if_due(&mut self) -> Result<()> {
        let now = self.work.time.now();
        if self.walk.is_some() || now < self.review_at {
            return Ok(());
        }
        self.work.review().await?;
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
        for row in self.records().await? {
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
        let load = self.settings.backoff.retry(time, report, || store.load_quarantine());
        drive(&mut self.flush, &mut self.flushed, load).await
    }
}
