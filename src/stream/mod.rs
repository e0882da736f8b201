//! The one change stream of a daemon. Every stream costs the server a pass over the whole oplog, so all parts of all
//! collections share one: a projection subscribes to it, says where it wants to begin, and receives batches through a
//! bounded channel. Who cannot take any for long gets one of its own for as long as that lasts.

mod distributor;
mod streaming;

pub use distributor::Distributor;

use std::sync::Arc;

use bson::Timestamp;
use tokio::sync::mpsc;

use crate::{
    database::Error,
    log::{Start, TailBatch},
    metrics::RestartReason,
    model::part::Part,
};

/// How many batches may wait in front of a projector. More only takes memory: a full channel makes the
/// stream wait for a while, and then go on without it, which is what bounds the daemon.
pub const FEED_BATCHES_MAX: usize = 1;

/// What a projector receives.
#[derive(Clone, Debug)]
pub enum Feed {
    /// Changes of all collections of the stream: each projector picks out its own.
    Batch(Arc<TailBatch>),
    /// The server no longer holds what followed the last batch. The stream goes on from `at`; what lies
    /// before it has to be read from the log.
    Lost {
        /// Where the stream goes on.
        at: Timestamp,
    },
    /// The stream cannot be had, and trying again does not help.
    Failed(Error),
}

/// A projector's wish to be fed.
#[derive(Debug)]
pub struct Subscribe {
    /// The collection.
    pub collection: String,
    /// Which part of it. Of two wishes for one part the later counts.
    pub part: Part,
    /// Where to begin. Earlier batches may come as well.
    pub start: Start,
    /// Where to send. Dropping the other end ends the subscription.
    pub feed: mpsc::Sender<Feed>,
}

/// Is told of every restart of the stream over some collections.
pub trait Restarts: Send + Sync + 'static {
    /// The stream over `collections` is about to be opened again.
    fn restarted(&self, collections: &[String], reason: RestartReason);

    /// The stream over `collections` has failed, and is tried again.
    fn failed(&self, collections: &[String], error: &Error);
}

/// A channel for one projector's feed.
pub fn channel() -> (mpsc::Sender<Feed>, mpsc::Receiver<Feed>) {
    mpsc::channel(FEED_BATCHES_MAX)
}
