//! Compaction that nobody asked for: documents that have grown are noted, and those that are due are compacted, by whoever
//! leads. What was begun is finished also where the policy compacts only on request.

use std::{collections::BTreeSet, time::Duration};

use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::{Clear, Compacted, Compaction, Compactor, Pace};
use crate::{
    database::{Result, Verdict},
    health::{Heart, beating},
    lease::Standing,
    log::{EventLog, LogSource},
    model::{compaction::Notice, id::DocumentId},
    retry::limited,
    store::{
        Bases, Documents, Extent, Hindrance, MarkRows, QuarantineRows, SkipRows, Snapshots,
        Versions,
    },
    time::Time,
};

/// How much that was noticed may wait before some is left out.
pub const NOTICES_MAX: usize = 256;
/// A document is noted when it has grown by so many events, or by as many as are kept.
pub const GROWTH: i64 = 100;
/// How many documents are compacted at once.
const DOCUMENTS_MAX: u32 = 64;
/// Of so many documents it is looked at once for what came late.
const SUSPECTS_AT_ONCE: usize = 64;
/// So many may wait for that. What comes late of others is found when they are compacted again.
const SUSPECTS_MAX: usize = 10_000;
/// How often it is looked for what is to be finished, and for what is due, at the rarest.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The pause before what came late is looked at again, where that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
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
    /// What is kept, and whether the collection can be compacted.
    pub compaction: Compaction,
    /// How often; `None` is only on request.
    pub every: Option<Duration>,
    /// What projections notice.
    pub notices: mpsc::Receiver<Notice>,
    /// Whether this instance leads the collection.
    pub led: watch::Receiver<Standing>,
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
    /// When nothing was in the way.
    clear: Clear,
    /// Whether it is told what an operator has to do before anything is compacted.
    has_needs: bool,
    /// Whether it is told that an operator has stopped compaction.
    is_stopped: bool,
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
        let mut notices = std::mem::replace(&mut self.notices, mpsc::channel(1).1);
        tokio::select! {
            () = self.attend(&mut notices) => {}
            () = self.compact_for_ever() => {}
        }
        // The projectors have ended, and the daemon with them.
        std::future::pending().await
    }

    async fn compact_for_ever(&self) {
        let (mut passes, mut paused) = (None, self.compaction.paused.clone());
        loop {
            self.heart.beat(self.time.now());
            let pause = match self.turn(&mut passes).await {
                Ok(pause) => pause,
                Err(error) => {
                    if let Verdict::Stop(advice) = error.verdict() {
                        self.compaction
                            .observer
                            .compaction_stands(Some(format!("{error}; {advice}")));
                    }
                    warn!(collection = self.collection, %error, advice = error.advice(), "compaction is interrupted and goes on later");
                    LOOK_INTERVAL
                }
            };
            tokio::select! {
                biased;
                Ok(()) = paused.changed() => {}
                () = self.time.sleep(pause.min(self.heart.pause())) => {}
            }
        }
    }

    /// Attends to what projections notice until they have ended, whatever is being compacted meanwhile and also while an
    /// operator has stopped that: nobody tells of it a second time.
    async fn attend(&self, notices: &mut mpsc::Receiver<Notice>) {
        let (mut suspects, mut retry_at) = (BTreeSet::new(), Duration::ZERO);
        loop {
            if !suspects.is_empty()
                && self.time.now() >= retry_at
                && let Err(error) = self.clear_late(&mut suspects).await
            {
                warn!(collection = self.collection, %error, "what came late is looked at later");
                retry_at = self.time.now() + RETRY_INTERVAL;
            }
            let pause = retry_at.saturating_sub(self.time.now());
            tokio::select! {
                biased;
                notice = notices.recv() => match notice {
                    Some(Notice::Grown(grown)) => self.note(&grown).await,
                    Some(Notice::Late(ids)) => {
                        let room = SUSPECTS_MAX.saturating_sub(suspects.len());
                        suspects.extend(ids.into_iter().take(room));
                    }
                    None => return,
                },
                () = self.time.sleep(pause), if !suspects.is_empty() => {}
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
            if passes.take().is_some() {
                self.compaction.observer.compaction_stands(None);
            }
            return Ok(Duration::from_secs(1));
        };
        let now = self.time.now();
        let first = self.every.unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL);
        let (has_swept, has_needs, is_stopped, at) = (false, false, false, now + first);
        let begin = || Passes {
            epoch,
            has_swept,
            clear: Clear::default(),
            has_needs,
            is_stopped,
            look_at: at,
            pass_at: at,
        };
        let passes = passes.get_or_insert_with(begin);
        if passes.epoch != epoch {
            *passes = begin();
        }
        if self.is_stopped(passes, now) {
            return Ok(Duration::from_secs(1));
        }
        let next = passes.look_at.min(passes.pass_at);
        if now < next {
            return Ok(next - now);
        }
        let needs = self.compaction.needs();
        if needs.is_some() || std::mem::take(&mut passes.has_needs) {
            passes.has_needs = needs.is_some();
            self.compaction.observer.compaction_stands(needs);
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
            let hindrance = passes.clear.hindrance((&self.store, &self.compaction), &self.time);
            return match limited(&self.time, ATTEMPT_LIMIT, hindrance).await? {
                Some(Hindrance::Passing) => Ok(Duration::from_secs(1)),
                Some(Hindrance::Stands(why)) => {
                    warn!(collection = self.collection, why, "nothing is compacted");
                    self.compaction.observer.compaction_stands(Some(why));
                    Ok(LOOK_INTERVAL)
                }
                None => self.compact(&log, &ids).await,
            };
        }
        passes.look_at = now + LOOK_INTERVAL;
        passes.pass_at = now + self.every.unwrap_or(LOOK_INTERVAL);
        Ok(Duration::ZERO)
    }

    /// Whether an operator has stopped compaction, or may have; that he has is told for as long as it lasts.
    fn is_stopped(&self, passes: &mut Passes, now: Duration) -> bool {
        let stopped = self.compaction.stopped();
        if stopped.is_some() || passes.is_stopped {
            // What else stands in the way is looked for at once when it goes on.
            (passes.is_stopped, passes.look_at) = (stopped.is_some(), now);
            self.compaction.observer.compaction_stands(stopped);
        }
        *self.compaction.paused.borrow() != Some(false)
    }

    /// Puts on record what came late of some documents that are suspected. Whoever sees it does it, leader or not.
    async fn clear_late(&self, suspects: &mut BTreeSet<DocumentId>) -> Result<()> {
        let some: Vec<DocumentId> = suspects.iter().take(SUSPECTS_AT_ONCE).cloned().collect();
        let log = self.source.open_existing(&self.collection).await?;
        let compactor = self.compactor(&log);
        let clear = limited(&self.time, BATCH_LIMIT, compactor.clear_late(&some));
        let done = beating(&self.heart, &self.time, clear).await?;
        some.iter().for_each(|id| drop(suspects.take(id)));
        self.tell(&done);
        Ok(())
    }

    fn compactor<'a>(&'a self, log: &'a S::Log) -> Compactor<'a, S, D, Pace<'a, T>> {
        let retention = self.compaction.retention;
        let archive = self.compaction.archive.as_ref();
        let (source, store) = (&self.source, &self.store);
        let pace = Pace::new(&self.compaction, &self.time);
        Compactor { source, log, store, retention, archive, is_asked: false, pace }
    }

    /// Compacts some documents that are due; how long until there may be more.
    async fn compact(&self, log: &S::Log, ids: &[DocumentId]) -> Result<Duration> {
        let compactor = self.compactor(log);
        let compact = limited(&self.time, BATCH_LIMIT, compactor.compact(ids, false));
        let mut paused = self.compaction.paused.clone();
        let done = tokio::select! {
            done = beating(&self.heart, &self.time, compact) => done?,
            Ok(_) = paused.wait_for(|paused| *paused == Some(true)) => return Ok(Duration::ZERO),
        };
        self.tell(&done);
        self.compaction.observer.compaction_stands(done.stands.clone());
        if let Some(why) = &done.stands {
            warn!(collection = self.collection, why, "nothing is compacted");
            return Ok(LOOK_INTERVAL);
        }
        self.store.set_due(log.id(), &done.next).await?;
        Ok(Duration::ZERO)
    }

    fn tell(&self, done: &Compacted) {
        let Compacted { based, events, bytes, late, .. } = *done;
        self.compaction.observer.compacted(events, bytes, late);
        self.compaction.observer.archived(done.archived);
        if based + events + late > 0 {
            info!(collection = self.collection, bases = based, events, bytes, late, "compacted");
        }
        if late > 0 {
            warn!(
                collection = self.collection,
                late,
                "events came late: nothing of them is applied, `quarantine list --late` shows them"
            );
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
