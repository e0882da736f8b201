//! The index of an archive on MongoDB, in `alluvium.archive`: `{_id: {c, d, s, segment}, log, to, segment, offset, length,
//! bytes, hash, proven}`, where `s` is the version of the first event and `to` that of the last.

use std::collections::HashMap;

use bson::{
    Binary, Document, RawArrayBuf, RawBson, RawDocument, RawDocumentBuf, Timestamp, doc, raw::cstr,
    rawdoc, spec::BinarySubtype,
};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use mongodb::options::ReadConcern;

use super::{MongoStore, event_key, no_write_errors, skips::events_of};
use crate::{
    database::{Error, Result, operation_time},
    model::{
        event::EventKey,
        id::{DocumentId, integral},
        position::LogId,
        shown::id_of,
    },
    store::{ARCHIVE_COLLECTION, ArchiveRows, Archived},
};

/// How many rows one command writes, and one look at segments reads at least.
const ROWS_MAX: usize = 1_000;
/// How many logs are looked at at once.
const LOOKS_AT_ONCE: usize = 8;

impl ArchiveRows for MongoStore {
    async fn note_archived(&self, rows: &[Archived]) -> Result<()> {
        for rows in rows.chunks(ROWS_MAX) {
            let statements: RawArrayBuf = rows
                .iter()
                .map(|row| {
                    let key = self.archive_key(row);
                    rawdoc! { "q": { "_id": key }, "u": { "$setOnInsert": fields(row) }, "upsert": true }
                })
                .collect();
            let reply = self.bulk("update", ARCHIVE_COLLECTION, "updates", statements).await?;
            no_write_errors(&reply)?;
        }
        Ok(())
    }

    async fn prove_archived(&self, rows: &[Archived]) -> Result<i64> {
        self.set_proven(rows, true).await
    }

    async fn doubt_archived(&self, rows: &[Archived]) -> Result<()> {
        self.set_proven(rows, false).await.map(drop)
    }

    async fn archived(&self, ids: &[DocumentId]) -> Result<Vec<Archived>> {
        let mut archived = Vec::new();
        for id in ids {
            archived
                .extend(self.index(events_of(&self.collection, id), doc! { "_id": 1 }, 0).await?);
        }
        Ok(archived)
    }

    async fn rows_of_segment(&self, segment: &str) -> Result<Vec<Archived>> {
        let filter = doc! { "_id.c": &self.collection, "segment": segment };
        self.index(filter, doc! { "offset": 1 }, 0).await
    }

    async fn segments(&self, after: Option<&str>) -> Result<Vec<Archived>> {
        let above = doc! { "$gt": after.unwrap_or_default() };
        let filter = doc! { "_id.c": &self.collection, "segment": above };
        let mut rows = self.index(filter, doc! { "segment": 1 }, ROWS_MAX as i64).await?;
        let is_full = rows.len() >= ROWS_MAX;
        if let (true, Some(last)) = (is_full, rows.last().map(|row| row.segment.clone())) {
            rows.retain(|row| row.segment != last);
            rows.extend(self.rows_of_segment(&last).await?);
        }
        Ok(rows)
    }

    async fn erased(&self, log: LogId, ids: &[DocumentId]) -> Result<HashMap<DocumentId, i64>> {
        let at_least = operation_time(&self.database).await?;
        // What is read of the index from now on is no older either.
        self.causal.observe_time(at_least);
        let look = |id| self.erased_through(log, id, at_least).boxed();
        let looks: Vec<_> = ids.iter().map(look).collect();
        let found: Vec<(DocumentId, i64)> =
            stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().filter(|(_, through)| *through > 0).collect())
    }

    async fn forget_archived(&self, rows: &[Archived]) -> Result<()> {
        for rows in rows.chunks(ROWS_MAX) {
            let statement = |row| rawdoc! { "q": { "_id": self.archive_key(row) }, "limit": 1 };
            let statements: RawArrayBuf = rows.iter().map(statement).collect();
            let reply = self.bulk("delete", ARCHIVE_COLLECTION, "deletes", statements).await?;
            no_write_errors(&reply)?;
        }
        Ok(())
    }
}

impl MongoStore {
    fn archive_key(&self, row: &Archived) -> RawDocumentBuf {
        let key = EventKey { document: row.id.clone(), version: row.from };
        let mut key = event_key(&self.collection, &key);
        key.append(cstr!("segment"), row.segment.as_str());
        key
    }

    /// How many of the rows are there.
    async fn set_proven(&self, rows: &[Archived], is_proven: bool) -> Result<i64> {
        let mut found = 0;
        for rows in rows.chunks(ROWS_MAX) {
            let statements: RawArrayBuf = rows
                .iter()
                .map(|row| {
                    let key = self.archive_key(row);
                    rawdoc! { "q": { "_id": key }, "u": { "$set": { "proven": is_proven } } }
                })
                .collect();
            let reply = self.bulk("update", ARCHIVE_COLLECTION, "updates", statements).await?;
            no_write_errors(&reply)?;
            found += i64::from(reply.get_i32("n").unwrap_or_default());
        }
        Ok(found)
    }

    async fn erased_through(
        &self,
        log: LogId,
        id: &DocumentId,
        at_least: Timestamp,
    ) -> Result<(DocumentId, i64)> {
        let key = EventKey { document: id.clone(), version: 1 }.to_raw();
        let find = rawdoc! {
            "filter": { "_id": key }, "limit": 1, "projection": { "erased_through": 1 },
            "readConcern": { "level": "majority", "afterClusterTime": at_least },
        };
        let find = self.on_log("find", log, find)?;
        let found = self.database.run_raw_cursor_command(find).await?;
        let found: Vec<RawDocumentBuf> = found.with_type::<RawDocumentBuf>().try_collect().await?;
        let through = found.first().and_then(|first| first.get("erased_through").ok()?);
        Ok((id.clone(), through.and_then(integral).unwrap_or_default()))
    }

    async fn index(&self, filter: Document, sort: Document, limit: i64) -> Result<Vec<Archived>> {
        let rows = self.database.collection::<RawDocumentBuf>(ARCHIVE_COLLECTION);
        let mut session = self.causal.session().await?;
        let find = rows.find(filter).sort(sort).limit(limit);
        let mut found = find.read_concern(ReadConcern::majority()).session(&mut session).await?;
        let rows: Vec<RawDocumentBuf> = found.stream(&mut session).try_collect().await?;
        let read = |row: &RawDocumentBuf| {
            let damaged = || {
                let what = format!("the row {} of `{ARCHIVE_COLLECTION}` is unusable", id_of(row));
                Error::damaged(what)
            };
            read(row).ok_or_else(damaged)
        };
        rows.iter().map(read).collect()
    }
}

fn fields(row: &Archived) -> RawDocumentBuf {
    let hash = Binary { subtype: BinarySubtype::Generic, bytes: row.hash.to_vec() };
    let mut fields = rawdoc! {};
    fields.append(cstr!("log"), RawBson::Binary(row.log.0.into()));
    fields.append(cstr!("to"), row.to);
    fields.append(cstr!("segment"), row.segment.as_str());
    fields.append(cstr!("offset"), row.offset);
    fields.append(cstr!("length"), row.length);
    fields.append(cstr!("bytes"), row.bytes);
    fields.append(cstr!("hash"), hash);
    fields.append(cstr!("proven"), row.is_proven);
    fields
}

fn read(row: &RawDocument) -> Option<Archived> {
    let key = row.get_document("_id").ok()?;
    let number = |name: &str| row.get(name).ok().flatten().and_then(integral);
    let log = row.get_binary("log").ok()?.bytes.try_into().ok().map(bson::Uuid::from_bytes)?;
    Some(Archived {
        id: DocumentId::from_raw(key.get("d").ok()??).ok()?,
        log: LogId(log),
        from: key.get("s").ok()?.and_then(integral)?,
        to: number("to")?,
        segment: row.get_str("segment").ok()?.to_owned(),
        offset: number("offset")?,
        length: number("length")?,
        bytes: number("bytes")?,
        hash: row.get_binary("hash").ok()?.bytes.try_into().ok()?,
        is_proven: row.get_bool("proven").ok()?,
    })
}
