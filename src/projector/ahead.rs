//! Documents that are ahead of their log: rows above their last event, or without any. A log that was
//! restored from an older backup looks like that, and taking its next events for replays would lose
//! them without a word.

use super::work::Work;
use crate::{
    database::{Error, Result},
    log::EventLog,
    store::{RowVersion, Store},
    time::Time,
};

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// `end` is the version of the last event of the row's document that the walk saw, 0 if it saw none.
    /// A row above it is ahead, or was moved by the stream meanwhile: the log decides.
    pub(super) async fn check_not_ahead(&mut self, row: &RowVersion, end: i64) -> Result<()> {
        let RowVersion { id, version, .. } = row;
        if *version <= end || !self.part.holds(id) {
            return Ok(());
        }
        let (time, observer, seen) = (&self.time, &self.observer, Some(self.seen));
        let report = |error: &Error, _| observer.tried(error, time);
        let read = || self.log.read(id, version - 1, 1, seen);
        let found = self.settings.backoff.retry(time, report, read).await?;
        observer.turned(time);
        match (found.documents()?.next(), end) {
            (Some(_), _) => Ok(()),
            (None, 0) => Err(ahead(&format!("document {id} is projected, but its log is empty"))),
            (None, _) => Err(ahead(&format!(
                "document {id} is at version {version}, but its log ends at {end}"
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
