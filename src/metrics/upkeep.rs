//! What upkeep counts: snapshots and jobs.

use prometheus::{Error, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{Definition, counters, each, gauges};
use crate::model::{
    job::{Kind, Outcome},
    snapshot::Reason,
};

/// The metrics of all collections.
#[derive(Debug)]
pub(super) struct Families {
    taken: IntCounterVec,
    finished: IntCounterVec,
    running: IntGaugeVec,
}

/// What upkeep counts for one collection.
#[derive(Clone, Debug)]
pub struct UpkeepMetrics {
    taken: [IntCounter; 4],
    finished: [[IntCounter; 3]; Kind::ALL.len()],
    /// Jobs that this instance is at.
    pub jobs_running: IntGauge,
}

impl Families {
    pub(super) fn new(
        registry: &Registry,
        [taken, finished, running]: [&Definition; 3],
    ) -> Result<Self, Error> {
        Ok(Self {
            taken: counters(registry, taken)?,
            finished: counters(registry, finished)?,
            running: gauges(registry, running)?,
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
            jobs_running: self.running.get_metric_with_label_values(&[collection])?,
        })
    }
}

impl UpkeepMetrics {
    /// Counts snapshots that were stored.
    pub fn taken(&self, reason: Reason) -> &IntCounter {
        &self.taken[reason as usize]
    }

    /// Counts jobs of this instance that ended.
    pub fn finished(&self, kind: Kind, outcome: Outcome) -> &IntCounter {
        &self.finished[kind as usize][outcome as usize]
    }
}
