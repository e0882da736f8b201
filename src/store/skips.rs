//! The events that operators have skipped, on record for ever.

use std::future::Future;

use bson::{RawDocumentBuf, Timestamp};

use super::RowWrite;
use crate::{
    database::Result,
    model::{
        id::DocumentId,
        position::LogId,
        skip::{Skip, SkippedVersions, Skips},
    },
};

/// The events of a collection that are skipped.
pub trait SkipRows: Clone + Send + Sync + 'static {
    /// All of the collection's, as the majority holds them.
    fn load_skips(&self) -> impl Future<Output = Result<Skips>> + Send;

    /// Those of one document: all that were committed before `at_least`, and before any row that was read through this
    /// store or a clone of it.
    fn load_skips_of(
        &self,
        document: &DocumentId,
        at_least: Option<Timestamp>,
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

    /// Puts the skip of everything from a gap on on record and fills that gap, at majority: both or neither. So whoever
    /// sees the event that lets a document pass the gap finds the skip as well, if he looks then.
    ///
    /// # Errors
    /// When the outcome is unknown: the same may be tried again.
    fn skip_above(
        &self,
        skip: &Skip,
        filler: &Filler,
    ) -> impl Future<Output = Result<SkipAboveOutcome>> + Send;
}

/// The event that fills a gap below what is skipped.
#[derive(Clone, Debug, PartialEq)]
pub struct Filler {
    /// The log.
    pub log: LogId,
    /// The event.
    pub event: RawDocumentBuf,
    /// Whether it may be left to fold what came above the skip meanwhile.
    pub leaves_newer: bool,
}

/// What became of a skip of everything from a gap on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipAboveOutcome {
    /// It is on record, and the gap is filled.
    Done,
    /// It was on record before, or another one that begins with this gap.
    Existed,
    /// The missing event has arrived, or the gap was filled.
    Taken,
    /// There are newer events than those that were to be skipped.
    Newer,
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
