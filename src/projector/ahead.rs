//! Documents that are ahead of their log: rows above their last event, or without any. A log that was
//! restored from an older backup looks like that, and taking its next events for replays would lose
//! them without a word. The walk over the log passes the rows in the same order and misses none.

use std::collections::VecDeque;

use super::work::Work;
use crate::{
    database::{Error, Result},
    log::EventLog,
    model::{event::EventKey, id::DocumentId},
    store::Store,
    time::Time,
};

/// How many ids are asked for at once.
const IDS_MAX: u32 = 5_000;

/// The ids of the rows, in the order of the log, as far as a walk has not passed them.
#[derive(Debug, Default)]
pub(super) struct Rows {
    next: VecDeque<DocumentId>,
    /// The last id that was read.
    read: Option<DocumentId>,
    /// Whether there are no more to read.
    all_read: bool,
}

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// The walk has come to the events of `document`, or to its end: a row before it that was not passed
    /// yet has none.
    pub(super) async fn pass_rows(
        &mut self,
        rows: &mut Rows,
        document: Option<&DocumentId>,
    ) -> Result<()> {
        loop {
            if rows.next.is_empty() && !rows.all_read {
                self.read_rows(rows).await?;
            }
            match rows.next.front() {
                Some(row) if document.is_none_or(|document| row < document) => {
                    self.check_has_events(row).await?;
                }
                Some(row) if Some(row) == document => {}
                _ => return Ok(()),
            }
            rows.next.pop_front();
        }
    }

    async fn read_rows(&mut self, rows: &mut Rows) -> Result<()> {
        let (store, time, observer) =
            (self.store.clone(), self.time.clone(), self.observer.clone());
        let (after, backoff) = (rows.read.as_ref(), self.settings.backoff);
        let report = |error: &Error, _| observer.error(error);
        let ids = backoff.retry(&time, report, || store.ids(after, IDS_MAX)).await?;
        rows.all_read = ids.len() < IDS_MAX as usize;
        rows.read = ids.last().cloned().or(rows.read.take());
        rows.next = ids.into();
        Ok(())
    }

    /// A row that the walk has not met is ahead, or was made by the stream meanwhile: the log decides.
    async fn check_has_events(&mut self, document: &DocumentId) -> Result<()> {
        if !self.part.holds(document) {
            return Ok(());
        }
        let found = self.log.read(document, 0, 1, Some(self.seen)).await?;
        match found.documents()?.next() {
            Some(_) => Ok(()),
            None => Err(ahead(&format!("document {document} is projected, but its log is empty"))),
        }
    }

    /// `end` is the last event of its document that the walk saw. A document above it is ahead, or was moved
    /// by the stream meanwhile: the log decides.
    pub(super) async fn check_not_ahead(&mut self, end: &EventKey) -> Result<()> {
        let version = self.cache.version(&end.document);
        let Some(version) = version.filter(|version| *version > end.version) else { return Ok(()) };
        let found = self.log.read(&end.document, version - 1, 1, Some(self.seen)).await?;
        match found.documents()?.next() {
            Some(_) => Ok(()),
            None => Err(ahead(&format!(
                "document {} is at version {version}, but its log ends at {}",
                end.document, end.version
            ))),
        }
    }
}

fn ahead(what: &str) -> Error {
    Error::stop(
        format!("{what}: the log was restored from an older backup, or events were deleted"),
        "restore the log, or delete the documents that are ahead so that they are folded again from the log as it is",
    )
}
