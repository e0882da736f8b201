//! What must be in the database before a daemon can work: the log, the projected documents and the
//! bookkeeping of every configured collection. Nothing is made before everything has been looked at.

use mongodb::Database;

use crate::{
    config::CollectionConfig,
    database::create::{CreateError, Report, inspect},
    log::{
        create::{Differing, create_log},
        events_collection,
    },
    store::{
        MARKS_COLLECTION, SKIPS_COLLECTION,
        create::{check_store, create_store, ensure_format, ensure_jobs, ensure_skips},
        mongo::ensure_compaction,
    },
};

/// Checks what exists and makes what is missing. May run any number of times, and in several
/// processes at once.
///
/// # Errors
/// [`CreateError`] when something exists that cannot be used, or the server refuses.
pub async fn prepare(
    database: &Database,
    collections: &[CollectionConfig],
    differing: Differing,
) -> Result<Report, CreateError> {
    for collection in collections {
        inspect(database, &events_collection(&collection.name)).await?;
        check_store(database, &collection.name).await?;
    }
    inspect(database, SKIPS_COLLECTION).await?;
    ensure_format(database).await?;
    ensure_jobs(database).await?;
    ensure_skips(database).await?;
    ensure_compaction(database).await.map_err(CreateError::on(MARKS_COLLECTION))?;
    let mut report = Report::default();
    for CollectionConfig { name, max_event_bytes, .. } in collections {
        create_log(database, name, *max_event_bytes, differing, &mut report).await?;
        create_store(database, name, &mut report).await?;
    }
    Ok(report)
}
