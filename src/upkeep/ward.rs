//! One collection, as the desk looks after it.

use std::time::Duration;

use super::{compact::Compaction, snapshot::Snapshotter};
use crate::{health::Heart, log::LogSource, projector::revisit::Parts};

/// What the desk looks after for one collection.
pub struct Ward<S: LogSource, D> {
    /// Its name.
    pub collection: String,
    /// Takes its snapshots.
    pub snapshotter: Snapshotter<S, D>,
    /// Its projectors: the leader of a document's part does what is about that document, and the leader of
    /// the first part what is about all of them.
    pub parts: Parts,
    /// A gap that is younger is not closed.
    pub gap_grace: Duration,
    /// What is kept when it is compacted.
    pub compaction: Compaction,
    /// Beats while it is looked after.
    pub heart: Heart,
}
