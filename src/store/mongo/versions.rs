//! The ordered walk over the versions of all rows on MongoDB. A scan of the log is compared with it, so
//! that only documents that are behind are loaded.

use bson::{RawDocument, doc};
use futures::StreamExt;
use mongodb::{
    options::{Hint, ReadConcern},
    raw_batch_cursor::RawBatch,
};

use super::{MongoStore, documents::foreign};
use crate::{
    database::{Ahead, Error, Result},
    model::id::{DocumentId, integral},
    store::{Extent, RowVersion, Versions},
};

/// The most versions in one batch. With fewer, the server's work for each batch begins to show. More
/// only take memory.
const BATCH_VERSIONS: u32 = 4_096;
/// The same of whole rows, which take more.
const BATCH_ROWS: u32 = 1_024;

/// A walk under way.
pub struct MongoVersions(Ahead<Vec<RowVersion>>);

impl MongoStore {
    /// Opens the walk behind the row `after`.
    pub(super) async fn walk_versions(
        &self,
        after: Option<&DocumentId>,
        extent: Extent,
    ) -> Result<MongoVersions> {
        let mut find = self
            .documents
            .find(doc! {})
            .sort(doc! { "_id": 1 })
            .read_concern(ReadConcern::majority());
        find = match extent {
            Extent::Version => find
                .projection(doc! { "version": 1, "quarantine.version": 1 })
                .batch_size(BATCH_VERSIONS),
            Extent::Whole => find.batch_size(BATCH_ROWS),
        };
        if let Some(after) = after {
            // This is a bound of the index. A comparison would match values of one type only. The bound
            // includes the row `after` itself, which the walk passes over once more.
            find = find.min(doc! { "_id": after.to_bson() }).hint(Hint::Keys(doc! { "_id": 1 }));
        }
        let (collection, causal) = (self.collection.clone(), self.causal.clone());
        let batches = find.batch().await?;
        Ok(MongoVersions(Ahead::new(batches.map(move |batch| {
            let batch = batch?;
            if let Ok(time) = batch.as_raw_document().get_timestamp("operationTime") {
                causal.observe_time(time);
            }
            decode(&batch, extent, &collection)
        }))))
    }
}

impl Versions for MongoVersions {
    async fn next(&mut self) -> Result<Option<Vec<RowVersion>>> {
        self.0.next().await
    }
}

fn decode(batch: &RawBatch, extent: Extent, collection: &str) -> Result<Vec<RowVersion>> {
    let mut rows = Vec::new();
    for row in batch.doc_slices()? {
        let row = row?;
        let row = row.as_document().ok_or_else(|| Error::damaged("a batch without documents"))?;
        rows.push(read(row, extent, collection)?);
    }
    Ok(rows)
}

fn read(row: &RawDocument, extent: Extent, collection: &str) -> Result<RowVersion> {
    let id = row.get("_id")?.ok_or_else(|| Error::damaged("a row without `_id`"))?;
    let id = DocumentId::from_raw(id).map_err(|error| foreign(collection, &error))?;
    // Whoever loads a row without a version will complain.
    let version = row.get("version")?.and_then(integral).unwrap_or_default();
    let marked = row.get("quarantine")?.is_some();
    let whole = (extent == Extent::Whole).then(|| row.to_owned());
    Ok(RowVersion { id, version, marked, row: whole })
}
