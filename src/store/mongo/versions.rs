//! The ordered walk over the versions of all rows on MongoDB: what a scan of the log is compared with,
//! so that only documents that are behind are ever loaded.

use bson::{RawDocument, doc};
use futures::StreamExt;
use mongodb::{
    options::{Hint, ReadConcern},
    raw_batch_cursor::RawBatchCursor,
};

use super::MongoStore;
use crate::{
    database::Result,
    model::id::{DocumentId, integral},
    store::{RowVersion, Versions},
};

/// A walk under way.
pub struct MongoVersions {
    cursor: RawBatchCursor,
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
        Ok(MongoVersions { cursor: find.batch().await? })
    }
}

impl Versions for MongoVersions {
    async fn next(&mut self) -> Result<Option<Vec<RowVersion>>> {
        let Some(batch) = self.cursor.next().await else { return Ok(None) };
        let mut rows = Vec::new();
        for row in batch?.doc_slices()? {
            // A row that is not ours says nothing about the log; whoever loads it will complain.
            rows.extend(row?.as_document().and_then(read));
        }
        Ok(Some(rows))
    }
}

fn read(row: &RawDocument) -> Option<RowVersion> {
    let id = DocumentId::from_raw(row.get("_id").ok()??).ok()?;
    let version = row.get("version").ok()?.and_then(integral)?;
    let marked = row.get("quarantine").ok()?.is_some();
    Some(RowVersion { id, version, marked })
}
