//! What is left of an erased document beside its log and its row, on MongoDB, and how that goes.

use std::collections::HashSet;

use bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::options::ReadConcern;

use super::{MongoStore, no_write_errors, skips::events_of};
use crate::{
    database::Result,
    model::{
        id::{DocumentId, integral},
        job::Outcome,
        names::events_collection,
    },
    store::{
        Forgotten, JOBS_COLLECTION, QUARANTINE_COLLECTION, SKIPS_COLLECTION, snapshots_collection,
    },
};

/// What stands where a text told of the content.
const ERASED: &str = "erased";

impl MongoStore {
    /// See [`Bases::forget`](crate::store::Bases::forget).
    pub(super) async fn forget_content(&self, id: &DocumentId, through: i64) -> Result<Forgotten> {
        let key = |version: i64| doc! { "d": id.to_bson(), "s": version };
        let snapshots = doc! { "_id": { "$gte": key(0), "$lte": key(through) } };
        let snapshots = self.delete(&snapshots_collection(&self.collection), snapshots).await?;
        // By whole keys, which an index serves, and which compare ids as the server does.
        let late =
            |version: i64| doc! { "late": &self.collection, "d": id.to_bson(), "s": version };
        let late = doc! { "_id": { "$gte": late(0), "$lt": late(through.saturating_add(1)) } };
        let waiting = doc! {
            "_id": { "c": &self.collection, "d": id.to_bson() }, "version": { "$lte": through },
        };
        let records = self.delete(QUARANTINE_COLLECTION, late).await?
            + self.delete(QUARANTINE_COLLECTION, waiting).await?;
        let mut skips = events_of(&self.collection, id);
        skips.extend(doc! { "_id.s": { "$lte": through }, "reason": { "$ne": ERASED } });
        let reason = doc! { "$set": { "reason": ERASED } };
        let skips = self.update(SKIPS_COLLECTION, (skips, reason, Vec::new())).await?;
        let jobs = self.forget_outcomes(id).await?;
        Ok(Forgotten { snapshots, records, skips, jobs })
    }

    /// Deletes snapshots that were just stored of what was erased: whoever had read it before does not see the erasure, which
    /// has its base first and deletes those that it finds after that. So one of them sees the other.
    pub(super) async fn take_back_erased(&self, stored: &[&DocumentId]) -> Result<()> {
        if stored.is_empty() {
            return Ok(());
        }
        // Only jobs erase, and they are on record for longer than anybody holds what he has read.
        let ids: Vec<Bson> = stored.iter().map(|id| id.to_bson()).collect();
        let erases =
            doc! { "collection": &self.collection, "kind": "erase", "document": { "$in": ids } };
        let jobs = self.database.collection::<RawDocumentBuf>(JOBS_COLLECTION);
        let jobs = jobs
            .find(erases)
            .projection(doc! { "document": 1 })
            .read_concern(ReadConcern::majority());
        let jobs: Vec<RawDocumentBuf> = jobs.await?.try_collect().await?;
        let erased = jobs.iter().filter_map(|job| {
            let id = job.get("document").ok().flatten()?;
            DocumentId::from_raw(id).ok()
        });
        let erased: HashSet<DocumentId> = erased.collect();
        let log = events_collection(&self.collection);
        let log = self.database.collection::<RawDocumentBuf>(&log);
        for id in &erased {
            let first = doc! { "_id": { "d": id.to_bson(), "s": 1_i64 } };
            let erased = doc! { "erased_through": 1 };
            let find = log.find_one(first).projection(erased);
            let first = find.read_concern(ReadConcern::majority()).await?;
            let through = first.and_then(|first| integral(first.get("erased_through").ok()??));
            if let Some(through) = through {
                let key = |version: i64| doc! { "d": id.to_bson(), "s": version };
                let erased = doc! { "_id": { "$gte": key(0), "$lte": key(through) } };
                self.delete(&snapshots_collection(&self.collection), erased).await?;
            }
        }
        Ok(())
    }

    /// What jobs tell of a document: the outcome of those that were about it, and what others found.
    async fn forget_outcomes(&self, id: &DocumentId) -> Result<i64> {
        let ended = Outcome::ALL.map(Outcome::name);
        let about = doc! {
            "collection": &self.collection, "document": id.to_bson(), "kind": { "$ne": "erase" },
            "state": { "$in": ended.to_vec() },
            "$or": [{ "result": { "$exists": true } }, { "error": { "$exists": true } }],
        };
        let gone = doc! { "$unset": { "result": "", "error": "", "tally": "" } };
        let mut jobs = self.update(JOBS_COLLECTION, (about, gone, Vec::new())).await?;
        for found in ["result.findings", "tally.findings"] {
            let told = doc! { "document": id.to_bson(), "problem": { "$ne": ERASED } };
            let mut with = doc! { "collection": &self.collection };
            with.insert(found, doc! { "$elemMatch": told });
            let problem = doc! { "$set": { format!("{found}.$[it].problem"): ERASED } };
            let filters = vec![doc! { "it.document": id.to_bson() }];
            jobs += self.update(JOBS_COLLECTION, (with, problem, filters)).await?;
        }
        Ok(jobs)
    }

    async fn delete(&self, name: &str, filter: Document) -> Result<i64> {
        self.written(name, ("delete", "deletes"), doc! { "q": filter, "limit": 0 }).await
    }

    async fn update(
        &self,
        name: &str,
        (filter, update, array_filters): (Document, Document, Vec<Document>),
    ) -> Result<i64> {
        let mut statement = doc! { "q": filter, "u": update, "multi": true };
        if !array_filters.is_empty() {
            statement.insert("arrayFilters", array_filters);
        }
        self.written(name, ("update", "updates"), statement).await
    }

    /// Has one statement done at majority; how many it has touched.
    async fn written(
        &self,
        name: &str,
        (verb, field): (&str, &str),
        statement: Document,
    ) -> Result<i64> {
        let statement = RawDocumentBuf::try_from(&statement)?;
        let statements: RawArrayBuf = [statement].into_iter().collect();
        let reply = self.bulk(verb, name, field, statements).await?;
        no_write_errors(&reply)?;
        Ok(reply.get_i32("n").unwrap_or_default().into())
    }
}
