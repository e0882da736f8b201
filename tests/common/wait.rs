//! Waiting on a condition: the only place in the tests that may sleep.

use std::time::{Duration, Instant};

/// Long enough for a machine with two shared cores; only a failing test ever waits it out.
const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Panics
/// With `what` when it has not come true within a minute.
pub async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    wait_for(what, async || condition().await.then_some(())).await;
}

/// Waits until `look` finds something, and hands it out.
///
/// # Panics
/// With `what` when nothing was found within a minute.
pub async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {LIMIT:?} in vain: {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}
