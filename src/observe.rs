//! The one place through which a projector tells the world how it is doing: status, metrics and log.
//! Effects move only after the commit that they speak of.

mod counts;

use std::{fmt, sync::Arc, time::Duration};

use bson::DateTime;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::{
    database::Error,
    health::Heart,
    lease::Standing,
    metrics::{CollectionMetrics, RestartReason, SkipReason},
    model::{document::Class, event::Op, id::DocumentId, part::Part, snapshot::Due},
    status::{CollectionStatus, Headroom, LastError, PartStatus, Phase, Role, WaitingClasses},
    store::QuarantineRow,
    time::Time,
};

pub(crate) use counts::{Counts, Written};

/// The class of a place in the oplog that will soon be lost.
const LOW_HEADROOM: &str = "oplog_headroom";

/// The class of a gap that does not heal by itself.
const OVERDUE_GAP: &str = "gap";

/// The class of a number of parts that is none.
const BAD_LAYOUT: &str = "parts";

/// The most bytes of rows of one flush that are handed on for snapshots.
const DUE_BYTES_MAX: usize = 16 << 20;

/// See the module. What is told of a part is told for one part; all else for the whole collection.
#[derive(Clone, Debug)]
pub struct Observer {
    part: Part,
    status: Arc<watch::Sender<CollectionStatus>>,
    metrics: CollectionMetrics,
    wall: Wall,
    heart: Heart,
    snapshots: Option<mpsc::Sender<Vec<Due>>>,
    grown: Option<mpsc::Sender<Vec<(DocumentId, i64)>>>,
}

/// The handed wall clock.
#[derive(Clone)]
struct Wall(Arc<dyn Fn() -> DateTime + Send + Sync>);

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wall")
    }
}

impl Observer {
    /// An observer of a whole collection that writes to `status` and counts in `metrics`.
    pub fn new(
        status: Arc<watch::Sender<CollectionStatus>>,
        metrics: CollectionMetrics,
        time: impl Time,
    ) -> Self {
        Self {
            part: Part::WHOLE,
            status,
            metrics,
            wall: Wall(Arc::new(move || time.wall())),
            heart: Heart::unheard(),
            snapshots: None,
            grown: None,
        }
    }

    /// The same for one part.
    #[must_use]
    pub fn of_part(self, part: Part) -> Self {
        Self { part, ..self }
    }

    /// The same, with a heart that beats on every turn of the projector.
    #[must_use]
    pub fn with_heart(self, heart: Heart) -> Self {
        Self { heart, ..self }
    }

    /// The same, which hands on stored rows of which a snapshot is due.
    #[must_use]
    pub fn with_snapshots(self, snapshots: mpsc::Sender<Vec<Due>>) -> Self {
        Self { snapshots: Some(snapshots), ..self }
    }

    /// The same, which hands on documents that have grown.
    #[must_use]
    pub fn with_grown(self, grown: mpsc::Sender<Vec<(DocumentId, i64)>>) -> Self {
        Self { grown: Some(grown), ..self }
    }

    pub(crate) fn heart(&self) -> &Heart {
        &self.heart
    }

    pub(crate) fn collection(&self) -> String {
        self.status.borrow().name.clone()
    }

    /// Where this instance stands with the lease of the part.
    pub(crate) fn standing(&self, standing: Standing) {
        let (role, epoch) = match standing {
            Standing::Unknown => (None, None),
            Standing::Standby => (Some(Role::Standby), None),
            Standing::Leader(epoch) => (Some(Role::Leader), Some(epoch)),
        };
        self.phase(match standing {
            Standing::Standby => Phase::StandingBy,
            Standing::Unknown | Standing::Leader(_) => Phase::Starting,
        });
        self.update(|part| {
            (part.role, part.lease_epoch) = (role, epoch);
            // What waits is read anew by whoever leads next.
            part.waiting.clear();
        });
        if standing == Standing::Standby {
            self.resolved(|_| true);
            self.metrics.upkeep.forget_verified();
        }
        self.tell_sums();
        info!(collection = self.collection(), part = %self.part, %standing, "the lease");
    }

    pub(crate) fn phase(&self, phase: Phase) {
        let from = self.status.borrow().parts.get(&self.part).map(|part| part.phase);
        if from == Some(phase) {
            return;
        }
        let (before, now) = (from.map_or("unknown", Phase::name), phase.name());
        info!(collection = self.collection(), part = %self.part, from = before, to = now, "phase");
        if phase == Phase::Tailing {
            self.resolved(|error| error.class == Error::REFUSED);
        }
        self.update(|part| {
            part.phase = phase;
            if phase != Phase::Tailing {
                (part.lag_seconds, part.lag_events) = (None, None);
            }
            if !matches!(phase, Phase::Tailing | Phase::Scanning) {
                part.oldest_gap_seconds = None;
            }
        });
    }

    /// The collection is divided into so many parts from now on.
    pub(crate) fn divided(&self, of: u32) {
        info!(collection = self.collection(), parts = of, "divided");
        self.status.send_modify(|status| status.divide(of));
        self.tell_sums();
    }

    fn update(&self, change: impl FnOnce(&mut PartStatus)) {
        self.status.send_modify(|status| status.update_part(self.part, change));
    }

    /// What is counted for the whole collection, from all parts that this instance leads.
    fn tell_sums(&self) {
        let status = self.status.borrow();
        let counted = status.counted();
        let cache_bytes: usize = counted.iter().map(|part| part.cache_bytes).sum();
        self.metrics.cache_bytes.set(i64::try_from(cache_bytes).unwrap_or(i64::MAX));
        if counted.iter().any(|part| part.waiting.is_empty()) {
            self.metrics.forget_quarantined();
            return;
        }
        for class in Class::ALL {
            let documents = counted.iter().filter_map(|part| part.waiting.get(&class)).sum();
            self.metrics.set_quarantined(class, documents);
        }
    }

    /// Something went wrong: what, and what to do.
    pub fn error(&self, error: &Error) {
        self.metrics.met(error);
        self.last_error(error.class(), error.to_string(), error.advice());
    }

    /// A request failed and is tried again, which is a turn of the loop.
    pub(crate) fn tried(&self, error: &Error, time: &impl Time) {
        self.turned(time);
        self.error(error);
    }

    /// The loop has got further, within what may be a long turn.
    pub(crate) fn turned(&self, time: &impl Time) {
        self.heart.beat(time.now());
    }

    /// An event that names no document: it can only be reported.
    pub(crate) fn homeless_event(&self, reason: &str) {
        warn!(
            collection = self.collection(),
            reason, "an event has no usable `_id` and belongs to no document"
        );
        self.last_error(
            "bad_event",
            format!("an event has no usable `_id` and belongs to no document: {reason}"),
            "find it in the events collection and delete it; `alluvium init` sets the validator that refuses such events",
        );
    }

    /// A row is no projected document. That is told, and the document is folded again.
    pub(crate) fn unreadable_row(&self, document: &DocumentId, reason: &str) {
        warn!(
            collection = self.collection(),
            %document, reason, "a row cannot be read: its document is folded again from the log"
        );
        self.last_error(
            "bad_row",
            format!("the row of document {document} cannot be read, and is made again from the log: {reason}"),
            "find out who else writes to this collection; `alluvium verify` tells which other rows are not what their log makes of them",
        );
    }

    /// A gap has been open for longer than `gap_grace`: it will hardly heal by itself.
    pub(crate) fn overdue_gap(&self, row: &QuarantineRow, age: Duration) {
        let (document, missing) = (&row.document, row.mark.version);
        warn!(collection = self.collection(), %document, missing, age_seconds = age.as_secs(), "a version is missing for long");
        self.last_error(
            OVERDUE_GAP,
            format!("document {document} waits for version {missing} since {} s; later versions are there", age.as_secs()),
            "find the writer that took this version and never committed it: appending the missing event heals the document; or `alluvium gap fill` fills the gap, on record",
        );
    }

    /// How long the oldest gap has been open; zero when there is none.
    pub(crate) fn oldest_gap(&self, age: Duration) {
        // Whole seconds: whoever waits for news of the status is not woken by more.
        let seconds = Some(age.as_secs() as f64);
        self.status.send_if_modified(|status| {
            let known = status.parts.get(&self.part);
            let changed = known.is_none_or(|part| part.oldest_gap_seconds != seconds);
            if changed {
                status.update_part(self.part, |part| part.oldest_gap_seconds = seconds);
            }
            changed
        });
        if age.is_zero() {
            self.resolved(|error| error.class == OVERDUE_GAP);
        }
    }

    /// How the checkpoint stands in the oplog; `None` while that is not known.
    pub fn headroom(&self, headroom: Option<Headroom>) {
        self.status.send_modify(|status| {
            status.oplog_headroom_seconds = headroom.map(|headroom| headroom.seconds);
            status.checkpoint_lost_in_seconds =
                headroom.and_then(|headroom| headroom.lost_in_seconds);
        });
        let Some(Headroom { seconds, lost_in_seconds: Some(left), is_low: true }) = headroom else {
            return self.resolved(|error| error.class == LOW_HEADROOM);
        };
        warn!(
            collection = self.collection(),
            headroom_seconds = seconds,
            lost_in_seconds = left,
            "the oplog will soon no longer reach the checkpoint"
        );
        self.last_error(
            LOW_HEADROOM,
            match seconds < 0.0 {
                true => format!("the oplog begins {:.0} s after the checkpoint, and does not reach it any more", -seconds),
                false => format!("the oplog reaches back only {seconds:.0} s beyond the checkpoint, and at its present rate will have forgotten it in {left:.0} s"),
            },
            "no event is lost, but the whole log is scanned when the projection goes on: make the oplog larger (`replSetResizeOplog`), or see why the projection does not keep up",
        );
    }

    fn last_error(&self, class: &'static str, message: String, advice: &str) {
        let (part, at, advice) = (self.part, (self.wall.0)(), advice.to_owned());
        let last = LastError { part, at, class, message, advice };
        self.status.send_modify(|status| status.last_error = Some(last));
    }

    /// Forgets the last error if its cause has gone: one of this part, or of the whole collection.
    fn resolved(&self, has_gone: impl Fn(&LastError) -> bool) {
        self.status.send_if_modified(|status| {
            let gone = status.last_error.take_if(|error| {
                (error.part == self.part || error.part == Part::WHOLE) && has_gone(error)
            });
            gone.is_some()
        });
    }

    /// The database answers again.
    pub(crate) fn recovered(&self) {
        self.resolved(|error| Error::PASSING.contains(&error.class));
    }

    /// How the number of parts that an operator has set reads: what is wrong with it, if anything.
    pub(crate) fn layout(&self, problem: Option<(String, &str)>) {
        match problem {
            Some((message, advice)) => self.last_error(BAD_LAYOUT, message, advice),
            None => self.resolved(|error| error.class == BAD_LAYOUT),
        }
    }

    /// A flush has returned: only now do its effects count.
    pub(crate) fn flushed(&self, flushed: &Written<'_>) {
        let (counts, metrics) = (flushed.counts, &self.metrics);
        for op in Op::ALL {
            metrics.applied(op).inc_by(counts.applied[op as usize]);
        }
        metrics.skipped(SkipReason::Replay).inc_by(counts.replayed);
        metrics.skipped(SkipReason::Operator).inc_by(counts.skipped);
        metrics.scanned_events.inc_by(counts.scanned);
        metrics.cache_misses.inc_by(counts.loaded);
        metrics.document_writes.inc_by(flushed.rows as u64);
        if flushed.rows > 0 {
            metrics.flush_documents.observe(flushed.rows as f64);
            metrics.flush_seconds.observe(flushed.took.as_secs_f64());
        }
        if let Some(oldest) = flushed.oldest {
            let visible = (self.wall.0)().saturating_duration_since(oldest);
            metrics.append_to_visible_seconds.observe(visible.as_secs_f64());
        }
        self.status.send_modify(|status| {
            status.flushes += 1;
            status.update_part(self.part, |part| {
                part.waiting.clone_from(flushed.classes);
                part.cache_bytes = flushed.cache_bytes;
            });
        });
        self.tell_sums();
        self.recovered();
    }

    /// Hands on rows of which a snapshot is due. The projection waits for nobody: what there is no room for is
    /// left out, and due again after as many events.
    pub(crate) fn snapshots_due(&self, mut due: Vec<Due>) {
        let Some(snapshots) = self.snapshots.as_ref().filter(|_| !due.is_empty()) else { return };
        let mut bytes = 0;
        due.retain(|due| {
            bytes += due.row.as_bytes().len();
            bytes <= DUE_BYTES_MAX
        });
        if snapshots.try_send(due).is_err() {
            debug!(collection = self.collection(), "snapshots that were due are left out");
        }
    }

    /// Hands on documents that have grown, to be noted. What there is no room for is left out.
    pub(crate) fn grown(&self, grown: Vec<(DocumentId, i64)>) {
        let Some(hand) = self.grown.as_ref().filter(|_| !grown.is_empty()) else { return };
        if hand.try_send(grown).is_err() {
            debug!(collection = self.collection(), "documents that have grown are not noted");
        }
    }

    /// Why the collection is not compacted, if an operator has to do something about it.
    pub(crate) fn compaction_stands(&self, why: Option<String>) {
        self.status.send_if_modified(|status| {
            let changed = status.compaction_stands != why;
            status.compaction_stands = why;
            changed
        });
    }

    /// Tells what was on record before anything is flushed.
    pub(crate) fn resumed(&self, classes: &WaitingClasses) {
        self.update(|part| part.waiting = classes.clone());
        self.tell_sums();
    }

    pub(crate) fn lag(&self, seconds: Option<f64>, events: Option<u64>) {
        let lag = (seconds, events);
        self.status.send_if_modified(|status| {
            let known = status.parts.get(&self.part);
            let changed = known.is_none_or(|part| (part.lag_seconds, part.lag_events) != lag);
            if changed {
                let set = |part: &mut PartStatus| (part.lag_seconds, part.lag_events) = lag;
                status.update_part(self.part, set);
            }
            changed
        });
        // Caught up: whatever held it up has passed.
        if seconds == Some(0.0) {
            self.recovered();
        }
    }

    /// The stream was opened again.
    pub fn restarted(&self, reason: RestartReason) {
        self.metrics.restarted(reason).inc();
    }
}
