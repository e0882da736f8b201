//! Jobs on MongoDB, in `alluvium.jobs`. A row begins as `{kind, collection, document?, version?, skip_above?,
//! repair?, by?}`, inserted by anyone; its
//! leader adds `{state, owner, epoch, beat, progress, place, tally}` and at the end `{result | error, finished_at}`.
//! Rows that have ended are deleted by a TTL index.

use bson::{Bson, Document, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::{
    Collection, Database,
    options::{ReadConcern, ReturnDocument, WriteConcern},
};

use super::{bulk, no_write_errors};
use crate::{
    database::{Error, Result},
    model::job::{Kind, Order, Outcome, QUEUED, RUNNING, is_final},
    store::{
        JOBS_COLLECTION as COLLECTION, Jobs, LEASES_COLLECTION, Lock,
        jobs::{Advance, Cancelled, JobsQuery},
    },
};

/// How long a job is kept after it has ended, in seconds: a week.
pub const JOBS_KEPT_SECONDS: i64 = 7 * 86_400;
/// How many jobs are read at once.
const OPEN_MAX: i64 = 100;

/// The jobs of one database.
#[derive(Clone, Debug)]
pub struct MongoJobs {
    database: Database,
    jobs: Collection<RawDocumentBuf>,
}

impl MongoJobs {
    /// The jobs of `database`.
    pub fn new(database: &Database) -> Self {
        Self { database: database.clone(), jobs: database.collection(COLLECTION) }
    }

    async fn find(
        &self,
        filter: Document,
        sort: Document,
        limit: i64,
    ) -> Result<Vec<RawDocumentBuf>> {
        let found = self.jobs.find(filter).sort(sort).limit(limit);
        Ok(found.read_concern(ReadConcern::majority()).await?.try_collect().await?)
    }

    /// Updates one row at majority; whether there was one.
    async fn update(&self, filter: Document, update: Document) -> Result<bool> {
        let statement = RawDocumentBuf::try_from(&doc! { "q": filter, "u": update })?;
        let statements: RawArrayBuf = [statement].into_iter().collect();
        let reply = bulk(&self.database, "update", COLLECTION, "updates", statements).await?;
        no_write_errors(&reply)?;
        Ok(reply.get_i32("n").unwrap_or_default() == 1)
    }
}

impl Jobs for MongoJobs {
    async fn insert_job(&self, order: &Order) -> Result<RawDocumentBuf> {
        let mut row = doc! {
            "_id": bson::oid::ObjectId::new(), "kind": order.kind.name(), "collection": &order.collection,
        };
        if let Some(document) = &order.document {
            row.insert("document", document.to_bson());
        }
        if let Some(version) = order.version {
            row.insert("version", version);
        }
        if order.dry_run {
            row.insert("dry_run", true);
        }
        if order.skip_above {
            row.insert("skip_above", true);
        }
        if order.repair && order.kind == Kind::Verify {
            row.insert("repair", true);
        }
        if order.deep {
            row.insert("deep", true);
        }
        if let Some(by) = &order.by {
            row.insert("by", by);
        }
        row.insert("state", QUEUED);
        let row = RawDocumentBuf::try_from(&row)?;
        self.jobs.insert_one(&row).write_concern(WriteConcern::majority()).await?;
        Ok(row)
    }

    async fn open_jobs(&self, collection: &str) -> Result<Vec<RawDocumentBuf>> {
        let open = doc! { "collection": collection, "state": { "$in": [null, QUEUED, RUNNING] } };
        self.find(open, doc! { "_id": 1 }, OPEN_MAX).await
    }

    async fn stray_jobs(&self, collections: &[String]) -> Result<Vec<RawDocumentBuf>> {
        let mut known: Vec<Bson> = Outcome::ALL.map(|outcome| outcome.name().into()).to_vec();
        known.extend([Bson::Null, QUEUED.into(), RUNNING.into()]);
        let stray = doc! { "$or": [
            { "state": { "$in": [null, QUEUED] }, "collection": { "$nin": collections } },
            { "state": { "$nin": known } },
        ] };
        self.find(stray, doc! { "_id": 1 }, OPEN_MAX).await
    }

    async fn is_led(&self, collection: &str) -> Result<bool> {
        let leases = self.database.collection::<RawDocumentBuf>(LEASES_COLLECTION);
        let found = leases.find_one(doc! { "_id.c": collection });
        Ok(found.read_concern(ReadConcern::majority()).await?.is_some())
    }

    async fn claim_job(&self, row: &RawDocument, lock: &Lock) -> Result<bool> {
        let mut set =
            doc! { "state": RUNNING, "owner": &lock.owner, "epoch": lock.epoch, "beat": 1_i64 };
        set.insert("progress", progress_of(row));
        let mut dates = doc! { "beat_at": true };
        if !matches!(row.get("started_at"), Ok(Some(RawBsonRef::DateTime(_)))) {
            dates.insert("started_at", true);
        }
        self.update(as_read(row)?, doc! { "$set": set, "$currentDate": dates }).await
    }

    async fn advance_job(&self, id: &Bson, lock: &Lock, advance: &Advance) -> Result<bool> {
        let mut set = doc! {
            "progress": { "done": advance.done, "total": advance.total }, "tally": advance.tally.clone(),
        };
        if let Some(place) = &advance.place {
            set.insert("place", place.to_bson());
        }
        let update = doc! {
            "$set": set, "$inc": { "beat": 1_i64 }, "$currentDate": { "beat_at": true },
        };
        self.update(locked(id, lock), update).await
    }

    async fn finish_job(
        &self,
        id: &Bson,
        lock: &Lock,
        result: Result<Document, &str>,
    ) -> Result<bool> {
        let set = match result {
            Ok(result) => doc! { "state": Outcome::Done.name(), "result": result },
            Err(error) => doc! { "state": Outcome::Failed.name(), "error": error },
        };
        let update = doc! {
            "$set": set, "$unset": { "tally": "", "place": "" }, "$currentDate": { "finished_at": true },
        };
        self.update(locked(id, lock), update).await
    }

    async fn refuse_job(&self, row: &RawDocument, error: &str) -> Result<bool> {
        let update = doc! {
            "$set": { "state": Outcome::Failed.name(), "error": error },
            "$currentDate": { "finished_at": true },
        };
        self.update(as_read(row)?, update).await
    }

    async fn job(&self, id: &Bson) -> Result<Option<RawDocumentBuf>> {
        let found = self.jobs.find_one(doc! { "_id": id });
        Ok(found.read_concern(ReadConcern::majority()).await?)
    }

    async fn jobs(&self, query: &JobsQuery) -> Result<Vec<RawDocumentBuf>> {
        let mut filter = Document::new();
        if let Some(collections) = &query.collections {
            filter.insert("collection", doc! { "$in": collections });
        }
        match query.state.as_deref() {
            Some(QUEUED) => drop(filter.insert("state", doc! { "$in": [null, QUEUED] })),
            Some(state) => drop(filter.insert("state", state)),
            None => {}
        }
        if let Some(before) = &query.before {
            filter.insert("_id", doc! { "$lt": before });
        }
        self.find(filter, doc! { "_id": -1 }, query.limit.into()).await
    }

    async fn cancel_job(&self, id: &Bson) -> Result<Cancelled> {
        let open = doc! { "_id": id, "state": { "$in": [null, QUEUED, RUNNING] } };
        let update = doc! {
            "$set": { "state": Outcome::Cancelled.name() }, "$currentDate": { "finished_at": true },
        };
        let cancelled = self
            .jobs
            .find_one_and_update(open, update)
            .return_document(ReturnDocument::After)
            .write_concern(WriteConcern::majority())
            .await?;
        match cancelled {
            Some(row) => Ok(Cancelled::Yes(row)),
            None => Ok(self.job(id).await?.map_or(Cancelled::Unknown, Cancelled::TooLate)),
        }
    }

    async fn outcome(&self, id: &Bson) -> Result<Option<Outcome>> {
        let row = self.job(id).await?;
        let state = row.as_ref().and_then(|row| row.get_str("state").ok());
        Ok(Outcome::ALL.into_iter().find(|outcome| Some(outcome.name()) == state))
    }
}

/// Matches a row only as it was read: nobody has taken or ended it since.
fn as_read(row: &RawDocument) -> Result<Document> {
    let value = |name: &str| -> Result<Bson> {
        Ok(row.get(name)?.map(Bson::try_from).transpose()?.unwrap_or(Bson::Null))
    };
    if row.get_str("state").is_ok_and(is_final) {
        return Err(Error::damaged("a job that has ended cannot be taken"));
    }
    // By equality, which takes an absent field for null.
    let same = |value: Bson| doc! { "$eq": value };
    Ok(doc! {
        "_id": same(value("_id")?), "state": same(value("state")?), "epoch": same(value("epoch")?),
        "beat": same(value("beat")?),
    })
}

fn locked(id: &Bson, lock: &Lock) -> Document {
    doc! { "_id": id, "state": RUNNING, "owner": &lock.owner, "epoch": lock.epoch }
}

/// The progress of a job that is taken over, or the beginning.
fn progress_of(row: &RawDocument) -> Bson {
    let progress = row.get_document("progress").ok().map(|progress| progress.to_owned());
    let progress = progress.and_then(|progress| Document::try_from(progress).ok());
    progress.unwrap_or_else(|| doc! { "done": 0_i64, "total": null }).into()
}
