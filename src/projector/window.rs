//! When a projector flushes, saves its checkpoint and tells how far it is: the policy that the loop of
//! `run` asks after every step, and the last flushes before it ends.

use std::time::Duration;

use super::{Settings, run::Run, work::Work};
use crate::{
    database::Result,
    log::{EventLog, LogSource},
    model::position::{Checkpoint, Position},
    planted::{Bug, planted},
    store::Store,
    time::Time,
};

/// How often the lag is told and a checkpoint considered, at least.
const TICK: Duration = Duration::from_secs(1);
/// The longest that a folded event waits for others however far behind the projection is.
const LATE_WINDOW_MAX: Duration = Duration::from_secs(2);

/// Why a run has ended in order, with everything written that it had folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// The writers have left it so far behind that a scan is quicker.
    LeftBehind,
}

impl<S: LogSource, D: Store, T: Time> Run<S, D, T> {
    /// Between two chunks of one batch: flushes if that is due, and waits for it if memory is short.
    pub(super) async fn make_room(&mut self) -> Result<()> {
        self.work.advance_flush().await;
        if let Some(flushed) = self.work.flushed.take() {
            self.settle(flushed?).await?;
        }
        self.flush_if_due();
        while self.is_full() {
            match self.work.flush.take() {
                Some(flush) => self.settle(flush.await?).await?,
                None => return Ok(()),
            }
            self.flush_if_due();
        }
        Ok(())
    }

    /// Flushes at once when there is nothing more to fold, and otherwise when the window is over or
    /// memory is short.
    pub(super) fn flush_if_due(&mut self) {
        if self.work.flush.is_some() || self.work.flushed.is_some() {
            return;
        }
        let now = self.work.time.now();
        let due = match self.work.changed_at {
            _ if self.work.cache.is_full() || self.has_left_many() => true,
            None => false,
            Some(since)
                if self.walk.is_some()
                    || self.progress.is_backlogged()
                    || !self.feed.is_empty() =>
            {
                now.saturating_sub(since) >= self.window(now)
            }
            Some(_) => true,
        };
        if due || self.checkpoint_due(now).is_some() {
            self.start_flush(now);
        }
        if self.work.flush.is_none() && self.work.changed_at.is_none() {
            // Nothing to write: what has been folded was replays, or other collections' events.
            self.progress.flushed(self.progress.folded.clone());
            self.askers.idle();
        }
    }

    /// Whether a scan has left many documents behind.
    fn has_left_many(&self) -> bool {
        self.walk.is_some() && self.work.cache.working() >= self.work.settings.scanned_documents_max
    }

    /// Whether nothing more is folded until what is being written is written.
    pub(super) fn is_full(&self) -> bool {
        let Work { cache, settings, flush, .. } = &self.work;
        let scanned_max = settings.scanned_documents_max.saturating_mul(2);
        let waits = self.walk.is_some() && flush.is_some() && cache.working() >= scanned_max;
        cache.is_full() || waits
    }

    /// How long a folded event may wait for others under load. Where they are late already, half of that
    /// more saves writing a document again and again, and so gets everybody up to date sooner.
    fn window(&self, now: Duration) -> Duration {
        let late = self.progress.lag_seconds(now).unwrap_or_default();
        let late = Duration::from_secs_f64(late / 2.0).min(LATE_WINDOW_MAX);
        self.work.settings.flush_interval.max(late)
    }

    fn checkpoint_due(&self, now: Duration) -> Option<Position> {
        let Settings { checkpoint_interval, idle_checkpoint_interval, .. } = self.work.settings;
        let idle = self.work.changed_at.is_none();
        let interval = if idle { idle_checkpoint_interval } else { checkpoint_interval };
        self.unsaved(now, interval)
    }

    fn unsaved(&self, now: Duration, interval: Duration) -> Option<Position> {
        let is_scanned = self.walk.is_none() || planted(Bug::CheckpointDuringScan);
        self.progress.due(now, interval).filter(|_| is_scanned)
    }

    fn start_flush(&mut self, now: Duration) {
        let position = self.checkpoint_due(now);
        self.covers = self.progress.folded.clone();
        self.work.start_flush(position.map(|position| self.checkpoint(position)));
        if self.work.flush.is_some() {
            self.askers.flushing();
        }
    }

    fn checkpoint(&self, position: Position) -> Checkpoint {
        Checkpoint {
            position: Some(position),
            log: self.work.log.id(),
            epoch: self.epoch,
            passed_events: self.progress.passed_events(),
        }
    }

    pub(super) fn tell(&mut self) {
        self.tell_oldest_gap();
        self.work.observer.lag(self.lag_seconds(), self.is_caught_up().then_some(0));
    }

    /// How late the projection is; `None` while that is not known.
    pub(super) fn lag_seconds(&self) -> Option<f64> {
        match self.walk {
            None => self.progress.lag_seconds(self.work.time.now()),
            Some(_) => None,
        }
    }

    /// Whether everything that there is is written.
    pub(super) fn is_caught_up(&self) -> bool {
        self.lag_seconds() == Some(0.0) && self.progress.is_flushed() && self.feed.is_empty()
    }

    fn tell_oldest_gap(&mut self) {
        let Work { waiting, time, settings, observer, .. } = &self.work;
        let Some(row) = waiting.oldest_hole() else { return observer.oldest_gap(Duration::ZERO) };
        let age = time.wall().saturating_duration_since(row.since);
        observer.oldest_gap(age);
        let hole = (row.document.clone(), row.mark.version);
        if age >= settings.gap_grace && self.overdue.as_ref() != Some(&hole) {
            observer.overdue_gap(row, age);
            self.overdue = Some(hole);
        }
    }

    pub(super) fn pause(&self) -> Duration {
        match self.work.changed_at {
            Some(_) if self.work.flush.is_none() => self.work.settings.flush_interval.min(TICK),
            _ => TICK,
        }
    }

    /// Writes everything that has been folded, saves the checkpoint, and is done. What still waits in the
    /// feed is left: it comes again.
    pub(super) async fn drain(mut self, why: Ended) -> Result<Ended> {
        self.feed.close();
        loop {
            if let Some(flushed) = self.work.flushed.take() {
                self.settle(flushed?).await?;
            } else if let Some(flush) = self.work.flush.take() {
                self.settle(flush.await?).await?;
            } else {
                let last = self.work.changed_at.is_none();
                self.covers = self.progress.folded.clone();
                let unsaved = self.unsaved(Duration::MAX, Duration::ZERO);
                self.work.start_flush(unsaved.map(|at| self.checkpoint(at)));
                if last && self.work.flush.is_none() {
                    return Ok(why);
                }
            }
        }
    }
}
