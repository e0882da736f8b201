//! The index of an archive: which events of which document are in which segment.

use std::{collections::HashMap, future::Future};

use crate::{
    database::Result,
    model::{id::DocumentId, position::LogId},
};

/// Some events of one document, in one segment of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// The document.
    pub id: DocumentId,
    /// The log that they come from.
    pub log: LogId,
    /// The version of the first of them.
    pub from: i64,
    /// The version of the last.
    pub to: i64,
    /// The name of the segment.
    pub segment: String,
    /// Where they begin in its content.
    pub offset: i64,
    /// How many bytes of it they take.
    pub length: i64,
    /// How many bytes its content has.
    pub bytes: i64,
    /// SHA-256 over its content.
    pub hash: [u8; 32],
    /// Whether the segment was read back and compared. Until then nothing may rely on it; it is on record, so that an
    /// erasure finds every segment that there may be.
    pub is_proven: bool,
}

/// The rows of one collection's archive. What is read sees everything that was written before.
pub trait ArchiveRows: Clone + Send + Sync + 'static {
    /// Puts rows on record, at majority, as not proven. One that is there stays as it is.
    fn note_archived(&self, rows: &[Archived]) -> impl Future<Output = Result<()>> + Send;

    /// Says that the segment of these rows was read back, at majority; how many of them are still there.
    fn prove_archived(&self, rows: &[Archived]) -> impl Future<Output = Result<i64>> + Send;

    /// Says that the segment of these rows is not what was written, at majority: nothing relies on them any more.
    fn doubt_archived(&self, rows: &[Archived]) -> impl Future<Output = Result<()>> + Send;

    /// The rows of some documents, ascending for each, as the majority holds them.
    fn archived(&self, ids: &[DocumentId]) -> impl Future<Output = Result<Vec<Archived>>> + Send;

    /// The rows of one segment.
    fn rows_of_segment(&self, segment: &str) -> impl Future<Output = Result<Vec<Archived>>> + Send;

    /// The rows of the first segments by name after `after`, whole segments, at least one if there is one.
    fn segments(&self, after: Option<&str>) -> impl Future<Output = Result<Vec<Archived>>> + Send;

    /// Up to which version the content of each of these documents was erased, by what stands first in the log; none that
    /// was never erased. Sees every base that was written before.
    fn erased(
        &self,
        log: LogId,
        ids: &[DocumentId],
    ) -> impl Future<Output = Result<HashMap<DocumentId, i64>>> + Send;

    /// Removes rows, at majority.
    fn forget_archived(&self, rows: &[Archived]) -> impl Future<Output = Result<()>> + Send;
}
