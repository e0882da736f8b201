//! What an operator may do about documents that wait: skip the event at which one is parked, or fill a gap.
//! Everything is on record, may be done twice without effect, and is refused when the document
//! does not wait as the operator thought.

mod fill;
mod skip;

use std::time::Duration;

use bson::DateTime;

pub use fill::{Filled, Filling, Means};
pub use skip::{Skipped, skip};

use crate::{
    database,
    log::{EventLog, LogSource},
    model::{document::Class, id::DocumentId},
    store::{Checkpoints, QuarantineRow, QuarantineRows},
};

/// How many events of one document are asked for at once.
const READ_EVENTS_MAX: u32 = 1_000;

/// What else may have been meant where an id is a text of digits.
fn hint(id: &DocumentId) -> String {
    match id {
        DocumentId::String(text) if text.parse::<i64>().is_ok() => {
            format!(" (this is a text; the number is {{\"$numberLong\":\"{text}\"}})")
        }
        _ => String::new(),
    }
}

/// Why something is not done to a document that waits.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OperateError {
    /// It is not on record.
    #[error(
        "document {0} waits for nothing: it is neither parked nor behind a gap{hint}",
        hint = hint(.0)
    )]
    NotWaiting(DocumentId),
    /// A gap cannot be skipped like an event.
    #[error(
        "document {id} is not parked: it waits for version {version}, which is missing. Find its writer, or fill \
         the gap; with `--skip-above` its state stays what it is"
    )]
    IsGap {
        /// The document.
        id: DocumentId,
        /// What is missing.
        version: i64,
    },
    /// There is no event to skip.
    #[error(
        "document {id} is parked because the base of its log is damaged, which stands for events that are gone: put back          what was written there, then retry the document"
    )]
    IsBase {
        /// The document.
        id: DocumentId,
    },
    /// A parked document stands behind no gap.
    #[error(
        "document {id} is behind no gap: it is parked at version {version}. Retry it, or skip that event"
    )]
    IsParked {
        /// The document.
        id: DocumentId,
        /// The event that cannot be applied.
        version: i64,
    },
    /// It waits for another version than was asked for.
    #[error("document {id} waits for version {waits}, and not for {asked}: look at it again")]
    MovedOn {
        /// The document.
        id: DocumentId,
        /// The version that was asked for.
        asked: i64,
        /// The version that it waits for.
        waits: i64,
    },
    /// Its row is not where the record says.
    #[error(
        "document {id} is on record as waiting for version {waits}, but its row is at version {version}: it is being \
         written, or was changed by hand. Try again, and retry the document if this lasts"
    )]
    Elsewhere {
        /// The document.
        id: DocumentId,
        /// The version that it waits for.
        waits: i64,
        /// The version of its row.
        version: i64,
    },
    /// The missing event may still be on its way.
    #[error(
        "the gap at version {version} of document {id} is open since {}, and may be closed from {} on: until then the \
         missing event may still be on its way (`gap_grace`)",
        shown(.since), shown(.from)
    )]
    TooYoung {
        /// The document.
        id: DocumentId,
        /// What is missing.
        version: i64,
        /// When the gap was seen.
        since: DateTime,
        /// When it may be closed.
        from: DateTime,
    },
    /// Too many events are missing for filling to make sense.
    #[error("{missing} versions of document {id} are missing; at most {max} are filled")]
    TooWide {
        /// The document.
        id: DocumentId,
        /// How many.
        missing: i64,
        /// How many may be.
        max: i64,
    },
    /// The missing event is there.
    #[error(
        "the missing version {version} of document {id} has arrived, or its gap was filled: nothing is skipped, and the \
         document goes on by itself"
    )]
    Arrived {
        /// The document.
        id: DocumentId,
        /// What was missing.
        version: i64,
    },
    /// Nothing is behind the gap.
    #[error("the log of document {id} ends before version {version}: there is no gap any more")]
    NoGap {
        /// The document.
        id: DocumentId,
        /// What was missing.
        version: i64,
    },
    /// The log is not the one that is projected.
    #[error(
        "the log is another one than the documents come from, or gone: nothing is done about it. See the status of the collection"
    )]
    AnotherLog,
    /// The event is gone.
    #[error("the event at version {version} of document {id} is not in the log")]
    NoEvent {
        /// The document.
        id: DocumentId,
        /// The version.
        version: i64,
    },
    /// The server does not take the row.
    #[error(
        "the server refuses the row of document {id} without the event: {reason} (code {code})"
    )]
    Rejected {
        /// The document.
        id: DocumentId,
        /// The server's code.
        code: i32,
        /// The server's words.
        reason: String,
    },
    /// The database refused or is away.
    #[error(transparent)]
    Database(#[from] database::Error),
}

/// What an operation gives.
type Result<T> = std::result::Result<T, OperateError>;

/// The gap that a document waits behind, if it may be closed by now, which is asked of the server.
///
/// # Errors
/// [`OperateError`]: it is behind none, behind another than `asked`, or not for long enough.
pub async fn closable(
    store: &impl QuarantineRows,
    id: &DocumentId,
    asked: Option<i64>,
    grace: Duration,
) -> Result<i64> {
    let QuarantineRow { mark, since, .. } = recorded(store, id).await?;
    let (id, version) = (id.clone(), mark.version);
    if mark.class != Class::Gap {
        return Err(OperateError::IsParked { id, version });
    }
    if let Some(asked) = asked.filter(|asked| *asked != version) {
        return Err(OperateError::MovedOn { id, asked, waits: version });
    }
    let grace = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    let from = DateTime::from_millis(since.timestamp_millis().saturating_add(grace));
    match store.server_time().await? < from {
        true => Err(OperateError::TooYoung { id, version, since, from }),
        false => Ok(version),
    }
}

/// The version at which a document is parked.
///
/// # Errors
/// [`OperateError`]: it is not parked, or at another version than `asked`.
pub async fn parked_at(
    store: &impl QuarantineRows,
    id: &DocumentId,
    asked: Option<i64>,
) -> Result<i64> {
    let QuarantineRow { mark, .. } = recorded(store, id).await?;
    let (id, version) = (id.clone(), mark.version);
    match asked {
        _ if mark.class == Class::Gap => Err(OperateError::IsGap { id, version }),
        Some(asked) if asked != version => Err(OperateError::MovedOn { id, asked, waits: version }),
        _ if mark.class == Class::BadBase => Err(OperateError::IsBase { id }),
        _ => Ok(version),
    }
}

/// Opens the log of a collection, if it is the one that the documents come from.
///
/// # Errors
/// [`OperateError::AnotherLog`].
pub async fn open<S: LogSource>(
    source: &S,
    collection: &str,
    store: &impl Checkpoints,
) -> Result<S::Log> {
    let log = source.open(collection).await?.ok_or(OperateError::AnotherLog)?;
    let saved = store.load_checkpoints().await?;
    match saved.iter().all(|(_, saved)| saved.log == log.id()) {
        true => Ok(log),
        false => Err(OperateError::AnotherLog),
    }
}

async fn recorded(store: &impl QuarantineRows, id: &DocumentId) -> Result<QuarantineRow> {
    let record = store.load_quarantine_of(id).await?;
    record.ok_or_else(|| OperateError::NotWaiting(id.clone()))
}

fn shown(time: &DateTime) -> String {
    time.try_to_rfc3339_string().unwrap_or_else(|_| time.to_string())
}
