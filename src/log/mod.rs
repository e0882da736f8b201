//! The event log as the rest of the program sees it: read, scanned in order, and tailed. The
//! projector reaches it only through the traits of this module, so that it runs unchanged on MongoDB
//! and, in a simulation, on an in-memory twin that misbehaves on purpose.

pub mod append;
pub mod batch;
pub mod create;
pub mod history;
pub mod validator;
pub mod mongo;

use std::future::Future;

use bson::{RawDocumentBuf, Timestamp};

use crate::{
    database::{Error, Result},
    model::{
        event::EventKey,
        id::DocumentId,
        position::{LogId, Position},
    },
};

pub use crate::model::names::events_collection;
pub use batch::{Batch, Reading, TailItem};

/// Where a tail begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// Right after this place.
    After(Position),
    /// With the first change at this time.
    At(Timestamp),
}

impl Start {
    /// The cluster time that goes with it.
    pub fn cluster_time(&self) -> Timestamp {
        match self {
            Self::After(position) => position.cluster_time,
            Self::At(time) => *time,
        }
    }

    /// The start after which comes whatever comes after any of `starts`. Two places at one time may lie in the
    /// middle of one transaction, and nobody can tell which is the earlier: then everything of that time comes.
    pub fn earliest<'a>(starts: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut earliest: Option<Self> = None;
        for start in starts {
            let time = start.cluster_time();
            match &earliest {
                Some(known) if known == start || known.cluster_time() < time => {}
                Some(known) if known.cluster_time() == time => earliest = Some(Self::At(time)),
                _ => earliest = Some(start.clone()),
            }
        }
        earliest
    }
}

/// Which bodies of events a tail carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// All of them.
    All,
    /// Only those of at most so many bytes: others arrive as [`TailItem::Bodiless`].
    UpTo(i64),
}

/// The logs of one database.
pub trait LogSource: Clone + Send + Sync + 'static {
    /// Its stream of changes.
    type Tail: Tail;
    /// One collection's log.
    type Log: EventLog;

    /// The present cluster time. A scan that is given it sees everything before it, and a tail that
    /// starts at it everything after.
    fn now(&self) -> impl Future<Output = Result<Timestamp>> + Send;

    /// Opens one stream over the logs of `collections`, and over what takes away their rows.
    ///
    /// # Errors
    /// Verdict `CatchUp` when the server no longer has the place, `Reposition` when it holds the token
    /// to be another stream's.
    fn tail(
        &self,
        collections: &[String],
        start: &Start,
        bodies: Bodies,
    ) -> impl Future<Output = Result<Self::Tail>> + Send;

    /// The log that `collection` has now, or `None` if there is no such collection. What is opened is that log for ever:
    /// it is never mistaken for another one that takes its name.
    fn open(&self, collection: &str) -> impl Future<Output = Result<Option<Self::Log>>> + Send;

    /// The same, where there has to be a log.
    ///
    /// # Errors
    /// With advice, when there is none.
    fn open_existing(&self, collection: &str) -> impl Future<Output = Result<Self::Log>> + Send {
        async move {
            self.open(collection).await?.ok_or_else(|| {
                Error::stop(
                    format!("the log of `{collection}` does not exist"),
                    "restore the events collection from a backup, or run `alluvium init` to begin with an empty one",
                )
            })
        }
    }
}

/// A stream of majority-committed changes of several logs, in commit order.
pub trait Tail: Send {
    /// The next batch, empty if nothing happened for a while: its position has advanced all the same.
    ///
    /// # Errors
    /// As [`LogSource::tail`]; after any error the tail is over and another must be opened.
    fn next(&mut self) -> impl Future<Output = Result<TailBatch>> + Send;
}

/// What a tail delivers at once.
#[derive(Clone, Debug)]
pub struct TailBatch {
    /// The changes, to be read with [`TailItem::decode`].
    pub changes: Batch,
    /// The place after them.
    pub position: Position,
    /// The server's present cluster time, which tells how far behind the changes are.
    pub server_time: Option<Timestamp>,
    /// Whether the server had more than it could send at once: there is a backlog.
    pub is_full: bool,
}

/// One collection's log, as it was opened. Every command names it by its identity, so the server refuses the command
/// while the log has another name, when it was dropped, and when another log has its name. A log that is away never
/// reads as empty.
///
/// # Errors
/// All of its methods but `estimated_events`: code [`LOG_MISMATCH`](crate::database::code::LOG_MISMATCH) when the log
/// is away, gone, or another one.
pub trait EventLog: Clone + Send + Sync + 'static {
    /// An ordered walk over it.
    type Scan: Scan;

    /// Which log it is.
    fn id(&self) -> LogId;

    /// About how many events the log of this name holds, at no cost worth mentioning: as the server counts along, also
    /// events that the majority has not got yet, and wrong at times, after a crash of the server, say. A count cannot
    /// name its log: this is the one answer that may be about another log.
    fn estimated_events(&self) -> impl Future<Output = Result<u64>> + Send;

    /// Walks over all events in the order of their keys, beginning after `after`. Sees every event
    /// that was majority-committed before `at_least`, and perhaps later ones.
    fn scan(
        &self,
        after: Option<&EventKey>,
        at_least: Timestamp,
    ) -> impl Future<Output = Result<Self::Scan>> + Send;

    /// The events of one document above version `after`, ascending, at most `limit`. Majority-committed;
    /// with `at_least`, sees everything before that time. There may be fewer than the log holds:
    /// [`Batch::is_cut`] says so. What sorts among them and has no readable key is passed over: it belongs to no
    /// document.
    fn read(
        &self,
        document: &DocumentId,
        after: i64,
        limit: u32,
        at_least: Option<Timestamp>,
    ) -> impl Future<Output = Result<Batch>> + Send;

    /// What stands first in the history of a document: its first event, or its base. Whoever finds a gap above what he
    /// holds asks here, afterwards, whether a base stands for what is missing.
    fn first(
        &self,
        document: &DocumentId,
        at_least: Option<Timestamp>,
    ) -> impl Future<Output = Result<Batch>> + Send {
        self.read(document, 0, 1, at_least)
    }
}

/// Filling gaps, the one thing that the daemon ever writes to a log. It deletes nothing there.
pub trait Mend: EventLog {
    /// Inserts some small events at majority, in any order. Those whose places are taken are left out.
    fn insert(&self, events: &[RawDocumentBuf]) -> impl Future<Output = Result<()>> + Send;
}

/// An ordered walk over a log.
pub trait Scan: Send {
    /// The next events in the order of their keys, or `None` at the end.
    ///
    /// # Errors
    /// After an error the walk is over; another may begin after the last key seen.
    fn next(&mut self) -> impl Future<Output = Result<Option<Batch>>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::RawBson;

    #[test]
    fn the_earliest_of_several_places_at_one_time_is_all_of_that_time() {
        let time = |time| Timestamp { time, increment: 1 };
        let at = |seconds| Start::At(time(seconds));
        let after = |seconds, token| {
            Start::After(Position { token: RawBson::Int32(token), cluster_time: time(seconds) })
        };
        for (starts, earliest) in [
            (vec![], None),
            (vec![after(5, 1), after(4, 2), at(6)], Some(after(4, 2))),
            (vec![after(4, 2), after(4, 2)], Some(after(4, 2))),
            (vec![after(4, 2), after(4, 3), after(4, 3)], Some(at(4))),
            (vec![after(4, 2), at(4)], Some(at(4))),
            (vec![after(4, 2), after(4, 3), after(3, 9)], Some(after(3, 9))),
        ] {
            assert_eq!(Start::earliest(&starts), earliest, "{starts:?}");
        }
    }
}
