//! Making what the daemon writes: projected documents, snapshots, and the record of the data's format.

use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::{
    Database,
    options::{CollectionOptions, WriteConcern},
};

use super::{
    JOBS_COLLECTION, META_COLLECTION, SKIPS_COLLECTION,
    format::{FORMAT_WITHOUT_BASES, check_format, recorded_format},
    mongo::JOBS_KEPT_SECONDS,
    snapshots_collection,
};
use crate::database::{
    Error, code,
    create::{CreateError, Ensured, Report, clustered, ensure, inspect},
};

/// How many documents of an existing collection are looked at.
const SAMPLE: i64 = 100;

/// The server's codes for an index that exists with other options.
const INDEX_DIFFERS: [i32; 2] = [85, 86];

/// Refuses existing collections that cannot take a projection, and makes nothing.
///
/// # Errors
/// [`CreateError`]: another kind of collection, or documents of somebody else.
pub async fn check_store(database: &Database, collection: &str) -> Result<(), CreateError> {
    inspect(database, &snapshots_collection(collection)).await?;
    if inspect(database, collection).await?.is_none() {
        return Ok(());
    }
    let pipeline = [
        doc! { "$limit": SAMPLE },
        doc! { "$match": { "$nor": [{
            "version": { "$type": ["int", "long", "double"] },
            "clock": { "$type": "object" },
        }] } },
        doc! { "$limit": 1 },
        doc! { "$project": { "_id": 1 } },
    ];
    let on = CreateError::on(collection);
    let mut cursor =
        database.collection::<Document>(collection).aggregate(pipeline).await.map_err(&on)?;
    match cursor.try_next().await.map_err(&on)? {
        None => Ok(()),
        Some(row) => {
            let id = row.get("_id").cloned().unwrap_or_default().into_relaxed_extjson();
            Err(CreateError::Foreign { collection: collection.to_owned(), id: id.to_string() })
        }
    }
}

/// Makes the collections of projected documents and of snapshots unless they exist.
///
/// # Errors
/// [`CreateError`] when one exists and cannot serve, or the server refuses.
pub async fn create_store(
    database: &Database,
    collection: &str,
    report: &mut Report,
) -> Result<(), CreateError> {
    let snapshots = snapshots_collection(collection);
    for (name, options) in [(collection, doc! {}), (&snapshots, clustered())] {
        if ensure(database, name, options).await? == Ensured::Created {
            report.created.push(name.to_owned());
        }
    }
    Ok(())
}

/// Makes the collection of skips, so that the first of them need not. The other bookkeeping makes itself.
///
/// # Errors
/// [`CreateError`] when it exists and cannot serve, or the server refuses.
pub async fn ensure_skips(database: &Database) -> Result<(), CreateError> {
    ensure(database, SKIPS_COLLECTION, doc! {}).await.map(drop)
}

/// Makes the index that deletes jobs a while after they have ended. An operator's own choice of that while
/// stays as it is.
///
/// # Errors
/// [`CreateError`] when the server refuses.
pub async fn ensure_jobs(database: &Database) -> Result<(), CreateError> {
    let expiry = doc! {
        "key": { "finished_at": 1 }, "name": "finished_at", "expireAfterSeconds": JOBS_KEPT_SECONDS,
    };
    let command = doc! { "createIndexes": JOBS_COLLECTION, "indexes": [expiry] };
    match database.run_command(command).await.map_err(Error::from) {
        Err(error) if !INDEX_DIFFERS.contains(&error.code().unwrap_or_default()) => {
            Err(CreateError::on(JOBS_COLLECTION)(error))
        }
        _ => Ok(()),
    }
}

/// Checks the format of the data, and records it where there is none yet.
///
/// # Errors
/// [`CreateError::Newer`] when a later version of this program has written it.
pub async fn ensure_format(database: &Database) -> Result<(), CreateError> {
    let failed = CreateError::on(META_COLLECTION);
    let mut found = recorded_format(database).await.map_err(&failed)?;
    if found.is_none() {
        let meta = database.collection_with_options::<Document>(META_COLLECTION, majority());
        let record = doc! { "_id": "format", "version": FORMAT_WITHOUT_BASES };
        match meta.insert_one(record).await.map_err(Error::from) {
            // Another daemon was quicker; its record is judged below.
            Err(error) if error.code() == Some(code::DUPLICATE_KEY) => {}
            outcome => drop(outcome.map_err(CreateError::on(META_COLLECTION))?),
        }
        found = recorded_format(database).await.map_err(&failed)?;
    }
    Ok(check_format(found)?)
}

fn majority() -> CollectionOptions {
    CollectionOptions::builder().write_concern(WriteConcern::majority()).build()
}
