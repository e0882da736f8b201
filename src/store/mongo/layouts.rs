//! Layouts on MongoDB: `{_id: {parts: <collection>}, of, since, by}` in `alluvium.meta`.

use std::collections::BTreeMap;

use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::{
    Collection, Database,
    options::{ReadConcern, WriteConcern},
};

use super::checkpoints;
use crate::{
    database::Result,
    model::{
        id::integral,
        part::{PARTS_MAX, Part},
    },
    store::{
        CHECKPOINTS_COLLECTION, LEASES_COLLECTION, Layout, Layouts, LeaseName, META_COLLECTION,
    },
};

/// The layouts of one database.
#[derive(Clone, Debug)]
pub struct MongoLayouts {
    database: Database,
    meta: Collection<RawDocumentBuf>,
}

impl MongoLayouts {
    /// The layouts of `database`.
    pub fn new(database: &Database) -> Self {
        Self { database: database.clone(), meta: database.collection(META_COLLECTION) }
    }

    /// The layout of one collection.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn layout(&self, collection: &str) -> Result<Layout> {
        let key = doc! { "_id": { "parts": collection } };
        let found = self.meta.find_one(key).read_concern(ReadConcern::majority()).await?;
        Ok(found.map_or(Layout::Parts(1), |row| decode(&row)))
    }
}

impl Layouts for MongoLayouts {
    async fn load_layouts(&self) -> Result<BTreeMap<String, (Layout, Option<String>)>> {
        let found = self.meta.find(doc! { "_id.parts": { "$type": "string" } });
        let rows: Vec<RawDocumentBuf> =
            found.read_concern(ReadConcern::majority()).await?.try_collect().await?;
        let named = |row: &RawDocumentBuf| {
            let name = row.get_document("_id").ok()?.get_str("parts").ok()?;
            let by = row.get_str("by").ok().map(str::to_owned);
            Some((name.to_owned(), (decode(row), by)))
        };
        Ok(rows.iter().filter_map(named).collect())
    }

    async fn set_layout(&self, collection: &str, of: u32, by: &str) -> Result<()> {
        let key = doc! { "_id": { "parts": collection } };
        let since = bson::DateTime::now();
        let update = doc! { "$set": { "of": i64::from(of), "since": since, "by": by } };
        let majority = WriteConcern::majority();
        self.meta.update_one(key, update).upsert(true).write_concern(majority).await?;
        Ok(())
    }

    async fn retire_layouts(&self, collection: &str, of: u32) -> Result<bool> {
        let saved = checkpoints::of_collection(&self.database, collection).await?;
        let has_place = |part: Part| {
            let own = saved.iter().find(|(saved, _)| *saved == part);
            own.is_some_and(|(_, checkpoint)| checkpoint.position.is_some())
        };
        if !Part::all(of).all(has_place) || self.layout(collection).await? != Layout::Parts(of) {
            return Ok(false);
        }
        // The checkpoint of the whole stays: it says which log the documents come from.
        let others = saved.iter().filter(|(part, _)| part.of != of && *part != Part::WHOLE);
        let id = |part: Part| LeaseName { collection: collection.to_owned(), part }.to_string();
        let ids: Vec<String> = others.map(|(part, _)| id(*part)).collect();
        if !ids.is_empty() {
            let checkpoints = self.database.collection::<Document>(CHECKPOINTS_COLLECTION);
            let delete = checkpoints.delete_many(doc! { "_id": { "$in": ids } });
            delete.write_concern(WriteConcern::majority()).await?;
        }
        let leases = self.database.collection::<Document>(LEASES_COLLECTION);
        let others = doc! { "_id.c": collection, "_id.of": { "$ne": i64::from(of) } };
        leases.delete_many(others).write_concern(WriteConcern::majority()).await?;
        Ok(true)
    }
}

fn decode(row: &RawDocument) -> Layout {
    let found = row.get("of").ok().flatten();
    let of = found.and_then(integral).and_then(|of| u32::try_from(of).ok());
    match of.filter(|of| (1..=PARTS_MAX).contains(of)) {
        Some(of) => Layout::Parts(of),
        None => Layout::Damaged(match found.and_then(|found| Bson::try_from(found).ok()) {
            Some(found) => found.into_relaxed_extjson().to_string(),
            None => "nothing".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawBson, rawdoc};

    #[test]
    fn a_number_of_parts_may_come_as_any_integral_number_and_nothing_else() {
        for of in [RawBson::Int32(4), RawBson::Int64(4), RawBson::Double(4.0)] {
            assert_eq!(decode(&rawdoc! { "of": of }), Layout::Parts(4));
        }
        for of in [
            RawBson::Int32(0),
            RawBson::Int32(-1),
            RawBson::Int64(65),
            RawBson::Double(1.5),
            RawBson::Double(f64::NAN),
            RawBson::String("4".into()),
            RawBson::Null,
        ] {
            let layout = decode(&rawdoc! { "of": of.clone() });
            assert!(matches!(layout, Layout::Damaged(_)), "{of:?}: {layout:?}");
        }
        assert_eq!(decode(&rawdoc! {}), Layout::Damaged("nothing".into()));
    }
}
