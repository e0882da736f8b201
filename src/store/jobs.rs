//! Jobs, as whoever inserts, does, watches and cancels them sees the database.

use std::future::Future;

use bson::{Bson, RawDocument, RawDocumentBuf};

use crate::{
    database::Result,
    model::{
        id::DocumentId,
        job::{Order, Outcome},
    },
};

/// Who is at a job. Every write of a leader about its job has both of these in its filter. So a leader
/// that comes late, or whose job was cancelled, changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The instance.
    pub owner: String,
    /// The epoch of its leadership.
    pub epoch: i64,
}

/// How far a job has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advance {
    /// How many documents it has dealt with.
    pub done: i64,
    /// About how many there are, if that is known.
    pub total: Option<i64>,
    /// The last of them: where whoever takes over goes on.
    pub place: Option<DocumentId>,
    /// What it has found so far.
    pub tally: bson::Document,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct JobsQuery {
    /// Of these collections; `None` is all.
    pub collections: Option<Vec<String>>,
    /// In this state.
    pub state: Option<String>,
    /// Older than this one, by `_id`.
    pub before: Option<Bson>,
    /// At most so many.
    pub limit: u32,
}

/// What became of the wish to cancel a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Cancelled {
    /// It is cancelled; the row as it is now.
    Yes(RawDocumentBuf),
    /// It had ended before; the row.
    TooLate(RawDocumentBuf),
    /// There is no such job.
    Unknown,
}

/// The jobs of a database.
pub trait Jobs: Clone + Send + Sync + 'static {
    /// Inserts a job; the row.
    fn insert_job(&self, order: &Order) -> impl Future<Output = Result<RawDocumentBuf>> + Send;

    /// The jobs of a collection that wait or that somebody is or was at, oldest first.
    fn open_jobs(
        &self,
        collection: &str,
    ) -> impl Future<Output = Result<Vec<RawDocumentBuf>>> + Send;

    /// Some rows that nobody may ever take: they are for none of `collections`, or in no known state.
    fn stray_jobs(
        &self,
        collections: &[String],
    ) -> impl Future<Output = Result<Vec<RawDocumentBuf>>> + Send;

    /// Whether any instance has ever led this collection.
    fn is_led(&self, collection: &str) -> impl Future<Output = Result<bool>> + Send;

    /// Takes a job that was read as `row`; false when it has changed since.
    fn claim_job(
        &self,
        row: &RawDocument,
        lock: &Lock,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Records how far a job has come; false when it is no longer this leader's.
    fn advance_job(
        &self,
        id: &Bson,
        lock: &Lock,
        advance: &Advance,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Ends a job with its result, or with an error; false when it is no longer this leader's.
    fn finish_job(
        &self,
        id: &Bson,
        lock: &Lock,
        result: std::result::Result<bson::Document, &str>,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Ends a row that is no job; false when it has changed since it was read.
    fn refuse_job(
        &self,
        row: &RawDocument,
        error: &str,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// One job.
    fn job(&self, id: &Bson) -> impl Future<Output = Result<Option<RawDocumentBuf>>> + Send;

    /// Jobs, newest first by `_id`.
    fn jobs(&self, query: &JobsQuery) -> impl Future<Output = Result<Vec<RawDocumentBuf>>> + Send;

    /// Cancels a job that has not ended. Whoever is at it stops at its next step.
    fn cancel_job(&self, id: &Bson) -> impl Future<Output = Result<Cancelled>> + Send;

    /// How a job has ended; `None` while it has not, or when there is none.
    fn outcome(&self, id: &Bson) -> impl Future<Output = Result<Option<Outcome>>> + Send;
}
