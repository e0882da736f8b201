//! A log that was renamed away and is back under its name. While it was away every command on it was refused, but what it
//! got under the other name never came through the stream, which knows logs by name: it is read from the log itself.

use bson::Timestamp;
use tracing::info;

use super::{run::Run, scan::Walk};
use crate::{
    database::{Error, Result},
    log::{EventLog, LogSource, events_collection},
    retry::limited,
    status::Phase,
    store::{Extent, Store},
    time::Time,
};

/// Makes sure that `log` has its name. No command says so of the events that the stream brings: it knows logs by name.
///
/// # Errors
/// When there is no log of that name now, or another one.
pub(super) async fn still_there<S: LogSource>(
    source: &S,
    collection: &str,
    log: &S::Log,
) -> Result<()> {
    match source.open(collection).await? {
        Some(found) if found.id() == log.id() => Ok(()),
        _ => Err(Error::log_mismatch(&events_collection(collection), log.id())),
    }
}

impl<S: LogSource, D: Store, T: Time> Run<S, D, T> {
    /// The stream tells that the log was taken away, or that a log came to its name; or it has lost what it would have
    /// told. Goes on if the log is the same as before, and has it scanned.
    ///
    /// # Errors
    /// When there is no log of that name now, or another one.
    pub(super) async fn find_log_again(&mut self, at: Timestamp) -> Result<()> {
        let limit = self.work.settings.backoff.attempt_limit;
        let look = still_there(&self.source, &self.collection, &self.work.log);
        limited(&self.work.time, limit, look).await?;
        info!(
            collection = self.collection,
            "scanning the log, which may have got events that the stream did not tell of"
        );
        self.walk = Some(Walk::new(at, Extent::Version));
        self.work.observer.phase(Phase::Scanning);
        Ok(())
    }
}
