//! Time as it is handed to whatever waits or measures, so that the same code runs against the
//! machine's clocks and under a simulation's virtual ones.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bson::DateTime;

/// A source of time.
pub trait Time: Clone + Send + Sync + 'static {
    /// Monotonic time since some fixed moment. Comparable only within one process.
    fn now(&self) -> Duration;

    /// The wall clock: the machine's, until the server's is heard of. For people and for lag, never for decisions of
    /// safety.
    fn wall(&self) -> DateTime;

    /// The server's clock showed `server` at some moment between `asked`, of the monotonic time, and now.
    fn heard(&self, server: DateTime, asked: Duration);

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// A wall clock that goes on with the monotonic time and is set by the server's. What the machine's shows later, and
/// how it is put right, does not matter. Clones are one clock.
#[derive(Clone, Debug)]
pub struct Wall {
    /// What it showed at the beginning of the monotonic time, in milliseconds since 1970.
    beginning: Arc<AtomicI64>,
}

impl Wall {
    /// A clock that shows `wall` when the monotonic time is `now`.
    pub fn new(wall: DateTime, now: Duration) -> Self {
        Self { beginning: Arc::new(AtomicI64::new(wall.timestamp_millis() - millis(now))) }
    }

    /// What it shows when the monotonic time is `now`.
    pub fn at(&self, now: Duration) -> DateTime {
        DateTime::from_millis(self.beginning.load(Ordering::Relaxed) + millis(now))
    }

    /// Sets it, no further than is certain: the server's clock showed `server` somewhere between `asked` and `now`.
    pub fn hear(&self, server: DateTime, (asked, now): (Duration, Duration)) {
        let (first, last) = (millis(now), millis(asked));
        let server = server.timestamp_millis();
        let shown = self.beginning.load(Ordering::Relaxed);
        self.beginning.store(shown.max(server - first).min(server - last), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The machine's clocks, through tokio. Clones are one clock.
#[derive(Clone, Debug)]
pub struct SystemTime {
    start: tokio::time::Instant,
    wall: Wall,
}

impl SystemTime {
    /// Starts counting now.
    pub fn new() -> Self {
        Self::at(DateTime::now())
    }

    /// The same on a machine whose wall clock shows `wall` now.
    pub fn at(wall: DateTime) -> Self {
        Self { start: tokio::time::Instant::now(), wall: Wall::new(wall, Duration::ZERO) }
    }
}

impl Default for SystemTime {
    fn default() -> Self {
        Self::new()
    }
}

impl Time for SystemTime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> DateTime {
        self.wall.at(self.now())
    }

    fn heard(&self, server: DateTime, asked: Duration) {
        self.wall.hear(server, (asked, self.now()));
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_is_set_as_far_as_the_server_is_known() {
        let seconds = Duration::from_secs;
        let at = |seconds: i64| DateTime::from_millis(seconds * 1_000);
        // The machine is an hour ahead. Between 10 and 12 the server showed 100, which is when it is 102 at most.
        let wall = Wall::new(at(3_600), Duration::ZERO);
        wall.hear(at(100), (seconds(10), seconds(12)));
        assert_eq!(wall.at(seconds(12)), at(102));
        // What is known more exactly narrows it, and what is known less exactly leaves it.
        wall.hear(at(110), (seconds(21), seconds(21)));
        assert_eq!(wall.at(seconds(21)), at(110));
        wall.hear(at(120), (seconds(30), seconds(40)));
        assert_eq!(wall.at(seconds(40)), at(129));
        // Another server became primary, an hour behind.
        wall.hear(at(-3_480), (seconds(30), seconds(31)));
        assert_eq!(wall.at(seconds(31)), at(-3_479));
        wall.hear(at(120), (seconds(30), seconds(31)));
        assert_eq!(wall.at(seconds(31)), at(120));
    }
}
