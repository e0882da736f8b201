//! The ordered walk over the versions of all rows on MongoDB. A scan of the log is compared with it, so
//! that only documents that are behind are loaded.

use bson::{Bson, RawBsonRef, RawDocument, doc};
use futures::StreamExt;
use mongodb::{
    options::{Hint, ReadConcern},
    raw_batch_cursor::RawBatch,
};

use super::MongoStore;
use crate::{
    database::{Ahead, Error, Result},
    model::{
        id::{DocumentId, IdError, integral},
        shown::shown,
    },
    store::{Extent, RowVersion, Versions},
};

/// The most versions in one batch. With fewer, the server's work for each batch begins to show. More
/// only take memory.
const BATCH_VERSIONS: u32 = 4_096;
/// The same of whole rows, which take more.
const BATCH_ROWS: u32 = 1_024;

/// A walk under way.
pub struct MongoVersions {
    batches: Ahead<Batch>,
    /// What is said of rows that no document can have.
    foreign: Vec<String>,
}

/// The rows of a batch, and what is said of those that no document can have.
type Batch = (Vec<RowVersion>, Vec<String>);

/// How many rows that no document can have are told of.
const FOREIGN_MAX: usize = 1_000;

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
        let causal = self.causal.clone();
        let batches = find.batch().await?;
        let batches = Ahead::new(batches.map(move |batch| {
            let batch = batch?;
            if let Ok(time) = batch.as_raw_document().get_timestamp("operationTime") {
                causal.observe_time(time);
            }
            decode(&batch, extent)
        }));
        Ok(MongoVersions { batches, foreign: Vec::new() })
    }
}

impl Versions for MongoVersions {
    async fn next(&mut self) -> Result<Option<Vec<RowVersion>>> {
        let Some((rows, foreign)) = self.batches.next().await? else { return Ok(None) };
        let room = FOREIGN_MAX.saturating_sub(self.foreign.len());
        self.foreign.extend(foreign.into_iter().take(room));
        Ok(Some(rows))
    }

    fn take_foreign(&mut self) -> Vec<String> {
        std::mem::take(&mut self.foreign)
    }
}

fn decode(batch: &RawBatch, extent: Extent) -> Result<Batch> {
    let (mut rows, mut foreign) = (Vec::new(), Vec::new());
    for row in batch.doc_slices()? {
        let row = row?;
        let row = row.as_document().ok_or_else(|| Error::damaged("a batch without documents"))?;
        let id = row.get("_id")?.ok_or_else(|| Error::damaged("a row without `_id`"))?;
        match DocumentId::from_raw(id) {
            Ok(id) => rows.push(read(id, row, extent)?),
            // It is somebody else's.
            Err(error) => foreign.push(stranger(id, &error)),
        }
    }
    Ok((rows, foreign))
}

fn stranger(id: RawBsonRef<'_>, error: &IdError) -> String {
    let id = Bson::try_from(id).map_or_else(|_| "unreadable".to_owned(), |id| id.to_string());
    format!("there is a row of no document, with `_id` {}: {error}", shown(id.as_bytes()))
}

fn read(id: DocumentId, row: &RawDocument, extent: Extent) -> Result<RowVersion> {
    // Whoever loads a row without a version will complain.
    let version = row.get("version")?.and_then(integral).unwrap_or_default();
    let marked = row.get("quarantine")?.is_some();
    let whole = (extent == Extent::Whole).then(|| row.to_owned());
    Ok(RowVersion { id, version, marked, row: whole })
}
