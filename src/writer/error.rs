//! Why a write has no effect, told so that the caller can act on it.

use crate::{
    database,
    log::append::AppendError,
    model::{
        document::Quarantine,
        id::{DocumentId, IdError},
        skip::{FILLER_CLIENT, FILLER_RULE},
    },
    read::ReadError,
};

/// What the writer's calls give.
pub type Result<T, E = WriteError> = std::result::Result<T, E>;

/// Why a write, or a read of the writer's, failed. Nothing was appended, except perhaps where it says so.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// There is no log to append to, and an insert would make one that is not guarded.
    #[error(
        "`{log}` does not exist in the database `{database}`: check the names of collection and database, \
         or make it with `alluvium init`"
    )]
    NoLog {
        /// The log.
        log: String,
        /// The database.
        database: String,
    },
    /// The document was never created.
    #[error("document {id} does not exist")]
    NotFound {
        /// The document.
        id: DocumentId,
    },
    /// The document was deleted. It can be created again.
    #[error("document {id} was deleted at version {version}")]
    Deleted {
        /// The document.
        id: DocumentId,
        /// The version of the delete.
        version: i64,
    },
    /// A create of a document that lives.
    #[error("document {id} exists already, at version {version}")]
    Exists {
        /// The document.
        id: DocumentId,
        /// Its version.
        version: i64,
    },
    /// Other writers were quicker every time.
    #[error("document {id} was changed by others in each of {attempts} attempts; try again later")]
    Conflict {
        /// The document.
        id: DocumentId,
        /// How often it was tried.
        attempts: usize,
    },
    /// The document is not at the version that the caller demanded.
    #[error("document {id} is at version {found}, not at {expected}")]
    VersionMismatch {
        /// The document.
        id: DocumentId,
        /// The version demanded.
        expected: i64,
        /// Its version.
        found: i64,
    },
    /// The event is malformed or does not fit the document: it would have parked it.
    #[error("the event would not be applied: {reason}")]
    Unfit {
        /// What is wrong with it.
        reason: String,
    },
    /// The client's name is not a writer's to take.
    #[error("the client name `{FILLER_CLIENT}` {FILLER_RULE}")]
    ReservedClient,
    /// The document is parked, so nothing that is appended now would be applied.
    #[error(
        "document {id} is parked at version {}: {} ({}); an operator has to retry or skip that event first",
        .mark.version, .mark.reason, .mark.class.name()
    )]
    Parked {
        /// The document.
        id: DocumentId,
        /// Which event parked it and why.
        mark: Quarantine,
    },
    /// An event is missing from the log, and later ones wait for it.
    #[error(
        "document {id} waits for its event of version {version}, which is missing while later ones exist; \
         an operator has to fill the gap first"
    )]
    Gap {
        /// The document.
        id: DocumentId,
        /// The missing version.
        version: i64,
    },
    /// The state and the Rust type do not fit each other.
    #[error("the state does not fit the type {type_name}: {reason}")]
    State {
        /// The Rust type.
        type_name: &'static str,
        /// What did not fit, with its path where it is known.
        reason: String,
    },
    /// A change of the state that neither update operators nor a merge can express.
    #[error(
        "the change cannot be written as an event: field `{field}` of the state's root has a name that no \
         update operator can address, and its value holds null, which a merge would remove"
    )]
    Inexpressible {
        /// The field.
        field: String,
    },
    /// The id cannot name a document.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The append itself failed: refused by the server's validator, uncertain, or the database's trouble.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The document could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<database::Error> for WriteError {
    fn from(error: database::Error) -> Self {
        Self::Append(error.into())
    }
}

/// Why an update did not happen: the caller's own rule, or the writer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpdateError<E> {
    /// The caller's closure declined, looking at the document's newest state.
    #[error("{0}")]
    Declined(E),
    /// The write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}
