//! Trying again, in one way everywhere: growing pauses with jitter, on the handed time, for exactly
//! those errors that the table of `database` calls passing.

use std::{future::Future, time::Duration};

use backon::{ExponentialBuilder, Retryable};

use crate::{
    database::{Error, Result, Verdict},
    time::Time,
};

/// Longer than any request that is merely slow.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);

/// Awaits `attempt`, but no longer than `limit`.
///
/// # Errors
/// Its own, or that the database did not answer in time: the outcome is then unknown.
pub async fn limited<T>(
    time: &impl Time,
    limit: Duration,
    attempt: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        result = attempt => result,
        () = time.sleep(limit) => {
            Err(Error::unreachable(format!("the database did not answer within {} s", limit.as_secs())))
        }
    }
}

/// How long to pause between attempts.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first pause.
    pub shortest: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// How long one attempt may take before it counts as failed, with its outcome unknown.
    pub attempt_limit: Duration,
    /// Seeds the jitter, so that a simulation replays.
    pub seed: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            shortest: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            attempt_limit: ATTEMPT_LIMIT,
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
        mut operation: impl FnMut() -> F,
    ) -> Result<T> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(self.shortest)
            .with_max_delay(self.longest)
            .with_jitter()
            .with_jitter_seed(self.seed)
            .without_max_times();
        let limit = self.attempt_limit;
        let attempts = || limited(time, limit, operation());
        let time = time.clone();
        attempts
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
