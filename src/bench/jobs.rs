//! Asking a daemon for a job as anybody would, by a row, and following it.

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use mongodb::Database;

use super::{
    daemon::{COLLECTION, LIMIT},
    error::{BenchError, Result},
};
use crate::{
    model::job::Outcome,
    store::JOBS_COLLECTION,
    time::{SystemTime, Time},
};

/// How often its row is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The jobs of one database.
pub(super) struct Jobs<'a> {
    pub(super) database: &'a Database,
}

impl Jobs<'_> {
    /// Asks for a job; its id.
    pub(super) async fn ask(&self, kind: &str) -> Result<Bson> {
        let job = doc! { "kind": kind, "collection": COLLECTION };
        Ok(self.rows().insert_one(job).await?.inserted_id)
    }

    /// Cancels one.
    pub(super) async fn cancel(&self, id: &Bson) -> Result<()> {
        let set = doc! { "$set": { "state": Outcome::Cancelled.name() } };
        self.rows().update_one(doc! { "_id": id }, set).await.map(drop).map_err(Into::into)
    }

    /// Waits until its row is as `wanted`; the row.
    ///
    /// # Errors
    /// When the job fails, or is not so within ten minutes.
    pub(super) async fn until(
        &self,
        id: &Bson,
        mut wanted: impl FnMut(&Document) -> bool,
    ) -> Result<Document> {
        let begun = Instant::now();
        loop {
            let job = self.rows().find_one(doc! { "_id": id }).await?.unwrap_or_default();
            if wanted(&job) {
                return Ok(job);
            }
            if begun.elapsed() > LIMIT || job.contains_key("error") {
                return Err(BenchError::Job(job.to_string()));
            }
            SystemTime::new().sleep(LOOK).await;
        }
    }

    fn rows(&self) -> mongodb::Collection<Document> {
        self.database.collection(JOBS_COLLECTION)
    }
}

/// From the beginning of a job to its end, by the server's clock: how soon it is begun is not measured.
pub(super) fn seconds(job: &Document) -> Result<f64> {
    let (begun, ended) = (job.get_datetime("started_at")?, job.get_datetime("finished_at")?);
    Ok(ended.saturating_duration_since(*begun).as_secs_f64().max(1e-3))
}

/// How far it is.
pub(super) fn done(job: &Document) -> i64 {
    let progress = job.get_document("progress");
    progress.ok().and_then(|progress| progress.get_i64("done").ok()).unwrap_or_default()
}
