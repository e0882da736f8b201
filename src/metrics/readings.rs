//! Metrics that are read from elsewhere at the moment when they are asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    Error, Gauge, IntCounter,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;

use super::{
    Definition, EPOCH, GAPS, HEADROOM, LAG, LAG_EVENTS, LAG_KNOWN, LEADER, LINES_LOST,
    LOOPS_STOPPED, LOST_IN, OLDEST_GAP, PARTS, PARTS_LED, PAUSED, REFUSED, STANDS, options,
};
use crate::{
    health::Heartbeats,
    logging,
    status::{CollectionStatus, Phase, Role},
    time::Time,
};

/// The gauges that only say what the status says, read from it when they are asked for, so that they
/// can neither disagree with it nor outlive what it knows.
#[derive(Clone, Debug, Default)]
pub(super) struct StatusGauges(Arc<Mutex<Vec<watch::Receiver<CollectionStatus>>>>);

impl StatusGauges {
    /// Follows one more collection.
    pub(super) fn follow(&self, status: watch::Receiver<CollectionStatus>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(status);
    }
}

/// A gauge's value, if it is known.
type Reading = fn(&CollectionStatus) -> Option<f64>;

fn number(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn leads(status: &CollectionStatus) -> bool {
    status.role == Some(Role::Leader)
}

const READINGS: [(&Definition, Reading); 14] = [
    (&LAG, |status| status.lag_seconds),
    (&LAG_KNOWN, |status| Some(number(status.lag_seconds.is_some()))),
    (&LAG_EVENTS, |status| status.lag_events.map(|events| events as f64)),
    (&HEADROOM, |status| status.oplog_headroom_seconds),
    (&LOST_IN, |status| status.checkpoint_lost_in_seconds),
    (&LEADER, |status| status.role.map(|_| number(leads(status)))),
    (&PARTS_LED, |status| status.role.map(|_| status.led().count() as f64)),
    (&PARTS, |status| (!status.parts.is_empty()).then_some(status.parts.len() as f64)),
    (&PAUSED, |status| leads(status).then(|| number(status.phase == Phase::Paused))),
    (&REFUSED, |status| Some(number(status.phase == Phase::Refused))),
    (&STANDS, |status| leads(status).then(|| number(status.compaction_stands.is_some()))),
    (&EPOCH, |status| status.lease_epoch.map(|epoch| epoch as f64)),
    (&GAPS, |status| status.version_gaps.map(|gaps| gaps as f64)),
    (&OLDEST_GAP, |status| status.oldest_gap_seconds),
];

fn status_gauge(definition: &Definition, collection: &str) -> Result<Gauge, Error> {
    Gauge::with_opts(options(definition).const_label("collection", collection))
}

impl Collector for StatusGauges {
    fn desc(&self) -> Vec<&Desc> {
        // Unchecked, as the collections are not known yet; no other metric has these names.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let receivers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut families = Vec::new();
        for receiver in receivers.iter() {
            let status = receiver.borrow().clone();
            for (definition, reading) in READINGS {
                let Some(value) = reading(&status) else { continue };
                if let Ok(gauge) = status_gauge(definition, &status.name) {
                    gauge.set(value);
                    families.extend(gauge.collect());
                }
            }
        }
        families
    }
}

/// Reads what the log has counted, which is one for the process.
#[derive(Debug)]
pub(super) struct LinesLost(Desc);

impl LinesLost {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self(Desc::new(
            LINES_LOST.name.to_owned(),
            LINES_LOST.help.to_owned(),
            Vec::new(),
            HashMap::new(),
        )?))
    }
}

impl Collector for LinesLost {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(counter) = IntCounter::with_opts(options(&LINES_LOST)) else { return Vec::new() };
        counter.inc_by(logging::lines_lost());
        counter.collect()
    }
}

/// Reads how many loops have stopped.
pub(super) struct LoopsStopped {
    desc: Desc,
    stopped: Box<dyn Fn() -> usize + Send + Sync>,
}

impl LoopsStopped {
    pub(super) fn new(heartbeats: Heartbeats, time: impl Time) -> Result<Self, Error> {
        let (name, help) = (LOOPS_STOPPED.name.to_owned(), LOOPS_STOPPED.help.to_owned());
        let stopped = move || heartbeats.stopped(time.now()).len();
        let desc = Desc::new(name, help, Vec::new(), HashMap::new())?;
        Ok(Self { desc, stopped: Box::new(stopped) })
    }
}

impl Collector for LoopsStopped {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(gauge) = Gauge::with_opts(options(&LOOPS_STOPPED)) else { return Vec::new() };
        gauge.set((self.stopped)() as f64);
        gauge.collect()
    }
}
