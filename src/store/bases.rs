//! Bases and what pruning needs, as whoever compacts a log sees the database. Writes go to the log, and yet belong here:
//! they are made in the transactions that take over from a leader that is gone, and name the log by its identity.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    time::Duration,
};

use bson::{RawDocumentBuf, Timestamp};

use super::ArchiveRows;
use crate::{
    database::Result,
    model::{
        base::Base,
        compaction::{LiveClient, Mark},
        id::DocumentId,
        position::LogId,
    },
};

/// Why no base may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// It passes by itself: the format of the data has just become one that has bases, or the projection is late.
    Passing,
    /// An operator has to do something: a sentence that says what.
    Stands(String),
}

/// What a new base takes the place of.
#[derive(Clone, Debug, PartialEq)]
pub enum Over {
    /// The first event.
    Create,
    /// An earlier base.
    Base(Which),
}

/// Which base of a document is meant: one that has been replaced, pruned, restored or erased meanwhile is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    /// Its version.
    pub version: i64,
    /// Its hash.
    pub hash: [u8; 32],
    /// How far its log is pruned.
    pub pruned: i64,
    /// The version up to which its content was erased, or 0.
    pub erased_through: i64,
}

impl From<&Base> for Which {
    fn from(base: &Base) -> Self {
        Self {
            version: base.version,
            hash: base.hash(),
            pruned: base.pruned,
            erased_through: base.erased_through,
        }
    }
}

/// A step of pruning: the events above what is pruned go, up to `through`.
#[derive(Clone, Debug, PartialEq)]
pub struct Prune {
    /// The document.
    pub id: DocumentId,
    /// The base that stands for them.
    pub base: Which,
    /// The version of the last event that goes. Below the base's.
    pub through: i64,
}

impl Prune {
    /// How many events go.
    pub fn events(&self) -> i64 {
        self.through - self.base.pruned
    }
}

/// What became of some steps of pruning, which are done together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneOutcome {
    /// The events are gone.
    Done,
    /// One of the bases is another one by now. Nothing was done.
    Moved,
    /// Others wrote there, or it was too much at once. Nothing was done; fewer at once may go.
    Busy,
    /// There were fewer events than there have to be. Nothing was done.
    Short,
}

/// A step of restoring: events below what is pruned are put back.
#[derive(Clone, Debug, PartialEq)]
pub struct Restore {
    /// The document.
    pub id: DocumentId,
    /// The base that stands for them.
    pub base: Which,
    /// How far its log is pruned afterwards. With 0 the first event is put back in the place of the base.
    pub pruned: i64,
    /// The events above that, up to what is pruned now, ascending.
    pub events: Vec<RawDocumentBuf>,
}

/// What was left of a document that was erased, beside its log and its row, and is gone now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Snapshots.
    pub snapshots: i64,
    /// Records of events that came late, or that it was parked at.
    pub records: i64,
    /// Skips whose reason told of it. They stay, without that.
    pub skips: i64,
    /// Jobs whose outcome told of it. They stay, without that.
    pub jobs: i64,
}

impl std::ops::AddAssign for Forgotten {
    fn add_assign(&mut self, more: Self) {
        self.snapshots += more.snapshots;
        self.records += more.records;
        self.skips += more.skips;
        self.jobs += more.jobs;
    }
}

/// Bases, marks and clients of one collection.
pub trait Bases: ArchiveRows {
    /// Takes a step of restoring, at majority: the events and what the base says of them, or neither. `false` when the base
    /// is another one by now, or something else stands where an event belongs.
    ///
    /// # Errors
    /// When the outcome is unknown: the base has to be read again.
    fn restore(&self, log: LogId, step: &Restore) -> impl Future<Output = Result<bool>> + Send;

    /// Holds a document, at majority, so that it is compacted only when somebody asks for it; or lets it go.
    fn hold(
        &self,
        log: LogId,
        id: &DocumentId,
        is_held: bool,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Which of these documents are held.
    fn held(
        &self,
        log: LogId,
        ids: &[DocumentId],
    ) -> impl Future<Output = Result<HashSet<DocumentId>>> + Send;

    /// Why no base may be written; `None` when one may. Records the format of data that has bases, which has to stand on
    /// record for `settled` before the first of them.
    fn hindrance(
        &self,
        settled: Duration,
    ) -> impl Future<Output = Result<Option<Hindrance>>> + Send;

    /// Replaces what stands first in the log of a document by a base, at majority. `false` when something else stands
    /// there than `over`.
    ///
    /// # Errors
    /// When the outcome is unknown: what stands there has to be read again.
    fn put_base(
        &self,
        log: LogId,
        base: &Base,
        over: &Over,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Takes steps of pruning of different documents, at majority: all or none.
    ///
    /// # Errors
    /// When the outcome is unknown: the bases have to be read again.
    fn prune(
        &self,
        log: LogId,
        steps: &[Prune],
    ) -> impl Future<Output = Result<PruneOutcome>> + Send;

    /// The marks of these documents that count for a log, ascending.
    fn marks(
        &self,
        log: LogId,
        ids: &[DocumentId],
    ) -> impl Future<Output = Result<HashMap<DocumentId, Vec<Mark>>>> + Send;

    /// What clients have told of these documents.
    fn clients(
        &self,
        ids: &[DocumentId],
    ) -> impl Future<Output = Result<HashMap<DocumentId, Vec<LiveClient>>>> + Send;

    /// The events of a document that stand where its base says that none is left, at most `limit` of them. Sees everything
    /// that was committed before `at_least`.
    fn late(
        &self,
        log: LogId,
        base: &Base,
        limit: u32,
        at_least: Timestamp,
    ) -> impl Future<Output = Result<Vec<RawDocumentBuf>>> + Send;

    /// Keeps a late event on record and takes it out of the log, at majority: both or neither. `false` when it, or the
    /// base, is another one by now, or others write there at this moment.
    fn remove_late(
        &self,
        log: LogId,
        base: &Base,
        event: &RawDocumentBuf,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Removes, at majority, whatever the bookkeeping holds of a document's content up to version `through`: snapshots,
    /// records, reasons of skips, outcomes of jobs. May be done again.
    fn forget(
        &self,
        id: &DocumentId,
        through: i64,
    ) -> impl Future<Output = Result<Forgotten>> + Send;
}
