//! Compaction that nobody asked for: documents that have grown are noted, and those that are due are compacted, by whoever
//! leads. What was begun is finished also where the policy compacts only on request.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::{Compacted, Compaction, Compactor};
use crate::{
    database::{Result, Verdict},
    health::{Heart, beating},
    lease::Standing,
    log::{EventLog, LogSource},
    metrics::CollectionMetrics,
    model::id::DocumentId,
    observe::Observer,
    retry::limited,
    store::{
        Bases, Documents, Extent, Hindrance, MarkRows, QuarantineRows, SkipRows, Snapshots,
        Versions,
    },
    time::Time,
};

/// How many flushes' documents may wait to be noted before some are left out.
pub const GROWN_MAX: usize = 16;
/// A document is noted when it has grown by so many events, or by as many as are kept.
pub const GROWTH: i64 = 100;
/// How many documents are compacted at once.
const DOCUMENTS_MAX: u32 = 64;
/// How often it is looked for what is to be finished, and for what is due, at the rarest.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How long one batch may take.
const BATCH_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long anything else may.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);

/// Documents that have grown, with the versions that they have come to.
pub type Grown = Vec<(DocumentId, i64)>;

/// Compacts one collection by its policy.
pub struct LogPolicy<S: LogSource, D, T> {
    /// The collection.
    pub collection: String,
    /// Where its log is.
    pub source: S,
    /// Its rows, marks and bases.
    pub store: D,
    /// Counts what goes.
    pub metrics: CollectionMetrics,
    /// Is told what stands in the way.
    pub observer: Observer,
    /// What is kept, and whether the collection can be compacted.
    pub compaction: Compaction,
    /// How often; `None` is only on request.
    pub every: Option<Duration>,
    /// Documents that have grown.
    pub grown: mpsc::Receiver<Grown>,
    /// Whether this instance leads the collection.
    pub led: watch::Receiver<Standing>,
    /// Whether an operator has stopped compaction.
    pub paused: watch::Receiver<Option<bool>>,
    /// The time that it goes by.
    pub time: T,
    /// Beats on every turn.
    pub heart: Heart,
}

/// Where the passes of one leadership are.
struct Passes {
    epoch: i64,
    /// Whether documents that were large before are noted.
    has_swept: bool,
    /// When it is looked again for what is to be finished.
    look_at: Duration,
    /// When what is due is compacted again.
    pass_at: Duration,
}

impl<S: LogSource, D, T: Time> LogPolicy<S, D, T>
where
    D: Documents + SkipRows + Snapshots + QuarantineRows + Bases + MarkRows,
{
    /// Compacts for ever. May be dropped at any moment.
    pub async fn run(mut self) {
        let mut passes = None;
        loop {
            self.heart.beat(self.time.now());
            let pause = match self.turn(&mut passes).await {
                Ok(pause) => pause,
                Err(error) => {
                    if let Verdict::Stop(advice) = error.verdict() {
                        self.observer.compaction_stands(Some(format!("{error}; {advice}")));
                    }
                    warn!(collection = self.collection, %error, advice = error.advice(), "compaction is interrupted and goes on later");
                    LOOK_INTERVAL
                }
            };
            tokio::select! {
                biased;
                grown = self.grown.recv() => match grown {
                    Some(grown) => self.note(&grown).await,
                    // The projectors have ended, and the daemon with them.
                    None => return std::future::pending().await,
                },
                () = self.time.sleep(pause.min(self.heart.pause())) => {}
            }
        }
    }

    /// Notes documents that have grown. What cannot be noted is younger than it is, which does no harm.
    async fn note(&self, grown: &[(DocumentId, i64)]) {
        let note = async {
            let log = self.source.open_existing(&self.collection).await?;
            self.put_marks(&log, grown).await
        };
        let note = limited(&self.time, ATTEMPT_LIMIT, note);
        if let Err(error) = beating(&self.heart, &self.time, note).await {
            debug!(collection = self.collection, %error, "documents that have grown are not noted");
        }
    }

    async fn put_marks(&self, log: &S::Log, grown: &[(DocumentId, i64)]) -> Result<()> {
        let min_age = self.compaction.retention.min_age;
        self.store.put_marks(log.id(), grown, (min_age / 8, min_age)).await
    }

    /// Does what is to be done now; how long until there may be more.
    async fn turn(&self, passes: &mut Option<Passes>) -> Result<Duration> {
        let Standing::Leader(epoch) = *self.led.borrow() else {
            *passes = None;
            return Ok(Duration::from_secs(1));
        };
        let now = self.time.now();
        let first = self.every.unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL);
        let begin =
            || Passes { epoch, has_swept: false, look_at: now + first, pass_at: now + first };
        let passes = passes.get_or_insert_with(begin);
        if passes.epoch != epoch {
            *passes = begin();
        }
        let next = passes.look_at.min(passes.pass_at);
        if now < next {
            return Ok(next - now);
        }
        if *self.paused.borrow() != Some(false) {
            return Ok(Duration::from_secs(1));
        }
        if self.compaction.hindrance().is_some() {
            return Ok(Duration::from_secs(1));
        }
        let log = self.source.open_existing(&self.collection).await?;
        if !passes.has_swept && self.every.is_some() {
            beating(&self.heart, &self.time, self.sweep(&log)).await?;
            passes.has_swept = true;
        }
        let is_pass = self.every.is_some() && now >= passes.pass_at;
        let look = self.store.due(log.id(), !is_pass, DOCUMENTS_MAX);
        let ids = limited(&self.time, ATTEMPT_LIMIT, look).await?;
        if !ids.is_empty() {
            // Asked only where there is something to do: it records the format of data that has bases.
            let hindrance = self.store.hindrance(self.compaction.settled);
            return match limited(&self.time, ATTEMPT_LIMIT, hindrance).await? {
                Some(Hindrance::Passing) => Ok(Duration::from_secs(1)),
                Some(Hindrance::Stands(why)) => {
                    warn!(collection = self.collection, why, "nothing is compacted");
                    self.observer.compaction_stands(Some(why));
                    Ok(LOOK_INTERVAL)
                }
                None => self.compact(&log, &ids).await,
            };
        }
        passes.look_at = now + LOOK_INTERVAL;
        passes.pass_at = now + self.every.unwrap_or(LOOK_INTERVAL);
        Ok(Duration::ZERO)
    }

    /// Compacts some documents that are due; how long until there may be more.
    async fn compact(&self, log: &S::Log, ids: &[DocumentId]) -> Result<Duration> {
        let retention = self.compaction.retention;
        let archive = self.compaction.archive.as_ref();
        let (source, store) = (&self.source, &self.store);
        let compactor = Compactor { source, log, store, retention, archive, is_asked: false };
        let compact = limited(&self.time, BATCH_LIMIT, compactor.compact(ids, false));
        let done = beating(&self.heart, &self.time, compact).await?;
        self.tell(&done);
        self.observer.compaction_stands(done.stands.clone());
        if let Some(why) = &done.stands {
            warn!(collection = self.collection, why, "nothing is compacted");
            return Ok(LOOK_INTERVAL);
        }
        self.store.set_due(log.id(), &done.next).await?;
        Ok(Duration::ZERO)
    }

    fn tell(&self, done: &Compacted) {
        let Compacted { based, events, bytes, late, .. } = *done;
        self.metrics.upkeep.compacted(events, bytes, late);
        self.metrics.upkeep.archived(done.archived);
        if based + events + late > 0 {
            info!(collection = self.collection, bases = based, events, bytes, late, "compacted");
        }
        for finding in &done.findings {
            warn!(
                collection = self.collection, document = %finding.id, version = finding.version,
                problem = finding.problem, "a document is not compacted"
            );
        }
    }

    /// Notes documents that were large before anybody noted them.
    async fn sweep(&self, log: &S::Log) -> Result<()> {
        let least = growth(self.compaction.retention.keep_events);
        let mut versions = self.store.versions(None, Extent::Version).await?;
        while let Some(rows) = versions.next().await? {
            let large = rows.into_iter().filter(|row| row.version >= least);
            let large: Grown = large.map(|row| (row.id, row.version)).collect();
            if !large.is_empty() {
                self.put_marks(log, &large).await?;
            }
        }
        Ok(())
    }
}

/// By how many events a document grows until it is noted.
pub fn growth(keep_events: i64) -> i64 {
    keep_events.max(GROWTH)
}
