//! The event log on the in-memory replica set: tail, scan and read as MongoDB answers them, with its
//! resume tokens and its errors. What this claims about MongoDB is checked in `conformance`.

use std::time::Duration;

use bson::{RawArrayBuf, RawBson, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use futures::future::{Either, select};

use super::{
    node::Node,
    world::{Data, Key, Op, State, World},
};
use crate::{
    database::{Error, Result},
    log::{Batch, Bodies, EventLog, LogSource, Scan, Start, Tail, TailBatch, events_collection},
    model::{
        event::EventKey,
        id::DocumentId,
        position::{LogId, Position},
    },
    planted::{Bug, planted},
};

/// How long the server waits for a change before it answers with an empty batch.
const AWAIT_TIME: Duration = Duration::from_secs(1);
/// The most bytes of events in one reply to a read, where that are several: the server's limit of 16 MB, in small.
const REPLY_BYTES_MAX: usize = 800;

/// The logs as one process reaches them.
#[derive(Clone)]
pub(super) struct SimLogSource {
    pub(super) node: Node,
}

/// One log.
#[derive(Clone)]
pub(super) struct SimLog {
    pub(super) node: Node,
    pub(super) collection: String,
    pub(super) id: LogId,
}

/// A change stream.
pub(super) struct SimTail {
    node: Node,
    collections: Vec<String>,
    bodies: Bodies,
    next: Place,
    term: u64,
}

/// A walk over a log.
pub(super) struct SimScan {
    node: Node,
    collection: String,
    id: LogId,
    term: u64,
    after: Option<EventKey>,
}

/// A change in the oplog: which entry, and which of the changes at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    entry: usize,
    op: usize,
}

impl LogSource for SimLogSource {
    type Tail = SimTail;
    type Log = SimLog;

    async fn now(&self) -> Result<Timestamp> {
        let world = self.node.world.clone();
        self.node.call("now", async move { Ok(world.state().operation_time()) }).await
    }

    async fn tail(&self, collections: &[String], start: &Start, bodies: Bodies) -> Result<SimTail> {
        let events: Vec<String> = collections.iter().map(|name| events_collection(name)).collect();
        let (world, watched, from) = (self.node.world.clone(), events.clone(), start.clone());
        let work = async move { world.state().open(&watched, &from) };
        let (next, term) =
            self.node.call(&self.node.name(|| format!("tail {start:?}")), work).await?;
        Ok(SimTail { node: self.node.clone(), collections: events, bodies, next, term })
    }

    async fn open(&self, collection: &str) -> Result<Option<SimLog>> {
        let (world, events) = (self.node.world.clone(), events_collection(collection));
        let name = events.clone();
        let work =
            async move { Ok(world.state().latest.collections.get(&name).map(|found| found.id)) };
        let id = self.node.call("open", work).await?;
        Ok(id.map(|id| SimLog { node: self.node.clone(), collection: events, id }))
    }
}

impl Tail for SimTail {
    /// May be dropped and called again: what the server has found is taken in the last step only.
    async fn next(&mut self) -> Result<TailBatch> {
        let (world, watched) = (self.node.world.clone(), self.collections.clone());
        let (next, term, limit) = (self.next, self.term, 1 + self.node.random(6));
        let work = async move {
            let sim = world.sim.clone();
            let (found, awaited) = (world.clone(), watched.clone());
            let wait = sim.until(move || {
                let state = found.state();
                (state.term != term || state.has_changes(&awaited, next)).then_some(())
            });
            let came = select(Box::pin(wait), Box::pin(sim.sleep(AWAIT_TIME))).await;
            let state = world.state();
            if state.term != term {
                return Err(Error::unreachable("the cursor died with its node"));
            }
            if next.entry < state.window {
                return Err(Error::server(136, "the cursor's place has been overwritten"));
            }
            let found = match came {
                Either::Left(_) => state.changes(&watched, next, limit),
                Either::Right(_) => None,
            };
            Ok(found.unwrap_or_else(|| state.nothing(next)))
        };
        let found = self.node.call("next of tail", work).await?;
        self.next = found.next;
        if !found.changes.is_empty() {
            self.node.sim().tell(|| {
                let names: Vec<String> = found.changes.iter().map(|(one, _)| name(one)).collect();
                format!("{:?} is sent {}", self.node.owner, names.join(", "))
            });
        }
        let is_full = found.changes.len() == limit;
        let mut changes = RawArrayBuf::new();
        for (change, big) in found.changes {
            changes.push(if big { self.fitted(change)? } else { change });
        }
        let server_time = Some(self.node.world.state().operation_time());
        Ok(TailBatch { changes: changes.into(), position: found.position, server_time, is_full })
    }
}

impl SimTail {
    /// A change that is too large for one reply: without its body, if that was asked for.
    fn fitted(&self, change: RawDocumentBuf) -> Result<RawDocumentBuf> {
        if self.bodies == Bodies::All {
            return Err(Error::server(10334, "BSONObj size is invalid"));
        }
        let mut bare = RawDocumentBuf::new();
        change
            .iter()
            .flatten()
            .filter(|(key, _)| *key != "fullDocument")
            .for_each(|(key, value)| bare.append(key, value));
        Ok(bare)
    }
}

/// What a tail's request found.
struct Gathered {
    /// Each with whether it is too large for one reply.
    changes: Vec<(RawDocumentBuf, bool)>,
    next: Place,
    position: Position,
}

impl State {
    fn open(&self, watched: &[String], start: &Start) -> Result<(Place, u64)> {
        let (time, after_op) = match start {
            Start::At(time) => (*time, None),
            Start::After(position) => read_token(&position.token)?,
        };
        let oldest = self.oplog.get(self.window).map(|entry| entry.time);
        if self.window > 0 && oldest.is_none_or(|oldest| oldest > time) {
            return Err(Error::server(286, "the resume point may no longer be in the oplog"));
        }
        let entry = self.oplog.partition_point(|entry| entry.time < time);
        let op = match after_op {
            None => 0,
            Some(op) => {
                let found = self.oplog.get(entry).filter(|found| found.time == time);
                if !found.is_some_and(|found| concerns(&found.ops[op], watched)) {
                    let message = "cannot resume stream; the resume token was not found";
                    return Err(Error::server(280, message));
                }
                op + 1
            }
        };
        Ok((Place { entry, op }, self.term))
    }

    /// The first change after a position: its entry, and its place among the entry's changes.
    pub(super) fn before(&self, position: &Position) -> (usize, usize) {
        let Ok((time, op)) = read_token(&position.token) else { return (0, 0) };
        let entry = self.oplog.partition_point(|entry| entry.time < time);
        (entry, op.map_or(0, |op| op + 1))
    }

    /// Whether there is a change that concerns `watched`.
    fn has_changes(&self, watched: &[String], from: Place) -> bool {
        let entries = self.oplog.iter().take(self.seen).enumerate().skip(from.entry);
        entries.into_iter().any(|(at, entry)| {
            let first = if at == from.entry { from.op } else { 0 };
            entry.ops.iter().skip(first).any(|op| concerns(op, watched))
        })
    }

    /// The next changes that concern `watched`, at most `limit`; none if there are none yet.
    fn changes(&self, watched: &[String], from: Place, limit: usize) -> Option<Gathered> {
        let mut changes = Vec::new();
        let mut last = from;
        for entry in from.entry..self.seen {
            if changes.len() == limit {
                break;
            }
            let first = if entry == from.entry { from.op } else { 0 };
            for op in first..self.oplog[entry].ops.len() {
                if concerns(&self.oplog[entry].ops[op], watched) && changes.len() < limit {
                    last = Place { entry, op };
                    changes.push((self.change(last), is_big(&self.oplog[entry].ops[op])));
                }
            }
        }
        if changes.is_empty() {
            return None;
        }
        let time = self.oplog[last.entry].time;
        let position = Position { token: token(time, Some(last.op)), cluster_time: time };
        Some(Gathered { changes, next: Place { entry: last.entry, op: last.op + 1 }, position })
    }

    /// How many events the primary takes a log to hold.
    fn estimated_events(&self, events: &str) -> u64 {
        let held = self.latest.collections.get(events).map_or(0, |found| found.rows.len() as u64);
        held.saturating_add_signed(if held > 0 { self.miscounted } else { 0 })
    }

    /// An empty batch: its token moves on to what the server has looked at.
    fn nothing(&self, from: Place) -> Gathered {
        // A place inside of or right after a transaction has that event's token until time moves on.
        let stays = from.op > 0 && self.seen <= from.entry + 1;
        let next = if stays { from } else { Place { entry: from.entry.max(self.seen), op: 0 } };
        let looked_at = next.entry.saturating_sub(usize::from(!stays)).min(self.oplog.len() - 1);
        let time = self.oplog[looked_at].time;
        let token = token(time, stays.then(|| from.op - 1));
        Gathered { changes: Vec::new(), next, position: Position { token, cluster_time: time } }
    }

    fn change(&self, place: Place) -> RawDocumentBuf {
        let entry = &self.oplog[place.entry];
        let mut change =
            rawdoc! { "_id": token(entry.time, Some(place.op)), "clusterTime": entry.time };
        let ns = |collection: &str| rawdoc! { "db": "simulation", "coll": collection };
        let mut with = |operation: &str, collection: &str| {
            change.append(bson::raw::cstr!("operationType"), operation);
            change.append(bson::raw::cstr!("ns"), ns(collection));
        };
        match &entry.ops[place.op] {
            Op::Put { collection, row, .. } => {
                with("insert", collection);
                if let Some(event) = row.raw() {
                    let id = event.get("_id").ok().flatten().map(RawBson::from);
                    change.append(
                        bson::raw::cstr!("documentKey"),
                        rawdoc! { "_id": id.unwrap_or(RawBson::Null) },
                    );
                    change.append(bson::raw::cstr!("fullDocument"), event.clone());
                }
            }
            Op::Drop { collection } => with("drop", collection),
            Op::Rename { from, to } => {
                with("rename", from);
                change.append(bson::raw::cstr!("to"), ns(to));
            }
            Op::Delete { collection, key: Key::Document(id) } => {
                with("delete", collection);
                change.append(bson::raw::cstr!("documentKey"), rawdoc! { "_id": id.as_raw() });
            }
            Op::Replace { .. } | Op::Delete { .. } | Op::Create { .. } | Op::Noop => {}
        }
        change
    }
}

/// Whether a stream over `watched` delivers the change: inserts, what makes a log another log, and what takes rows away.
fn concerns(op: &Op, watched: &[String]) -> bool {
    let watches = |collection: &String| watched.contains(collection);
    let projects = |collection: &str| watched.contains(&events_collection(collection));
    match op {
        Op::Put { collection, .. } => watches(collection),
        Op::Drop { collection } => watches(collection) || projects(collection),
        Op::Delete { collection, .. } => projects(collection),
        Op::Rename { from, to } => watches(from) || watches(to),
        Op::Replace { .. } | Op::Create { .. } | Op::Noop => false,
    }
}

/// Whether the change stands for one near the size limit: to build such would only make runs slow.
fn is_big(op: &Op) -> bool {
    let Op::Put { row, .. } = op else { return false };
    row.raw().is_some_and(|event| event.get_bool("big").unwrap_or(false))
}

fn name(change: &RawDocument) -> String {
    let key = change.get_document("documentKey").ok();
    match key.and_then(|key| EventKey::from_event(key).ok()) {
        Some(key) => format!("{} {}", key.document, key.version),
        None => change.get_str("operationType").unwrap_or_default().to_owned(),
    }
}

/// The token of the change `op` at `time`, or of everything before `time`.
fn token(time: Timestamp, op: Option<usize>) -> RawBson {
    let mut token = rawdoc! { "time": time };
    if let Some(op) = op {
        token.append(bson::raw::cstr!("op"), op as i64);
    }
    RawBson::Document(token)
}

fn read_token(token: &RawBson) -> Result<(Timestamp, Option<usize>)> {
    let token: Option<&RawDocument> = token.as_document().map(AsRef::as_ref);
    let token = token.ok_or_else(|| Error::server(260, "invalid resume token"))?;
    let time =
        token.get_timestamp("time").map_err(|_| Error::server(260, "invalid resume token"))?;
    Ok((time, token.get_i64("op").ok().and_then(|op| usize::try_from(op).ok())))
}

impl EventLog for SimLog {
    type Scan = SimScan;

    fn id(&self) -> LogId {
        self.id
    }

    async fn estimated_events(&self) -> Result<u64> {
        let (world, collection) = (self.node.world.clone(), self.collection.clone());
        let work = async move { Ok(world.state().estimated_events(&collection)) };
        self.node.call("estimated_events", work).await
    }

    async fn scan(&self, after: Option<&EventKey>, at_least: Timestamp) -> Result<SimScan> {
        let scan_is_careless = planted(Bug::ScanWithoutCausalSession);
        let (world, log) = (self.node.world.clone(), self.clone());
        let work = async move {
            if !scan_is_careless {
                world.causal(at_least).await;
            }
            world.named(&log).await?;
            Ok(world.state().term)
        };
        let term = self.node.call("scan", work).await?;
        let Self { node, collection, id } = self.clone();
        Ok(SimScan { node, collection, id, term, after: after.cloned() })
    }

    async fn read(
        &self,
        document: &DocumentId,
        after: i64,
        limit: u32,
        at_least: Option<Timestamp>,
    ) -> Result<Batch> {
        let (world, id, log) = (self.node.world.clone(), document.clone(), self.clone());
        let work = async move {
            if let Some(at_least) = at_least {
                world.causal(at_least).await;
            }
            world.named(&log).await?;
            let state = world.state();
            let mut events = state.visible.events(&id, after).take(limit as usize).peekable();
            let (mut batch, mut bytes) = (RawArrayBuf::new(), 0);
            let fits = |event: &RawDocumentBuf, bytes: &mut usize| {
                *bytes += event.as_bytes().len();
                *bytes <= REPLY_BYTES_MAX || *bytes == event.as_bytes().len()
            };
            while let Some((_, event)) = events.next_if(|(_, event)| fits(event, &mut bytes)) {
                batch.push(event.clone());
            }
            let is_cut = events.peek().is_some();
            Ok(Batch::from(batch).of_time(state.seen_time()).cut(is_cut))
        };
        let name = self.node.name(|| format!("read {document} above {after}"));
        self.node.call(&name, work).await
    }
}

impl Scan for SimScan {
    async fn next(&mut self) -> Result<Option<Batch>> {
        let (collection, id, term) = (self.collection.clone(), self.id, self.term);
        let (world, after, limit) =
            (self.node.world.clone(), self.after.clone(), 1 + self.node.random(8));
        let work = async move {
            let time = world.state().seen_time();
            Ok((world.scanned(&collection, id, term, after, limit)?, time))
        };
        let (keys_and_events, time) = self.node.call("next of scan", work).await?;
        let Some((last, _)) = keys_and_events.last() else { return Ok(None) };
        self.after = Some(last.clone());
        let mut batch = RawArrayBuf::new();
        keys_and_events.into_iter().for_each(|(_, event)| batch.push(event));
        Ok(Some(Batch::from(batch).of_time(time)))
    }
}

impl World {
    fn scanned(
        &self,
        collection: &str,
        id: LogId,
        term: u64,
        after: Option<EventKey>,
        limit: usize,
    ) -> Result<Vec<(EventKey, RawDocumentBuf)>> {
        let state = self.state();
        if state.term != term {
            return Err(Error::unreachable("the cursor died with its node"));
        }
        let is_there =
            |data: &Data| data.collections.get(collection).is_some_and(|found| found.id == id);
        let is_there = is_there(&state.latest) && is_there(&state.visible);
        if !is_there && !planted(Bug::LogNotNamed) {
            return Err(Error::server(175, "the collection was dropped or renamed"));
        }
        let found = state.visible.collections.get(collection);
        let rows =
            found.into_iter().flat_map(|found| &found.rows).filter_map(|(key, row)| {
                match (key, row.raw()) {
                    (Key::Event(key), Some(raw)) => Some((key.clone(), raw.clone())),
                    _ => None,
                }
            });
        Ok(rows
            .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after))
            .take(limit)
            .collect())
    }
}
