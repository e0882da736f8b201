//! Records of documents that wait, on MongoDB: `{_id: {c, d}, class, version, reason, since}` in
//! `alluvium.quarantine`.

use bson::{
    Bson, DateTime, Document, RawArrayBuf, RawDocument, RawDocumentBuf, doc, raw::cstr, rawdoc,
};
use futures::TryStreamExt;
use mongodb::options::ReadConcern;

use super::{
    MongoStore, collection_key, collection_range, no_write_errors, no_write_errors_but,
    update_statement,
};
use crate::{
    database::{Error, Result, code::DUPLICATE_KEY, server_time},
    model::{
        document::Quarantine,
        id::{DocumentId, integral},
        shown::id_of,
    },
    store::{QUARANTINE_COLLECTION, QuarantineRow, QuarantineRows},
};

/// How many records one command carries.
const STATEMENTS_MAX: usize = 1_000;

impl QuarantineRows for MongoStore {
    async fn load_quarantine(&self) -> Result<Vec<QuarantineRow>> {
        let rows: Vec<RawDocumentBuf> = self
            .quarantine
            .find(collection_range(&self.collection))
            .read_concern(ReadConcern::majority())
            .await?
            .try_collect()
            .await?;
        let rows = rows.iter().map(|row| decode(row));
        rows.filter(|row| !row.as_ref().is_ok_and(|row| !self.part.holds(&row.document))).collect()
    }

    async fn server_time(&self) -> Result<DateTime> {
        server_time(&self.database).await
    }

    async fn load_quarantine_among(&self, documents: &[DocumentId]) -> Result<Vec<QuarantineRow>> {
        let keys: RawArrayBuf =
            documents.iter().map(|document| collection_key(&self.collection, document)).collect();
        let filter = Document::try_from(rawdoc! { "_id": { "$in": keys } })?;
        let found = self.quarantine.find(filter).read_concern(ReadConcern::majority());
        let rows: Vec<RawDocumentBuf> = found.await?.try_collect().await?;
        rows.iter().map(|row| decode(row)).collect()
    }

    async fn put_quarantine(&self, rows: &[QuarantineRow]) -> Result<()> {
        for rows in rows.chunks(STATEMENTS_MAX) {
            let statements: RawArrayBuf = rows
                .iter()
                .map(|row| {
                    let key = collection_key(&self.collection, &row.document);
                    // If the record is of a later version, the filter does not match, the upsert
                    // inserts, and error 11000 tells.
                    let filter =
                        rawdoc! { "_id": key.clone(), "version": { "$lte": row.mark.version } };
                    update_statement(filter, encode(key, row), true)
                })
                .collect();
            let reply = self.bulk("update", QUARANTINE_COLLECTION, "updates", statements).await?;
            no_write_errors_but(&[DUPLICATE_KEY], &reply)?;
            self.remove_passed(rows).await?;
        }
        Ok(())
    }

    async fn remove_quarantine(&self, healed: &[(DocumentId, i64)]) -> Result<()> {
        for healed in healed.chunks(STATEMENTS_MAX) {
            let statements: RawArrayBuf = healed
                .iter()
                .map(|(document, healed)| {
                    let mut filter = rawdoc! { "_id": collection_key(&self.collection, document) };
                    filter.append(cstr!("version"), rawdoc! { "$lte": *healed });
                    rawdoc! { "q": filter, "limit": 1 }
                })
                .collect();
            let reply = self.bulk("delete", QUARANTINE_COLLECTION, "deletes", statements).await?;
            no_write_errors(&reply)?;
        }
        Ok(())
    }
}

impl MongoStore {
    /// Removes records that were just written of what a document has passed meanwhile. Whoever was stopped before he wrote
    /// one may come after the event was skipped, or erased, by another instance, which has removed the record that it found.
    async fn remove_passed(&self, written: &[QuarantineRow]) -> Result<()> {
        let ids: Vec<Bson> = written.iter().map(|row| row.document.to_bson()).collect();
        let rows = self.database.collection::<RawDocumentBuf>(&self.collection);
        let rows = rows.find(doc! { "_id": { "$in": ids } });
        let rows = rows.projection(doc! { "version": 1 }).read_concern(ReadConcern::majority());
        let rows: Vec<RawDocumentBuf> = rows.await?.try_collect().await?;
        let passed = rows.iter().filter_map(|row| {
            let version = row.get("version").ok().flatten().and_then(integral)?;
            let of_row = DocumentId::of_row(row)?;
            let record = written.iter().find(|record| record.document == of_row)?;
            (record.mark.version <= version).then_some((of_row, version))
        });
        let passed: Vec<(DocumentId, i64)> = passed.collect();
        match passed.is_empty() {
            true => Ok(()),
            false => self.remove_quarantine(&passed).await,
        }
    }
}

fn encode(key: RawDocumentBuf, row: &QuarantineRow) -> RawDocumentBuf {
    let mut raw = rawdoc! { "_id": key };
    raw.append(cstr!("class"), row.mark.class.name());
    raw.append(cstr!("version"), row.mark.version);
    raw.append(cstr!("reason"), row.mark.reason.as_str());
    raw.append(cstr!("since"), row.since);
    raw
}

pub(super) fn decode(row: &RawDocument) -> Result<QuarantineRow> {
    let damaged = |what: &str| {
        Error::damaged(format!("the quarantine record {} has no usable {what}", id_of(row)))
    };
    let key = row.get_document("_id").map_err(|_| damaged("_id"))?;
    let document = key.get("d")?.ok_or_else(|| damaged("_id.d"))?;
    Ok(QuarantineRow {
        document: DocumentId::from_raw(document).map_err(|error| damaged(&error.to_string()))?,
        mark: Quarantine::from_raw(row).ok_or_else(|| damaged("class, version or reason"))?,
        since: row.get_datetime("since").map_err(|_| damaged("since"))?,
    })
}
