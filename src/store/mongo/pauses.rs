//! Pauses on MongoDB: `{_id: {pause: <collection>}, since, by}` in `alluvium.meta`.

use std::collections::BTreeMap;

use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::{
    Collection, Database,
    options::{ReadConcern, WriteConcern},
};

use crate::{
    database::{Result, code},
    store::{META_COLLECTION, Pauses},
};

/// The pauses of one database.
#[derive(Clone, Debug)]
pub struct MongoPauses {
    meta: Collection<Document>,
}

impl MongoPauses {
    /// The pauses of `database`.
    pub fn new(database: &Database) -> Self {
        Self { meta: database.collection(META_COLLECTION) }
    }
}

impl Pauses for MongoPauses {
    async fn load_pauses(&self) -> Result<BTreeMap<String, Option<String>>> {
        let found = self.meta.find(doc! { "_id.pause": { "$type": "string" } });
        let rows: Vec<Document> =
            found.read_concern(ReadConcern::majority()).await?.try_collect().await?;
        let known = |row: &Document| {
            let name = row.get_document("_id").ok()?.get_str("pause").ok()?;
            Some((name.to_owned(), row.get_str("by").ok().map(str::to_owned)))
        };
        Ok(rows.iter().filter_map(known).collect())
    }

    async fn set_paused(&self, collection: &str, paused: bool, by: &str) -> Result<bool> {
        let key = doc! { "_id": { "pause": collection } };
        let majority = WriteConcern::majority();
        if !paused {
            let deleted = self.meta.delete_one(key).write_concern(majority).await?;
            return Ok(deleted.deleted_count > 0);
        }
        // When two pause it at once, one of them finds the row, or gets error 11000.
        let update = doc! { "$setOnInsert": { "since": bson::DateTime::now(), "by": by } };
        let put = self.meta.update_one(key, update).upsert(true).write_concern(majority).await;
        match put.map_err(crate::database::Error::from) {
            Ok(put) => Ok(put.upserted_id.is_some()),
            Err(error) if error.code() == Some(code::DUPLICATE_KEY) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
