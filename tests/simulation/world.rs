//! The in-memory replica set: an oplog with cluster times, a majority point that lags behind it, what
//! the primary holds and what a majority read sees, collections with identities, and an oplog window.
//! Only state and its rules; who waits for what, and what goes wrong, is for the other modules.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bson::{RawDocumentBuf, Timestamp, Uuid};

use super::{
    bases::Known,
    executor::{EPOCH_MILLIS, Sim},
};
use crate::{
    database::Error,
    model::{
        event::EventKey,
        id::DocumentId,
        part::Part,
        position::{Checkpoint, LogId},
        skip::Skip,
    },
    store::{Lease, LeaseName, Presence, QuarantineRow},
};

/// The collection that everything in the simulation projects.
pub(super) const COLLECTION: &str = "games";
/// Its log.
pub(super) const EVENTS: &str = "games.events";

/// The key of a row, in the order of the server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Event(EventKey),
    Document(DocumentId),
    Checkpoint(Part),
    Format,
    Layout,
    Lease(LeaseName),
    Presence(String),
    /// A late event on record, by when that was.
    Late(EventKey, usize),
}

/// A row. What is not BSON here has no bytes that the simulation would look at.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Row {
    Raw(RawDocumentBuf),
    Checkpoint(Checkpoint),
    Format(i64),
    Layout(u32),
    Quarantine(QuarantineRow),
    Skip(Skip),
    Lease(Lease),
    Presence(Presence),
}

impl Row {
    pub(super) fn raw(&self) -> Option<&RawDocumentBuf> {
        match self {
            Self::Raw(raw) => Some(raw),
            _ => None,
        }
    }
}

/// A collection of the server.
#[derive(Clone, Debug)]
pub(super) struct Collection {
    pub(super) id: LogId,
    pub(super) rows: BTreeMap<Key, Row>,
}

/// One change as the oplog holds it.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Put {
        collection: String,
        key: Key,
        row: Row,
    },
    /// Of a row that is there already, which a stream over inserts does not tell.
    Replace {
        collection: String,
        key: Key,
        row: Row,
    },
    Delete {
        collection: String,
        key: Key,
    },
    Create {
        collection: String,
        id: LogId,
    },
    Drop {
        collection: String,
    },
    Rename {
        from: String,
        to: String,
    },
    /// The server's own heartbeat in an idle oplog.
    Noop,
}

/// What happened at one cluster time: one change, or all of a transaction's.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) time: Timestamp,
    pub(super) ops: Vec<Op>,
}

/// The collections at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Data {
    pub(super) collections: BTreeMap<String, Collection>,
}

impl Data {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Put { collection, key, row } | Op::Replace { collection, key, row } => {
                if let Some(collection) = self.collections.get_mut(collection) {
                    collection.rows.insert(key.clone(), row.clone());
                }
            }
            Op::Delete { collection, key } => {
                if let Some(collection) = self.collections.get_mut(collection) {
                    collection.rows.remove(key);
                }
            }
            Op::Create { collection, id } => {
                let empty = Collection { id: *id, rows: BTreeMap::new() };
                self.collections.insert(collection.clone(), empty);
            }
            Op::Drop { collection } => drop(self.collections.remove(collection)),
            Op::Rename { from, to } => {
                if let Some(moved) = self.collections.remove(from) {
                    self.collections.insert(to.clone(), moved);
                }
            }
            Op::Noop => {}
        }
    }

    pub(super) fn get(&self, collection: &str, key: &Key) -> Option<&Row> {
        self.collections.get(collection)?.rows.get(key)
    }

    /// The events of one document above `after`, ascending, but for what has no readable key.
    pub(super) fn events(
        &self,
        document: &DocumentId,
        after: i64,
    ) -> impl Iterator<Item = (i64, &RawDocumentBuf)> {
        let from = Key::Event(EventKey { document: document.clone(), version: after + 1 });
        let to = Key::Event(EventKey { document: document.clone(), version: i64::MAX });
        let rows = self.collections.get(EVENTS).map(|events| events.rows.range(from..=to));
        rows.into_iter().flatten().filter_map(|(key, row)| match (key, row.raw()) {
            (Key::Event(key), Some(raw)) if EventKey::from_event(raw).is_ok() => {
                Some((key.version, raw))
            }
            _ => None,
        })
    }
}

/// The state of the replica set.
pub(super) struct State {
    /// The archives, which outlive everything.
    pub(super) archives: super::archive::Archives,
    /// Everything that happened and was not rolled back, also what the oplog has long forgotten.
    pub(super) oplog: Vec<Entry>,
    /// How many entries the majority has.
    pub(super) committed: usize,
    /// How many entries the node that answers reads knows the majority to have.
    pub(super) seen: usize,
    /// The first entry that the oplog still holds.
    pub(super) window: usize,
    /// Rises with every election; cursors do not outlive one.
    pub(super) term: u64,
    /// While set, the majority point stands still.
    pub(super) stalled: bool,
    /// While set, the node that answers does not learn of the majority point.
    pub(super) lagging: bool,
    /// Until then nobody gets an answer.
    pub(super) frozen_until: Duration,
    /// A validator of the user's on the projected documents: rows whose state has this name are refused.
    pub(super) refused_name: Option<String>,
    /// The log has another name for now, and writers may not make one in its place.
    pub(super) log_is_aside: bool,
    /// By how much every count of rows is off.
    pub(super) miscounted: i64,
    /// As the primary has it, the majority or not.
    pub(super) latest: Data,
    /// As majority reads see it.
    pub(super) visible: Data,
    /// What is known for the compaction of the log, in runs where it is compacted.
    pub(super) compaction: Known,
    /// Every event that the majority ever had, by the log it was in.
    pub(super) archive: BTreeMap<LogId, BTreeMap<EventKey, RawDocumentBuf>>,
    committed_log: Option<LogId>,
    last_time: Timestamp,
    last_uuid: u8,
}

/// A handle on the replica set.
#[derive(Clone)]
pub(super) struct World {
    pub(super) sim: Sim,
    state: Arc<Mutex<State>>,
}

/// A write that waits for the majority.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    entry: usize,
    pub(super) time: Timestamp,
}

impl World {
    pub(super) fn new(sim: &Sim) -> Self {
        let state = State {
            archives: super::archive::Archives::default(),
            oplog: Vec::new(),
            committed: 0,
            seen: 0,
            window: 0,
            term: 1,
            stalled: false,
            lagging: false,
            frozen_until: Duration::ZERO,
            refused_name: None,
            log_is_aside: false,
            miscounted: 0,
            latest: Data::default(),
            visible: Data::default(),
            compaction: Known::default(),
            archive: BTreeMap::new(),
            committed_log: None,
            last_time: Timestamp { time: 0, increment: 0 },
            last_uuid: 0,
        };
        let world = Self { sim: sim.clone(), state: Arc::new(Mutex::new(state)) };
        let mut state = world.state();
        for collection in [
            EVENTS,
            "others.events",
            COLLECTION,
            super::store::CHECKPOINTS,
            super::store::QUARANTINE,
            super::skips::SKIPS,
            super::leases::LEASES,
            super::layouts::META,
        ] {
            let id = state.new_id();
            state.append(sim.now(), vec![Op::Create { collection: collection.into(), id }]);
        }
        state.commit(usize::MAX);
        drop(state);
        world
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes a change on the primary.
    pub(super) fn apply(&self, ops: Vec<Op>) -> Ticket {
        let ticket = self.state().append(self.sim.now(), ops);
        self.sim.changed();
        ticket
    }

    /// Waits until the majority has the change.
    ///
    /// # Errors
    /// When it was rolled back: the outcome that a client sees is a broken connection.
    pub(super) async fn majority(&self, ticket: Ticket) -> Result<(), Error> {
        let world = self.clone();
        self.sim
            .until(move || {
                let state = world.state();
                match state.oplog.get(ticket.entry) {
                    Some(entry) if entry.time == ticket.time => {
                        (state.committed > ticket.entry).then_some(Ok(()))
                    }
                    _ => Some(Err(Error::unreachable("the primary stepped down"))),
                }
            })
            .await
    }

    /// Waits until majority reads see everything up to `time`, as a read after a cluster time does.
    pub(super) async fn causal(&self, time: Timestamp) {
        let world = self.clone();
        self.sim
            .until(move || {
                let state = world.state();
                let last = state.seen.checked_sub(1).map(|last| state.oplog[last].time);
                (last >= Some(time)).then_some(())
            })
            .await;
    }

    /// Nobody gets an answer for `time`.
    pub(super) fn freeze(&self, time: Duration) {
        let until = self.sim.now() + time;
        let mut state = self.state();
        state.frozen_until = state.frozen_until.max(until);
    }

    /// Completes when the server works.
    pub(super) async fn thawed(&self) {
        loop {
            let left = self.state().frozen_until.saturating_sub(self.sim.now());
            if left.is_zero() {
                return;
            }
            self.sim.sleep(left).await;
        }
    }

    /// Another node answers from now on, which lags behind by `entries` and does not catch up yet.
    pub(super) fn elect(&self, entries: usize) {
        let mut state = self.state();
        // It knows at least of the collections.
        let seen = state.seen.saturating_sub(entries).max(7).min(state.seen);
        state.elect(seen);
        state.lagging = true;
    }

    /// Lets the majority point and then what reads see catch up with the oplog, again and again.
    pub(super) async fn replicate(self) {
        let mut rng = self.sim.rng(0x5EED_0001);
        loop {
            let world = self.clone();
            let target = self.sim.until(move || world.state().behind()).await;
            let pause = if rng.u8(..4) == 0 { rng.u64(5..60) } else { rng.u64(1..5) };
            self.sim.sleep(Duration::from_millis(pause)).await;
            // Often only a part of what is there: the point moves entry by entry.
            let mut state = self.state();
            let reach = state.committed.min(target) + rng.usize(0..=3);
            let upto = if rng.bool() { target } else { reach.min(target) };
            state.commit(upto);
            drop(state);
            self.sim.changed();
        }
    }

    /// Writes the heartbeat of an idle primary, without which causal reads could wait for ever.
    pub(super) async fn heartbeat(self) {
        loop {
            self.sim.sleep(Duration::from_secs(2)).await;
            self.apply(vec![Op::Noop]);
        }
    }
}

impl State {
    fn append(&mut self, now: Duration, ops: Vec<Op>) -> Ticket {
        let seconds = (EPOCH_MILLIS / 1000) as u32 + now.as_secs() as u32;
        let last = self.last_time;
        let time = if last.time >= seconds {
            Timestamp { time: last.time, increment: last.increment + 1 }
        } else {
            Timestamp { time: seconds, increment: 1 }
        };
        ops.iter().for_each(|op| self.latest.apply(op));
        self.last_time = time;
        self.oplog.push(Entry { time, ops });
        Ticket { entry: self.oplog.len() - 1, time }
    }

    /// The newest change on the primary.
    pub(super) fn last(&self) -> Ticket {
        Ticket { entry: self.oplog.len() - 1, time: self.oplog[self.oplog.len() - 1].time }
    }

    /// What replication could move to, if there is anything to move.
    fn behind(&self) -> Option<usize> {
        let target = if self.stalled { self.committed } else { self.oplog.len() };
        let seen = if self.lagging { self.seen } else { target };
        (self.committed < target || self.seen < seen).then_some(target)
    }

    /// Moves the majority point to `upto`, and what reads see with it.
    pub(super) fn commit(&mut self, upto: usize) {
        let upto = upto.min(self.oplog.len());
        while !self.stalled && self.committed < upto {
            self.archive_entry(self.committed);
            self.committed += 1;
        }
        if !self.lagging {
            for at in self.seen..self.committed {
                self.oplog[at].ops.iter().for_each(|op| self.visible.apply(op));
            }
            self.seen = self.seen.max(self.committed);
        }
    }

    fn archive_entry(&mut self, at: usize) {
        for op in &self.oplog[at].ops {
            match op {
                Op::Create { collection, id } if collection == EVENTS => {
                    self.committed_log = Some(*id);
                }
                Op::Put { collection, key: Key::Event(key), row: Row::Raw(event) }
                    if collection == EVENTS =>
                {
                    let log = self.committed_log.map(|log| self.archive.entry(log).or_default());
                    if let Some(log) = log {
                        // What comes to a place that has been freed is late, and no part of the history.
                        log.entry(key.clone()).or_insert_with(|| event.clone());
                    }
                }
                _ => {}
            }
        }
    }

    /// The cluster time of the newest change on the primary.
    pub(super) fn operation_time(&self) -> Timestamp {
        self.last_time
    }

    /// The cluster time up to which reads see what the majority has.
    pub(super) fn seen_time(&self) -> Timestamp {
        let last = self.seen.checked_sub(1).and_then(|last| self.oplog.get(last));
        last.map_or(Timestamp { time: 0, increment: 0 }, |entry| entry.time)
    }

    pub(super) fn new_id(&mut self) -> LogId {
        self.last_uuid += 1;
        LogId(Uuid::from_bytes([self.last_uuid; 16]))
    }

    /// The primary is lost, and with it what the majority had not got, and the right count of rows. Gives how many
    /// entries that were.
    pub(super) fn roll_back(&mut self) -> usize {
        let lost = self.oplog.len() - self.committed;
        self.oplog.truncate(self.committed);
        self.miscounted += lost as i64 * 2 + 1;
        self.latest = self.replay(self.committed);
        self.term += 1;
        lost
    }

    /// Another node answers from now on, which knows only of the first `seen` entries that the majority has them, and
    /// counts its rows in its own way.
    pub(super) fn elect(&mut self, seen: usize) {
        self.miscounted -= 3;
        self.seen = seen.min(self.seen);
        self.visible = self.replay(self.seen);
        self.term += 1;
    }

    /// The oplog forgets everything that has been seen so far.
    pub(super) fn lose_history(&mut self) {
        self.window = self.seen;
    }

    /// The collections after the first `entries` changes.
    pub(super) fn replay(&self, entries: usize) -> Data {
        let mut data = Data::default();
        self.oplog[..entries].iter().flat_map(|entry| &entry.ops).for_each(|op| data.apply(op));
        data
    }

    /// Looks at what the majority has, whether or not the node that answers knows it.
    pub(super) fn majority<T>(&self, look: impl FnOnce(&Data) -> T) -> T {
        if self.seen == self.committed {
            return look(&self.visible);
        }
        look(&self.replay(self.committed))
    }
}
