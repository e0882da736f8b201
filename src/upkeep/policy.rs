//! Snapshots that nobody asked for: of rows that the projection has just stored and hands over, when a
//! document has passed so many events; and, found by a sweep over the collection, of documents that have
//! changed and whose last snapshot is old. The projection never waits for any of it.

use std::{collections::VecDeque, time::Duration};

use bson::{RawDocument, Timestamp};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::{
    fold::read_on,
    snapshot::{Snapshotter, difference, of_folded, version_of},
};
use crate::{
    database::{Error, Result},
    health::{Heart, beating},
    lease::Standing,
    log::{LogSource, history},
    model::{
        id::DocumentId,
        snapshot::{Due, Reason, Snapshot},
    },
    retry::{Backoff, limited},
    store::{Documents, Extent, PutOutcome, RowVersion, SkipRows, Snapshots, Versions},
    time::Time,
};

/// How many flushes' rows may wait for their snapshots before some are left out.
pub const DUE_MAX: usize = 4;
/// How many rows are dealt with at once.
const ROWS_MAX: usize = 256;
/// How many rows a sweep loads by one query.
const LOAD_MAX: usize = 64;
/// How many documents are read on at once.
const READS_MAX: usize = 4;
/// How long the snapshots of some rows may take before it is tried again.
const TAKE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long after its beginning a leader looks for old snapshots at the latest.
const FIRST_SWEEP: Duration = Duration::from_secs(60);

/// Takes the snapshots of one collection by its policy.
pub struct Policy<S: LogSource, D, T> {
    /// The collection.
    pub collection: String,
    /// Takes them.
    pub snapshotter: Snapshotter<S, D>,
    /// Rows whose snapshots are due by their number of events.
    pub due: mpsc::Receiver<Vec<Due>>,
    /// How old the last snapshot of a document that has changed may become.
    pub every: Option<Duration>,
    /// Whether this instance leads the collection.
    pub led: watch::Receiver<Standing>,
    /// The time that it goes by.
    pub time: T,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// Beats on every turn.
    pub heart: Heart,
}

/// Where the sweeps of one leadership are.
struct Sweeps<V> {
    epoch: i64,
    /// When the next one begins.
    next: Duration,
    walk: Option<V>,
    /// Rows that the walk has brought and that have not been looked at.
    rows: VecDeque<RowVersion>,
}

impl<S: LogSource, D: Documents + Snapshots + SkipRows, T: Time> Policy<S, D, T> {
    /// Takes snapshots for ever. May be dropped at any moment.
    pub async fn run(mut self) {
        let mut sweeps = None;
        loop {
            self.heart.beat(self.time.now());
            match self.due.try_recv() {
                Ok(due) => {
                    self.take(due, Reason::Events).await;
                    continue;
                }
                // The projector has ended, and the daemon with it.
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    return std::future::pending().await;
                }
                Err(mpsc::error::TryRecvError::Empty) => {}
            }
            let pause = self.sweep(&mut sweeps).await;
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                biased;
                due = self.due.recv() => if let Some(due) = due {
                    self.take(due, Reason::Events).await;
                },
                () = self.time.sleep(pause.min(self.heart.pause())) => {}
            }
        }
    }

    /// Takes the next step of a sweep, if one is due; how long until there is another.
    async fn sweep(&self, sweeps: &mut Option<Sweeps<D::Versions>>) -> Duration {
        let (Some(every), Standing::Leader(epoch)) = (self.every, *self.led.borrow()) else {
            *sweeps = None;
            return Duration::from_secs(1);
        };
        let now = self.time.now();
        let interval = every / 2;
        let begin = || Sweeps {
            epoch,
            next: now + interval.min(FIRST_SWEEP),
            walk: None,
            rows: VecDeque::new(),
        };
        let current = sweeps.get_or_insert_with(begin);
        if current.epoch != epoch {
            *current = begin();
        }
        if current.walk.is_none() && now < current.next {
            return current.next - now;
        }
        let step = self.step(current, every);
        match beating(&self.heart, &self.time, step).await {
            Ok(true) => return Duration::ZERO,
            Ok(false) => {}
            Err(error) => {
                warn!(collection = self.collection, %error, "a sweep for old snapshots is given up; the next one begins anew");
            }
        }
        current.rows.clear();
        (current.walk, current.next) = (None, self.time.now() + interval);
        interval
    }

    async fn attempt<V>(&self, attempt: impl Future<Output = Result<V>>) -> Result<V> {
        limited(&self.time, self.backoff.attempt_limit, attempt).await
    }

    /// Looks at some rows; false at the end of them.
    async fn step(&self, sweep: &mut Sweeps<D::Versions>, every: Duration) -> Result<bool> {
        let store = &self.snapshotter.store;
        if sweep.rows.is_empty() {
            let versions = match &mut sweep.walk {
                Some(versions) => versions,
                walk => walk.insert(self.attempt(store.versions(None, Extent::Version)).await?),
            };
            match self.attempt(versions.next()).await? {
                Some(rows) => sweep.rows.extend(rows),
                None => return Ok(false),
            }
        }
        let count = sweep.rows.len().min(ROWS_MAX);
        let rows: Vec<RowVersion> = sweep.rows.drain(..count).collect();
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(true) };
        let now = self.attempt(store.database_time()).await?;
        let newest = self.attempt(store.newest_between(&first.id, &last.id)).await?;
        let is_old = |row: &&RowVersion| {
            newest.get(&row.id).is_none_or(|(version, taken_at)| {
                *version < row.version && now.saturating_duration_since(*taken_at) >= every
            })
        };
        let old: Vec<DocumentId> = rows.iter().filter(is_old).map(|row| row.id.clone()).collect();
        for ids in old.chunks(LOAD_MAX) {
            let rows = self.attempt(store.load(ids)).await?.into_iter();
            let due = rows.map(|row| Due { row, youngest: None }).collect();
            self.take(due, Reason::Time).await;
        }
        Ok(true)
    }

    /// Takes snapshots, for as long as the database is merely away.
    async fn take(&self, due: Vec<Due>, reason: Reason) {
        for due in due.chunks(ROWS_MAX) {
            let report = |error: &Error, _| {
                debug!(collection = self.collection, %error, "snapshots could not be taken; trying again");
            };
            // Documents without a snapshot are folded from their first event.
            let backoff = Backoff { attempt_limit: TAKE_LIMIT, ..self.backoff };
            let take = backoff.retry(&self.time, report, || self.try_take(due, reason));
            if let Err(error) = beating(&self.heart, &self.time, take).await {
                warn!(collection = self.collection, %error, advice = error.advice(), "snapshots are left out");
            }
        }
    }

    async fn try_take(&self, due: &[Due], reason: Reason) -> Result<()> {
        let store = &self.snapshotter.store;
        let is_known = |due: &Due| due.youngest.is_some_and(|youngest| youngest.above == 0);
        let Snapshotter { collection, source, .. } = &self.snapshotter;
        // Everything that the rows were made of is in the log by now.
        let log = match due.iter().all(is_known) {
            true => None,
            false => Some((source.open_existing(collection).await?, source.now().await?)),
        };
        let taken_at = store.database_time().await?;
        let taken =
            due.iter().cloned().map(|due| self.snapshot(due, log.as_ref(), taken_at, reason));
        let taken: Vec<Option<Snapshot>> =
            stream::iter(taken).buffered(READS_MAX).try_collect().await?;
        let taken: Vec<Snapshot> = taken.into_iter().flatten().collect();
        let outcomes = self.snapshotter.put(&taken).await?;
        for (snapshot, outcome) in taken.iter().zip(outcomes) {
            if let PutOutcome::Conflict { reason } = outcome {
                self.left_out(&snapshot.id, snapshot.version, &reason);
            }
        }
        Ok(())
    }

    /// The snapshot of a row. Where the projection does not know the times of all its events, the last snapshot
    /// before it does, or the events since are folded on from there.
    async fn snapshot(
        &self,
        Due { row, youngest }: Due,
        log: Option<&(S::Log, Timestamp)>,
        taken_at: bson::DateTime,
        reason: Reason,
    ) -> Result<Option<Snapshot>> {
        let known = youngest.filter(|youngest| youngest.above == 0);
        let (Some((log, at_least)), None) = (log, known) else {
            let at_max = known.map(|youngest| youngest.at);
            return Ok(at_max.and_then(|at| Snapshot::of_row(&row, at, taken_at, reason).ok()));
        };
        let Some((id, version)) = place(&row) else { return Ok(None) };
        let store = &self.snapshotter.store;
        let newest = store.newest_snapshot(&id, version).await?;
        if newest.as_ref().is_some_and(|newest| newest.version == version) {
            return Ok(None);
        }
        if let (Some(youngest), Some(newest)) = (youngest, &newest)
            && newest.version >= youngest.above
        {
            let at_max = youngest.at.max(newest.at_max);
            return Ok(Snapshot::of_row(&row, at_max, taken_at, reason).ok());
        }
        let newest = newest.and_then(|newest| newest.document().ok());
        let mut document = newest.unwrap_or_else(|| history::start(&id));
        let stop = read_on(log, store, &mut document, version, *at_least).await?;
        match difference(&row, &document, &stop) {
            None => Ok(of_folded(&row, &document, taken_at, reason).ok()),
            Some(difference) => {
                self.left_out(&id, version, &difference);
                Ok(None)
            }
        }
    }

    fn left_out(&self, document: &DocumentId, version: i64, reason: &str) {
        warn!(
            collection = self.collection, %document, version, reason,
            "no snapshot is taken of a document that is not what its log makes of it; `alluvium verify` tells more"
        );
    }
}

fn place(row: &RawDocument) -> Option<(DocumentId, i64)> {
    Some((DocumentId::of_row(row)?, version_of(row)))
}
