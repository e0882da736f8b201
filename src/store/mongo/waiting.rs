//! What waits, for an operator to look at: page by page, in the order of the documents' ids.

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::{Database, options::ReadConcern};

use super::{collection_range, quarantine::decode};
use crate::{
    database::Result,
    model::{document::Class, id::DocumentId},
    store::{QUARANTINE_COLLECTION, QuarantineRow},
};

/// Which of the documents that wait to list.
#[derive(Clone, Debug)]
pub struct WaitingQuery {
    /// Those behind gaps, or else those that are parked.
    pub behind_gaps: bool,
    /// Only those behind this one.
    pub after: Option<DocumentId>,
    /// At most so many.
    pub limit: u32,
}

/// Events of a collection that came after their places were pruned, as they are kept: `{_id: {late: c, d, s, n}, class, event,
/// since}`; at most `limit` of those behind `after`.
///
/// # Errors
/// When the database refuses.
pub async fn late(
    database: &Database,
    collection: &str,
    after: Option<&RawDocumentBuf>,
    limit: u32,
) -> Result<Vec<RawDocumentBuf>> {
    let end = |d: Bson| Bson::from(doc! { "late": collection, "d": d });
    let from = match after.and_then(|row| row.get("_id").ok().flatten()) {
        Some(key) => doc! { "$gt": Bson::try_from(key)? },
        None => doc! { "$gte": end(Bson::MinKey) },
    };
    let mut range = from;
    range.insert("$lte", end(Bson::MaxKey));
    let rows = database.collection::<RawDocumentBuf>(QUARANTINE_COLLECTION);
    let find = rows.find(doc! { "_id": range }).sort(doc! { "_id": 1 }).limit(limit.into());
    Ok(find.read_concern(ReadConcern::majority()).await?.try_collect().await?)
}

/// The records of a collection's documents that wait.
///
/// # Errors
/// When the database refuses, or a row is damaged.
pub async fn waiting(
    database: &Database,
    collection: &str,
    query: &WaitingQuery,
) -> Result<Vec<QuarantineRow>> {
    let mut filter: Document = collection_range(collection);
    if let (Some(after), Ok(range)) = (&query.after, filter.get_document_mut("_id")) {
        range.remove("$gte");
        range.insert("$gt", doc! { "c": collection, "d": after.to_bson() });
    }
    let of_gaps = Class::Gap.name();
    let class = if query.behind_gaps {
        doc! { "$eq": of_gaps }
    } else {
        doc! { "$ne": of_gaps }
    };
    filter.insert("class", class);
    let rows = database
        .collection::<RawDocumentBuf>(QUARANTINE_COLLECTION)
        .find(filter)
        .sort(doc! { "_id": 1 })
        .limit(i64::from(query.limit))
        .read_concern(ReadConcern::majority())
        .await?;
    let rows: Vec<RawDocumentBuf> = rows.try_collect().await?;
    rows.iter().map(|row| decode(row)).collect()
}
