//! What an operator can be told from the database alone, without a daemon to ask: how far each projection is
//! known to have come, who leads it, and which of its documents wait.

use std::collections::BTreeMap;

use bson::{RawDocumentBuf, Timestamp, doc};
use futures::TryStreamExt;
use mongodb::{Database, options::ReadConcern};

use super::{MongoLayouts, MongoLeases, checkpoints, collection_range};
use crate::{
    database::Result,
    model::{
        document::Class,
        part::{Part, vouched},
    },
    store::{Layout, Leases, QUARANTINE_COLLECTION},
};

/// One collection, as the database tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// Into how many parts it is divided.
    pub layout: Layout,
    /// Where all of it would be projected on from, if that is known.
    pub resume: Option<Resume>,
    /// The parts of its division, each with the instance that holds its lease.
    pub parts: Vec<(Part, Option<String>)>,
    /// How many documents wait, by the reason.
    pub waiting: BTreeMap<&'static str, u64>,
}

/// The place that a collection's saved checkpoints vouch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
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
    let layout = MongoLayouts::new(database).layout(collection).await?;
    let of = match layout {
        Layout::Parts(of) => of,
        Layout::Damaged(_) => 0,
    };
    let holder = |part: Part| {
        let mut leases = roster.leases.iter();
        leases.find(|lease| lease.name.collection == collection && lease.name.part == part)
    };
    let holder = |part: Part| holder(part).and_then(|lease| lease.holder.clone());
    Ok(Overview {
        layout,
        resume: resume_point(database, collection).await?,
        parts: Part::all(of).map(|part| (part, holder(part))).collect(),
        waiting: count_waiting(database, collection).await?,
    })
}

/// Where all of `collection` would be projected on from, as its saved checkpoints have it.
///
/// # Errors
/// When the database refuses, or a row is damaged.
pub async fn resume_point(database: &Database, collection: &str) -> Result<Option<Resume>> {
    let mut session = database.client().start_session().causal_consistency(true).await?;
    database.run_command(doc! { "ping": 1 }).session(&mut session).await?;
    let now = session.operation_time();
    let saved = checkpoints::of_collection(database, collection).await?;
    Ok(vouched(Part::WHOLE, &saved).map(|vouched| {
        let cluster_time = vouched.position.cluster_time;
        let age_seconds = now.map(|now| now.time.saturating_sub(cluster_time.time));
        Resume { cluster_time, age_seconds }
    }))
}

async fn count_waiting(
    database: &Database,
    collection: &str,
) -> Result<BTreeMap<&'static str, u64>> {
    let pipeline = [
        doc! { "$match": collection_range(collection) },
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
