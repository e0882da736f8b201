//! A log that is away for a moment: renamed, and back under its name. It reads as empty meanwhile, and whoever asks for
//! its identity afterwards finds the same log as before.
//!
//! So what a read or a scan has *not* shown proves nothing yet. But if the log was away then, its return lies between the
//! read, which sees everything that the stream has come to, and the time of the look that followed. The stream therefore
//! tells of the return before it comes to that time, and has the log scanned again. Until it is there no record of what
//! waits is removed, and no checkpoint is saved, on the strength of what was not shown.

use bson::Timestamp;
use tracing::info;

use super::{
    run::Run,
    scan::Walk,
    work::{Work, drive},
};
use crate::{
    database::{Error, Result},
    log::{Batch, EventLog, LogSource},
    model::{id::DocumentId, position::LogId},
    planted::{Bug, planted},
    retry::limited,
    status::Phase,
    store::{Extent, Store},
    time::Time,
};

/// Makes sure that the log that is followed has its name. To be asked after a read, or after the opening of a cursor,
/// which stays on the collection that it was opened on; gives the time of the look.
///
/// # Errors
/// When the log is another one by now, or gone.
pub(super) async fn still_followed(log: &impl EventLog, followed: LogId) -> Result<Timestamp> {
    match log.identity().await? {
        Some(found) if found.id == followed || planted(Bug::IdentityNotAskedAgain) => Ok(found.at),
        _ => Err(Error::stop(
            format!(
                "the log with UUID {followed} was dropped, renamed or replaced while it was being read"
            ),
            "the documents stay as they are; bring the log back, and the projection goes on by itself",
        )),
    }
}

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// Reads events of one document above version `after`, and gives when the log was seen to have its name after that.
    pub(super) async fn read(
        &mut self,
        id: &DocumentId,
        after: i64,
        limit: u32,
    ) -> Result<(Batch, Timestamp)> {
        let Self { log, settings, time, observer, seen, followed, .. } = self;
        let read = settings.backoff.retry(
            time,
            |error, _| observer.tried(error, time),
            async || {
                let batch = log.read(id, after, limit, Some(*seen)).await?;
                Ok((batch, still_followed(log, *followed).await?))
            },
        );
        let read = drive(&mut self.flush, &mut self.flushed, read).await?;
        self.observer.turned(&self.time);
        self.has_seen(read.0.read_at());
        let events = read.0.documents()?.collect::<Result<Vec<_>>>()?;
        self.renew_skips(events.into_iter()).await?;
        Ok(read)
    }
}

impl<S: LogSource, D: Store, T: Time> Run<S, D, T> {
    /// The log was taken away. If it is back since, the same as before, then whatever it got under
    /// another name never came through the stream, and is read from the log itself.
    pub(super) async fn find_log_again(&mut self, at: Timestamp) -> Result<()> {
        let Work { log, followed, time, settings, .. } = &self.work;
        let limit = settings.backoff.attempt_limit;
        match limited(time, limit, log.identity()).await? {
            Some(found) if found.id == *followed => {}
            _ => return Err(gone(&self.events)),
        }
        info!(collection = self.work.observer.collection(), "the log was away and is back");
        self.scan_again(at);
        Ok(())
    }

    /// Has the log scanned beside the stream. Nothing that it did not show before is proven by the stream any more.
    pub(super) fn scan_again(&mut self, at: Timestamp) {
        self.work.waiting.keep_unproven();
        self.walk = Some(Walk::new(at, self.work.followed, Extent::Version));
        self.work.observer.phase(Phase::Scanning);
    }
}

fn gone(events: &str) -> Error {
    Error::stop(
        format!("the log `{events}` was dropped, renamed or replaced while it was being followed"),
        "the documents stay as they are; bring the log back, and the projection goes on by itself",
    )
}
