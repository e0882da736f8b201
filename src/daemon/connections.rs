//! Which HTTP connections stay when there are too many: pure, so that every rule can be tested without a
//! network. When the limit is reached the connection that has been idle for longest makes room, be it one
//! that has not sent its request yet or one that waits for the next. When all of them are being answered a few more are let in,
//! for health and metrics alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// How many connections are let in beyond the limit, for health and metrics.
pub(super) const RESERVE: usize = 8;

/// The open connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    max: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    /// Rises with everything that happens, to tell what came first.
    last: u64,
    slots: BTreeMap<u64, Slot>,
}

#[derive(Debug)]
struct Slot {
    /// Since when it is idle, or `None` while it is being answered.
    idle_since: Option<u64>,
    close: CancellationToken,
}

/// The place of one connection, given up when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    key: u64,
    /// Cancelled when it has to make room for another.
    pub(super) close: CancellationToken,
    /// Whether it came when there was only room for health and metrics.
    pub(super) probes_only: bool,
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Answering {
    connections: Connections,
    key: u64,
}

impl Connections {
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), open: Arc::default() }
    }

    /// A place for a new connection. It is always let in, if need be in the place of another.
    pub(super) fn admit(&self) -> Place {
        let mut open = self.open();
        if open.slots.len() >= self.max && !open.close_idlest() {
            let full = open.slots.len() >= self.max + RESERVE;
            if full {
                open.close_newest();
            }
        }
        let probes_only = open.slots.len() >= self.max;
        let key = open.next();
        let close = CancellationToken::new();
        open.slots.insert(key, Slot { idle_since: Some(key), close: close.clone() });
        Place { connections: self.clone(), key, close, probes_only }
    }

    /// Closes the connection that has been idle for longest, when there is one.
    pub(super) fn make_room(&self) -> bool {
        self.open().close_idlest()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn close_idlest(&mut self) -> bool {
        let idle = self.slots.iter().filter_map(|(key, slot)| Some((slot.idle_since?, *key)));
        let Some((_, key)) = idle.min() else { return false };
        self.close(key);
        true
    }

    /// All of them are being answered: of those that came beyond the limit, one gives way.
    fn close_newest(&mut self) {
        if let Some(key) = self.slots.keys().next_back().copied() {
            self.close(key);
        }
    }

    fn close(&mut self, key: u64) {
        if let Some(slot) = self.slots.remove(&key) {
            slot.close.cancel();
        }
    }
}

impl Place {
    /// Says that a request has come: from now on the connection is not idle.
    pub(super) fn answer(&self) -> Answering {
        let answering = Answering { connections: self.connections.clone(), key: self.key };
        answering.set(None);
        answering
    }

    /// Whether no request is being answered.
    pub(super) fn is_idle(&self) -> bool {
        let open = self.connections.open();
        open.slots.get(&self.key).is_none_or(|slot| slot.idle_since.is_some())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().slots.remove(&self.key);
    }
}

impl Answering {
    fn set(&self, idle_since: Option<u64>) {
        if let Some(slot) = self.connections.open().slots.get_mut(&self.key) {
            slot.idle_since = idle_since;
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let now = self.connections.open().next();
        self.set(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(places: &[&Place]) -> Vec<bool> {
        places.iter().map(|place| place.close.is_cancelled()).collect()
    }

    #[test]
    fn the_one_that_has_been_idle_for_longest_makes_room() {
        let connections = Connections::new(2);
        let (first, second) = (connections.admit(), connections.admit());
        // The first has been answered meanwhile, so that the second is idle for longer.
        drop(first.answer());
        let third = connections.admit();
        assert_eq!(closed(&[&first, &second, &third]), [false, true, false]);
        let fourth = connections.admit();
        assert_eq!(closed(&[&first, &third, &fourth]), [true, false, false]);
        assert!(!third.probes_only && !fourth.probes_only);
    }

    #[test]
    fn one_that_is_being_answered_stays_and_probes_come_in_beside_it() {
        let connections = Connections::new(1);
        let busy = connections.admit();
        let answering = busy.answer();
        assert!(!busy.is_idle());
        let probes: Vec<Place> = (0..RESERVE).map(|_| connections.admit()).collect();
        assert!(probes[0].probes_only);
        // Each took the place of the one before, since that was idle.
        assert_eq!(probes.iter().filter(|probe| !probe.close.is_cancelled()).count(), 1);
        assert!(!busy.close.is_cancelled());
        drop(answering);
        assert!(busy.is_idle());
        drop(probes);
        drop(busy);
        assert!(!connections.admit().probes_only);
    }

    #[test]
    fn the_reserve_has_an_end_even_when_everybody_is_being_answered() {
        let connections = Connections::new(1);
        let places: Vec<Place> = (0..=RESERVE).map(|_| connections.admit()).collect();
        // What was closed for room is gone; the rest of the loop fills the reserve with busy ones.
        drop(places);
        let mut busy = Vec::new();
        for _ in 0..=RESERVE {
            let place = connections.admit();
            let answering = place.answer();
            busy.push((place, answering));
        }
        assert!(busy.iter().all(|(place, _)| !place.close.is_cancelled()));
        let last = connections.admit();
        assert!(last.probes_only);
        let closed = busy.iter().filter(|(place, _)| place.close.is_cancelled()).count();
        assert_eq!(closed, 1);
        assert!(!busy[0].0.close.is_cancelled(), "the first one keeps its place");
    }

    #[test]
    fn room_can_be_made_below_the_limit_too() {
        let connections = Connections::new(10);
        assert!(!connections.make_room());
        let idle = connections.admit();
        assert!(connections.make_room());
        assert!(idle.close.is_cancelled());
    }
}
