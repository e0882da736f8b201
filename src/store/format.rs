//! The format of the data: `{_id: "format", version}` in `alluvium.meta`. A version of this program reads and
//! writes the formats up to its own, and stays away from newer ones, which it would misread.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bson::{RawDocumentBuf, doc};
use mongodb::{
    Collection, Database,
    options::{CollectionOptions, ReadConcern, ReadPreference, SelectionCriteria},
};

use super::META_COLLECTION;
use crate::{
    database::{Error, Result, code::UNAUTHORIZED, create::NewerFormat},
    model::id::integral,
};

/// The latest format of the data that this version reads and writes.
pub const FORMAT: i64 = 2;

/// The format of data in which no log has a base yet.
pub const FORMAT_WITHOUT_BASES: i64 = 1;

/// How often somebody looks who goes on reading and holds no lease.
const LOOK_INTERVAL: Duration = Duration::from_secs(3_600);

/// The recorded format, as the majority holds it; `None` where nothing is recorded yet.
///
/// # Errors
/// When the server refuses, or the record cannot be read.
pub async fn recorded_format(database: &Database) -> Result<Option<i64>> {
    find_format(&meta(database)).await
}

/// Refuses a format that this version does not know.
///
/// # Errors
/// [`NewerFormat`].
pub fn check_format(found: Option<i64>) -> Result<(), NewerFormat> {
    match found {
        Some(found) if found > FORMAT => Err(NewerFormat { found, known: FORMAT }),
        _ => Ok(()),
    }
}

/// Looks at the format when a reader begins, and every hour as long as it is used. Cheap to clone; clones look together.
#[derive(Clone, Debug)]
pub struct FormatWatch {
    meta: Collection<RawDocumentBuf>,
    looked_at: Arc<Mutex<Option<Instant>>>,
}

/// Why somebody may not go on reading.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FormatError {
    /// A later version of this program has taken the data over.
    #[error(transparent)]
    Newer(#[from] NewerFormat),
    /// The format could not be looked at.
    #[error(transparent)]
    Database(#[from] Error),
}

impl FormatWatch {
    /// Of the data in `database`. Looks at nothing yet.
    pub fn new(database: &Database) -> Self {
        Self { meta: meta(database), looked_at: Arc::default() }
    }

    /// Looks, if it is time to. Whoever has no right to look goes on: it is the daemons that must not miss it.
    ///
    /// # Errors
    /// [`FormatError`].
    pub async fn check(&self) -> Result<(), FormatError> {
        let now = Instant::now();
        if !is_due(*self.looked_at.lock().unwrap_or_else(PoisonError::into_inner), now) {
            return Ok(());
        }
        match find_format(&self.meta).await {
            Ok(found) => check_format(found)?,
            Err(error) if error.code() == Some(UNAUTHORIZED) => {}
            Err(error) => return Err(error.into()),
        }
        *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        Ok(())
    }
}

fn is_due(looked_at: Option<Instant>, now: Instant) -> bool {
    looked_at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_INTERVAL)
}

fn meta(database: &Database) -> Collection<RawDocumentBuf> {
    // Whatever the connection string prefers: a member that is behind would not know of the newer format.
    let options = CollectionOptions::builder()
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .read_concern(ReadConcern::majority())
        .build();
    database.collection_with_options(META_COLLECTION, options)
}

async fn find_format(meta: &Collection<RawDocumentBuf>) -> Result<Option<i64>> {
    let Some(record) = meta.find_one(doc! { "_id": "format" }).await? else { return Ok(None) };
    match record.get("version")?.and_then(integral) {
        Some(version) => Ok(Some(version)),
        None => Err(Error::damaged("the record of the format has no `version`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_alone_is_refused() {
        assert_eq!(check_format(None), Ok(()));
        assert_eq!(check_format(Some(FORMAT)), Ok(()));
        let found = FORMAT + 1;
        assert_eq!(check_format(Some(found)), Err(NewerFormat { found, known: FORMAT }));
    }

    #[test]
    fn one_looks_at_first_and_every_hour() {
        let at = Instant::now();
        assert!(is_due(None, at));
        assert!(!is_due(Some(at), at + Duration::from_secs(3_599)));
        assert!(is_due(Some(at), at + Duration::from_secs(3_600)));
    }
}
