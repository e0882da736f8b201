//! Doing one job, step by step: after every step its place and what it has found are saved, under the
//! lock of the leader that is at it. A step may be done twice, by two leaders even, without effect.

use std::{collections::HashSet, time::Duration};

use bson::{Bson, RawDocument, RawDocumentBuf};
use futures::future::join;

use super::{
    compare::{Checked, Walk},
    desk::Ward,
    snapshot::{Snapshotter, TakeError, difference, of_folded, version_of},
    tally::Tally,
};
use crate::{
    database::{Error, Result, Verdict},
    log::{LogSource, Mend},
    model::{
        id::{DocumentId, integral},
        job::{Kind, Order},
        snapshot::Reason,
    },
    retry::{ATTEMPT_LIMIT, limited},
    store::{Jobs, Lock, PutOutcome, Snapshots, Store, jobs::Advance},
    time::Time,
};

/// How often a job looks again whether a document without a row has got one, in all. The projection may
/// only be a little behind.
const LOOKS_MAX: u32 = 5;
/// The pause before it does.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How long one step may take before it is tried again: documents are folded from their first event.
const STEP_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A job under way.
pub(super) struct Performance<'a, J, S: LogSource, D, T> {
    pub(super) jobs: &'a J,
    pub(super) ward: &'a Ward<S, D>,
    pub(super) time: &'a T,
    pub(super) id: Bson,
    pub(super) order: Order,
    pub(super) lock: Lock,
    pub(super) at: Advance,
    pub(super) tally: Tally,
    pub(super) looks_left: u32,
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

impl From<Error> for Undone {
    fn from(error: Error) -> Self {
        match error.verdict() {
            Verdict::Stop(advice) => Self::Failed(format!("{error}; {advice}")),
            _ => Self::Interrupted(error),
        }
    }
}

impl<'a, J: Jobs, S: LogSource, D, T: Time> Performance<'a, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots,
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
        let tally = row.get_document("tally").ok().filter(|_| place.is_some());
        let tally = tally.map(Tally::from_raw).unwrap_or_default();
        let progress = row.get_document("progress").ok().filter(|_| place.is_some());
        let done = progress.and_then(|progress| progress.get("done").ok()?).and_then(integral);
        let at =
            Advance { done: done.unwrap_or_default(), total: None, place, ..Advance::default() };
        let (id, looks_left) = (id.try_into()?, LOOKS_MAX);
        Ok(Self { jobs, ward, time, id, order, lock, at, tally, looks_left })
    }

    /// Does it, from its place on; gives the result.
    pub(super) async fn perform(&mut self) -> std::result::Result<bson::Document, Undone> {
        match (self.order.kind, self.order.document.clone()) {
            (Kind::Snapshot, Some(document)) => self.snapshot_one(&document).await,
            (Kind::Snapshot | Kind::Verify, _) => self.walk().await,
            (Kind::Retry, None) => self.retry_all().await,
            (_, Some(document)) => self.operate(&document).await,
            // Reading the row has refused it.
            (_, None) => Err(Undone::Failed("a job of this kind is for one document".into())),
        }
    }

    async fn snapshot_one(
        &mut self,
        document: &DocumentId,
    ) -> std::result::Result<bson::Document, Undone> {
        let taken = self.snapshotter().take(document, Reason::Request).await;
        let taken = taken.map_err(|error| match error {
            TakeError::Database(error) => error.into(),
            other => Undone::Failed(other.to_string()),
        })?;
        (self.at.done, self.at.total) = (1, Some(1));
        self.save().await?;
        Ok(bson::doc! {
            "version": taken.snapshot.version, "taken": i64::from(taken.is_new),
            "existed": i64::from(!taken.is_new),
        })
    }

    async fn walk(&mut self) -> std::result::Result<bson::Document, Undone> {
        let Snapshotter { collection, source, store, .. } = self.snapshotter();
        let total = i64::try_from(store.estimate_documents().await?).ok();
        self.at.total = total.map(|total| total.max(self.at.done));
        let log = source.open_existing(collection).await?;
        let mut walk = Walk::begin(source, &log, store, self.at.place.clone()).await?;
        let time = self.time;
        loop {
            // The place is saved while the next documents are folded.
            let next = limited(time, STEP_LIMIT, walk.next(source));
            let (saved, next) = join(self.save(), next).await;
            saved?;
            let Some(step) = next? else { break };
            self.step(&step).await?;
            let Some(last) = step.last() else { continue };
            self.at.place = Some(last.folded.id.clone());
            self.at.done += i64::try_from(step.len()).unwrap_or_default();
            self.at.total = self.at.total.map(|total| total.max(self.at.done));
        }
        self.at.total = Some(self.at.done);
        self.save().await?;
        Ok(self.tally.to_bson(self.order.kind))
    }

    async fn step(&mut self, step: &[Checked]) -> std::result::Result<(), Undone> {
        let mut right = Vec::new();
        let mut rowless = Vec::new();
        for checked in step {
            let id = &checked.folded.id;
            self.tally.documents += 1;
            self.tally.events += checked.folded.version;
            match &checked.row {
                Some(row) => match difference(row, &checked.folded, &checked.stop) {
                    Some(problem) => self.tally.find(id, version_of(row), &problem),
                    None => right.push((row, checked)),
                },
                // The first event could not be applied, so there is no row to be.
                None if checked.folded.version == 0 => {}
                None => rowless.push(id.clone()),
            }
        }
        if self.order.kind == Kind::Verify {
            self.look_for_rows(rowless).await?;
            return Ok(());
        }
        self.take(&right).await
    }

    /// Documents that have events and no row: the projection may be a little behind, or they wait in
    /// quarantine since their first row was refused. The others have lost it.
    async fn look_for_rows(&mut self, mut rowless: Vec<DocumentId>) -> Result<()> {
        let store = &self.snapshotter().store;
        if rowless.is_empty() {
            return Ok(());
        }
        let waiting = store.load_quarantine().await?;
        let waiting: HashSet<DocumentId> = waiting.into_iter().map(|row| row.document).collect();
        rowless.retain(|id| !waiting.contains(id));
        while !rowless.is_empty() && self.looks_left > 0 {
            self.looks_left -= 1;
            self.time.sleep(LOOK_PAUSE).await;
            let rows: Vec<RawDocumentBuf> = store.load(&rowless).await?;
            let found = rows.iter().filter_map(|row| row.get("_id").ok().flatten());
            let found: HashSet<DocumentId> =
                found.filter_map(|id| DocumentId::from_raw(id).ok()).collect();
            rowless.retain(|id| !found.contains(id));
        }
        for id in rowless {
            self.tally.find(&id, 0, "its log has events, but there is no row");
        }
        Ok(())
    }

    async fn take(
        &mut self,
        right: &[(&RawDocumentBuf, &Checked)],
    ) -> std::result::Result<(), Undone> {
        if right.is_empty() {
            return Ok(());
        }
        let store = &self.snapshotter().store;
        let taken_at = store.database_time().await?;
        let mut snapshots = Vec::with_capacity(right.len());
        for (row, checked) in right {
            match of_folded(row, &checked.folded, taken_at, Reason::Request) {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(error) => {
                    self.tally.find(&checked.folded.id, version_of(row), &error.to_string());
                }
            }
        }
        let outcomes = self.snapshotter().put(&snapshots).await?;
        let mut taken = 0;
        for (snapshot, outcome) in snapshots.iter().zip(outcomes) {
            match outcome {
                PutOutcome::Stored => taken += 1,
                PutOutcome::Existed => self.tally.existed += 1,
                PutOutcome::Conflict { reason } => {
                    let problem = format!("another snapshot of this version exists: {reason}");
                    self.tally.find(&snapshot.id, snapshot.version, &problem);
                }
            }
        }
        self.tally.taken += taken;
        Ok(())
    }

    pub(super) fn snapshotter(&self) -> &'a Snapshotter<S, D> {
        &self.ward.snapshotter
    }

    pub(super) async fn save(&mut self) -> std::result::Result<(), Undone> {
        self.at.tally = self.tally.to_bson(self.order.kind);
        let advance = self.jobs.advance_job(&self.id, &self.lock, &self.at);
        match limited(self.time, ATTEMPT_LIMIT, advance).await? {
            true => Ok(()),
            false => Err(Undone::Lost),
        }
    }
}
