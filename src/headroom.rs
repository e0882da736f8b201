//! How long the oplog will still hold each checkpoint. A daemon that was away for longer loses nothing:
//! it scans the log. But that takes its time. An operator who is told in time can make the oplog
//! larger, or the daemon faster.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bson::{RawDocumentBuf, Timestamp, doc};
use mongodb::Database;
use tracing::debug;

use crate::{
    database::{Error, Result},
    health::{Heart, beating},
    observe::Observer,
    retry::{ATTEMPT_LIMIT, limited},
    status::Headroom,
    store::mongo::resume_point,
    time::Time,
};

/// How often to look. Every look reads two entries of the oplog and the checkpoints.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// A checkpoint in the oldest tenth of a full oplog is worth a warning.
const WARNING_SHARE: f64 = 0.1;

/// With less of a full oplog before a checkpoint, nothing is done that moves the oplog and can wait.
const SHORT_SHARE: f64 = 0.5;

/// How many beginnings of the oplog are remembered. The oplog forgets in large pieces with long pauses
/// between them, so a few seconds say nothing about the rate.
const BEGINNINGS_MAX: usize = 16;

/// What the oplog holds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Window {
    first: Timestamp,
    last: Timestamp,
}

/// Looks at the oplog until it is cancelled, and tells each collection's observer.
pub async fn watch<T: Time>(
    database: Database,
    observers: HashMap<String, Observer>,
    time: T,
    heart: Heart,
) {
    let mut forgetting = Forgetting::default();
    loop {
        let attempt = limited(&time, ATTEMPT_LIMIT, window(&database));
        match beating(&heart, &time, attempt).await {
            Ok(window) => {
                let rate = forgetting.see(window.first, time.now());
                for (name, observer) in &observers {
                    let look = look(&database, name, &time, &window, rate);
                    observer.headroom(beating(&heart, &time, look).await);
                }
            }
            // Unknown is not zero. And a right that is missing would be logged for ever: no warning.
            Err(error) => {
                debug!(%error, "the oplog cannot be read: its headroom is unknown");
                observers.values().for_each(|observer| observer.headroom(None));
            }
        }
        beating(&heart, &time, time.sleep(LOOK_INTERVAL)).await;
    }
}

async fn look(
    database: &Database,
    collection: &str,
    time: &impl Time,
    window: &Window,
    rate: f64,
) -> Option<Headroom> {
    let saved = limited(time, ATTEMPT_LIMIT, resume_point(database, collection)).await;
    Some(window.headroom(saved.ok()??.cluster_time, rate))
}

async fn window(database: &Database) -> Result<Window> {
    let oplog = database.client().database("local").collection::<RawDocumentBuf>("oplog.rs");
    let end = async |order: i32| {
        let find = oplog.find_one(doc! {}).sort(doc! { "$natural": order });
        let entry = find.projection(doc! { "ts": 1 }).await?;
        let entry = entry.ok_or_else(|| Error::damaged("the oplog is empty"))?;
        Ok::<_, Error>(entry.get_timestamp("ts")?)
    };
    Ok(Window { first: end(1).await?, last: end(-1).await? })
}

/// The beginnings that the oplog has had lately, each with when it was first seen.
#[derive(Debug, Default)]
struct Forgetting(VecDeque<(Timestamp, Duration)>);

impl Forgetting {
    /// Notes where the oplog begins at `now`. Returns how many seconds of history it has lately
    /// forgotten in each second.
    fn see(&mut self, first: Timestamp, now: Duration) -> f64 {
        if self.0.back().is_none_or(|(known, _)| *known != first) {
            self.0.push_back((first, now));
        }
        if self.0.len() > BEGINNINGS_MAX {
            self.0.pop_front();
        }
        let Some((before, at)) = self.0.front() else { return 0.0 };
        let forgotten = first.time.saturating_sub(before.time);
        f64::from(forgotten) / now.saturating_sub(*at).as_secs_f64().max(1.0)
    }
}

impl Window {
    fn headroom(&self, checkpoint: Timestamp, rate: f64) -> Headroom {
        let seconds = f64::from(checkpoint.time) - f64::from(self.first.time);
        let whole = f64::from(self.last.time) - f64::from(self.first.time);
        // While the oplog is not full it forgets nothing, and will hold more than it does now.
        let lost_in_seconds = (rate > 0.0).then(|| (seconds / rate).max(0.0));
        let is_below = |share: f64| lost_in_seconds.is_some() && seconds < whole * share;
        let (is_low, is_short) = (is_below(WARNING_SHARE), is_below(SHORT_SHARE));
        Headroom { seconds, lost_in_seconds, is_low, is_short }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u32) -> Timestamp {
        Timestamp { time, increment: 1 }
    }

    fn window(first: u32, last: u32) -> Window {
        Window { first: at(first), last: at(last) }
    }

    const fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_checkpoint_near_the_end_of_a_full_oplog_is_warned_of_with_the_time_that_is_left() {
        let low = window(1_020, 5_000).headroom(at(1_320), 2.0);
        let (seconds, lost_in_seconds) = (300.0, Some(150.0));
        let expected = Headroom { seconds, lost_in_seconds, is_low: true, is_short: true };
        assert_eq!(low, expected);
        let better = window(1_020, 5_000).headroom(at(1_520), 2.0);
        assert_eq!((better.is_low, better.is_short), (false, true));
        assert!(!window(1_020, 5_000).headroom(at(3_020), 2.0).is_short);
    }

    #[test]
    fn an_oplog_that_forgets_in_pieces_is_judged_over_several_of_them() {
        let mut forgetting = Forgetting::default();
        assert_eq!(forgetting.see(at(1_000), after(0)), 0.0);
        assert_eq!(forgetting.see(at(1_000), after(90)), 0.0);
        // A hundred seconds of the past at once, every hundred seconds.
        assert_eq!(forgetting.see(at(1_100), after(100)), 1.0);
        for piece in 2..=40 {
            for second in (0..100).step_by(10) {
                let rate =
                    forgetting.see(at(1_000 + 100 * piece), after(u64::from(100 * piece + second)));
                assert!((0.5..=1.0).contains(&rate), "{rate} at piece {piece}, second {second}");
            }
        }
        // When nothing more is written nothing more is forgotten.
        assert!(forgetting.see(at(5_000), after(40_000)) < 0.05);
    }

    #[test]
    fn an_oplog_that_forgets_nothing_is_no_reason_to_warn() {
        let headroom = window(1_000, 1_020).headroom(at(1_001), 0.0);
        let (seconds, lost_in_seconds) = (1.0, None);
        let expected = Headroom { seconds, lost_in_seconds, is_low: false, is_short: false };
        assert_eq!(headroom, expected);
    }

    #[test]
    fn a_checkpoint_that_has_left_the_oplog_has_less_than_nothing() {
        let headroom = window(1_000, 2_000).headroom(at(900), 1.0);
        assert_eq!(headroom.seconds, -100.0);
        assert_eq!((headroom.lost_in_seconds, headroom.is_low), (Some(0.0), true));
    }
}
