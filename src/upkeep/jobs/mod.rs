//! Doing one job, step by step: after every step its place and what it has found are saved, under the
//! lock of the leader that is at it. A step may be done twice, by two leaders even, without effect. Each kind of job
//! has a file of its own, with what it counts and how it runs.

mod archive;
mod compact;
mod deep;
mod erase;
mod findings;
mod gap_fill;
mod proofs;
mod repair;
mod restore;
mod retry;
mod skip;
mod snapshot;
mod verify;
mod waiting;
mod walk;

use bson::{Bson, Document, RawDocument};

pub(super) use findings::left_unlike_log;

use super::{operate::OperateError, snapshot::Snapshotter, ward::Ward};
use crate::{
    database::{Error, Result, Verdict},
    log::{LogSource, Mend},
    model::{
        id::{DocumentId, integral},
        job::{Kind, Order},
    },
    retry::{ATTEMPT_LIMIT, limited},
    store::{Bases, Jobs, Lock, MarkRows, Snapshots, Store, jobs::Advance},
    time::Time,
};

/// A job under way.
pub(super) struct Performance<'a, J, S: LogSource, D, T> {
    pub(super) jobs: &'a J,
    pub(super) ward: &'a Ward<S, D>,
    pub(super) time: &'a T,
    pub(super) id: Bson,
    pub(super) order: Order,
    pub(super) lock: Lock,
    pub(super) at: Advance,
}

/// Why a job is not done.
#[derive(Debug)]
pub(super) enum Undone {
    /// It was cancelled, or another leader has taken it.
    Lost,
    /// It cannot be done, for this reason.
    Failed(String),
    /// The database is away: it goes on from its place.
    Interrupted(Error),
}

/// What becomes of a job: its result.
type Done = std::result::Result<Document, Undone>;

/// What a kind of job counts, and saves with every step.
trait Tally: Default {
    /// As it stands in the row of the job.
    fn to_bson(&self) -> Document;

    /// Reads it back. What is not readable, because the row was inserted like that, is left out.
    fn from_bson(saved: &Document) -> Self;
}

/// A count in a saved tally.
fn count(saved: &Document, name: &str) -> i64 {
    match saved.get(name) {
        Some(Bson::Int32(count)) => i64::from(*count).max(0),
        Some(Bson::Int64(count)) => (*count).max(0),
        _ => 0,
    }
}

impl From<Error> for Undone {
    fn from(error: Error) -> Self {
        match error.verdict() {
            Verdict::Stop(advice) => Self::Failed(format!("{error}; {advice}")),
            _ => Self::Interrupted(error),
        }
    }
}

impl From<OperateError> for Undone {
    fn from(error: OperateError) -> Self {
        match error {
            OperateError::Database(error) => error.into(),
            refusal => Self::Failed(refusal.to_string()),
        }
    }
}

impl<'a, J: Jobs, S: LogSource, D, T: Time> Performance<'a, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    /// The job of this row, from the place that it has come to.
    pub(super) fn new(
        jobs: &'a J,
        ward: &'a Ward<S, D>,
        time: &'a T,
        (row, order): (&RawDocument, Order),
        lock: Lock,
    ) -> Result<Self> {
        let id = row.get("_id")?.ok_or_else(|| Error::damaged("a job without `_id`"))?;
        let place = row.get("place")?.and_then(|place| DocumentId::from_raw(place).ok());
        let saved = |name: &str| row.get_document(name).ok().filter(|_| place.is_some());
        let tally = saved("tally").and_then(|tally| Document::try_from(tally).ok());
        let done = saved("progress").and_then(|progress| progress.get("done").ok()?);
        let done = done.and_then(integral).unwrap_or_default();
        let at = Advance { done, total: None, tally: tally.unwrap_or_default(), place };
        Ok(Self { jobs, ward, time, id: id.try_into()?, order, lock, at })
    }

    /// Does it, from its place on; gives the result.
    pub(super) async fn perform(&mut self) -> Done {
        let document = self.order.document.clone();
        match (self.order.kind, document) {
            (Kind::Snapshot, Some(document)) => self.snapshot_one(&document).await,
            (Kind::Snapshot, None) => self.snapshot_all().await,
            (Kind::Compact, Some(document)) => self.compact_one(&document).await,
            (Kind::Compact, None) => self.compact_all().await,
            (Kind::Restore, Some(document)) => self.restore_one(&document).await,
            (Kind::Restore, None) => self.restore_all().await,
            (Kind::ArchiveCheck, None) => self.archive_check().await,
            (Kind::Verify | Kind::Rebuild, None) => self.verify().await,
            (Kind::Verify, Some(document)) => self.verify_one(&document).await,
            (Kind::Retry, Some(document)) => self.retry(&document).await,
            (Kind::Retry, None) => self.retry_all().await,
            (Kind::Skip, Some(document)) => self.skip(&document).await,
            (Kind::GapFill, Some(document)) => self.gap_fill(&document).await,
            (Kind::Erase, Some(document)) => self.erase(&document).await,
            // Reading the row has refused these.
            (Kind::Rebuild | Kind::ArchiveCheck, Some(_))
            | (Kind::Skip | Kind::GapFill | Kind::Erase, None) => {
                Err(Undone::Failed("a job of this kind is about something else".into()))
            }
        }
    }

    fn snapshotter(&self) -> &'a Snapshotter<S, D> {
        &self.ward.snapshotter
    }

    /// What the job has counted so far.
    fn tally<C: Tally>(&self) -> C {
        C::from_bson(&self.at.tally)
    }

    /// Saves what the job has counted, and its place.
    async fn save(&mut self, tally: &impl Tally) -> std::result::Result<(), Undone> {
        self.at.tally = tally.to_bson();
        self.save_place().await
    }

    /// Saves where the job is as it was noted last.
    pub(super) async fn save_place(&self) -> std::result::Result<(), Undone> {
        let advance = self.jobs.advance_job(&self.id, &self.lock, &self.at);
        match limited(self.time, ATTEMPT_LIMIT, advance).await? {
            true => Ok(()),
            false => Err(Undone::Lost),
        }
    }
}
