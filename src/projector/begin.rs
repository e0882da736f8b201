//! Where a projector begins: at its checkpoint, or with a scan of the whole log, or not at all when
//! going on would be wrong.

use bson::Timestamp;
use tracing::info;

use crate::{
    database::{Error, Result},
    log::{EventLog, LogSource, Start},
    model::position::{Checkpoint, LogId, Position},
    planted::{Bug, planted},
    store::Checkpoints,
};

/// How to begin.
#[derive(Clone, Debug)]
pub(super) struct Begin {
    /// Which log this is.
    pub(super) log: LogId,
    /// The place to resume from.
    pub(super) position: Option<Position>,
    /// Reads see everything before this time.
    pub(super) at: Timestamp,
}

impl Begin {
    /// Decides.
    ///
    /// # Errors
    /// With advice, when the log is gone, or another one than the checkpoint speaks of.
    pub(super) async fn decide<S: LogSource>(
        source: &S,
        log: &S::Log,
        store: &impl Checkpoints,
        collection: &str,
        epoch: i64,
    ) -> Result<Self> {
        let Some(found) = log.identity().await? else {
            return Err(Error::stop(
                format!("the log of `{collection}` does not exist"),
                "restore the events collection from a backup, or run `alluvium init` to begin with an empty one",
            ));
        };
        let saved = match store.load_checkpoint().await? {
            Some(checkpoint) if checkpoint.log != found && !planted(Bug::IdentityIgnored) => {
                return Err(another_log(collection, checkpoint.log, found));
            }
            Some(checkpoint) => checkpoint.position,
            None => {
                // Which log the documents come from goes on record before the first of them does.
                let checkpoint = Checkpoint { position: None, log: found, epoch };
                if !store.save_checkpoint(&checkpoint).await? {
                    return Err(fenced());
                }
                None
            }
        };
        match saved {
            Some(position) => {
                let at = position.cluster_time;
                info!(collection, cluster_time = at.time, "resuming at the checkpoint");
                Ok(Self { log: found, position: Some(position), at })
            }
            None => {
                info!(collection, "there is no place to resume from: scanning the log");
                let at = source.now().await?;
                // The stream tells of a log that goes after that time, and of none that went before.
                still_followed(log, found).await?;
                Ok(Self { log: found, position: None, at })
            }
        }
    }

    /// Where the stream has to begin.
    pub(super) fn start(&self) -> Start {
        match &self.position {
            Some(position) => Start::After(position.clone()),
            None if planted(Bug::TailStartsTooLate) => {
                Start::At(Timestamp { time: self.at.time + 2, increment: 0 })
            }
            None => Start::At(self.at),
        }
    }
}

/// Makes sure that what was just read came from the log that is followed. To be asked after the read, or after
/// the opening of a cursor, which stays on the collection that it was opened on.
///
/// # Errors
/// When the log is another one by now, or gone.
pub(super) async fn still_followed(log: &impl EventLog, followed: LogId) -> Result<()> {
    match log.identity().await? {
        Some(found) if found == followed || planted(Bug::IdentityNotAskedAgain) => Ok(()),
        _ => Err(Error::stop(
            format!(
                "the log with UUID {followed} was dropped, renamed or replaced while it was being read"
            ),
            "the documents stay as they are; bring the log back, and the projection goes on by itself",
        )),
    }
}

/// A later epoch has saved its own checkpoint.
pub(super) fn fenced() -> Error {
    Error::stop(
        "another instance has taken over this collection",
        "nothing to do; if no other instance should be running, look for one",
    )
}

fn another_log(collection: &str, expected: LogId, found: LogId) -> Error {
    Error::stop(
        format!(
            "the log of `{collection}` is another collection (UUID {found}) than the one that was projected (UUID {expected}): \
             it was dropped, renamed or restored"
        ),
        "bring the original log back; or, if the new one is right and the documents fit it, delete the row of this collection \
         in `alluvium.checkpoints`: the log is then scanned against the documents",
    )
}
