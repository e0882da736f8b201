//! Snapshots of one collection, as whoever takes them sees the database.

use std::{collections::HashMap, future::Future};

use bson::{DateTime, RawDocumentBuf};

use crate::{
    database::Result,
    model::{
        id::DocumentId,
        snapshot::{Snapshot, SnapshotError},
    },
};

/// What became of a snapshot that was to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The majority holds it.
    Stored,
    /// There is one of the same content already.
    Existed,
    /// There is another one of this version: one of the two is wrong.
    Conflict {
        /// How they differ.
        reason: String,
    },
}

/// A snapshot as it is stored, without its content.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSnapshot {
    /// The document.
    pub id: DocumentId,
    /// Its version.
    pub version: i64,
    /// Its key, and the hash that stands in it.
    pub row: RawDocumentBuf,
    /// Why it cannot be used, if so.
    pub problem: Option<SnapshotError>,
}

/// The snapshots of one collection.
pub trait Snapshots: Clone + Send + Sync + 'static {
    /// The database's clock, by which snapshots are dated: a wrong clock of ours must not decide what
    /// is old enough to be pruned.
    fn database_time(&self) -> impl Future<Output = Result<DateTime>> + Send;

    /// Stores snapshots at majority; never replaces one. Gives one outcome for each, in order.
    ///
    /// # Errors
    /// When the outcome of any of them is unknown: the same ones may be put again.
    fn put_snapshots(
        &self,
        snapshots: &[Snapshot],
    ) -> impl Future<Output = Result<Vec<PutOutcome>>> + Send;

    /// The snapshot of this version, if there is one that can be used.
    fn snapshot(
        &self,
        id: &DocumentId,
        version: i64,
    ) -> impl Future<Output = Result<Option<Snapshot>>> + Send;

    /// The newest snapshot at or below `version` that can be used.
    fn newest_snapshot(
        &self,
        id: &DocumentId,
        version: i64,
    ) -> impl Future<Output = Result<Option<Snapshot>>> + Send;

    /// The newest snapshot of each of the documents from `first` to `last` that have any: its version, and
    /// when it was taken.
    fn newest_between(
        &self,
        first: &DocumentId,
        last: &DocumentId,
    ) -> impl Future<Output = Result<HashMap<DocumentId, (i64, DateTime)>>> + Send;

    /// All snapshots of the documents from `first` to `last`, but those of another fold, each with whether it can be used.
    fn stored_between(
        &self,
        first: &DocumentId,
        last: &DocumentId,
    ) -> impl Future<Output = Result<Vec<StoredSnapshot>>> + Send;

    /// Deletes a snapshot, unless another one stands in its place by now; whether it did.
    fn remove_snapshot(&self, stored: &StoredSnapshot)
    -> impl Future<Output = Result<bool>> + Send;

    /// Deletes all snapshots of these documents but the newest `keep` of each. Gives how many
    /// went.
    fn prune_snapshots(
        &self,
        ids: &[DocumentId],
        keep: u32,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// About how many documents are projected.
    fn estimate_documents(&self) -> impl Future<Output = Result<u64>> + Send;
}
