//! How far a projector has come, in three steps: folded in memory, flushed at majority, saved as a
//! checkpoint. And how far behind that is, which is absent whenever it is not known.

use std::time::Duration;

use bson::Timestamp;

use crate::{log::TailBatch, model::position::Position};

/// After so long without a word from the server the lag is unknown.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Everything before it has been folded, or goes on record with the next flush.
    folded: Option<Position>,
    /// About how many events of the log precede that, where it is known.
    passed_events: Option<u64>,
    /// Everything before it is written once the flush under way is.
    flushing: Option<Position>,
    /// Everything before it is written.
    flushed: Option<Position>,
    /// What the saved checkpoint says.
    saved: Option<Position>,
    saved_at: Option<Duration>,
    server_time: Option<Timestamp>,
    heard_at: Option<Duration>,
    is_full: bool,
}

impl Progress {
    /// Begins where the projector does, behind so many events. What only others vouch for is yet to be saved.
    pub(super) fn new(
        (position, is_saved): (Option<Position>, bool),
        passed_events: Option<u64>,
    ) -> Self {
        let saved = position.clone().filter(|_| is_saved);
        let folded = position.clone();
        Self { folded, passed_events, flushed: position, saved, ..Self::default() }
    }

    /// A batch has been folded, with so many events of the log. One that comes from an earlier place, since another collection began
    /// there, moves nothing.
    pub(super) fn folded(&mut self, batch: &TailBatch, events: u64, now: Duration) {
        let earlier =
            self.folded.as_ref().is_some_and(|p| p.cluster_time > batch.position.cluster_time);
        if !earlier {
            self.folded = Some(batch.position.clone());
            self.passed_events = self.passed_events.map(|passed| passed.saturating_add(events));
        }
        self.server_time = self.server_time.max(batch.server_time);
        self.heard_at = Some(now);
        self.is_full = batch.is_full;
    }

    /// So many events of the log precede what has been folded, or nobody knows how many.
    pub(super) fn counted(&mut self, events: Option<u64>) {
        self.passed_events = events;
    }

    /// About how many events of the log precede what has been folded.
    pub(super) fn passed_events(&self) -> Option<u64> {
        self.passed_events
    }

    /// A flush begins of everything that has been folded.
    pub(super) fn flushing(&mut self) {
        self.flushing.clone_from(&self.folded);
    }

    /// It has returned, with everything written or not.
    pub(super) fn flushed(&mut self, is_all_written: bool) {
        if let Some(position) = self.flushing.take().filter(|_| is_all_written) {
            self.flushed = Some(position);
        }
    }

    /// The place to save, if what has been folded is not saved yet and the last save is long enough ago.
    pub(super) fn due(&self, now: Duration, interval: Duration) -> Option<Position> {
        let due = self.saved_at.is_none_or(|at| now.saturating_sub(at) >= interval);
        self.folded.clone().filter(|folded| due && self.saved.as_ref() != Some(folded))
    }

    /// A checkpoint was saved.
    pub(super) fn saved(&mut self, position: Position, now: Duration) {
        self.saved = Some(position);
        self.saved_at = Some(now);
    }

    /// How old the oldest event is that is not visible yet, in seconds, by the server's own times; `None`
    /// when the server has been silent for too long to say.
    pub(super) fn lag_seconds(&self, now: Duration) -> Option<f64> {
        let heard = now.saturating_sub(self.heard_at?) <= SILENCE_MAX;
        let (server, flushed) = (self.server_time?, self.flushed.as_ref()?.cluster_time);
        heard.then(|| f64::from(server.time.saturating_sub(flushed.time)))
    }

    /// Whether the last batch was all that the server could send at once, so that more is on its way.
    pub(super) fn is_backlogged(&self) -> bool {
        self.is_full
    }

    /// Whether everything that was folded is written.
    pub(super) fn is_flushed(&self) -> bool {
        self.flushed == self.folded
    }
}
