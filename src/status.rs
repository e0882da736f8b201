//! What a daemon knows about itself, as one value per collection: written by the projector, read by
//! the API, the metrics and the command line. Unknown is `None`, never 0.

use bson::DateTime;
use serde::Serialize;

/// Whether this instance projects the collection or stands by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It projects.
    Leader,
    /// Another instance does; this one reads and could take over.
    Standby,
}

/// What the projector of a collection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Looking for where to begin.
    Starting,
    /// Comparing the log with the documents.
    Scanning,
    /// Following the change stream.
    Tailing,
    /// Stopped by an operator.
    Paused,
    /// Stopped because going on would be wrong: see `last_error`.
    Refused,
}

/// The last thing that went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct LastError {
    /// When, by the daemon's wall clock.
    pub at: DateTime,
    /// The kind, from a closed set.
    pub class: &'static str,
    /// What went wrong.
    pub message: String,
    /// What an operator can do.
    pub advice: String,
}

/// The state of one collection's projection.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionStatus {
    /// The collection.
    pub name: String,
    /// Leader or standby. `None` while the leases could not be read.
    pub role: Option<Role>,
    /// The epoch under which this instance leads.
    pub lease_epoch: Option<i64>,
    /// What it is doing.
    pub phase: Phase,
    /// How old the oldest event is that is not yet visible, in seconds; 0 when caught up.
    pub lag_seconds: Option<f64>,
    /// How many events are not yet visible. Known only when caught up.
    pub lag_events: Option<u64>,
    /// How much older the checkpoint could be before the oplog no longer reached it, in seconds.
    pub oplog_headroom_seconds: Option<f64>,
    /// How long until the oplog no longer reaches the checkpoint, at the rate at which it forgets at present
    /// and if the checkpoint stayed where it is, in seconds; 0 when it no longer does.
    pub checkpoint_lost_in_seconds: Option<f64>,
    /// Documents that wait behind a hole.
    pub version_gaps: u64,
    /// How long the oldest of these holes has been open, in seconds; 0 when there is none.
    pub oldest_gap_seconds: Option<f64>,
    /// Documents parked by a poison event.
    pub quarantined: u64,
    /// The last error, kept after it has passed.
    pub last_error: Option<LastError>,
    /// Rises with every flush: what waits for a version looks again when this changes.
    pub flushes: u64,
}

impl CollectionStatus {
    /// A collection of which nothing is known yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            role: None,
            lease_epoch: None,
            phase: Phase::Starting,
            lag_seconds: None,
            lag_events: None,
            oplog_headroom_seconds: None,
            checkpoint_lost_in_seconds: None,
            version_gaps: 0,
            oldest_gap_seconds: None,
            quarantined: 0,
            last_error: None,
            flushes: 0,
        }
    }
}
