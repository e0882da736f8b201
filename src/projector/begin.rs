//! Where a projector begins: at its checkpoint, or with a scan of the whole log, or not at all when
//! going on would be wrong.

use bson::Timestamp;
use tracing::info;

use crate::{
    database::{Error, Result},
    log::{EventLog, LogSource, Start},
    model::position::{Checkpoint, LogId},
    store::Checkpoints,
};

/// How to begin.
#[derive(Clone, Debug)]
pub(super) struct Begin {
    /// Which log this is.
    pub(super) log: LogId,
    /// The checkpoint to resume from.
    pub(super) checkpoint: Option<Checkpoint>,
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
    ) -> Result<Self> {
        let Some(found) = log.identity().await? else {
            return Err(Error::stop(
                format!("the log of `{collection}` does not exist"),
                "restore the events collection from a backup, or run `alluvium init` to begin with an empty one",
            ));
        };
        match store.load_checkpoint().await? {
            Some(checkpoint) if checkpoint.log != found => {
                Err(another_log(collection, checkpoint.log, found))
            }
            Some(checkpoint) => {
                info!(
                    collection,
                    cluster_time = checkpoint.position.cluster_time.time,
                    "resuming at the checkpoint"
                );
                let at = checkpoint.position.cluster_time;
                Ok(Self { log: found, checkpoint: Some(checkpoint), at })
            }
            None => {
                info!(collection, "there is no checkpoint: scanning the log against the documents");
                Ok(Self { log: found, checkpoint: None, at: source.now().await? })
            }
        }
    }

    /// Where the stream has to begin.
    pub(super) fn start(&self) -> Start {
        match &self.checkpoint {
            Some(checkpoint) => Start::After(checkpoint.position.clone()),
            None => Start::At(self.at),
        }
    }
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
