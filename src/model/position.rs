//! Where a reader of the log stands: what a checkpoint saves and a tail starts from. Data only, so
//! that the log and the store can both speak of it without knowing each other.

use std::fmt;

use bson::{RawBson, Timestamp, Uuid};

/// The identity of a log: the UUID of its collection. A log that was dropped and made again is another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub Uuid);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of the collection that holds a projection's rows: its UUID. One that was dropped and made again, or
/// brought back from a backup, is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsId(pub Uuid);

impl fmt::Display for RowsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a database's stream of changes: everything before it has been delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Position {
    /// The server's resume token. Opaque.
    pub token: RawBson,
    /// The cluster time that goes with it, for when the token cannot be used.
    pub cluster_time: Timestamp,
}

/// How far the projection of a collection is known to have come.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Everything before this place has been flushed at majority. `None` until the first scan is over:
    /// until then a checkpoint only says which log the documents come from.
    pub position: Option<Position>,
    /// The log it was read from.
    pub log: LogId,
    /// The collection whose rows it vouches for, if that was known.
    pub rows: Option<RowsId>,
    /// The leadership under which it was saved. Rises with every change of leader.
    pub epoch: i64,
    /// About how many events the log held up to the position, if that was known. It only helps to
    /// choose the quicker way to catch up. A wrong number costs time and nothing else.
    pub passed_events: Option<u64>,
}
