//! Letting whoever waits for events go first. At its full speed a compaction takes what a small machine has, in stretches that
//! everybody else has to wait for. So while events come it takes one small step after the other, and rests after each for
//! several times as long; where none come it goes at full speed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::Compaction;
use crate::time::Time;

/// How much longer than a step took the rest after it is.
const REST_FACTOR: u32 = 3;
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(1);
/// So long after events came, more of them are waited for.
const LIVE_FOR: Duration = Duration::from_secs(1);
/// So long a compactor goes at this pace. Then it ends what it has begun at full speed: that has a limit of time.
const GENTLE_FOR: Duration = Duration::from_secs(60);

/// How often rows of a collection were written, and when that was last seen to have changed.
#[derive(Clone, Debug, Default)]
pub struct Liveliness(Arc<Mutex<(u64, Option<Duration>)>>);

/// At what pace a compactor works.
pub(crate) trait Pacing: Sync {
    /// Whether others wait for events meanwhile, so that steps are to be small.
    fn is_gentle(&self) -> bool;

    /// Takes a step, and rests if there is need.
    fn step<R: Send>(&self, work: impl Future<Output = R> + Send)
    -> impl Future<Output = R> + Send;
}

/// At full speed, since somebody waits for what is done.
impl Pacing for () {
    fn is_gentle(&self) -> bool {
        false
    }

    async fn step<R: Send>(&self, work: impl Future<Output = R> + Send) -> R {
        work.await
    }
}

/// Goes by what becomes of the collection meanwhile.
#[derive(Debug)]
pub(crate) struct Pace<'a, T> {
    compaction: &'a Compaction,
    time: &'a T,
    begun: Duration,
    /// One step at a time.
    turn: tokio::sync::Mutex<()>,
}

impl<'a, T: Time> Pace<'a, T> {
    pub(in crate::upkeep) fn new(compaction: &'a Compaction, time: &'a T) -> Self {
        Self { compaction, time, begun: time.now(), turn: tokio::sync::Mutex::new(()) }
    }
}

impl<T: Time> Pacing for Pace<'_, T> {
    fn is_gentle(&self) -> bool {
        let (flushes, now) = (self.compaction.observer.status().flushes, self.time.now());
        let mut seen = self.compaction.liveliness.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != flushes {
            *seen = (flushes, Some(now));
        }
        let is_early = now.saturating_sub(self.begun) < GENTLE_FOR;
        is_early && seen.1.is_some_and(|at| now.saturating_sub(at) < LIVE_FOR)
    }

    async fn step<R: Send>(&self, work: impl Future<Output = R> + Send) -> R {
        if !self.is_gentle() {
            return work.await;
        }
        let _turn = self.turn.lock().await;
        let begun = self.time.now();
        let done = work.await;
        let took = self.time.now().saturating_sub(begun);
        self.time.sleep((took * REST_FACTOR).min(REST_MAX)).await;
        done
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::watch, time::Instant};

    use super::*;
    use crate::{
        status::CollectionStatus, time::SystemTime, upkeep::compact::tests::compaction_of,
    };

    #[tokio::test(start_paused = true)]
    async fn where_events_come_small_steps_are_taken_one_by_one_with_rests_and_elsewhere_at_full_speed()
     {
        let status = Arc::new(watch::Sender::new(CollectionStatus::new("games")));
        let (compaction, time) = (compaction_of(&status), SystemTime::new());
        let work = Duration::from_millis(10);
        let two_steps = async || {
            // Each time by another compactor, as steps of a job are.
            let pace = Pace::new(&compaction, &time);
            let (begun, work) = (Instant::now(), async || time.sleep(work).await);
            tokio::join!(pace.step(work()), pace.step(work()));
            (pace.is_gentle(), begun.elapsed())
        };
        let full_speed = async || !two_steps().await.0 && two_steps().await.1 < 2 * work;
        assert!(full_speed().await);
        status.send_modify(|status| status.flushes += 1);
        let (is_gentle, took) = two_steps().await;
        assert!(is_gentle && took >= 2 * (1 + REST_FACTOR) * work, "{took:?}");
        assert!(two_steps().await.0, "it still knows");
        time.sleep(LIVE_FOR).await;
        assert!(full_speed().await);
        let late = Pace::new(&compaction, &time);
        status.send_modify(|status| status.flushes += 1);
        assert!(late.is_gentle());
        time.sleep(GENTLE_FOR).await;
        status.send_modify(|status| status.flushes += 1);
        assert!(!late.is_gentle() && Pace::new(&compaction, &time).is_gentle());
    }
}
