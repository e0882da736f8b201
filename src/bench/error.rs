//! Why a benchmark cannot be finished. None of it says anything about speed.

use std::io;

use crate::{
    database::{self, create::CreateError},
    embedded::EmbeddedError,
    import::ImportError,
    model,
    read::ReadError,
    writer::WriteError,
};

/// Why a benchmark cannot be finished.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The private server cannot be started or stopped.
    #[error("the private MongoDB server: {0}")]
    Server(#[from] EmbeddedError),
    /// The server refused something, or was lost.
    #[error("MongoDB: {0}")]
    Mongo(#[from] mongodb::error::Error),
    /// The same, as the daemon's own parts say it.
    #[error("MongoDB: {0}")]
    Database(#[from] database::Error),
    /// The collections cannot be made.
    #[error("the collections cannot be made: {0}")]
    Create(#[from] CreateError),
    /// A read of the library failed.
    #[error("a read failed: {0}")]
    Read(#[from] ReadError),
    /// A write of the library failed.
    #[error("a write failed: {0}")]
    Write(#[from] WriteError),
    /// A file or a process could not be used.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was to be done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The daemon under measurement ended by itself.
    #[error("the daemon ended with {status}. It said last: {words}")]
    DaemonEnded {
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        words: String,
    },
    /// A job that the benchmark asked for failed, or takes for ever.
    #[error("the job failed or did not end in time: {0}")]
    Job(String),
    /// An import failed.
    #[error("the import: {0}")]
    Import(#[from] ImportError),
    /// A daemon does not stand by although another one leads.
    #[error("after {0} s the second daemon does not stand by")]
    NotStandby(u64),
    /// A daemon does not begin to read.
    #[error("after {0} s the daemon has not begun to read")]
    NotReading(u64),
    /// A daemon does not come level with writers that go on.
    #[error("after {0} s the daemon is still behind the writers that go on beside it")]
    NotLevel(u64),
    /// The events did not become visible within the time limit.
    #[error(
        "after {seconds} s the projection holds {found} of {expected}; the machine may be too slow for this --scale"
    )]
    NotVisible {
        /// The limit.
        seconds: u64,
        /// How many events the projected documents hold.
        found: i64,
        /// How many they should.
        expected: i64,
    },
    /// A fold refused an event that the benchmark itself had made.
    #[error("the fold refuses an event of the benchmark ({0:?}); please report this")]
    Fold(model::document::Outcome),
}

/// What a step of a benchmark gives.
pub(super) type Result<T, E = BenchError> = std::result::Result<T, E>;

impl BenchError {
    pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

impl From<bson::error::Error> for BenchError {
    fn from(error: bson::error::Error) -> Self {
        Self::Database(error.into())
    }
}
