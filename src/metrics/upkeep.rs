//! What upkeep counts: snapshots and jobs.

use prometheus::{Error, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{Definition, counters, each, gauges};
use crate::model::{
    compaction::Rule,
    job::{Kind, Outcome},
    snapshot::Reason,
};

/// The metrics of all collections.
#[derive(Debug)]
pub(super) struct Families {
    taken: IntCounterVec,
    finished: IntCounterVec,
    running: IntGaugeVec,
    compacted: IntCounterVec,
    reclaimed: IntCounterVec,
    late: IntCounterVec,
    pinned: IntGaugeVec,
    differences: IntGaugeVec,
}

/// What upkeep counts for one collection.
#[derive(Clone, Debug)]
pub struct UpkeepMetrics {
    taken: [IntCounter; 3],
    finished: [[IntCounter; 3]; Kind::ALL.len()],
    compacted: IntCounter,
    reclaimed: IntCounter,
    late: IntCounter,
    /// Absent until they are known.
    pinned: IntGaugeVec,
    /// As well.
    differences: IntGaugeVec,
    collection: String,
    /// Jobs that this instance is at.
    pub jobs_running: IntGauge,
}

impl Families {
    pub(super) fn new(
        registry: &Registry,
        [taken, finished, running, compacted, reclaimed, late, pinned, differences]: [&Definition;
            8],
    ) -> Result<Self, Error> {
        Ok(Self {
            taken: counters(registry, taken)?,
            finished: counters(registry, finished)?,
            running: gauges(registry, running)?,
            compacted: counters(registry, compacted)?,
            reclaimed: counters(registry, reclaimed)?,
            late: counters(registry, late)?,
            pinned: gauges(registry, pinned)?,
            differences: gauges(registry, differences)?,
        })
    }

    pub(super) fn collection(&self, collection: &str) -> Result<UpkeepMetrics, Error> {
        let finished = |kind: Kind| -> Result<[IntCounter; 3], Error> {
            let [done, failed, cancelled] = Outcome::ALL.map(|outcome| {
                self.finished.get_metric_with_label_values(&[
                    collection,
                    kind.name(),
                    outcome.name(),
                ])
            });
            Ok([done?, failed?, cancelled?])
        };
        let finished: Result<Vec<[IntCounter; 3]>, Error> =
            Kind::ALL.into_iter().map(finished).collect();
        let finished = finished?.try_into();
        Ok(UpkeepMetrics {
            taken: each(&self.taken, collection, Reason::ALL.map(Reason::name))?,
            finished: finished.map_err(|_| Error::Msg("as many counters as kinds".into()))?,
            compacted: self.compacted.get_metric_with_label_values(&[collection])?,
            reclaimed: self.reclaimed.get_metric_with_label_values(&[collection])?,
            late: self.late.get_metric_with_label_values(&[collection])?,
            pinned: self.pinned.clone(),
            differences: self.differences.clone(),
            collection: collection.to_owned(),
            jobs_running: self.running.get_metric_with_label_values(&[collection])?,
        })
    }
}

impl UpkeepMetrics {
    /// Counts snapshots that were stored.
    pub fn taken(&self, reason: Reason) -> &IntCounter {
        &self.taken[reason as usize]
    }

    /// How many events stay, by what keeps them, as a compaction of the whole collection found.
    pub fn pinned(&self, rule: Rule, events: i64) {
        self.pinned.with_label_values(&[self.collection.as_str(), rule.name()]).set(events);
    }

    /// How many documents a verification of the whole collection has left unlike their log.
    pub fn verified(&self, differences: i64) {
        self.differences.with_label_values(&[&self.collection]).set(differences);
    }

    /// What was verified is somebody else's by now: the gauge is absent.
    pub fn forget_verified(&self) {
        // Without effect where there is none.
        drop(self.differences.remove_label_values(&[&self.collection]));
    }

    /// Counts what compaction has taken out of the log: events, their bytes as far as they were read, and those that came
    /// late.
    pub fn compacted(&self, events: i64, bytes: i64, late: i64) {
        let counted = [(&self.compacted, events), (&self.reclaimed, bytes), (&self.late, late)];
        for (counter, count) in counted {
            counter.inc_by(u64::try_from(count).unwrap_or_default());
        }
    }

    /// Counts jobs of this instance that ended.
    pub fn finished(&self, kind: Kind, outcome: Outcome) -> &IntCounter {
        &self.finished[kind as usize][outcome as usize]
    }
}
