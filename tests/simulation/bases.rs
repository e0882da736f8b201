//! Bases, marks and clients on the in-memory replica set, as those of `store::mongo` are kept. What this claims is checked
//! in `conformance`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use bson::{Bson, Document, RawDocument, RawDocumentBuf, Timestamp};

use super::{
    erased::forgetting,
    log::SimLog,
    store::{QUARANTINE, SimStore},
    world::{Data, EVENTS, Key, Op, Row, State, Ticket, World},
};
use crate::{
    database::{Error, Result},
    model::{
        base::Base,
        compaction::{LiveClient, Mark},
        event::{EventKey, is_base},
        id::DocumentId,
        position::LogId,
    },
    planted::{Bug, planted},
    store::{Bases, Forgotten, Hindrance, Over, Prune, PruneOutcome, Restore, Which},
    upkeep::erase::Begun,
};

/// What runs in which logs are compacted know besides the data. Marks and clients only ever keep events, so that it does
/// not matter when the majority has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Whether the log is compacted.
    pub(super) is_on: bool,
    /// How long after a base was written pruning may begin.
    pub(super) grace: Duration,
    /// A client that was seen within this time is alive.
    pub(super) client_ttl: Duration,
    /// One step of pruning in so many meets others who write there; never with 0.
    pub(super) busy: usize,
    pub(super) marks: BTreeMap<DocumentId, (LogId, Vec<Mark>)>,
    pub(super) clients: BTreeMap<(DocumentId, String), LiveClient>,
    /// Documents that somebody erases, with how far that is.
    pub(super) erasing: BTreeMap<DocumentId, Begun>,
    /// Documents of which nothing is left up to this version.
    pub(super) erased: BTreeMap<DocumentId, i64>,
}

/// A transaction: what it saw when it began. It is over when others have written meanwhile what it writes.
struct Transaction {
    seen: Data,
    term: u64,
}

/// What became of a transaction.
enum Ended {
    Committed(Ticket),
    Conflict,
}

impl Transaction {
    fn begin(state: &State) -> Self {
        Self { seen: state.latest.clone(), term: state.term }
    }

    /// A write that changes nothing is none: the server does not take it for a conflict.
    fn commit(self, world: &World, ops: Vec<Op>) -> Result<Ended> {
        let state = world.state();
        if state.term != self.term {
            return Err(Error::unreachable("the primary stepped down"));
        }
        let written = |op: &Op| match op {
            Op::Put { collection, key, .. } | Op::Delete { collection, key } => {
                Some((collection.clone(), key.clone()))
            }
            Op::Replace { collection, key, row } => {
                let changes = self.seen.get(collection, key) != Some(row);
                changes.then(|| (collection.clone(), key.clone()))
            }
            _ => None,
        };
        let mut written = ops.iter().filter_map(written);
        if written.any(|(name, key)| self.seen.get(&name, &key) != state.latest.get(&name, &key)) {
            return Ok(Ended::Conflict);
        }
        drop(state);
        Ok(Ended::Committed(world.apply(ops)))
    }
}

fn first_key(id: &DocumentId) -> Key {
    Key::Event(EventKey { document: id.clone(), version: 1 })
}

/// What stands first in the log of a document.
pub(super) fn first_of<'a>(data: &'a Data, id: &DocumentId) -> Option<&'a RawDocumentBuf> {
    data.get(EVENTS, &first_key(id))?.raw()
}

/// The base of a document's log. One that cannot be read is none.
pub(super) fn base_of(data: &Data, id: &DocumentId) -> Option<Base> {
    first_of(data, id).filter(|first| is_base(first)).and_then(|raw| Base::from_raw(raw).ok())
}

fn is_which(first: Option<&RawDocumentBuf>, which: &Which) -> bool {
    let base = first.filter(|first| is_base(first)).and_then(|raw| Base::from_raw(raw).ok());
    base.is_some_and(|base| Which::from(&base) == *which)
}

/// The row with a field set, as `$set` does it: where it is, or at the end.
fn with(raw: &RawDocument, field: &str, value: impl Into<Bson>) -> RawDocumentBuf {
    let mut fields = Document::try_from(raw).expect("a base that was read");
    fields.insert(field, value);
    RawDocumentBuf::try_from(&fields).expect("what was read")
}

fn replace(id: &DocumentId, raw: RawDocumentBuf) -> Op {
    Op::Replace { collection: EVENTS.into(), key: first_key(id), row: Row::Raw(raw) }
}

impl SimStore {
    /// Lets the server's part of a transaction on the log take a while between its beginning and its end.
    fn lingers(&self) -> Duration {
        Duration::from_millis(self.node.random(12).saturating_sub(6) as u64)
    }

    pub(super) fn named(&self, log: LogId) -> SimLog {
        SimLog { node: self.node.clone(), collection: EVENTS.into(), id: log }
    }
}

/// What a step of restoring writes; `None` when it cannot be taken.
fn restoring(state: &State, step: &Restore) -> Option<Vec<Op>> {
    let first = first_of(&state.latest, &step.id);
    let base = first.filter(|first| is_which(Some(first), &step.base))?;
    let (first, rest) = match step.pruned {
        0 => (step.events.first()?.clone(), step.events.get(1..)?),
        pruned => (with(base, "pruned", pruned), step.events.as_slice()),
    };
    let mut ops = vec![replace(&step.id, first)];
    for event in rest {
        let key = Key::Event(EventKey::from_event(event).ok()?);
        if state.latest.get(EVENTS, &key).is_some() {
            return None;
        }
        ops.push(Op::Put { collection: EVENTS.into(), key, row: Row::Raw(event.clone()) });
    }
    Some(ops)
}

impl Bases for SimStore {
    async fn restore(&self, log: LogId, step: &Restore) -> Result<bool> {
        let (world, monitor, named) =
            (self.node.world.clone(), self.monitor.clone(), self.named(log));
        let (step, pause) = (step.clone(), self.lingers());
        let name = format!("restore {} {}..{}", step.id, step.pruned, step.base.pruned);
        let work = async move {
            let (transaction, ops) = {
                let state = world.state();
                state.check_named(&named)?;
                let Some(ops) = restoring(&state, &step) else { return Ok(false) };
                (Transaction::begin(&state), ops)
            };
            world.sim.sleep(pause).await;
            let Ended::Committed(ticket) = transaction.commit(&world, ops)? else {
                return Err(Error::server(112, "WriteConflict"));
            };
            let check = monitor.log_is_whole(&world.state(), &step.id);
            world.insist(check);
            world.majority(ticket).await?;
            Ok(true)
        };
        self.node.call(&name, work).await
    }

    async fn hold(&self, log: LogId, id: &DocumentId, is_held: bool) -> Result<()> {
        let (world, key) = (self.node.world.clone(), (log, id.clone()));
        let work = async move {
            let held = &mut world.state().archives.held;
            match is_held {
                true => held.insert(key),
                false => held.remove(&key),
            };
            Ok(())
        };
        self.node.call("hold", work).await
    }

    async fn held(&self, log: LogId, ids: &[DocumentId]) -> Result<HashSet<DocumentId>> {
        let (world, ids) = (self.node.world.clone(), ids.to_vec());
        let work = async move {
            let state = world.state();
            let held = |id: &DocumentId| state.archives.held.contains(&(log, id.clone()));
            Ok(ids.into_iter().filter(held).collect())
        };
        self.node.call("held", work).await
    }

    async fn hindrance(&self, _settled: Duration) -> Result<Option<Hindrance>> {
        Ok(None)
    }

    async fn put_base(&self, log: LogId, base: &Base, over: &Over) -> Result<bool> {
        let (world, monitor, named) =
            (self.node.world.clone(), self.monitor.clone(), self.named(log));
        let (base, over, told) = (base.clone(), over.clone(), self.told(&base.id));
        let name = self.node.name(|| format!("put_base {} at {}", base.id, base.version));
        let work = async move {
            let found = {
                let state = world.state();
                state.check_named(&named)?;
                let first = first_of(&state.latest, &base.id);
                let matches = match &over {
                    _ if planted(Bug::BaseOverAnything) => first.is_some(),
                    Over::Create => {
                        first.is_some_and(|first| matches!(first.get_str("op"), Ok("create")))
                    }
                    Over::Base(which) => is_which(first, which),
                };
                (!matches).then(|| state.last())
            };
            if let Some(found) = found {
                world.majority(found).await?;
                return Ok(false);
            }
            let check = monitor.base_written(&world.state(), &base, &told);
            world.insist(check);
            let ticket = world.apply(vec![replace(&base.id, base.to_raw())]);
            let check = monitor.log_is_whole(&world.state(), &base.id);
            world.insist(check);
            world.majority(ticket).await?;
            Ok(true)
        };
        self.node.call(&name, work).await
    }

    async fn prune(&self, log: LogId, steps: &[Prune]) -> Result<PruneOutcome> {
        let (world, monitor, named) =
            (self.node.world.clone(), self.monitor.clone(), self.named(log));
        let (steps, pause) = (steps.to_vec(), self.lingers());
        let busy = world.state().compaction.busy;
        let is_busy = busy > 0 && self.node.random(busy) == 0;
        let name = self.node.name(|| {
            let step = |step: &Prune| format!("{} {}..{}", step.id, step.base.pruned, step.through);
            format!("prune {}", steps.iter().map(step).collect::<Vec<_>>().join(", "))
        });
        let work = async move {
            let (transaction, ops) = {
                let state = world.state();
                state.check_named(&named)?;
                match pruning(&state, &steps) {
                    Ok(ops) => (Transaction::begin(&state), ops),
                    Err(outcome) => return Ok(outcome),
                }
            };
            world.sim.sleep(pause).await;
            if is_busy {
                return Ok(PruneOutcome::Busy);
            }
            for step in &steps {
                let check = monitor.prune_begins(&world.state(), step, world.sim.wall());
                world.insist(check);
            }
            let Ended::Committed(ticket) = transaction.commit(&world, ops)? else {
                return Ok(PruneOutcome::Busy);
            };
            for step in &steps {
                let check = monitor.log_is_whole(&world.state(), &step.id);
                world.insist(check);
            }
            world.majority(ticket).await?;
            Ok(PruneOutcome::Done)
        };
        self.node.call(&name, work).await
    }

    async fn marks(
        &self,
        log: LogId,
        ids: &[DocumentId],
    ) -> Result<HashMap<DocumentId, Vec<Mark>>> {
        let (world, ids) = (self.node.world.clone(), ids.to_vec());
        let work = async move {
            let state = world.state();
            let marks = ids.into_iter().filter_map(|id| {
                let (of, marks) = state.compaction.marks.get(&id)?.clone();
                (of == log).then_some((id, marks))
            });
            Ok(marks.collect())
        };
        self.node.call("marks", work).await
    }

    async fn clients(&self, ids: &[DocumentId]) -> Result<HashMap<DocumentId, Vec<LiveClient>>> {
        let (world, ids) = (self.node.world.clone(), ids.to_vec());
        let work = async move {
            let state = world.state();
            let mut clients: HashMap<DocumentId, Vec<LiveClient>> = HashMap::new();
            for ((id, _), client) in &state.compaction.clients {
                if ids.contains(id) {
                    clients.entry(id.clone()).or_default().push(client.clone());
                }
            }
            Ok(clients)
        };
        let clients = self.node.call("clients", work).await?;
        *self.clients.lock().unwrap() = clients.clone();
        Ok(clients)
    }

    async fn late(
        &self,
        log: LogId,
        base: &Base,
        limit: u32,
        at_least: Timestamp,
    ) -> Result<Vec<RawDocumentBuf>> {
        let (world, named, base) = (self.node.world.clone(), self.named(log), base.clone());
        let work = async move {
            world.causal(at_least).await;
            world.named(&named).await?;
            let state = world.state();
            let below = state.visible.events(&base.id, 1);
            let below = below.take_while(|(version, _)| *version <= base.pruned);
            Ok(below.take(limit as usize).map(|(_, event)| event.clone()).collect())
        };
        self.node.call("late", work).await
    }

    async fn remove_late(&self, log: LogId, base: &Base, event: &RawDocumentBuf) -> Result<bool> {
        let (world, monitor, named) =
            (self.node.world.clone(), self.monitor.clone(), self.named(log));
        let (base, event, pause) = (base.clone(), event.clone(), self.lingers());
        let key =
            EventKey::from_event(&event).map_err(|error| Error::damaged(error.to_string()))?;
        let name = self.node.name(|| format!("remove_late {} {}", key.document, key.version));
        let work = async move {
            let (transaction, ops) = {
                let state = world.state();
                state.check_named(&named)?;
                let first = first_of(&state.latest, &base.id);
                let found = state.latest.get(EVENTS, &Key::Event(key.clone()));
                let Some(first) = first.filter(|first| is_which(Some(first), &(&base).into()))
                else {
                    return Ok(false);
                };
                if found.and_then(Row::raw) != Some(&event) {
                    return Ok(false);
                }
                // It has to be another one each time.
                let touched = with(first, "late_at", state.oplog.len() as i64);
                let record = Key::Late(key.clone(), state.oplog.len());
                let kept = match planted(Bug::LateKeepsErased) {
                    true => event,
                    false => base.kept_of(&event),
                };
                let ops = vec![
                    replace(&base.id, touched),
                    Op::Put { collection: QUARANTINE.into(), key: record, row: Row::Raw(kept) },
                    Op::Delete { collection: EVENTS.into(), key: Key::Event(key) },
                ];
                (Transaction::begin(&state), ops)
            };
            world.sim.sleep(pause).await;
            let Ended::Committed(ticket) = transaction.commit(&world, ops)? else {
                return Ok(false);
            };
            let check = monitor.log_is_whole(&world.state(), &base.id);
            world.insist(check);
            world.majority(ticket).await?;
            Ok(true)
        };
        self.node.call(&name, work).await
    }

    async fn forget(&self, id: &DocumentId, through: i64) -> Result<Forgotten> {
        let (world, id) = (self.node.world.clone(), id.clone());
        let work = async move {
            let (ops, forgotten) = forgetting(&world.state().latest, &id, through);
            let ticket = world.apply(ops);
            world.majority(ticket).await?;
            Ok(forgotten)
        };
        self.node.call("forget", work).await
    }
}

/// What steps of pruning write, or why they cannot be done.
fn pruning(state: &State, steps: &[Prune]) -> std::result::Result<Vec<Op>, PruneOutcome> {
    let (mut ops, mut gone) = (Vec::new(), 0);
    for step in steps {
        let first = first_of(&state.latest, &step.id);
        let Some(first) = first.filter(|first| is_which(Some(first), &step.base)) else {
            return Err(PruneOutcome::Moved);
        };
        let through = if planted(Bug::PrunedNotMoved) { step.base.pruned } else { step.through };
        ops.push(replace(&step.id, with(first, "pruned", through)));
        let range = state.latest.events(&step.id, step.base.pruned);
        for (version, _) in range.take_while(|(version, _)| *version <= step.through) {
            let key = Key::Event(EventKey { document: step.id.clone(), version });
            ops.push(Op::Delete { collection: EVENTS.into(), key });
            gone += 1;
        }
    }
    let expected: i64 = steps.iter().map(Prune::events).sum();
    match gone == expected || planted(Bug::StepWithoutCount) {
        true => Ok(ops),
        false => Err(PruneOutcome::Short),
    }
}

/// The late events that are on record.
pub(super) fn late_on_record(data: &Data) -> Vec<RawDocumentBuf> {
    let rows = data.collections.get(QUARANTINE).into_iter().flat_map(|found| &found.rows);
    let late = rows.filter(|(key, _)| matches!(key, Key::Late(..)));
    late.filter_map(|(_, row)| row.raw().cloned()).collect()
}

impl World {
    /// Takes note of how large a document is.
    pub(super) fn mark(&self, log: LogId, id: &DocumentId, mark: Mark, most: usize) {
        let mut state = self.state();
        let (of, marks) = state.compaction.marks.entry(id.clone()).or_insert((log, Vec::new()));
        if *of != log {
            (*of, *marks) = (log, Vec::new());
        }
        marks.push(mark);
        marks.drain(..marks.len().saturating_sub(most));
    }

    /// A client tells what it has of a document.
    pub(super) fn acknowledge(&self, id: &DocumentId, client: LiveClient) {
        let key = (id.clone(), client.name.clone());
        self.state().compaction.clients.insert(key, client);
    }
}

impl SimStore {
    /// What this store was last told of the clients of a document.
    fn told(&self, id: &DocumentId) -> Vec<LiveClient> {
        let clients = self.clients.lock().unwrap();
        clients.get(id).cloned().unwrap_or_default()
    }
}
