//! Loading rows within the bound of one reply. How large rows are is known once they are here, so it is the server that
//! stops, at 16 MB.

use bson::{Bson, RawBsonRef, RawDocumentBuf, doc};
use futures::StreamExt;
use mongodb::{Collection, options::ReadConcern};

use crate::{
    database::{Causal, Error, Result},
    model::id::DocumentId,
    store::Loaded,
};

/// The rows of those `ids` that have one, as many as the first reply holds.
pub(super) async fn load_some(
    documents: &Collection<RawDocumentBuf>,
    causal: &Causal,
    ids: &[DocumentId],
) -> Result<Loaded> {
    let wanted: Vec<Bson> = ids.iter().map(DocumentId::to_bson).collect();
    let mut session = causal.session().await?;
    let mut replies = documents
        .find(doc! { "_id": { "$in": wanted } })
        .sort(doc! { "_id": 1 })
        // One more, so that no cursor stays open behind a reply that holds all.
        .batch_size(u32::try_from(ids.len()).unwrap_or(u32::MAX).saturating_add(1))
        .read_concern(ReadConcern::majority())
        .session(&mut session)
        .batch()
        .await?;
    let reply = replies.stream(&mut session).next().await;
    let reply = reply.ok_or_else(|| Error::damaged("a cursor without a batch"))?;
    let reply = reply?;
    drop(replies);
    causal.observe(&session);
    let rows: Vec<RawDocumentBuf> =
        reply.doc_slices()?.into_iter().map(row_of).collect::<Result<_>>()?;
    let cursor = reply.as_raw_document().get_document("cursor")?;
    let is_cut = cursor.get_i64("id")? != 0;
    let told = match (is_cut, rows.last()) {
        (true, Some(last)) => {
            let id = last.get("_id")?.ok_or_else(|| Error::damaged("a row without `_id`"))?;
            let last = DocumentId::from_raw(id).map_err(|error| {
                Error::damaged(format!(
                    "a row of `{}` has no usable `_id`: {error}",
                    documents.name()
                ))
            })?;
            // Not even one, if the server's order were another: then each is asked for by itself.
            ids.partition_point(|id| *id <= last).max(1)
        }
        _ => ids.len(),
    };
    Ok(Loaded { rows, told })
}

fn row_of(value: bson::error::Result<RawBsonRef<'_>>) -> Result<RawDocumentBuf> {
    let row = value?;
    let row = row.as_document().ok_or_else(|| Error::damaged("a batch without documents"))?;
    Ok(row.to_owned())
}
