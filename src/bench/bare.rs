//! The bare baselines: what the server and the driver allow when nothing is projected. Each is written
//! as fast as we know how, since a slow baseline would flatter us.

use std::time::Instant;

use bson::{RawArrayBuf, RawDocumentBuf, Timestamp, doc, rawdoc};
use futures::{StreamExt, TryStreamExt, stream};
use mongodb::Database;

use super::{
    daemon::COLLECTION,
    error::{BenchError, Result},
};
use crate::{
    database::Error,
    log::{Batch, events_collection},
    model::id::integral,
};

/// How many rows one write command carries.
const ROWS: usize = 1_000;

/// Drains the change stream of the log from `start` on, raw and doing nothing, and gives the seconds
/// that `events` changes took.
///
/// # Errors
/// When the server refuses, or closes the stream.
pub(super) async fn drain(database: &Database, start: Timestamp, events: i64) -> Result<f64> {
    let begun = Instant::now();
    let stream = doc! { "$changeStream": { "startAtOperationTime": start } };
    let mut cursor = database
        .collection::<bson::Document>(&events_collection(COLLECTION))
        .aggregate(vec![stream])
        .batch()
        .await?;
    let mut seen = 0;
    while seen < events {
        let batch = cursor.next().await.ok_or_else(closed)?;
        seen += count(batch?)?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Reads the whole log in order, raw and doing nothing, and gives the seconds.
///
/// # Errors
/// When the server refuses.
pub(super) async fn scan(database: &Database) -> Result<f64> {
    let begun = Instant::now();
    let mut cursor = database
        .collection::<bson::Document>(&events_collection(COLLECTION))
        .find(doc! {})
        .sort(doc! { "_id": 1 })
        .batch()
        .await?;
    while let Some(batch) = cursor.next().await {
        count(batch?)?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn closed() -> BenchError {
    Error::unreachable("the server closed the change stream").into()
}

/// Looks at every document, as anybody would who has a use for them.
fn count(batch: mongodb::raw_batch_cursor::RawBatch) -> Result<i64> {
    let batch = Batch::from(batch);
    let mut seen = 0;
    for document in batch.documents()? {
        seen += i64::from(!document?.as_bytes().is_empty());
    }
    Ok(seen)
}

/// All projected documents, as they stand.
///
/// # Errors
/// When the server refuses.
pub(super) async fn rows(database: &Database) -> Result<Vec<RawDocumentBuf>> {
    let rows = database.collection::<RawDocumentBuf>(COLLECTION).find(doc! {}).await?;
    Ok(rows.try_collect().await?)
}

/// Inserts rows in bulk on so many connections, at majority, and gives the seconds.
///
/// # Errors
/// When the server refuses.
pub(super) async fn insert_rows(
    database: &Database,
    collection: &str,
    rows: &[RawDocumentBuf],
    connections: usize,
) -> Result<f64> {
    let commands = rows.chunks(ROWS).map(|rows| {
        let mut documents = RawArrayBuf::new();
        rows.iter().for_each(|row| documents.push(row));
        command("insert", collection, "documents", documents)
    });
    run(database, commands.collect(), connections).await
}

/// Replaces rows in bulk, each where its version is what it was, as the daemon must.
///
/// # Errors
/// When the server refuses.
pub(super) async fn replace_rows(
    database: &Database,
    collection: &str,
    rows: &[RawDocumentBuf],
    connections: usize,
) -> Result<f64> {
    let mut commands = Vec::new();
    for rows in rows.chunks(ROWS) {
        let mut updates = RawArrayBuf::new();
        for row in rows {
            let version = row.get("version")?.and_then(integral).unwrap_or_default();
            let mut filter = rawdoc! { "version": version };
            if let Some(id) = row.get("_id")? {
                filter.append(bson::raw::cstr!("_id"), id);
            }
            updates.push(rawdoc! { "q": filter, "u": row.clone() });
        }
        commands.push(command("update", collection, "updates", updates));
    }
    run(database, commands, connections).await
}

fn command(
    name: &'static str,
    collection: &str,
    field: &'static str,
    statements: RawArrayBuf,
) -> RawDocumentBuf {
    let mut command = RawDocumentBuf::new();
    for (key, value) in
        [(name, bson::RawBson::String(collection.to_owned())), (field, statements.into())]
    {
        // Neither name has a zero in it, the one thing that a key cannot hold.
        if let Ok(key) = bson::raw::CString::try_from(key) {
            command.append(key, value);
        }
    }
    command.append(bson::raw::cstr!("ordered"), false);
    command.append(bson::raw::cstr!("writeConcern"), rawdoc! { "w": "majority" });
    command
}

async fn run(
    database: &Database,
    commands: Vec<RawDocumentBuf>,
    connections: usize,
) -> Result<f64> {
    let begun = Instant::now();
    let mut replies = stream::iter(commands)
        .map(|command| async move { database.run_raw_command(command).await })
        .buffer_unordered(connections);
    while let Some(reply) = replies.next().await {
        if let Ok(errors) = reply?.get_array("writeErrors") {
            return Err(Error::damaged(format!("{errors:?}")).into());
        }
    }
    Ok(begun.elapsed().as_secs_f64())
}
