//! Whether a log may have bases: every instance that is there has to know the format of data with bases, and the log's
//! validator has to let bases in.

use std::time::Duration;

use bson::{DateTime, Document, RawDocumentBuf, doc, rawdoc};
use futures::TryStreamExt;
use mongodb::options::{ReadConcern, WriteConcern};

use super::{MongoStore, instances};
use crate::{
    database::{Result, server_time},
    model::{
        base::Base,
        clock::Clock,
        event::EventKey,
        id::{DocumentId, integral},
        names::events_collection,
        snapshot::FOLD,
    },
    store::{META_COLLECTION, bases::Hindrance, format::FORMAT},
};

/// An instance that has been silent for so long is gone.
const GONE_SECONDS: f64 = 3_600.0;

impl MongoStore {
    /// Why no base may be written, or none.
    pub(super) async fn hindrance_of_bases(&self, settled: Duration) -> Result<Option<Hindrance>> {
        if !self.validator_takes_bases().await? {
            let log = events_collection(&self.collection);
            return Ok(Some(Hindrance::Stands(format!(
                "the validator of `{log}` does not let bases in; run `alluvium init`, which brings it up to date"
            ))));
        }
        self.others_know_bases(settled).await
    }

    /// Asks the server what its validator makes of a base.
    async fn validator_takes_bases(&self) -> Result<bool> {
        let name = events_collection(&self.collection);
        let look = self.database.list_collections().filter(doc! { "name": name });
        let Some(found) = look.await?.try_next().await? else { return Ok(true) };
        let Some(validator) = found.options.validator else { return Ok(true) };
        let sample = Document::try_from(sample().to_raw())?;
        // `$documents` would need the right to read the whole database. A facet gives one document, whatever the collection
        // holds.
        let pipeline = [
            doc! { "$facet": { "none": [{ "$limit": 1 }] } },
            doc! { "$replaceWith": { "$literal": sample } },
            doc! { "$match": validator },
        ];
        let meta = self.database.collection::<Document>(META_COLLECTION);
        let mut fits = meta.aggregate(pipeline).await?;
        Ok(fits.try_next().await?.is_some())
    }

    /// An instance of an earlier version looks at the format with each beat of its lease, and stops.
    async fn others_know_bases(&self, settled: Duration) -> Result<Option<Hindrance>> {
        let meta = self.database.collection::<RawDocumentBuf>(META_COLLECTION);
        let format = doc! { "_id": "format" };
        let find = || meta.find_one(format.clone()).read_concern(ReadConcern::majority());
        let raised = |row: Option<RawDocumentBuf>| {
            let row = row?;
            let version = row.get("version").ok()??;
            (integral(version)? >= FORMAT).then(|| row.get_datetime("raised_at").ok())
        };
        let at = match raised(find().await?) {
            Some(None) => return Ok(None),
            Some(Some(at)) => at,
            None => {
                for instance in instances(&self.database).await? {
                    let known = instance.report.get_i64("format").unwrap_or(1);
                    let is_there =
                        instance.silent_seconds.is_none_or(|silent| silent < GONE_SECONDS);
                    if known < FORMAT && is_there {
                        return Ok(Some(Hindrance::Stands(format!(
                            "the instance {} knows the format {known} of the data, and bases need {FORMAT}; upgrade it, \
                             or stop it",
                            instance.name
                        ))));
                    }
                }
                let raise = [doc! { "$set": {
                    "version": { "$max": ["$version", FORMAT] },
                    "raised_at": { "$ifNull": ["$raised_at", "$$NOW"] },
                } }];
                let raise = meta.update_one(format.clone(), raise.to_vec()).upsert(true);
                raise.write_concern(WriteConcern::majority()).await?;
                return Ok(Some(Hindrance::Passing));
            }
        };
        let now = server_time(&self.database).await?;
        Ok((now.saturating_duration_since(at) < settled).then_some(Hindrance::Passing))
    }
}

/// A base such as any log may have.
fn sample() -> Base {
    let (id, at) = (DocumentId::String("sample".into()), DateTime::from_millis(0));
    let mut clock = Clock::new();
    clock.set("client", 2);
    Base {
        key: EventKey { document: id.clone(), version: 1 }.to_raw(),
        id,
        version: 2,
        clock,
        state: Some(rawdoc! {}),
        at,
        at_max: at,
        fold: FOLD,
        pruned: 1,
        based_at: at,
        mark: None,
        erased_through: 0,
    }
}
