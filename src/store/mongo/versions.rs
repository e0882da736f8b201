//! The ordered walk over the versions of all rows on MongoDB: what a scan of the log is compared with,
//! so that only documents that are behind are ever loaded.

use bson::{RawDocument, doc};
use futures::StreamExt;
use mongodb::{
    options::{Hint, ReadConcern},
    raw_batch_cursor::RawBatchCursor,
};

use super::{MongoStore, documents::foreign};
use crate::{
    database::{Error, Result},
    model::id::{DocumentId, integral},
    store::{RowVersion, Versions},
};

/// A walk under way.
pub struct MongoVersions {
    cursor: RawBatchCursor,
    collection: String,
}

impl MongoStore {
    /// Opens the walk behind the row `after`.
    pub(super) async fn walk_versions(&self, after: Option<&DocumentId>) -> Result<MongoVersions> {
        let mut find = self
            .documents
            .find(doc! {})
            .sort(doc! { "_id": 1 })
            .projection(doc! { "version": 1, "quarantine.version": 1 })
            .read_concern(ReadConcern::majority());
        if let Some(after) = after {
            // A bound of the index and not a comparison, which would match values of one type only. It
            // includes the row itself; the walk passes over it once more.
            find = find.min(doc! { "_id": after.to_bson() }).hint(Hint::Keys(doc! { "_id": 1 }));
        }
        Ok(MongoVersions { cursor: find.batch().await?, collection: self.collection.clone() })
    }
}

impl Versions for MongoVersions {
    async fn next(&mut self) -> Result<Option<Vec<RowVersion>>> {
        let Some(batch) = self.cursor.next().await else { return Ok(None) };
        let mut rows = Vec::new();
        for row in batch?.doc_slices()? {
            let row = row?;
            let row =
                row.as_document().ok_or_else(|| Error::damaged("a batch without documents"))?;
            rows.push(self.read(row)?);
        }
        Ok(Some(rows))
    }
}

impl MongoVersions {
    fn read(&self, row: &RawDocument) -> Result<RowVersion> {
        let id = row.get("_id")?.ok_or_else(|| Error::damaged("a row without `_id`"))?;
        let id = DocumentId::from_raw(id).map_err(|error| foreign(&self.collection, &error))?;
        // Whoever loads a row without a version will complain.
        let version = row.get("version")?.and_then(integral).unwrap_or_default();
        Ok(RowVersion { id, version, marked: row.get("quarantine")?.is_some() })
    }
}
