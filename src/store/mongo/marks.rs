//! Marks on MongoDB: `{_id: {c, d}, log, marks: [{version, at}], due?, pending?}` in `alluvium.marks`, indexed by collection
//! and `due`.

use std::time::Duration;

use bson::{Document, RawArrayBuf, RawDocumentBuf, doc, raw::cstr, rawdoc};
use futures::TryStreamExt;
use mongodb::{Database, options::ReadConcern};

use super::{MongoStore, bases::document_of, collection_key, no_write_errors};
use crate::{
    database::{Error, Result, code::UNAUTHORIZED, server_time},
    model::{id::DocumentId, position::LogId},
    store::{
        ARCHIVE_COLLECTION, CLIENTS_COLLECTION, MARKS_COLLECTION,
        marks::{MarkRows, NextLook},
    },
};

/// How many notes of one document are kept.
const MARKS_KEPT: i32 = 10;
/// How many rows one command writes.
const STATEMENTS_MAX: usize = 1_000;

impl MarkRows for MongoStore {
    async fn put_marks(
        &self,
        log: LogId,
        grown: &[(DocumentId, i64)],
        (spacing, min_age): (Duration, Duration),
    ) -> Result<()> {
        let millis = |age: Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX / 4);
        for grown in grown.chunks(STATEMENTS_MAX) {
            let statements = grown.iter().map(|(id, version)| -> Result<RawDocumentBuf> {
                let is_ours = doc! { "$eq": ["$log", log.0] };
                let is_kept = doc! { "$and": [is_ours.clone(), { "$isArray": ["$marks"] }] };
                let kept = doc! { "$cond": [is_kept, "$marks", []] };
                let last = doc! { "$last": "$marks" };
                let is_new = doc! { "$or": [
                    { "$eq": [{ "$size": "$marks" }, 0] },
                    { "$and": [
                        { "$lt": [{ "$getField": { "field": "version", "input": last.clone() } }, version] },
                        { "$lte": [
                            { "$getField": { "field": "at", "input": last } },
                            { "$subtract": ["$$NOW", millis(spacing)] },
                        ] },
                    ] },
                ] };
                let added = doc! { "$concatArrays": ["$marks", [{ "version": version, "at": "$$NOW" }]] };
                let added = doc! { "$slice": [added, -MARKS_KEPT] };
                let due = doc! { "$add": ["$$NOW", millis(min_age)] };
                let pipeline = [
                    doc! { "$set": {
                        "marks": kept,
                        "due": { "$cond": [is_ours, "$due", "$$REMOVE"] },
                        "log": log.0,
                    } },
                    doc! { "$set": {
                        "marks": { "$cond": [is_new.clone(), added, "$marks"] },
                        "due": { "$cond": [is_new, { "$ifNull": ["$due", due] }, "$due"] },
                    } },
                ];
                let mut statement = rawdoc! {
                    "q": { "_id": collection_key(&self.collection, id) },
                };
                let mut stages = RawArrayBuf::new();
                for stage in &pipeline {
                    stages.push(RawDocumentBuf::try_from(stage)?);
                }
                statement.append(cstr!("u"), stages);
                statement.append(cstr!("upsert"), true);
                Ok(statement)
            });
            let statements: RawArrayBuf = statements.collect::<Result<_>>()?;
            let reply = self.bulk("update", MARKS_COLLECTION, "updates", statements).await?;
            no_write_errors(&reply)?;
        }
        Ok(())
    }

    async fn due(&self, log: LogId, pending_only: bool, limit: u32) -> Result<Vec<DocumentId>> {
        let now = server_time(&self.database).await?;
        let mut filter = doc! { "_id.c": &self.collection, "due": { "$lte": now }, "log": log.0 };
        if pending_only {
            filter.insert("pending", true);
        }
        let marks = self.database.collection::<RawDocumentBuf>(MARKS_COLLECTION);
        let find = marks.find(filter).sort(doc! { "due": 1 }).limit(limit.into());
        let rows: Vec<RawDocumentBuf> =
            find.read_concern(ReadConcern::majority()).await?.try_collect().await?;
        Ok(rows.iter().filter_map(|row| document_of(row)).collect())
    }

    async fn set_due(&self, log: LogId, next: &[NextLook]) -> Result<()> {
        for next in next.chunks(STATEMENTS_MAX) {
            let statements = next.iter().map(|NextLook { id, at, pending }| {
                let key = collection_key(&self.collection, id);
                let mut filter = rawdoc! { "_id": key };
                filter.append(cstr!("log"), bson::RawBson::Binary(log.0.into()));
                let update = match at {
                    Some(at) => rawdoc! { "$set": { "due": *at, "pending": *pending } },
                    None => rawdoc! { "$unset": { "due": "", "pending": "" } },
                };
                rawdoc! { "q": filter, "u": update }
            });
            let reply = self
                .bulk("update", MARKS_COLLECTION, "updates", RawArrayBuf::from_iter(statements))
                .await?;
            no_write_errors(&reply)?;
        }
        Ok(())
    }
}

/// Makes the indexes by which marks that are due and the clients of a document are found.
///
/// # Errors
/// When the server refuses.
pub async fn ensure_compaction(database: &Database) -> Result<()> {
    for (collection, key, name) in [
        (ARCHIVE_COLLECTION, doc! { "_id.c": 1, "segment": 1 }, "segment"),
        (MARKS_COLLECTION, doc! { "_id.c": 1, "due": 1 }, "due"),
        (CLIENTS_COLLECTION, doc! { "_id.c": 1, "_id.d": 1 }, "document"),
    ] {
        let index: Document = doc! { "key": key, "name": name };
        let make = database.run_command(doc! { "createIndexes": collection, "indexes": [index] });
        match make.await.map_err(Error::from) {
            // Whoever has no right to it yet can do without: it only saves time.
            Err(error) if error.code() != Some(UNAUTHORIZED) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
