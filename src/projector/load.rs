//! Bringing documents into memory: new ones, and those whose rows are read. What is on record of a document decides
//! whether it is parked, and not the mark on its row.

use bson::RawDocument;
use futures::future::try_join_all;

use super::{
    cache::Slot,
    work::{Arrival, Work, drive},
};
use crate::{
    database::{Error, Result},
    log::EventLog,
    model::{document::Document, id::DocumentId, skip::has_fillers},
    store::Store,
    time::Time,
};

/// How many documents are loaded by one query. All queries of a chunk of events run at once.
const LOAD_DOCUMENTS_MAX: usize = 1_000;

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// Brings the documents of a chunk into memory. One whose first event comes is taken to be new:
    /// should it have a row after all, because the event comes again, the insert tells.
    pub(super) async fn load_missing(&mut self, chunk: &[Arrival<'_>]) -> Result<()> {
        let mut missing = Vec::new();
        for Arrival { key, .. } in chunk {
            if self.cache.holds(&key.document) {
                continue;
            }
            if key.version == 1 {
                self.admit(Document::new(key.document.clone()), 0);
            } else {
                missing.push(key.document.clone());
            }
        }
        missing.sort_unstable();
        missing.dedup();
        self.load(&missing).await
    }

    /// Brings documents into memory; those without a row at version 0.
    pub(super) async fn load(&mut self, ids: &[DocumentId]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let (store, time, observer) = (&self.store, &self.time, &self.observer);
        let (backoff, report) =
            (self.settings.backoff, |error: &Error, _| observer.tried(error, time));
        let load = |ids| backoff.retry(time, report, move || store.load(ids));
        let loads: Vec<_> = ids.chunks(LOAD_DOCUMENTS_MAX).map(load).collect();
        let batches = drive(&mut self.flush, &mut self.flushed, try_join_all(loads)).await?;
        self.observer.turned(&self.time);
        self.counts.loaded += ids.len() as u64;
        let documents: Result<Vec<Document>> =
            batches.iter().flatten().map(|row| self.read_row(row)).collect();
        let documents = documents?;
        self.learn_of_parked(&documents).await?;
        for document in documents {
            // What is known here of the skips may be older than the row.
            if has_fillers(&document.clock) {
                self.load_skips_of(&document.id).await?;
            }
            let stored = document.version;
            self.admit(document, stored);
        }
        for id in ids {
            if !self.cache.holds(id) {
                self.admit(Document::new(id.clone()), 0);
            }
        }
        Ok(())
    }

    /// Brings the document of a row into memory that bears no mark.
    pub(super) fn admit_row(&mut self, row: &RawDocument) -> Result<()> {
        let document = self.read_row(row)?;
        self.counts.loaded += 1;
        let stored = document.version;
        self.admit(document, stored);
        Ok(())
    }

    fn read_row(&self, row: &RawDocument) -> Result<Document> {
        Document::from_raw(row).map_err(|error| {
            Error::damaged(format!(
                "a row of `{}` was not written by this program: {error}",
                self.observer.collection()
            ))
        })
    }

    fn admit(&mut self, mut document: Document, stored: i64) {
        // The record is the truth of what is parked: a row may not exist, or may have refused the mark.
        let stored_mark = document.quarantine.take();
        // It does not hold back a row that is further back than the mark, because it was deleted by hand, say; nor
        // one that has moved on, or may, because an operator has skipped the event.
        let mark = self.waiting.park(&document.id);
        let skips = self.skips.of(&document.id);
        let mark = mark.filter(|mark| skips.is_none_or(|skips| !skips.contains(mark.version)));
        let mark = mark.filter(|mark| mark.version == document.version + 1);
        document.quarantine = mark.cloned();
        self.cache.admit(Slot::new(document, stored, stored_mark));
    }
}
