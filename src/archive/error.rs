//! Why an archive cannot be written or read, each with what to do about it.

use crate::database;

/// What a step on an archive gives.
pub type Result<T, E = ArchiveError> = std::result::Result<T, E>;

/// Why an archive cannot be written or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be reached, or refuses.
    #[error("the archive is away: {0}")]
    Away(String),
    /// Its server does not heed the condition under which objects are created.
    #[error(
        "the archive overwrites what is there: its server does not heed `If-None-Match`, without which a segment could be \
         overwritten; use one that does"
    )]
    Overwrites,
    /// It belongs to another log.
    #[error(
        "the archive is not this log's: its manifest names {found}, and this is {expected}. Give each collection, and \
         each new log, an archive of its own"
    )]
    Foreign {
        /// What the manifest names.
        found: String,
        /// What it would have to name.
        expected: String,
    },
    /// What says whose archive it is cannot be read.
    #[error(
        "the archive's `manifest.json` is damaged: it holds `{found}`. Put it back from a copy; if the archive is this log's, \
         it is {expected}"
    )]
    Manifest {
        /// What it holds.
        found: String,
        /// What it would be.
        expected: String,
    },
    /// A segment is not what was written.
    #[error(
        "the archive's segment `{segment}` {problem}. Nothing was deleted because of it: put the segment back from a copy"
    )]
    Damaged {
        /// Its name.
        segment: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A segment was written anew meanwhile, without something that was erased. What is left of it is in another one.
    #[error(
        "the archive's segment `{0}` is just written anew, for something of it was erased; try again"
    )]
    Moved(String),
    /// The database refused or could not be reached.
    #[error(transparent)]
    Database(#[from] database::Error),
}

impl ArchiveError {
    pub(super) fn damaged(segment: &str, problem: impl Into<String>) -> Self {
        Self::Damaged { segment: segment.to_owned(), problem: problem.into() }
    }
}
