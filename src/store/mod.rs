//! What the daemon writes: projected documents and its own bookkeeping, each collection in a file of
//! its own. The projector reaches them only through the traits of this module, so that it runs
//! unchanged on MongoDB and, in a simulation, on an in-memory twin.

pub mod archive;
pub mod bases;
pub mod create;
pub mod format;
pub mod jobs;
pub mod layouts;
pub mod marks;
pub mod mongo;
pub mod pauses;
pub mod skips;
pub mod snapshots;

use std::{fmt, future::Future, slice};

use bson::{DateTime, RawDocumentBuf, Timestamp};

use crate::{
    database::Result,
    model::{
        document::Quarantine,
        id::DocumentId,
        part::Part,
        position::{Checkpoint, LogId, RowsId},
    },
};

pub use crate::model::names::snapshots_collection;
pub use archive::{ArchiveRows, Archived};
pub use bases::{Bases, Forgotten, Hindrance, Over, Prune, PruneOutcome, Restore, Which};
pub use jobs::{Jobs, Lock};
pub use layouts::{Layout, Layouts};
pub use marks::{MarkRows, NextLook};
pub use pauses::Pauses;
pub use skips::{Filler, SkipAboveOutcome, SkipOutcome, SkipRows};
pub use snapshots::{PutOutcome, Snapshots, StoredSnapshot};

/// The collection that holds the format of the data.
pub const META_COLLECTION: &str = "alluvium.meta";

/// The collection that holds how far each projection has come.
pub const CHECKPOINTS_COLLECTION: &str = "alluvium.checkpoints";

/// The collection that holds the documents that wait.
pub const QUARANTINE_COLLECTION: &str = "alluvium.quarantine";

/// The collection that holds who leads which collection.
pub const LEASES_COLLECTION: &str = "alluvium.leases";

/// The collection that holds what the leaders are asked to do.
pub const JOBS_COLLECTION: &str = "alluvium.jobs";

/// The collection that holds which events an operator has skipped.
pub const SKIPS_COLLECTION: &str = "alluvium.skips";

/// The collection that holds how large documents were, and when.
pub const MARKS_COLLECTION: &str = "alluvium.marks";

/// The collection that holds what clients have of documents.
pub const CLIENTS_COLLECTION: &str = "alluvium.clients";

/// The collection that holds which events are in which segment of an archive.
pub const ARCHIVE_COLLECTION: &str = "alluvium.archive";

/// One collection's projected documents and bookkeeping.
pub trait Store: Documents + Checkpoints + QuarantineRows + SkipRows {}

impl<S: Documents + Checkpoints + QuarantineRows + SkipRows> Store for S {}

/// The projected documents.
pub trait Documents: Clone + Send + Sync + 'static {
    /// An ordered walk over the versions of the rows.
    type Versions: Versions;

    /// Walks over all rows in the order of their ids, as the majority holds them, beginning after
    /// `after`, or at it. A row that changes meanwhile is seen as it was or as it became.
    fn versions(
        &self,
        after: Option<&DocumentId>,
        extent: Extent,
    ) -> impl Future<Output = Result<Self::Versions>> + Send;

    /// Which collection holds the rows now; `None` while there is none.
    fn rows_id(&self) -> impl Future<Output = Result<Option<RowsId>>> + Send;

    /// The rows of those `ids` that have one, in any order, as the majority holds them.
    fn load(&self, ids: &[DocumentId]) -> impl Future<Output = Result<Vec<RawDocumentBuf>>> + Send;

    /// The same of `ids` in ascending order, as many as one reply holds, and no older than of the cluster time `at_least`.
    fn load_some(
        &self,
        ids: &[DocumentId],
        at_least: Timestamp,
    ) -> impl Future<Output = Result<Loaded>> + Send;

    /// Writes rows at majority, each only where the stored row still has the version that was read.
    /// Gives one outcome per write, in order. No document stands in `writes` twice.
    ///
    /// # Errors
    /// When the outcome of any of them is unknown: the same writes may be tried again.
    fn write(&self, writes: &[RowWrite]) -> impl Future<Output = Result<Vec<RowOutcome>>> + Send;
}

/// Rows of some documents.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The rows of those that have one, in the order of their ids.
    pub rows: Vec<RawDocumentBuf>,
    /// Of how many of the ids this tells, from the first on. Of at least one.
    pub told: usize,
}

/// An ordered walk over the versions of all rows.
pub trait Versions: Send {
    /// The next rows in the order of their ids, or `None` at the end.
    ///
    /// # Errors
    /// After an error the walk is over; another may begin after the last id seen.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<RowVersion>>>> + Send;

    /// What is said of rows that were passed over since this was asked last, because no document can have their `_id`.
    fn take_foreign(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// How much of each row a walk brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// How far it is.
    Version,
    /// That, and the row itself.
    Whole,
}

/// How far a row is.
#[derive(Clone, Debug, PartialEq)]
pub struct RowVersion {
    /// The document.
    pub id: DocumentId,
    /// The version of its row.
    pub version: i64,
    /// Whether the row bears the mark of a parked document.
    pub marked: bool,
    /// The row, if the walk brings whole ones.
    pub row: Option<RawDocumentBuf>,
}

/// A row to write.
#[derive(Clone, Debug)]
pub struct RowWrite {
    /// The document.
    pub id: DocumentId,
    /// The version of the stored row that this one follows; 0 when there is none, [`NO_VERSION`] where that row has no
    /// usable one.
    pub expected: i64,
    /// The version of `row`.
    pub version: i64,
    /// The whole row.
    pub row: RawDocumentBuf,
    /// Whether the stored row is not sound: a name stands twice in it, say. The server may abort when it replaces such a row,
    /// so that is deleted, and this one inserted.
    pub is_unsound: bool,
}

/// Stands for the version of a stored row that has no usable one.
pub const NO_VERSION: i64 = -1;

impl RowWrite {
    /// A row that follows the one at version `expected`, or the first one at 0.
    pub fn new(id: DocumentId, (expected, version): (i64, i64), row: RawDocumentBuf) -> Self {
        Self { id, expected, version, row, is_unsound: false }
    }
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum RowOutcome {
    /// The majority holds the row, byte for byte.
    Written,
    /// The stored row is another than expected, or is gone: read it again.
    Stale,
    /// The server refuses this row, whenever it is written: an index or a validator of the user's, or its size.
    Rejected {
        /// The server's code.
        code: i32,
        /// The server's words.
        reason: String,
    },
}

/// The saved checkpoints of a collection.
pub trait Checkpoints: Clone + Send + Sync + 'static {
    /// All checkpoints of the collection, as the majority holds them, each with its part. Those of
    /// earlier divisions are among them.
    fn load_checkpoints(&self) -> impl Future<Output = Result<Vec<(Part, Checkpoint)>>> + Send;

    /// Puts on record, at majority, which log the collection's documents come from. It stands in the
    /// checkpoint of the whole, however the collection is divided. `false` when another log is on
    /// record there: then nothing was written.
    fn claim_log(&self, log: LogId) -> impl Future<Output = Result<bool>> + Send;

    /// Saves the checkpoint of the store's own part, at majority. `false` when one of a later epoch, or
    /// of another log, is saved already: then nothing was written.
    fn save_checkpoint(&self, checkpoint: &Checkpoint)
    -> impl Future<Output = Result<bool>> + Send;
}

/// A document that waits: behind a gap, or parked by a poison event.
#[derive(Clone, Debug, PartialEq)]
pub struct QuarantineRow {
    /// The document, which may have no row yet.
    pub document: DocumentId,
    /// Why; `version` is that of the first event that could not be applied, or that is missing.
    pub mark: Quarantine,
    /// When it was recorded, by the server's clock.
    pub since: DateTime,
}

/// The records of documents that wait, at most one for each document.
pub trait QuarantineRows: Clone + Send + Sync + 'static {
    /// All of the collection's.
    fn load_quarantine(&self) -> impl Future<Output = Result<Vec<QuarantineRow>>> + Send;

    /// What the clock of the server shows now, which the records' `since` goes by.
    fn server_time(&self) -> impl Future<Output = Result<DateTime>> + Send;

    /// Those of some documents.
    fn load_quarantine_among(
        &self,
        documents: &[DocumentId],
    ) -> impl Future<Output = Result<Vec<QuarantineRow>>> + Send;

    /// That of one document.
    fn load_quarantine_of(
        &self,
        document: &DocumentId,
    ) -> impl Future<Output = Result<Option<QuarantineRow>>> + Send {
        async move { Ok(self.load_quarantine_among(slice::from_ref(document)).await?.pop()) }
    }

    /// Writes records, at majority. A record replaces an earlier one of its document, unless that one
    /// waits for a later version: then another instance is further.
    fn put_quarantine(&self, rows: &[QuarantineRow]) -> impl Future<Output = Result<()>> + Send;

    /// Removes, at majority, the records of documents that no longer wait. Each comes with the version
    /// that its row has reached. A record of a later version stays: another instance may be further.
    fn remove_quarantine(
        &self,
        healed: &[(DocumentId, i64)],
    ) -> impl Future<Output = Result<()>> + Send;
}

/// The name of a lease: a collection, or one part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseName {
    /// The collection.
    pub collection: String,
    /// Which part of it.
    pub part: Part,
}

impl LeaseName {
    /// The part of `collection` whose checkpoint has this `_id`, if it is one's.
    pub fn part_of(id: &str, collection: &str) -> Option<Part> {
        let suffix = id.strip_prefix(collection)?;
        if suffix.is_empty() {
            return Some(Part::WHOLE);
        }
        let (index, of) = suffix.strip_prefix('#')?.split_once('/')?;
        let part = Part { index: index.parse().ok()?, of: of.parse().ok()? };
        Some(part).filter(|part| part.index < part.of && part.of > 1)
    }
}

impl fmt::Display for LeaseName {
    /// The collection, with the part where it is not the only one: the `_id` of its checkpoint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part.of {
            1 => f.write_str(&self.collection),
            _ => write!(f, "{}#{}", self.collection, self.part),
        }
    }
}

/// A lease as it stands in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: LeaseName,
    /// The instance that holds it; `None` when it was given back.
    pub holder: Option<String>,
    /// Rises with every change of holder.
    pub epoch: i64,
    /// Rises while the holder lives.
    pub beat: i64,
}

/// An instance's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The instance.
    pub instance: String,
    /// Rises while it lives.
    pub beat: i64,
}

/// All leases of a database, and who is there to take them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The leases that were ever taken.
    pub leases: Vec<Lease>,
    /// The instances that were there and have not said goodbye.
    pub instances: Vec<Presence>,
}

/// Leases and presences. They save work and decide nothing about correctness, which rests on the
/// filters of every write.
pub trait Leases: Clone + Send + Sync + 'static {
    /// Everything, as the majority holds it.
    fn load_roster(&self) -> impl Future<Output = Result<Roster>> + Send;

    /// The epoch of the checkpoint that the lease is about; 0 if there is none. The epoch of the lease
    /// must be above it, even when the row of the lease was lost.
    fn epoch_floor(&self, name: &LeaseName) -> impl Future<Output = Result<i64>> + Send;

    /// Takes a lease, at majority. `seen` is its row as it was read, `None` if there was none. `false`
    /// when it has changed since.
    fn take_lease(
        &self,
        lease: &Lease,
        seen: Option<&Lease>,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Renews a lease, at majority: stores its new beat. With `holder: None` it gives the lease back.
    /// `false` when another has taken it.
    fn renew_lease(&self, lease: &Lease) -> impl Future<Output = Result<bool>> + Send;

    /// The format of the data, as the majority holds it; `None` where nothing is recorded.
    fn load_format(&self) -> impl Future<Output = Result<Option<i64>>> + Send;

    /// What the clock of the server shows now.
    fn server_time(&self) -> impl Future<Output = Result<DateTime>> + Send;

    /// Shows that an instance lives.
    fn show_presence(&self, presence: &Presence) -> impl Future<Output = Result<()>> + Send;

    /// Removes an instance: it says goodbye, or has been silent for long.
    fn remove_presence(&self, instance: &str) -> impl Future<Output = Result<()>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_checkpoint_tells_its_part() {
        for part in Part::all(1).chain(Part::all(3)) {
            let name = LeaseName { collection: "games".into(), part };
            assert_eq!(LeaseName::part_of(&name.to_string(), "games"), Some(part));
        }
        for id in
            ["game", "games#", "games#0/1", "games#2/2", "games#-1/2", "games#x#0/2", "gamesx"]
        {
            assert_eq!(LeaseName::part_of(id, "games"), None, "{id}");
        }
    }
}
