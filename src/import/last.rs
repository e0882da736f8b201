//! The last versions of neighbouring documents, found with one walk over their part of the log: a question for each of them
//! costs the server much more.

use std::collections::HashMap;

use bson::{RawBsonRef, RawDocument, raw::cstr, rawdoc};
use futures::StreamExt;

use super::source::Item;
use crate::{
    database::Result,
    log::{Batch, mongo::NamedLog},
    model::{
        event::EventKey,
        id::{DocumentId, INTEGER_MAX, integral},
    },
};

/// How many events are walked over. Where documents have long logs, or others stand between them, few are found, and the rest
/// is asked for one by one.
const EVENTS_MAX: i64 = 20_000;

/// The last versions of some of these documents, which stand in the order of their ids, as the majority has them.
pub(super) async fn last_versions(
    log: &NamedLog,
    items: &[Item],
) -> Result<HashMap<DocumentId, i64>> {
    let (Some(first), Some(last)) = (items.first(), items.last()) else {
        return Ok(HashMap::new());
    };
    let key = |item: &Item, version| EventKey { document: item.id.clone(), version }.to_raw();
    let range = rawdoc! { "$gte": key(first, 1), "$lte": key(last, INTEGER_MAX) };
    let group = rawdoc! { "_id": "$_id.d", "last": { "$max": "$_id.s" }, "events": { "$sum": 1 } };
    let aggregate = rawdoc! {
        "pipeline": [
            { "$match": { "_id": range } },
            { "$sort": { "_id": 1 } },
            { "$limit": EVENTS_MAX },
            { "$group": group },
        ],
        "cursor": {},
        "readConcern": { "level": "majority" },
    };
    let mut cursor = log.cursor(cstr!("aggregate"), &aggregate, 1_000).await?;
    let (mut found, mut events, mut greatest) = (HashMap::new(), 0, None);
    while let Some(batch) = cursor.next().await {
        for group in Batch::from(batch?).documents()? {
            let group = group?;
            events += number(group, "events").unwrap_or_default();
            let Some(id) = group.get("_id")?.and_then(id) else { continue };
            greatest = greatest.max(Some(id.clone()));
            found.extend(number(group, "last").map(|last| (id, last)));
        }
    }
    if events >= EVENTS_MAX {
        // There may be more of it, and of what is no document of ours behind it.
        found.retain(|id, _| Some(id) != greatest.as_ref());
    }
    Ok(found)
}

fn id(value: RawBsonRef<'_>) -> Option<DocumentId> {
    DocumentId::from_raw(value).ok()
}

fn number(group: &RawDocument, field: &str) -> Option<i64> {
    group.get(field).ok().flatten().and_then(integral)
}
