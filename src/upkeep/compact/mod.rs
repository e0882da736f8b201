//! Compaction: a base is written where a document's log may be cut, once a fresh fold has proven it, and what it stands for
//! is pruned after a while. What may be cut is decided in [`crate::model::compaction`]. Each step may be taken twice, by two
//! instances even, and interrupted anywhere.

mod erase;
mod look;
pub mod policy;
mod prune;

use std::time::Duration;

use bson::DateTime;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::sync::watch;

use crate::{
    database::Result,
    log::{EventLog, LogSource},
    model::{
        base::Base,
        compaction::{Mark, Pin, Retention, Rule, grace},
        event::is_base,
        id::DocumentId,
    },
    planted::{Bug, planted},
    status::{CollectionStatus, Phase},
    store::{Bases, Documents, Hindrance, NextLook, Over, QuarantineRows, SkipRows},
};
pub(crate) use erase::{Erasing, is_bare_delete};
pub(super) use look::{Finding, Look, Work};
pub(super) use prune::Pruned;

/// How many documents are folded at once.
const LOOKS_AT_ONCE: usize = 4;

/// How long after its newest event an event may be applied, where logs are compacted.
const LAG_MAX_SECONDS: f64 = 10.0;

/// What is kept of a collection's logs, and whether they can be compacted now.
#[derive(Clone, Debug)]
pub struct Compaction {
    /// What is kept.
    pub retention: Retention,
    /// How long the format of data with bases stands on record before the first of them: longer than any instance takes
    /// to look at it.
    pub settled: Duration,
    /// How the collection is.
    pub status: watch::Receiver<CollectionStatus>,
}

impl Compaction {
    /// Why it cannot be compacted, by its status.
    pub(super) fn hindrance(&self) -> Option<Hindrance> {
        let status = self.status.borrow();
        let stands = |why: &str| Some(Hindrance::Stands(format!("`{}` {why}", status.name)));
        match status.phase {
            Phase::Paused => stands("is paused; resume it first: `alluvium resume`"),
            Phase::Refused => stands("is refused; see its last error: `alluvium status`"),
            Phase::Starting | Phase::Scanning | Phase::StandingBy => Some(Hindrance::Passing),
            Phase::Tailing => {
                let is_late = status.lag_seconds.is_none_or(|lag| lag > LAG_MAX_SECONDS);
                is_late.then_some(Hindrance::Passing)
            }
        }
    }
}

/// After how long it is looked again whether what is in the way has gone.
const RETRY: Duration = Duration::from_secs(600);

/// Compacts one log.
#[derive(Debug)]
pub(crate) struct Compactor<'a, S: LogSource, D> {
    pub(crate) source: &'a S,
    pub(crate) log: &'a S::Log,
    pub(crate) store: &'a D,
    pub(crate) retention: Retention,
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
    /// When each document is to be looked at again.
    pub(super) next: Vec<NextLook>,
}

impl<S: LogSource, D> Compactor<'_, S, D>
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
        let known = look::Known { now, marks, clients, waiting };
        let looks: Vec<_> = ids.iter().map(|id| self.look(id, &known).boxed()).collect();
        let looks: Vec<Option<Look>> =
            stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect().await?;
        let mut done = Compacted::default();
        let mut to_prune = Vec::new();
        for look in looks.into_iter().flatten() {
            let marks = known.marks.get(&look.id).map(Vec::as_slice).unwrap_or_default();
            done.next.push(self.next_look(&look, marks, now));
            self.take(look, (&mut done, &mut to_prune), dry_run).await?;
        }
        if !dry_run {
            let Pruned { events, findings } = self.prune_all(to_prune).await?;
            done.events += events;
            done.findings.extend(findings);
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

    async fn take(
        &self,
        look: Look,
        (done, to_prune): (&mut Compacted, &mut Vec<Base>),
        dry_run: bool,
    ) -> Result<()> {
        done.pins.extend(look.pin.map(|pin| (look.id.clone(), pin)));
        done.findings.extend(look.finding);
        if !dry_run {
            done.late += self.remove_late(&look.late).await?;
        }
        let (events, bytes) = (look.events, look.bytes);
        match look.work {
            Work::None => return Ok(()),
            _ if dry_run => done.events += events,
            Work::Prune(base) => to_prune.push(base),
            Work::Write { base, over } => {
                if !self.write(&base, &over).await? {
                    // Somebody else has compacted it meanwhile.
                    return Ok(());
                }
                done.based += 1;
                if grace(&self.retention).is_zero() || planted(Bug::PrunedBeforeGrace) {
                    to_prune.push(base);
                }
            }
        }
        done.documents += 1;
        done.bytes += bytes;
        Ok(())
    }

    /// Writes a base and reads it again, with its hash.
    async fn write(&self, base: &Base, over: &Over) -> Result<bool> {
        if !self.store.put_base(self.log.id(), base, over).await? {
            return Ok(false);
        }
        let first = self.log.first(&base.id, Some(self.source.now().await?)).await?;
        let stored = first.documents()?.next().transpose()?.filter(|first| is_base(first));
        // Another instance may have gone on from it.
        Ok(stored.and_then(|stored| Base::from_raw(stored).ok()).as_ref() == Some(base))
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
