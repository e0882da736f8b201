//! Which way to catch up with a backlog: through the change stream, which brings exactly what is new, or with a scan of
//! the whole log, which takes an event many times quicker. What is new is folded and written either way; what comes on
//! top was measured (benches/README.md):
//!
//! | | µs |
//! |---|---|
//! | the stream, for each event that is new: the one thread of the server that feeds it | 8 |
//! | a scan, for each event of the log | 0.5 to 1 |
//! | beside a scan, for each row of a projected document | 1.5 |
//!
//! So a scan is quicker where `8 × new > events + 1.5 × documents`. With one event of each document, where it costs most,
//! that is when 31 % of the log is new; with ten of each 14 %, with very many 13 %. How many documents there are is not
//! asked: a quarter of the log has to be new. Each part of a divided collection scans the whole log by itself, which costs as
//! much as one scan of so many logs; so of more than four parts none ever does. And a backlog that the stream brings in a
//! fraction of a second is not worth the question.
//!
//! How many events are new is how many the log holds, less how many it held up to the place to go on from. Both are about
//! right, and may be wrong: the server's own count is off after it crashed, and knows events that the majority
//! has not got yet; events may have been deleted. What they decide is how long something takes, and
//! nothing else: a scan and the stream lead to the same documents from any place.

use std::time::Duration;

use tracing::{debug, info};

use crate::{
    database::Result,
    log::EventLog,
    model::part::Part,
    projector::{documents::Documents, progress::Progress},
    store::Store,
    time::Time,
};

/// How many events of the log are scanned in the time that the stream takes for one: fewer than it does at best, since
/// the rows are read as well.
const SCANNED_PER_STREAMED: u64 = 4;
/// The shortest time between two counts of what a tail that is level has passed.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);

/// When a backlog is scanned.
#[derive(Clone, Copy, Debug)]
pub struct BacklogSettings {
    /// A backlog of fewer events comes through the stream, however small the log.
    pub events_min: u64,
    /// A tail that is less late is not looked at.
    pub lag_min: Duration,
    /// The shortest time between two looks at a tail that is late.
    pub look_interval: Duration,
}

impl Default for BacklogSettings {
    fn default() -> Self {
        Self {
            events_min: 20_000,
            lag_min: Duration::from_secs(5),
            look_interval: Duration::from_secs(10),
        }
    }
}

/// What lies between a place in the stream and the end of the log.
#[derive(Clone, Copy, Debug)]
pub(in crate::projector) struct Backlog {
    /// About how many events are new.
    pub(in crate::projector) new: u64,
    /// About how many events the log holds.
    pub(in crate::projector) events: u64,
}

impl Backlog {
    /// What follows the place that so many events precede.
    fn after(passed: u64, events: u64) -> Self {
        Self { new: events.saturating_sub(passed), events }
    }

    /// Whether a part takes less time to scan the log than to get what is new through the stream.
    fn is_scanned_sooner(self, part: Part, settings: BacklogSettings) -> bool {
        let scanned = self.events.saturating_mul(u64::from(part.of));
        self.new >= settings.events_min && self.new.saturating_mul(SCANNED_PER_STREAMED) >= scanned
    }
}

/// What is new to a part that has passed so many events, where it is better scanned; `None` where it is not, or where that
/// is not known.
pub(in crate::projector) async fn to_scan(
    log: &impl EventLog,
    passed: Option<u64>,
    part: Part,
    settings: BacklogSettings,
) -> Option<Backlog> {
    let passed = passed?;
    let backlog = Backlog::after(passed, known(log.estimated_events().await)?);
    backlog.is_scanned_sooner(part, settings).then_some(backlog)
}

/// Nothing depends on a count: one that cannot be had is not waited for.
fn known(count: Result<u64>) -> Option<u64> {
    count.inspect_err(|error| debug!(%error, "the events of the log are not counted")).ok()
}

/// How a projection stands.
#[derive(Clone, Copy, Debug)]
pub(in crate::projector) struct Stands {
    pub(in crate::projector) is_scanning: bool,
    /// Whether everything that there is is written.
    pub(in crate::projector) is_level: bool,
    /// How late it is, if that is known.
    pub(in crate::projector) lag_seconds: Option<f64>,
}

/// When a run looks again at how many events the log holds.
#[derive(Debug)]
pub(in crate::projector) struct Looks {
    /// To know how many it has passed, if it is caught up then.
    count_at: Duration,
    /// To see how many are new, if it is late then.
    look_at: Duration,
    /// Since when the scan under way goes on.
    scanning_since: Option<Duration>,
}

impl Looks {
    /// Those of a run that begins at `now`.
    pub(in crate::projector) fn new(now: Duration) -> Self {
        Self { count_at: now, look_at: now, scanning_since: None }
    }

    /// A scan is under way; whether the log is to be counted. What was there when the scan began, it sees; what comes later,
    /// the stream brings.
    fn scanning(&mut self, now: Duration) -> bool {
        self.scanning_since.is_none() && self.scanning_since.replace(now).is_none()
    }

    /// No scan is under way. After one nobody looks for as long as it took: scans never take more than half of the time,
    /// however wrong the counts.
    fn tailing(&mut self, now: Duration, interval: Duration) {
        if let Some(since) = self.scanning_since.take() {
            self.look_at = now + now.saturating_sub(since).max(interval);
        }
    }

    /// Whether a tail that is level is to count what it has passed.
    fn is_count_due(&mut self, now: Duration) -> bool {
        let is_due = now >= self.count_at;
        if is_due {
            self.count_at = now + COUNT_INTERVAL;
        }
        is_due
    }

    /// Whether a look at a late tail is due.
    fn is_look_due(&mut self, now: Duration, interval: Duration) -> bool {
        let is_due = now >= self.look_at;
        if is_due {
            self.look_at = now + interval;
        }
        is_due
    }

    /// Looks from time to time at how large the log is. True when the tail is so far behind that a scan is quicker: it has to
    /// end then, and what begins next decides the same.
    pub(in crate::projector) async fn are_left_behind<L: EventLog, D: Store, T: Time>(
        &mut self,
        documents: &mut Documents<L, D, T>,
        progress: &mut Progress,
        (stands, settings): (Stands, BacklogSettings),
    ) -> bool {
        let now = documents.ask.time.now();
        if stands.is_scanning {
            if self.scanning(now) {
                progress.counted(known(documents.ask.count().await));
            }
            return false;
        }
        self.tailing(now, settings.look_interval);
        let is_late = stands.lag_seconds.is_some_and(|lag| lag > settings.lag_min.as_secs_f64());
        if stands.is_level && self.is_count_due(now) {
            progress.counted(known(documents.ask.count().await));
        } else if let Some(passed) = progress.passed_events()
            && is_late
            && self.is_look_due(now, settings.look_interval)
            && let Some(events) = known(documents.ask.count().await)
        {
            let backlog = Backlog::after(passed, events);
            let Backlog { new, events } = backlog;
            if backlog.is_scanned_sooner(documents.part, settings) {
                let collection = documents.ask.observer.collection();
                info!(collection, part = %documents.part, new, events, "left behind by the writers: beginning again");
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_log_for_each_part_has_to_be_new_before_it_is_scanned() {
        let settings = BacklogSettings { events_min: 100, ..BacklogSettings::default() };
        for (passed, events, parts, is_scanned) in [
            (0, 100, 1, true),
            (0, 99, 1, false),
            (300, 400, 1, true),
            (301, 401, 1, false),
            (3_000, 4_000, 1, true),
            (3_001, 4_000, 1, false),
            (3_000, 4_000, 2, false),
            (2_000, 4_000, 2, true),
            (0, 4_000, 4, true),
            (0, 4_000, 5, false),
            // Events were deleted, or the server miscounts.
            (5_000, 4_000, 1, false),
            (0, u64::MAX, 4, true),
        ] {
            let part = Part { index: 0, of: parts };
            let found = Backlog::after(passed, events).is_scanned_sooner(part, settings);
            assert_eq!(found, is_scanned, "{passed} passed of {events}, {parts} parts");
        }
    }

    #[test]
    fn after_a_scan_nobody_looks_for_as_long_as_it_took() {
        let seconds = Duration::from_secs;
        let mut looks = Looks::new(seconds(0));
        assert!(looks.is_look_due(seconds(0), seconds(10)));
        assert!(!looks.is_look_due(seconds(9), seconds(10)));
        assert!(looks.is_look_due(seconds(10), seconds(10)));
        assert!(looks.scanning(seconds(11)) && !looks.scanning(seconds(12)));
        looks.tailing(seconds(100), seconds(10));
        looks.tailing(seconds(101), seconds(10));
        assert!(!looks.is_look_due(seconds(101), seconds(10)), "the scan has just ended");
        assert!(!looks.is_look_due(seconds(188), seconds(10)));
        assert!(looks.is_look_due(seconds(189), seconds(10)));
    }
}
