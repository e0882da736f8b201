//! Trying again, in one way everywhere: growing pauses with jitter, on the handed time, for exactly
//! those errors that the table of `database` calls passing.

use std::{future::Future, time::Duration};

use backon::{ExponentialBuilder, Retryable};

use crate::{
    database::{Error, Result, Verdict},
    time::Time,
};

/// How long to pause between attempts.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first pause.
    pub shortest: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// Seeds the jitter, so that a simulation replays.
    pub seed: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            shortest: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            seed: fastrand::u64(..),
        }
    }
}

impl Backoff {
    /// Runs `operation` until it succeeds or fails for good. Every failure that is tried again is
    /// told to `report` first.
    ///
    /// # Errors
    /// The first error whose verdict is not [`Verdict::Retry`].
    pub async fn retry<T, F: Future<Output = Result<T>>>(
        &self,
        time: &impl Time,
        report: impl FnMut(&Error, Duration),
        operation: impl FnMut() -> F,
    ) -> Result<T> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(self.shortest)
            .with_max_delay(self.longest)
            .with_jitter()
            .with_jitter_seed(self.seed)
            .without_max_times();
        let time = time.clone();
        operation
            .retry(pauses)
            .sleep(move |pause| {
                let time = time.clone();
                async move { time.sleep(pause).await }
            })
            .when(|error: &Error| error.verdict() == Verdict::Retry)
            .notify(report)
            .await
    }
}
