//! Every metric, once: name, type, labels, help and zero. `metrics/README.md` is the catalogue for
//! operators, and a test compares the two. Label values come from closed sets only. A gauge whose value
//! is not known is absent; it never reads 0 for want of knowledge.

mod make;
mod readings;
mod upkeep;

use std::sync::Arc;

use prometheus::{
    Error, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    process_collector::ProcessCollector,
};
use tokio::sync::watch;

use crate::{
    database,
    health::Heartbeats,
    model::{document::Class, event::Op},
    status::CollectionStatus,
    time::Time,
};

use make::{counters, each, gauges, histograms, options};
use readings::{LinesLost, LoopsStopped, StatusGauges};
pub use upkeep::UpkeepMetrics;

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; 0 from the start.
    Counter,
    /// Goes both ways; absent while unknown.
    Gauge,
    /// Counts observations by size; empty from the start.
    Histogram,
}

/// What a metric is.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// The name, with the prefix.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The labels.
    pub labels: &'static [&'static str],
    /// The meaning, in one sentence.
    pub help: &'static str,
    buckets: &'static [f64],
}

const LATENCY: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
const COUNTS: &[f64] = &[1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];

macro_rules! definitions {
    ($($constant:ident $kind:ident $name:literal $labels:expr, $buckets:expr, $help:literal;)*) => {
        $(const $constant: Definition = Definition {
            name: concat!("alluvium_", $name), kind: Kind::$kind, labels: &$labels, help: $help, buckets: $buckets,
        };)*
        /// All metrics but those of the process itself.
        pub const DEFINITIONS: &[Definition] = &[$($constant),*];
    };
}

definitions! {
    APPLIED Counter "events_applied_total" ["collection", "op"], &[],
        "Events folded into their documents and flushed. A document whose first event comes again, after a restart, counts again.";
    SKIPPED Counter "events_skipped_total" ["collection", "reason"], &[],
        "Events passed over: already applied (replay), or skipped on record by an operator.";
    WRITES Counter "document_writes_total" ["collection"], &[],
        "Rows of projected documents written.";
    LAG Gauge "apply_lag_seconds" ["collection"], &[],
        "Age of the oldest event that is not yet visible; 0 when caught up, absent while unknown.";
    LAG_KNOWN Gauge "apply_lag_known" ["collection"], &[],
        "1 when the lag is known, 0 when it is not: alert on 0, whatever the lag says.";
    LAG_EVENTS Gauge "apply_lag_events" ["collection"], &[],
        "Events that are not yet visible; absent while unknown.";
    HEADROOM Gauge "oplog_headroom_seconds" ["collection"], &[],
        "How much older the checkpoint could be before the oplog no longer reached it; absent while unknown, as without the right to read the oplog.";
    LOST_IN Gauge "checkpoint_lost_in_seconds" ["collection"], &[],
        "How long until the oplog no longer reaches the checkpoint, at the rate at which it forgets at present and if the checkpoint stayed where it is; absent while unknown, as until the oplog has been seen to forget.";
    VISIBLE Histogram "append_to_visible_seconds" ["collection"], LATENCY,
        "From an event's commit, by the server's clock, to its document's flush at majority.";
    FLUSH Histogram "flush_seconds" ["collection"], LATENCY,
        "Duration of a flush.";
    FLUSHED Histogram "flush_documents" ["collection"], COUNTS,
        "Documents in a flush.";
    RESTARTS Counter "stream_restarts_total" ["collection", "reason"], &[],
        "Times the change stream was opened anew.";
    SCANNED Counter "scanned_events_total" ["collection"], &[],
        "Events read by scanning the log.";
    QUARANTINED Gauge "quarantined_documents" ["collection", "class"], &[],
        "Documents that wait, by what they wait for.";
    GAPS Gauge "version_gaps" ["collection"], &[],
        "Documents that wait behind a missing event.";
    OLDEST_GAP Gauge "oldest_gap_seconds" ["collection"], &[],
        "How long the oldest missing event has been missing; 0 when none is, absent while unknown.";
    LEADER Gauge "leader" ["collection"], &[],
        "1 while this instance leads the collection, or any part of it, 0 while it stands by; absent while unknown.";
    PARTS_LED Gauge "parts_led" ["collection"], &[],
        "Parts of the collection that this instance leads, of all instances' together as many as there are; absent while unknown.";
    PARTS Gauge "parts" ["collection"], &[],
        "Parts into which the collection is divided; absent while unknown.";
    PAUSED Gauge "paused" ["collection"], &[],
        "1 while an operator has stopped what this instance leads, 0 otherwise; absent while it leads nothing.";
    REFUSED Gauge "refused" ["collection"], &[],
        "1 while this instance does not project the collection because going on would be wrong, 0 otherwise.";
    EPOCH Gauge "lease_epoch" ["collection"], &[],
        "The epoch under which this instance leads, of several parts the last; absent while it does not.";
    SNAPSHOTS Counter "snapshots_taken_total" ["collection", "reason"], &[],
        "Snapshots stored, by why they were taken.";
    JOBS Counter "jobs_finished_total" ["collection", "kind", "outcome"], &[],
        "Jobs of this instance that ended.";
    JOBS_RUNNING Gauge "jobs_running" ["collection"], &[],
        "Jobs that this instance is at.";
    COMPACTED Counter "compacted_events_total" ["collection"], &[],
        "Events that a base stands for and that were pruned from the log.";
    RECLAIMED Counter "compaction_reclaimed_bytes_total" ["collection"], &[],
        "Bytes of the events that bases were written for.";
    LATE Counter "late_events_total" ["collection"], &[],
        "Events that came after their place was pruned, and were put on record.";
    PINNED Gauge "pinned_events" ["collection", "rule"], &[],
        "Events that stay, by what keeps them, as the last compaction of the whole collection found.";
    STANDS Gauge "compaction_stands" ["collection"], &[],
        "1 while nothing is compacted until an operator does something, 0 otherwise; absent while this instance does not lead.";
    DIFFERENCES Gauge "verify_differences" ["collection"], &[],
        "Documents that the last verify or rebuild of the whole collection left unlike their log; absent until this instance has done one.";
    MISSING Counter "missing_requests_total" ["collection", "answer"], &[],
        "Missing-events requests by their answer.";
    MISSING_SECONDS Histogram "missing_seconds" ["collection"], LATENCY,
        "Duration of a missing-events request.";
    CACHE_BYTES Gauge "cache_bytes" ["collection"], &[],
        "Memory taken by cached documents.";
    CACHE_MISSES Counter "cache_misses_total" ["collection"], &[],
        "Documents that had to be read before an event could be folded.";
    DATABASE_ERRORS Counter "database_errors_total" ["collection", "class"], &[],
        "Errors of the database that the projection met, by what they mean.";
    LOOPS_STOPPED Gauge "loops_stopped" [], &[],
        "Loops of this instance that have not turned within their limit: /healthz names them.";
    LINES_LOST Counter "log_lines_lost_total" [], &[],
        "Lines of the log that could not be written: standard error was closed, full or too slow.";
    BUILD Gauge "build_info" ["version"], &[],
        "1, with the version of this build.";
}

/// Why an event was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// It had been applied before.
    Replay,
    /// An operator skipped it.
    Operator,
}

/// Why the change stream was opened anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartReason {
    /// The connection broke.
    LostConnection,
    /// The server no longer had the place, or refused the token.
    LostToken,
    /// The stream was invalidated.
    Invalidated,
    /// The set of collections is another one.
    CollectionsChanged,
}

/// What a missing-events request was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// Events.
    Events,
    /// A snapshot.
    Snapshot,
    /// Nothing was missing.
    None,
    /// The client claimed more than exists.
    Ahead,
}

/// The metrics of one process, in a registry of their own.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    families: Arc<Families>,
    statuses: StatusGauges,
}

/// What the projection and the reads of one collection count. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CollectionMetrics {
    applied: [IntCounter; 3],
    skipped: [IntCounter; 2],
    restarts: [IntCounter; 4],
    missing: [IntCounter; 4],
    errors: [IntCounter; database::Error::CLASSES.len()],
    quarantined: IntGaugeVec,
    collection: String,
    /// Snapshots and jobs.
    pub upkeep: UpkeepMetrics,
    /// Rows of projected documents written.
    pub document_writes: IntCounter,
    /// Events read by scanning.
    pub scanned_events: IntCounter,
    /// Documents read because they were not in the cache.
    pub cache_misses: IntCounter,
    /// The cache's size in bytes.
    pub cache_bytes: IntGauge,
    /// From commit to visible, in seconds.
    pub append_to_visible_seconds: Histogram,
    /// Duration of flushes, in seconds.
    pub flush_seconds: Histogram,
    /// Documents per flush.
    pub flush_documents: Histogram,
    /// Duration of missing-events requests, in seconds.
    pub missing_seconds: Histogram,
}

#[derive(Debug)]
struct Families {
    applied: IntCounterVec,
    skipped: IntCounterVec,
    restarts: IntCounterVec,
    missing: IntCounterVec,
    errors: IntCounterVec,
    writes: IntCounterVec,
    scanned: IntCounterVec,
    cache_misses: IntCounterVec,
    cache_bytes: IntGaugeVec,
    quarantined: IntGaugeVec,
    visible: HistogramVec,
    flush: HistogramVec,
    flushed: HistogramVec,
    missing_seconds: HistogramVec,
    upkeep: upkeep::Families,
}

impl Metrics {
    /// All metrics, at zero or absent.
    ///
    /// # Errors
    /// When the definitions contradict each other, which a test excludes.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let statuses = StatusGauges::default();
        let r = &registry;
        let families = Families {
            applied: counters(r, &APPLIED)?,
            skipped: counters(r, &SKIPPED)?,
            restarts: counters(r, &RESTARTS)?,
            missing: counters(r, &MISSING)?,
            errors: counters(r, &DATABASE_ERRORS)?,
            writes: counters(r, &WRITES)?,
            scanned: counters(r, &SCANNED)?,
            cache_misses: counters(r, &CACHE_MISSES)?,
            cache_bytes: gauges(r, &CACHE_BYTES)?,
            quarantined: gauges(r, &QUARANTINED)?,
            visible: histograms(r, &VISIBLE)?,
            flush: histograms(r, &FLUSH)?,
            flushed: histograms(r, &FLUSHED)?,
            missing_seconds: histograms(r, &MISSING_SECONDS)?,
            upkeep: upkeep::Families::new(
                r,
                [
                    &SNAPSHOTS,
                    &JOBS,
                    &JOBS_RUNNING,
                    &COMPACTED,
                    &RECLAIMED,
                    &LATE,
                    &PINNED,
                    &DIFFERENCES,
                ],
            )?,
        };
        registry.register(Box::new(LinesLost::new()?))?;
        gauges(r, &BUILD)?.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1);
        registry.register(Box::new(statuses.clone()))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self { registry, families: Arc::new(families), statuses })
    }

    /// The registry, for the text format.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Tells from now on how many of these loops have stopped.
    ///
    /// # Errors
    /// When it is told already, which is a mistake of the caller.
    pub fn watch_loops(&self, heartbeats: Heartbeats, time: impl Time) -> Result<(), Error> {
        self.registry.register(Box::new(LoopsStopped::new(heartbeats, time)?))
    }

    /// The counters of `collection`, from now on present with 0; its gauges follow `status`.
    ///
    /// # Errors
    /// When the definitions and this code disagree about labels, which a test excludes.
    pub fn collection(
        &self,
        collection: &str,
        status: watch::Receiver<CollectionStatus>,
    ) -> Result<CollectionMetrics, Error> {
        let f = &*self.families;
        let one = [collection];
        let metrics = CollectionMetrics {
            applied: each(&f.applied, collection, Op::ALL.map(Op::name))?,
            skipped: each(&f.skipped, collection, ["replay", "operator"])?,
            restarts: each(
                &f.restarts,
                collection,
                ["lost_connection", "lost_token", "invalidated", "collections_changed"],
            )?,
            missing: each(&f.missing, collection, ["events", "snapshot", "none", "ahead"])?,
            errors: each(&f.errors, collection, database::Error::CLASSES)?,
            quarantined: f.quarantined.clone(),
            collection: collection.to_owned(),
            upkeep: f.upkeep.collection(collection)?,
            document_writes: f.writes.get_metric_with_label_values(&one)?,
            scanned_events: f.scanned.get_metric_with_label_values(&one)?,
            cache_misses: f.cache_misses.get_metric_with_label_values(&one)?,
            cache_bytes: f.cache_bytes.get_metric_with_label_values(&one)?,
            append_to_visible_seconds: f.visible.get_metric_with_label_values(&one)?,
            flush_seconds: f.flush.get_metric_with_label_values(&one)?,
            flush_documents: f.flushed.get_metric_with_label_values(&one)?,
            missing_seconds: f.missing_seconds.get_metric_with_label_values(&one)?,
        };
        self.statuses.follow(status);
        Ok(metrics)
    }
}

impl CollectionMetrics {
    /// Counts events that were applied and flushed.
    pub fn applied(&self, op: Op) -> &IntCounter {
        &self.applied[op as usize]
    }

    /// Counts events that were passed over.
    pub fn skipped(&self, reason: SkipReason) -> &IntCounter {
        &self.skipped[reason as usize]
    }

    /// Counts openings of the change stream after the first.
    pub fn restarted(&self, reason: RestartReason) -> &IntCounter {
        &self.restarts[reason as usize]
    }

    /// Counts missing-events requests.
    pub fn answered(&self, answer: AnswerKind) -> &IntCounter {
        &self.missing[answer as usize]
    }

    /// Counts an error of the database.
    pub fn met(&self, error: &database::Error) {
        let class = error.class();
        if let Some(at) = database::Error::CLASSES.iter().position(|known| *known == class) {
            self.errors[at].inc();
        }
    }

    /// Says how many documents wait for reasons of `class`. Until it is said, the gauge is absent.
    pub fn set_quarantined(&self, class: Class, documents: u64) {
        let labels = [self.collection.as_str(), class.name()];
        if let Ok(gauge) = self.quarantined.get_metric_with_label_values(&labels) {
            gauge.set(i64::try_from(documents).unwrap_or(i64::MAX));
        }
    }

    /// How many documents wait is not known any more: the gauges are absent.
    pub fn forget_quarantined(&self) {
        for class in Class::ALL {
            let labels = [self.collection.as_str(), class.name()];
            // Without effect where there is none.
            drop(self.quarantined.remove_label_values(&labels));
        }
    }
}
