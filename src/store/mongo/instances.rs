//! What instances tell of themselves: published beside their sign of life, so that whoever can read the database
//! knows how each of them is doing without asking it.

use std::{fmt, sync::Arc};

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::{Database, options::ReadConcern};

use crate::{database::Result, store::LEASES_COLLECTION};

/// Tells how an instance is doing. Cheap to clone.
#[derive(Clone)]
pub struct Report(Arc<dyn Fn() -> Document + Send + Sync>);

impl Report {
    /// What `tell` gives, asked whenever the instance shows that it lives.
    pub fn new(tell: impl Fn() -> Document + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// As of now.
    pub(super) fn tell(&self) -> Document {
        (self.0)()
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Report")
    }
}

/// An instance that is there, or was.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// How long it has been silent, by the server's time, in seconds. Unknown of one that tells nothing.
    pub silent_seconds: Option<f64>,
    /// Its version of this program, the latest format of the data that it knows, and how its collections are.
    pub report: Document,
}

impl Instance {
    /// What it tells of a collection.
    pub fn of_collection(&self, collection: &str) -> Option<&Document> {
        let all = self.report.get_array("collections").ok()?;
        let mut all = all.iter().filter_map(Bson::as_document);
        all.find(|one| one.get_str("name").ok() == Some(collection))
    }
}

/// All instances that are there and have not said goodbye.
///
/// # Errors
/// When the database refuses.
pub async fn instances(database: &Database) -> Result<Vec<Instance>> {
    let silent = doc! { "$divide": [{ "$subtract": ["$$NOW", "$at"] }, 1_000] };
    let pipeline = [
        doc! { "$match": { "_id.i": { "$exists": true } } },
        doc! { "$set": { "silent": silent } },
        doc! { "$sort": { "_id": 1 } },
    ];
    let rows = database
        .collection::<RawDocumentBuf>(LEASES_COLLECTION)
        .aggregate(pipeline)
        .read_concern(ReadConcern::majority())
        .with_type::<Document>()
        .await?;
    let rows: Vec<Document> = rows.try_collect().await?;
    let instance = |row: Document| {
        let id = row.get_document("_id").ok()?;
        Some(Instance {
            name: id.get_str("i").ok()?.to_owned(),
            silent_seconds: row.get_f64("silent").ok(),
            report: row.get_document("report").cloned().unwrap_or_default(),
        })
    };
    Ok(rows.into_iter().filter_map(instance).collect())
}
