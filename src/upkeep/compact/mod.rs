//! Compaction: a base is written where a document's log may be cut, once a fresh fold has proven it, and what it stands for
//! is pruned after a while. What may be cut is decided in [`crate::model::compaction`]. Each step may be taken twice, by two
//! instances even, and interrupted anywhere.

mod erase;
mod keep;
mod look;
mod pace;
pub mod policy;
mod prune;

use std::{collections::HashSet, time::Duration};

use bson::DateTime;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::sync::watch;

use super::fold::base_of;
use crate::{
    archive::Archive,
    database::Result,
    log::{EventLog, LogSource},
    model::{
        base::Base,
        compaction::{Mark, Pin, Retention, Rule, grace},
        id::DocumentId,
    },
    observe::Observer,
    planted::{Bug, planted},
    status::Phase,
    store::{Bases, Documents, Hindrance, NextLook, Over, QuarantineRows, SkipRows},
    time::Time,
};
pub(crate) use erase::{Erasing, is_bare_delete};
pub(super) use look::{Finding, Look, Work};
pub use pace::Liveliness;
pub(super) use pace::Pace;
pub(crate) use pace::Pacing;
pub(super) use prune::Pruned;

/// How many documents are folded at once.
const LOOKS_AT_ONCE: usize = 4;

/// How long after its newest event an event may be applied, where logs are compacted.
const LAG_MAX_SECONDS: f64 = 10.0;

/// Said while compaction, which moves the oplog, would bring a checkpoint nearer to its end.
const SHORT_OPLOG: &str = "a checkpoint is in the older half of the oplog, which compaction would fill further: make the \
                           oplog larger (`replSetResizeOplog`), or see why the projection does not keep up";

/// What is kept of a collection's logs, and whether they can be compacted now.
#[derive(Clone, Debug)]
pub struct Compaction {
    /// What is kept.
    pub retention: Retention,
    /// How long the format of data with bases stands on record before the first of them: longer than any instance takes
    /// to look at it.
    pub settled: Duration,
    /// Where what goes is kept before.
    pub archive: Option<Archive>,
    /// Knows how the collection is, and is told what becomes of its logs.
    pub observer: Observer,
    /// Whether events come meanwhile.
    pub liveliness: Liveliness,
    /// Whether an operator has stopped compaction; `None` until that is known.
    pub paused: watch::Receiver<Option<bool>>,
}

impl Compaction {
    /// What there is to say while an operator has stopped it.
    pub(super) fn stopped(&self) -> Option<String> {
        let name = self.observer.status().name.clone();
        (*self.paused.borrow() == Some(true)).then(|| {
            format!("compaction of `{name}` is paused; `alluvium resume {name} --compaction` first")
        })
    }

    /// Why it cannot be compacted, by its status.
    pub(super) fn hindrance(&self) -> Option<Hindrance> {
        let status = self.observer.status();
        let stands = |why: &str| Some(Hindrance::Stands(format!("`{}` {why}", status.name)));
        match status.phase {
            Phase::Paused => stands("is paused; resume it first: `alluvium resume`"),
            Phase::Refused => stands("is refused; see its last error: `alluvium status`"),
            Phase::Starting | Phase::Scanning | Phase::StandingBy => Some(Hindrance::Passing),
            Phase::Tailing => {
                let is_late = status.lag_seconds.is_none_or(|lag| lag > LAG_MAX_SECONDS);
                let short = || status.is_oplog_short.then(|| Hindrance::Stands(SHORT_OPLOG.into()));
                is_late.then_some(Hindrance::Passing).or_else(short)
            }
        }
    }

    /// What an operator has to do before it is compacted, where its status does not say that by itself.
    fn needs(&self) -> Option<String> {
        self.observer.status().is_oplog_short.then(|| SHORT_OPLOG.into())
    }
}

/// For so long it is not asked again what is in the way in the database, once nothing is. A validator or rights that change
/// meanwhile make writes fail, and an instance that begins knows the format, which is on record.
const CLEAR_FOR: Duration = Duration::from_secs(10);

/// When it was found that nothing in the database is in the way.
#[derive(Debug, Default)]
pub(super) struct Clear(Option<Duration>);

impl Clear {
    /// Why nothing can be compacted now.
    pub(super) async fn hindrance(
        &mut self,
        (store, compaction): (&impl Bases, &Compaction),
        time: &impl Time,
    ) -> Result<Option<Hindrance>> {
        if let Some(hindrance) = compaction.hindrance() {
            return Ok(Some(hindrance));
        }
        let now = time.now();
        if self.0.is_some_and(|at| now.saturating_sub(at) < CLEAR_FOR) {
            return Ok(None);
        }
        let hindrance = store.hindrance(compaction.settled).await?;
        self.0 = hindrance.is_none().then_some(now);
        Ok(hindrance)
    }
}

/// After how long it is looked again whether what is in the way has gone.
const RETRY: Duration = Duration::from_secs(600);

/// Compacts one log.
#[derive(Debug)]
pub(crate) struct Compactor<'a, S: LogSource, D, P> {
    pub(crate) source: &'a S,
    pub(crate) log: &'a S::Log,
    pub(crate) store: &'a D,
    pub(crate) retention: Retention,
    pub(crate) archive: Option<&'a Archive>,
    /// Whether somebody asked for these documents: then also what is held is compacted.
    pub(crate) is_asked: bool,
    pub(crate) pace: P,
}

/// What compacting some documents has come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compacted {
    /// Bases that were written.
    pub(super) based: i64,
    /// Events that went, or could go.
    pub(super) events: i64,
    /// Their bytes, where those were read.
    pub(super) bytes: i64,
    /// Documents of which something went, or could go.
    pub(super) documents: i64,
    /// What keeps the others' events.
    pub(super) pins: Vec<(DocumentId, Pin)>,
    /// What is wrong with a document.
    pub(crate) findings: Vec<Finding>,
    /// Late events that were taken out of the log.
    pub(super) late: i64,
    /// The bytes that were written to the archive.
    pub(super) archived: u64,
    /// Why the archive cannot be written, and what to do. Nothing was taken out of any log.
    pub(crate) stands: Option<String>,
    /// When each document is to be looked at again.
    pub(super) next: Vec<NextLook>,
}

impl<S: LogSource, D, P: Pacing> Compactor<'_, S, D, P>
where
    D: Documents + SkipRows + QuarantineRows + Bases,
{
    /// Looks at some documents and does what there is to do, or only tells it.
    ///
    /// # Errors
    /// When the database refuses or is away: the same documents may be compacted again.
    pub(crate) async fn compact(&self, ids: &[DocumentId], dry_run: bool) -> Result<Compacted> {
        let now = self.store.server_time().await?;
        let (marks, clients) =
            futures::try_join!(self.store.marks(self.log.id(), ids), self.store.clients(ids))?;
        let waiting = self.store.load_quarantine_among(ids).await?;
        let held = match self.is_asked {
            true => HashSet::new(),
            false => self.store.held(self.log.id(), ids).await?,
        };
        let known = look::Known { now, marks, clients, waiting, held };
        let looks: Vec<_> = ids.iter().map(|id| self.look(id, &known).boxed()).collect();
        let looks: Vec<Option<Look>> =
            stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect().await?;
        let mut looks: Vec<Look> = looks.into_iter().flatten().collect();
        let mut done = Compacted::default();
        if !dry_run {
            let keep::Keeping { bytes, stands } = self.keep(&mut looks).await?;
            (done.archived, done.stands) = (bytes, stands);
        }
        let mut to_prune = Vec::new();
        for look in looks {
            let marks = known.marks.get(&look.id).map(Vec::as_slice).unwrap_or_default();
            let (look, stands) = match dry_run {
                true => (look, true),
                false => self.act(look, &mut done).await?,
            };
            done.next.push(self.next_look(&look, marks, now));
            if stands {
                self.take(look, (&mut done, &mut to_prune), dry_run);
            }
        }
        if !dry_run {
            let Pruned { events, findings } = self.prune_all(to_prune).await?;
            done.events += events;
            done.findings.extend(findings);
        }
        Ok(done)
    }

    /// Puts on record what came late of some documents, and takes it out of the log.
    ///
    /// # Errors
    /// As [`Compactor::compact`].
    pub(crate) async fn clear_late(&self, ids: &[DocumentId]) -> Result<Compacted> {
        let mut done = Compacted::default();
        for id in ids {
            let look = self.look_for_late(id).await?;
            done.late += self.remove_late(&look.late).await?;
            done.findings.extend(look.finding);
        }
        Ok(done)
    }

    /// When a document is worth another look, after this one.
    fn next_look(&self, look: &Look, marks: &[Mark], now: DateTime) -> NextLook {
        let after = |time: DateTime, age: Duration| {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX / 4);
            DateTime::from_millis(time.timestamp_millis().saturating_add(age))
        };
        let (min_age, grace) = (self.retention.min_age, grace(&self.retention));
        let id = look.id.clone();
        let rule = look.pin.as_ref().map(|pin| pin.rule);
        match (&look.work, rule) {
            (Work::Write { base, .. }, _) if !grace.is_zero() => {
                NextLook { id, at: Some(after(base.based_at, grace)), pending: true }
            }
            (Work::None, Some(Rule::Grace)) => {
                NextLook { id, at: Some(after(now, grace / 8)), pending: true }
            }
            (Work::None, _) if look.finding.is_some() => {
                NextLook { id, at: Some(after(now, RETRY)), pending: false }
            }
            (_, Some(Rule::Client | Rule::Waiting | Rule::Hold)) => {
                NextLook { id, at: Some(after(now, RETRY)), pending: false }
            }
            _ => {
                let ages = marks.iter().map(|mark| after(mark.at, min_age));
                NextLook { id, at: ages.filter(|at| *at > now).min(), pending: false }
            }
        }
    }

    /// Writes what a look has found to be written. What the server refuses of a document, for somebody's index on the log
    /// say, is that document's trouble and no other's. `false` if somebody else has compacted it meanwhile.
    async fn act(&self, look: Look, done: &mut Compacted) -> Result<(Look, bool)> {
        let version = look.late.first().map_or(0, |(base, _)| base.version);
        done.late += match self.remove_late(&look.late).await {
            Err(error) if error.may_be_of_what_was_sent() => {
                let problem = format!("an event that came late cannot be put on record: {error}");
                return Ok((look.wrong(version, problem), true));
            }
            removed => removed?,
        };
        let Work::Write { base, over } = &look.work else { return Ok((look, true)) };
        let version = base.version;
        match self.write(base, over).await {
            Err(error) if error.may_be_of_what_was_sent() => {
                let problem = format!("the server refuses its base: {error}");
                Ok((look.wrong(version, problem), true))
            }
            written => {
                let is_written = written?;
                done.based += i64::from(is_written);
                Ok((look, is_written))
            }
        }
    }

    /// Counts what was found and done, and notes what is to be pruned.
    fn take(&self, look: Look, (done, to_prune): (&mut Compacted, &mut Vec<Base>), dry_run: bool) {
        done.pins.extend(look.pin.map(|pin| (look.id.clone(), pin)));
        done.findings.extend(look.finding);
        match look.work {
            Work::None => return,
            _ if dry_run => done.events += look.events,
            Work::Prune(base) => to_prune.push(base),
            Work::Write { base, .. } => {
                if grace(&self.retention).is_zero() || planted(Bug::PrunedBeforeGrace) {
                    to_prune.push(base);
                }
            }
        }
        done.documents += 1;
        done.bytes += look.bytes;
    }

    /// Writes a base and reads it again, with its hash.
    async fn write(&self, base: &Base, over: &Over) -> Result<bool> {
        if !self.store.put_base(self.log.id(), base, over).await? {
            return Ok(false);
        }
        let stored = base_of(self.log, &base.id, self.source.now().await?).await?;
        // Another instance may have gone on from it.
        Ok(stored.and_then(|stored| Base::from_raw(&stored).ok()).as_ref() == Some(base))
    }

    /// Keeps events on record that stand where the base says that none is left, and takes them out of the log.
    async fn remove_late(&self, late: &[(Base, bson::RawDocumentBuf)]) -> Result<i64> {
        let mut removed = 0;
        for (base, event) in late {
            removed += i64::from(self.store.remove_late(self.log.id(), base, event).await?);
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::watch;

    use super::*;
    use crate::{metrics::Metrics, status::CollectionStatus, time::SystemTime};

    /// The compaction of a collection of this status.
    pub(super) fn compaction_of(status: &Arc<watch::Sender<CollectionStatus>>) -> Compaction {
        let metrics = Metrics::new().unwrap().collection("games", status.subscribe()).unwrap();
        Compaction {
            archive: None,
            retention: Retention {
                min_age: Duration::ZERO,
                keep_events: 0,
                client_ttl: Duration::ZERO,
            },
            settled: Duration::ZERO,
            observer: Observer::new(status.clone(), metrics, SystemTime::new()),
            liveliness: Liveliness::default(),
            paused: watch::channel(Some(false)).1,
        }
    }

    #[test]
    fn nothing_is_compacted_while_it_would_bring_a_checkpoint_near_the_end_of_the_oplog() {
        let mut status = CollectionStatus::new("games");
        (status.phase, status.lag_seconds) = (Phase::Tailing, Some(0.0));
        let hindrance = |status: &CollectionStatus| {
            let compaction = compaction_of(&Arc::new(watch::Sender::new(status.clone())));
            (compaction.hindrance(), compaction.needs())
        };
        assert_eq!(hindrance(&status), (None, None));
        status.is_oplog_short = true;
        let (hindrance_now, needs) = hindrance(&status);
        assert_eq!(hindrance_now, needs.map(Hindrance::Stands));
        assert!(matches!(hindrance_now, Some(Hindrance::Stands(why)) if why.contains("oplog")));
        status.lag_seconds = None;
        assert_eq!(hindrance(&status).0, Some(Hindrance::Passing));
    }
}
