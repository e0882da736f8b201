//! Checkpoints on MongoDB: `{_id: collection or part of it, token, clusterTime, epoch, log, rows?, passed_events?}` in
//! `alluvium.checkpoints`, without token and time until the first scan is over.

use bson::{Document, RawDocument, RawDocumentBuf, doc, raw::cstr, rawdoc};
use futures::TryStreamExt;
use mongodb::{Database, options::ReadConcern};

use super::{MongoStore, no_write_errors, update_statement};
use crate::{
    database::{Error, Result, code},
    model::{
        id::integral,
        part::Part,
        position::{Checkpoint, LogId, Position, RowsId},
        shown::id_of,
    },
    store::{CHECKPOINTS_COLLECTION, Checkpoints, LeaseName},
};

impl Checkpoints for MongoStore {
    async fn load_checkpoints(&self) -> Result<Vec<(Part, Checkpoint)>> {
        of_collection(&self.database, &self.collection).await
    }

    async fn claim_log(&self, log: LogId) -> Result<bool> {
        // If the row has another log, the filter does not match, the upsert inserts, and error 11000
        // tells.
        let filter = rawdoc! { "_id": self.collection.as_str(), "log": bson::Binary::from(log.0) };
        let first = rawdoc! { "$setOnInsert": { "epoch": 0_i64 } };
        let statements = [update_statement(filter, first, true)].into_iter().collect();
        let reply = self.bulk("update", CHECKPOINTS_COLLECTION, "updates", statements).await?;
        is_written(&reply)
    }

    async fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<bool> {
        // If the row has a later epoch or another log, the filter does not match, the upsert inserts,
        // and error 11000 tells.
        let log = bson::Binary::from(checkpoint.log.0);
        let filter = rawdoc! {
            "_id": self.checkpoint_id(), "epoch": { "$lte": checkpoint.epoch }, "log": log.clone(),
        };
        let mut row = rawdoc! { "_id": self.checkpoint_id() };
        if let Some(position) = &checkpoint.position {
            row.append(cstr!("token"), position.token.clone());
            row.append(cstr!("clusterTime"), position.cluster_time);
        }
        row.append(cstr!("epoch"), checkpoint.epoch);
        row.append(cstr!("log"), log);
        if let Some(rows) = checkpoint.rows {
            row.append(cstr!("rows"), bson::Binary::from(rows.0));
        }
        if let Some(passed) = checkpoint.passed_events.and_then(|passed| i64::try_from(passed).ok())
        {
            row.append(cstr!("passed_events"), passed);
        }
        let statements = [update_statement(filter, row, true)].into_iter().collect();
        let reply = self.bulk("update", CHECKPOINTS_COLLECTION, "updates", statements).await?;
        is_written(&reply)
    }
}

/// Whether an upsert was carried out: `false` on error 11000, when there is a row that its filter does
/// not match.
fn is_written(reply: &Document) -> Result<bool> {
    match no_write_errors(reply) {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(code::DUPLICATE_KEY) => Ok(false),
        Err(error) => Err(error),
    }
}

/// All checkpoints of a collection, each with its part.
pub(super) async fn of_collection(
    database: &Database,
    collection: &str,
) -> Result<Vec<(Part, Checkpoint)>> {
    // A name cannot hold a NUL byte: what sorts between `games#` and `games$` are the parts of `games`.
    let filter = doc! { "$or": [
        { "_id": collection },
        { "_id": { "$gte": format!("{collection}#"), "$lt": format!("{collection}$") } },
    ] };
    let rows = database
        .collection::<RawDocumentBuf>(CHECKPOINTS_COLLECTION)
        .find(filter)
        .read_concern(ReadConcern::majority())
        .await?;
    let rows: Vec<RawDocumentBuf> = rows.try_collect().await?;
    let mut saved = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(part) = LeaseName::part_of(row.get_str("_id")?, collection) {
            saved.push((part, decode(row)?));
        }
    }
    Ok(saved)
}

fn decode(row: &RawDocument) -> Result<Checkpoint> {
    let missing = |field| {
        Error::damaged(format!(
            "the checkpoint {} has no usable `{field}`; delete it (the log is then scanned against the documents)",
            id_of(row)
        ))
    };
    let position = match row.get("token")? {
        Some(token) => {
            let cluster_time =
                row.get_timestamp("clusterTime").map_err(|_| missing("clusterTime"))?;
            Some(Position { token: token.into(), cluster_time })
        }
        None => None,
    };
    let epoch = row.get("epoch")?.and_then(integral).ok_or_else(|| missing("epoch"))?;
    let log = row.get_binary("log").map_err(|_| missing("log"))?;
    let log = log.to_binary().to_uuid().map_err(|_| missing("log"))?;
    // Older programs did not save it.
    let rows = row.get_binary("rows").ok();
    let rows = rows.and_then(|rows| rows.to_binary().to_uuid().ok()).map(RowsId);
    // This is only a hint. A number that makes no sense is ignored.
    let passed_events = row.get("passed_events")?.and_then(integral);
    let passed_events = passed_events.and_then(|passed| u64::try_from(passed).ok());
    Ok(Checkpoint { position, log: LogId(log), rows, epoch, passed_events })
}
