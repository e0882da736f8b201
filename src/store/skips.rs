//! The events that operators have skipped, on record for ever.

use std::future::Future;

use super::RowWrite;
use crate::{
    database::Result,
    model::{
        id::DocumentId,
        skip::{Skip, SkippedVersions, Skips},
    },
};

/// The events of a collection that are skipped.
pub trait SkipRows: Clone + Send + Sync + 'static {
    /// All of the collection's, as the majority holds them.
    fn load_skips(&self) -> impl Future<Output = Result<Skips>> + Send;

    /// Those of one document.
    fn load_skips_of(
        &self,
        document: &DocumentId,
    ) -> impl Future<Output = Result<SkippedVersions>> + Send;

    /// Puts a skip on record and moves the document over it, at majority: both or neither, so that nobody, however
    /// late, can still apply the event to the row that is there.
    ///
    /// # Errors
    /// When the outcome is unknown: the same may be tried again.
    fn skip(
        &self,
        skip: &Skip,
        write: &RowWrite,
    ) -> impl Future<Output = Result<SkipOutcome>> + Send;
}

/// What became of a skip.
#[derive(Clone, Debug, PartialEq)]
pub enum SkipOutcome {
    /// It is on record, and the document has moved.
    Done,
    /// It was on record before.
    Existed,
    /// The row is another than was read: it has moved on, or is gone.
    Stale,
    /// The server refuses the row.
    Rejected {
        /// The server's code.
        code: i32,
        /// The server's words.
        reason: String,
    },
}
