//! When a flush is due. Pure: the loop says how things stand, and a table says what follows.

use std::time::Duration;

/// The longest that a folded event waits for others, however late the projection is.
const LATE_WINDOW_MAX: Duration = Duration::from_secs(2);

/// How things stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// Documents that are being worked on take all the memory that they may.
    pub(super) is_full: bool,
    /// For how long the oldest change has been waiting; `None` if nothing has changed.
    pub(super) waited: Option<Duration>,
    /// More events are on their way, by which the same documents may change again.
    pub(super) has_more: bool,
    /// A checkpoint can be saved, and it is time for one.
    pub(super) has_checkpoint: bool,
    /// The longest that a folded event waits for its flush under load.
    pub(super) interval: Duration,
    /// How late the projection is, in seconds, if that is known.
    pub(super) lag_seconds: Option<f64>,
}

impl Facts {
    /// Whether a flush is due: at once when there is nothing more to fold, and otherwise when the window is over or
    /// memory is short.
    pub(super) fn is_due(self) -> bool {
        let is_over = match self.waited {
            None => false,
            Some(waited) => !self.has_more || waited >= self.window(),
        };
        self.is_full || is_over || self.has_checkpoint
    }

    /// How long a folded event may wait for others under load. Where they are late already, half of that
    /// more saves writing a document again and again, and so gets everybody up to date sooner.
    fn window(self) -> Duration {
        let late = Duration::from_secs_f64(self.lag_seconds.unwrap_or_default() / 2.0);
        self.interval.max(late.min(LATE_WINDOW_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_waits_for_more_only_while_more_is_coming_and_no_longer_than_its_window() {
        let millis = Duration::from_millis;
        let idle = Facts { interval: millis(250), ..Facts::default() };
        let changed = Facts { waited: Some(millis(10)), ..idle };
        let busy = Facts { has_more: true, ..changed };
        let late = Facts { lag_seconds: Some(3.0), ..busy };
        for (facts, is_due) in [
            (idle, false),
            (Facts { has_checkpoint: true, ..idle }, true),
            (Facts { is_full: true, ..idle }, true),
            (changed, true),
            (busy, false),
            (Facts { waited: Some(millis(249)), ..busy }, false),
            (Facts { waited: Some(millis(250)), ..busy }, true),
            (Facts { is_full: true, ..busy }, true),
            (Facts { has_checkpoint: true, ..busy }, true),
            (Facts { waited: Some(millis(1_499)), ..late }, false),
            (Facts { waited: Some(millis(1_500)), ..late }, true),
            (Facts { waited: Some(millis(1_999)), lag_seconds: Some(900.0), ..busy }, false),
            (Facts { waited: Some(millis(2_000)), lag_seconds: Some(900.0), ..busy }, true),
        ] {
            assert_eq!(facts.is_due(), is_due, "{facts:?}");
        }
    }
}
