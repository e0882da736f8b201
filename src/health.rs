//! Liveness: every loop of the daemon has a name and a limit, and says each time it turns. What has
//! not turned within its limit has stopped, whether it hangs, has ended or died. Trouble with the database is
//! no reason: an attempt has a time limit, and trying again is a turn.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::time::Time;

/// The longest that a loop waits for something before it says that it still turns.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Awaits `work`, however long it takes for reasons that are not the loop's own, and beats meanwhile.
pub async fn beating<V>(heart: &Heart, time: &impl Time, work: impl Future<Output = V>) -> V {
    tokio::pin!(work);
    loop {
        heart.beat(time.now());
        tokio::select! {
            biased;
            value = &mut work => return value,
            () = time.sleep(heart.pause()) => {}
        }
    }
}

/// All loops of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats(Arc<Mutex<Vec<Beating>>>);

/// The side of a loop: it beats on every turn. When it is dropped its loop has ended, and stays
/// registered: a loop that returns is as dead as one that hangs.
#[derive(Clone, Debug)]
pub struct Heart {
    last: Arc<AtomicU64>,
    limit: Duration,
}

#[derive(Debug)]
struct Beating {
    name: String,
    limit: Duration,
    last: Arc<AtomicU64>,
}

/// How a loop is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulse {
    /// The loop.
    pub name: String,
    /// Time since its last turn.
    pub silent: Duration,
    /// The longest that a turn may take.
    pub limit: Duration,
}

impl Heartbeats {
    /// Adds a loop that begins at `now` and then turns at least every `limit`. Times are those of one
    /// [`crate::time::Time::now`].
    pub fn register(&self, name: impl Into<String>, limit: Duration, now: Duration) -> Heart {
        let last = Arc::new(AtomicU64::new(millis(now)));
        let beating = Beating { name: name.into(), limit, last: last.clone() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(beating);
        Heart { last, limit }
    }

    /// Forgets a loop that was told to end, and has.
    pub fn forget(&self, heart: &Heart) {
        let mut beating = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        beating.retain(|beating| !Arc::ptr_eq(&beating.last, &heart.last));
    }

    /// The loops that have not turned within their limit, as of `now`.
    pub fn stopped(&self, now: Duration) -> Vec<Pulse> {
        let mut stopped = self.pulses(now);
        stopped.retain(|pulse| !pulse.is_alive());
        stopped
    }

    /// Every loop, as of `now`.
    pub fn pulses(&self, now: Duration) -> Vec<Pulse> {
        let beating = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pulse = |beating: &Beating| {
            let last = Duration::from_millis(beating.last.load(Ordering::Relaxed));
            let silent = now.saturating_sub(last);
            Pulse { name: beating.name.clone(), silent, limit: beating.limit }
        };
        beating.iter().map(pulse).collect()
    }
}

impl Heart {
    /// A heart that nobody listens to.
    pub fn unheard() -> Self {
        Self { last: Arc::default(), limit: Duration::MAX }
    }

    /// Says that the loop has turned.
    pub fn beat(&self, now: Duration) {
        self.last.fetch_max(millis(now), Ordering::Relaxed);
    }

    /// How long its loop may wait for something before it beats again.
    pub fn pause(&self) -> Duration {
        WAIT_MAX.min(self.limit / 4)
    }
}

impl Pulse {
    /// Whether the loop turns within its limit.
    pub fn is_alive(&self) -> bool {
        self.silent <= self.limit
    }

    /// Why the process is not alive, if this loop is the reason.
    pub fn complaint(&self) -> Option<String> {
        let Self { name, silent, limit } = self;
        let told = || {
            let (silent, limit) = (silent.as_secs(), limit.as_secs());
            format!("the loop `{name}` has not turned for {silent} s; its limit is {limit} s")
        };
        (!self.is_alive()).then(told)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn dead(beats: &Heartbeats, now: Duration) -> Vec<String> {
        beats.stopped(now).into_iter().map(|pulse| pulse.name).collect()
    }

    #[test]
    fn a_loop_is_dead_once_it_has_not_turned_within_its_own_limit() {
        let beats = Heartbeats::default();
        let quick = beats.register("quick", at(5), at(100));
        let _slow = beats.register("slow", at(50), at(100));
        assert_eq!(dead(&beats, at(105)), [""; 0]);
        assert_eq!(dead(&beats, at(106)), ["quick"]);
        quick.beat(at(106));
        assert_eq!(dead(&beats, at(111)), [""; 0]);
        assert_eq!(dead(&beats, at(151)), ["quick", "slow"]);
    }

    #[test]
    fn a_loop_that_ended_turns_dead_too() {
        let beats = Heartbeats::default();
        drop(beats.register("ended", at(5), at(0)));
        assert_eq!(dead(&beats, at(6)), ["ended"]);
    }

    #[test]
    fn a_loop_that_was_told_to_end_is_forgotten() {
        let beats = Heartbeats::default();
        let ended = beats.register("ended", at(5), at(0));
        let _stopped = beats.register("stopped", at(5), at(0));
        beats.forget(&ended);
        assert_eq!(dead(&beats, at(6)), ["stopped"]);
    }

    #[test]
    fn an_old_beat_does_not_undo_a_newer_one() {
        let beats = Heartbeats::default();
        let heart = beats.register("loop", at(5), at(0));
        heart.beat(at(10));
        heart.beat(at(3));
        assert_eq!(dead(&beats, at(15)), [""; 0]);
    }
}
