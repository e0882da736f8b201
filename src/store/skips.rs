//! What operators have done to events: those that were skipped, and those that were taken out of the log. Both are
//! on record for ever.

use std::{collections::BTreeSet, future::Future};

use bson::{DateTime, RawDocumentBuf};

use super::RowWrite;
use crate::{
    database::Result,
    model::{
        event::EventKey,
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

/// An event that an operator takes out of the log, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Discarded {
    /// Its place.
    pub key: EventKey,
    /// Its bytes.
    pub event: RawDocumentBuf,
    /// Why.
    pub reason: String,
    /// When, by the daemon's wall clock.
    pub since: DateTime,
}

/// The events that were taken out of the log of a collection.
pub trait DiscardedEvents: Clone + Send + Sync + 'static {
    /// Keeps events at majority, and only then counts them, at majority too. One that is kept already is kept once;
    /// another one of the same place beside it.
    fn keep_discarded(&self, events: &[Discarded]) -> impl Future<Output = Result<()>> + Send;

    /// The places of all events that were taken out.
    fn load_discarded(&self) -> impl Future<Output = Result<BTreeSet<EventKey>>> + Send;

    /// How often events were taken out, a number that only rises: whoever finds the one that he knows knows all of
    /// them that were kept before he asked.
    fn discards(&self) -> impl Future<Output = Result<i64>> + Send;

    /// The versions of a document of which events were taken out.
    fn discarded_of(
        &self,
        document: &DocumentId,
    ) -> impl Future<Output = Result<BTreeSet<i64>>> + Send;
}
