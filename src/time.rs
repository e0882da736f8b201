//! Time as it is handed to whatever waits or measures, so that the same code runs against the
//! machine's clocks and under a simulation's virtual ones.

use std::{future::Future, time::Duration};

use bson::DateTime;

/// A source of time.
pub trait Time: Clone + Send + Sync + 'static {
    /// Monotonic time since some fixed moment. Comparable only within one process.
    fn now(&self) -> Duration;

    /// The wall clock. For people and for lag, never for decisions of safety.
    fn wall(&self) -> DateTime;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// The machine's clocks, through tokio.
#[derive(Clone, Copy, Debug)]
pub struct SystemTime {
    start: tokio::time::Instant,
}

impl SystemTime {
    /// Starts counting now.
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
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
        DateTime::now()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }
}
