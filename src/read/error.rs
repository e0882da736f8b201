//! Why a read has no answer: what the caller asked for and cannot have, apart from what the database
//! or the data itself refuses.

use crate::{
    archive::ArchiveError,
    database::{self, code, create::NewerFormat},
    model::{
        base::BaseError, document::Quarantine, id::DocumentId, missing::ClockAhead, row::RowError,
    },
    store::format::FormatError,
};

/// What a read gives.
pub type Result<T, E = ReadError> = std::result::Result<T, E>;

/// Why a read has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The client claims events that do not exist, also after waiting for everything written so far.
    #[error(transparent)]
    ClockAhead(#[from] ClockAhead),
    /// The document has not come to the version that was asked for.
    #[error(
        "version {asked} was asked for, but the document has come to version {exists}{}",
        stopped_by(.poison)
    )]
    VersionAhead {
        /// The version asked for.
        asked: i64,
        /// The newest version that exists.
        exists: i64,
        /// What keeps the document from going on, if that is known.
        poison: Option<Quarantine>,
    },
    /// The events that the answer needs are no longer in the log.
    #[error(
        "the log no longer reaches back that far: the oldest version it can answer for is {floor}"
    )]
    BelowFloor {
        /// The oldest version that can be answered for.
        floor: i64,
    },
    /// An event below the document's version cannot be applied, so the versions around it cannot be computed.
    #[error(
        "the event at version {} cannot be applied ({}), although the document is at version {projected}: {}",
        .poison.version, .poison.class.name(), .poison.reason
    )]
    Unfoldable {
        /// The event and its fault.
        poison: Quarantine,
        /// The version of the projected document.
        projected: i64,
    },
    /// A later version of this program has taken the data over.
    #[error(transparent)]
    Newer(NewerFormat),
    /// There is no events collection.
    #[error("the events collection `{0}` does not exist: it was dropped or renamed, or never made")]
    NoLog(String),
    /// The stored row is not a projected document.
    #[error("the projected document {id} is damaged or was not written by alluvium: {source}")]
    Row {
        /// The document.
        id: DocumentId,
        /// What is wrong with it.
        source: RowError,
    },
    /// The base of the document's log is damaged.
    #[error(
        "the base of the log of document {id} cannot be used: {source}; put back what was written there"
    )]
    Base {
        /// The document.
        id: DocumentId,
        /// What is wrong with it.
        source: BaseError,
    },
    /// What the answer needs is in the archive, and that cannot be read.
    #[error(transparent)]
    Archive(ArchiveError),
    /// The database refused or could not be reached.
    #[error(transparent)]
    Database(database::Error),
}

fn stopped_by(poison: &Option<Quarantine>) -> String {
    poison.as_ref().map_or_else(String::new, |mark| {
        format!(
            " and waits there: {} at version {}: {}",
            mark.class.name(),
            mark.version,
            mark.reason
        )
    })
}

impl ReadError {
    /// Whether the moment was lost under the read, so that the same read at a new moment may succeed:
    /// the server no longer holds the snapshot, or gave up a plan or cursor on it, or another log has taken the place
    /// of the one that was read.
    pub(super) fn lost_its_moment(&self) -> bool {
        // CursorNotFound, QueryPlanKilled, CursorKilled, SnapshotTooOld, SnapshotUnavailable, NoSuchTransaction.
        matches!(self, Self::Archive(ArchiveError::Moved(_)))
            || matches!(self, Self::Database(error) if matches!(error.code(), Some(43 | 175 | 237 | 239 | 246 | 251 | code::LOG_MISMATCH)))
    }
}

impl ReadError {
    /// What a look at the archive has found.
    pub(super) fn of_archive(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Database(error) => Self::Database(error),
            error => Self::Archive(error),
        }
    }

    /// What a look at the format has found.
    pub(super) fn of_format(error: FormatError) -> Self {
        match error {
            FormatError::Newer(newer) => Self::Newer(newer),
            FormatError::Database(error) => Self::Database(error),
        }
    }
}

impl<E: Into<database::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}
