//! The one place through which a projector tells the world how it is doing: status, metrics and
//! heartbeat. Effects move only after the commit that they speak of.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use super::{distributor::Restart, flush::Flushed, waiting::Waiting};
use crate::{
    database::Error,
    model::{document::Class, event::Op},
    status::{CollectionStatus, LastError, Phase},
};

/// Events counted since the last flush, told once it has returned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) applied: [u64; 3],
    pub(super) replayed: u64,
    pub(super) scanned: u64,
    pub(super) loaded: u64,
}

impl Counts {
    pub(super) fn applied(&mut self, op: Op) {
        self.applied[op as usize] += 1;
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Observer {
    status: Arc<watch::Sender<CollectionStatus>>,
}

impl Observer {
    /// An observer that writes to `status`.
    pub fn new(status: Arc<watch::Sender<CollectionStatus>>) -> Self {
        Self { status }
    }

    pub(super) fn collection(&self) -> String {
        self.status.borrow().name.clone()
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.status.send_if_modified(|status| {
            let changed = status.phase != phase;
            if changed {
                info!(collection = status.name, from = ?status.phase, to = ?phase, "phase");
                status.phase = phase;
                if phase != Phase::Tailing {
                    status.lag_seconds = None;
                    status.lag_events = None;
                }
            }
            changed
        });
    }

    pub(super) fn error(&self, error: &Error) {
        let last = LastError {
            at: bson::DateTime::now(),
            class: error.class(),
            message: error.to_string(),
            advice: error.advice().to_owned(),
        };
        self.status.send_modify(|status| status.last_error = Some(last));
    }

    /// An event that names no document: it can only be reported.
    pub(super) fn homeless_event(&self, reason: &str) {
        warn!(
            collection = self.collection(),
            reason, "an event has no usable `_id` and belongs to no document"
        );
        let last = LastError {
            at: bson::DateTime::now(),
            class: "bad_event",
            message: format!("an event has no usable `_id` and belongs to no document: {reason}"),
            advice: "find it in the events collection and delete it; run `alluvium init` so that the validator refuses such events".into(),
        };
        self.status.send_modify(|status| status.last_error = Some(last));
    }

    /// A flush has returned: only now do its effects count.
    pub(super) fn flushed(
        &self,
        _flushed: &Flushed,
        _written: u64,
        _counts: Counts,
        waiting: &Waiting,
        _cache_bytes: usize,
    ) {
        let (mut gaps, mut parked) = (0, 0);
        for row in waiting.rows() {
            match row.mark.class {
                Class::Gap => gaps += 1,
                _ => parked += 1,
            }
        }
        self.status.send_modify(|status| {
            status.flushes += 1;
            status.version_gaps = gaps;
            status.quarantined = parked;
        });
    }

    pub(super) fn lag(&self, seconds: Option<f64>, events: Option<u64>) {
        self.status.send_if_modified(|status| {
            let changed = (status.lag_seconds, status.lag_events) != (seconds, events);
            (status.lag_seconds, status.lag_events) = (seconds, events);
            changed
        });
    }

    /// The stream was opened again.
    pub fn restarted(&self, reason: Restart) {
        info!(collection = self.collection(), ?reason, "the change stream is opened again");
    }
}
