//! What an operator can be told from the database alone, without a daemon to ask: how far each projection is
//! known to have come, who leads it, and which of its documents wait.

use std::collections::BTreeMap;

use bson::{RawDocumentBuf, Timestamp, doc};
use futures::TryStreamExt;
use mongodb::{Database, options::ReadConcern};

use super::{MongoLeases, checkpoints, waiting_range};
use crate::{
    database::Result,
    model::document::Class,
    store::{CHECKPOINTS_COLLECTION, Leases, QUARANTINE_COLLECTION},
};

/// One collection, as the database tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// Its checkpoints, one for each part, by name.
    pub checkpoints: BTreeMap<String, Saved>,
    /// The instances that hold its leases.
    pub holders: Vec<String>,
    /// How many documents wait, by the reason.
    pub waiting: BTreeMap<&'static str, u64>,
}

/// A saved checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The cluster time that it has come to.
    pub cluster_time: Timestamp,
    /// How far that is behind the present cluster time, in seconds; unknown when the server does
    /// not tell the time.
    pub age_seconds: Option<u32>,
}

/// Looks at the bookkeeping of `collection`.
///
/// # Errors
/// When the database refuses, or a row is damaged.
pub async fn overview(database: &Database, collection: &str) -> Result<Overview> {
    let roster = MongoLeases::new(database).load_roster().await?;
    let leases = roster.leases.into_iter().filter(|lease| lease.name.collection == collection);
    let mut holders: Vec<String> = leases.filter_map(|lease| lease.holder).collect();
    holders.sort();
    holders.dedup();
    Ok(Overview {
        checkpoints: saved_checkpoints(database, collection).await?,
        holders,
        waiting: count_waiting(database, collection).await?,
    })
}

/// The saved checkpoints of `collection`, one for each part, by name.
///
/// # Errors
/// When the database refuses, or a row is damaged.
pub async fn saved_checkpoints(
    database: &Database,
    collection: &str,
) -> Result<BTreeMap<String, Saved>> {
    let mut session = database.client().start_session().causal_consistency(true).await?;
    database.run_command(doc! { "ping": 1 }).session(&mut session).await?;
    let now = session.operation_time();
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
    let mut saved = BTreeMap::new();
    for row in &rows {
        // Without a place it only says which log is being scanned.
        let Some(position) = checkpoints::decode(row)?.position else { continue };
        let cluster_time = position.cluster_time;
        let age_seconds = now.map(|now| now.time.saturating_sub(cluster_time.time));
        saved.insert(row.get_str("_id")?.to_owned(), Saved { cluster_time, age_seconds });
    }
    Ok(saved)
}

async fn count_waiting(
    database: &Database,
    collection: &str,
) -> Result<BTreeMap<&'static str, u64>> {
    let pipeline = [
        doc! { "$match": waiting_range(collection) },
        doc! { "$group": { "_id": "$class", "count": { "$sum": 1_i64 } } },
    ];
    let rows = database
        .collection::<RawDocumentBuf>(QUARANTINE_COLLECTION)
        .aggregate(pipeline)
        .read_concern(ReadConcern::majority())
        .with_type::<RawDocumentBuf>()
        .await?;
    let rows: Vec<RawDocumentBuf> = rows.try_collect().await?;
    let mut waiting = BTreeMap::new();
    for row in &rows {
        if let Some(class) = Class::from_name(row.get_str("_id")?) {
            waiting.insert(class.name(), u64::try_from(row.get_i64("count")?).unwrap_or_default());
        }
    }
    Ok(waiting)
}
