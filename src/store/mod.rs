//! What the daemon writes: projected documents and its own bookkeeping, each collection in a file of
//! its own. The projector reaches them only through the traits of this module, so that it runs
//! unchanged on MongoDB and, in a simulation, on an in-memory twin.

pub mod mongo;

use std::future::Future;

use bson::{DateTime, RawDocumentBuf};

use crate::{
    database::Result,
    model::{document::Quarantine, id::DocumentId, position::Checkpoint},
};

/// The suffix of the collection that holds the snapshots of a configured collection.
pub const SNAPSHOTS_SUFFIX: &str = ".snapshots";

/// What the names of the bookkeeping's collections begin with.
pub const BOOKKEEPING_PREFIX: &str = "alluvium";

/// The name of the collection that holds the snapshots of `collection`.
pub fn snapshots_collection(collection: &str) -> String {
    format!("{collection}{SNAPSHOTS_SUFFIX}")
}

/// One collection's projected documents and bookkeeping.
pub trait Store: Documents + Checkpoints + QuarantineRows {}

impl<S: Documents + Checkpoints + QuarantineRows> Store for S {}

/// The projected documents.
pub trait Documents: Clone + Send + Sync + 'static {
    /// The rows of those `ids` that have one, in any order, as the majority holds them.
    fn load(&self, ids: &[DocumentId]) -> impl Future<Output = Result<Vec<RawDocumentBuf>>> + Send;

    /// Writes rows at majority, each only where the stored row still has the version that was read.
    /// Gives one outcome per write, in order. No document stands in `writes` twice.
    ///
    /// # Errors
    /// When the outcome of any of them is unknown: the same writes may be tried again.
    fn write(&self, writes: &[RowWrite]) -> impl Future<Output = Result<Vec<RowOutcome>>> + Send;
}

/// A row to write.
#[derive(Clone, Debug)]
pub struct RowWrite {
    /// The document.
    pub id: DocumentId,
    /// The version of the stored row that this one follows; 0 when there is none.
    pub expected: i64,
    /// The version of `row`.
    pub version: i64,
    /// The whole row.
    pub row: RawDocumentBuf,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum RowOutcome {
    /// The majority holds the document at the row's version.
    Written,
    /// The stored row is at another version than expected, or is gone: read it again.
    Stale,
    /// The server refuses this row for good: a unique index or a validator of the user's, or its size.
    Rejected {
        /// The server's code.
        code: i32,
        /// The server's words.
        reason: String,
    },
}

/// The saved checkpoint of a collection.
pub trait Checkpoints: Clone + Send + Sync + 'static {
    /// The checkpoint as the majority holds it.
    fn load_checkpoint(&self) -> impl Future<Output = Result<Option<Checkpoint>>> + Send;

    /// Saves it at majority; `false` when a later epoch has saved its own, and nothing was written.
    fn save_checkpoint(&self, checkpoint: &Checkpoint)
    -> impl Future<Output = Result<bool>> + Send;
}

/// A document that waits: behind a hole, or parked by a poison event.
#[derive(Clone, Debug, PartialEq)]
pub struct QuarantineRow {
    /// The document, which may have no row yet.
    pub document: DocumentId,
    /// Why; `version` is that of the first event that could not be applied, or that is missing.
    pub mark: Quarantine,
    /// When it was recorded, by the daemon's wall clock.
    pub since: DateTime,
}

/// The records of documents that wait, at most one for each document.
pub trait QuarantineRows: Clone + Send + Sync + 'static {
    /// All of the collection's.
    fn load_quarantine(&self) -> impl Future<Output = Result<Vec<QuarantineRow>>> + Send;

    /// Records at majority, replacing earlier records of the same documents.
    fn put_quarantine(&self, rows: &[QuarantineRow]) -> impl Future<Output = Result<()>> + Send;

    /// Removes the records of these documents, at majority.
    fn remove_quarantine(
        &self,
        documents: &[DocumentId],
    ) -> impl Future<Output = Result<()>> + Send;
}
