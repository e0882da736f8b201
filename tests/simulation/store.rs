//! The store on the in-memory replica set: filtered majority writes that may be lost, late, partly
//! done or doubled, as those of `store::mongo` are. What this claims is checked in `conformance`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bson::{RawDocument, RawDocumentBuf, Timestamp};

use super::{
    monitor::Monitor,
    node::Node,
    world::{COLLECTION, Data, EVENTS, Key, Op, Row, State, World},
};
use crate::{
    database::{Error, Result},
    model::{
        compaction::LiveClient,
        id::{DocumentId, integral},
        part::Part,
        position::{Checkpoint, LogId, RowsId},
    },
    planted::{Bug, planted},
    store::{
        Checkpoints, Documents, Extent, Loaded, NO_VERSION, QuarantineRow, QuarantineRows,
        RowOutcome, RowVersion, RowWrite, Versions,
    },
};

pub(super) const CHECKPOINTS: &str = "alluvium.checkpoints";
pub(super) const QUARANTINE: &str = "alluvium.quarantine";

/// A walk over the versions of the rows.
pub(super) struct SimVersions {
    node: Node,
    term: u64,
    after: Option<DocumentId>,
    extent: Extent,
    seen: Arc<Mutex<Timestamp>>,
}

impl Versions for SimVersions {
    async fn next(&mut self) -> Result<Option<Vec<RowVersion>>> {
        let (world, after, term) = (self.node.world.clone(), self.after.clone(), self.term);
        let (limit, extent, seen) = (1 + self.node.random(8), self.extent, self.seen.clone());
        let work = async move {
            let state = world.state();
            if state.term != term {
                return Err(Error::unreachable("the cursor died with its node"));
            }
            observe(&seen, &state);
            Ok(versions(&state.visible, after.as_ref(), (limit, extent)))
        };
        let rows = self.node.call("next of versions", work).await?;
        self.after = rows.last().map(|row| row.id.clone()).or(self.after.take());
        Ok((!rows.is_empty()).then_some(rows))
    }
}

fn versions(
    data: &Data,
    after: Option<&DocumentId>,
    (limit, extent): (usize, Extent),
) -> Vec<RowVersion> {
    let rows = data.collections.get(COLLECTION).into_iter().flat_map(|found| &found.rows);
    let rows = rows.filter_map(|(key, row)| match (key, row.raw()) {
        (Key::Document(id), Some(raw)) => {
            let marked = raw.get("quarantine").ok()?.is_some();
            let row = (extent == Extent::Whole).then(|| raw.to_owned());
            Some(RowVersion { id: id.clone(), version: version_of(raw).unwrap_or(0), marked, row })
        }
        _ => None,
    });
    rows.filter(|row| after.is_none_or(|after| row.id > *after)).take(limit).collect()
}

/// The store as one process reaches it.
#[derive(Clone)]
pub(super) struct SimStore {
    pub(super) node: Node,
    pub(super) monitor: Monitor,
    pub(super) part: Part,
    /// When the newest row was read: what is skipped is never read as it was before.
    pub(super) seen: Arc<Mutex<Timestamp>>,
    /// What was last read of clients.
    pub(super) clients: Arc<Mutex<HashMap<DocumentId, Vec<LiveClient>>>>,
}

impl SimStore {
    pub(super) fn new(node: Node, monitor: Monitor, part: Part) -> Self {
        let seen = Arc::new(Mutex::new(Timestamp { time: 0, increment: 0 }));
        Self { node, monitor, part, seen, clients: Arc::default() }
    }

    /// The rows of these documents, no older than of this time.
    async fn rows_of(
        &self,
        ids: &[DocumentId],
        at_least: Option<Timestamp>,
    ) -> Result<Vec<RawDocumentBuf>> {
        let (world, ids, seen) = (self.node.world.clone(), ids.to_vec(), self.seen.clone());
        let name = self.node.name(|| format!("load {}", list(ids.iter())));
        let work = async move {
            if let Some(at_least) = at_least {
                world.causal(at_least).await;
            }
            let state = world.state();
            observe(&seen, &state);
            let rows = ids.iter().filter_map(|id| row_of(&state.visible, id).cloned());
            Ok(rows.collect())
        };
        self.node.call(&name, work).await
    }
}

/// Takes note of when rows were read.
fn observe(seen: &Mutex<Timestamp>, state: &State) {
    let mut seen = seen.lock().unwrap();
    *seen = state.seen_time().max(*seen);
}

impl Documents for SimStore {
    type Versions = SimVersions;

    async fn versions(&self, after: Option<&DocumentId>, extent: Extent) -> Result<SimVersions> {
        let world = self.node.world.clone();
        let term = self.node.call("versions", async move { Ok(world.state().term) }).await?;
        let (node, seen) = (self.node.clone(), self.seen.clone());
        Ok(SimVersions { node, term, after: after.cloned(), extent, seen })
    }

    async fn rows_id(&self) -> Result<Option<RowsId>> {
        let world = self.node.world.clone();
        let work = async move {
            let state = world.state();
            let found = state.latest.collections.get(COLLECTION);
            Ok(found.map(|found| RowsId(found.id.0)))
        };
        self.node.call("rows_id", work).await
    }

    async fn load(&self, ids: &[DocumentId]) -> Result<Vec<RawDocumentBuf>> {
        self.rows_of(ids, None).await
    }

    async fn load_some(&self, ids: &[DocumentId], at_least: Timestamp) -> Result<Loaded> {
        // The server may stop after any of them.
        let told = 1 + self.node.random(2 * ids.len()).min(ids.len() - 1);
        let rows = self.rows_of(&ids[..told], Some(at_least)).await?;
        Ok(Loaded { rows, told })
    }

    async fn write(&self, writes: &[RowWrite]) -> Result<Vec<RowOutcome>> {
        let (world, monitor, writes) =
            (self.node.world.clone(), self.monitor.clone(), writes.to_vec());
        let count = writes.len();
        let name = self.node.name(|| {
            let step =
                |write: &RowWrite| format!("{} {}->{}", write.id, write.expected, write.version);
            format!("write {}", writes.iter().map(step).collect::<Vec<_>>().join(", "))
        });
        // The server carries out one statement after the other, and others' writes fall between them.
        let pauses: Vec<u64> =
            writes.iter().map(|_| self.node.random(8).saturating_sub(5) as u64).collect();
        let work = async move {
            let mut outcomes = Vec::new();
            let mut last = None;
            let term = world.state().term;
            for (write, pause) in writes.iter().zip(pauses) {
                world.sim.sleep(std::time::Duration::from_millis(pause)).await;
                if world.state().term != term {
                    // No command outlives the primary that carries it out.
                    return Err(Error::unreachable("the primary stepped down"));
                }
                let (outcome, ticket) = world.write_row(write, &monitor);
                last = ticket.or(last);
                outcomes.push(outcome);
            }
            if let Some(ticket) = last {
                world.majority(ticket).await?;
            }
            let state = world.state();
            let judged = writes.iter().zip(outcomes);
            Ok(judged
                .map(|(write, outcome)| outcome.unwrap_or_else(|| compare(&state, write)))
                .collect())
        };
        let outcomes = self.node.call(&name, work).await;
        if planted(Bug::LostAnswerIsSuccess) && outcomes.is_err() {
            return Ok(vec![RowOutcome::Written; count]);
        }
        outcomes
    }
}

impl World {
    /// Carries out one statement. No outcome means that its filter missed, or that the key exists.
    fn write_row(
        &self,
        write: &RowWrite,
        monitor: &Monitor,
    ) -> (Option<RowOutcome>, Option<super::world::Ticket>) {
        let state = self.state();
        if refuses(&state, &write.row) {
            let reason = "Document failed validation".to_owned();
            return (Some(RowOutcome::Rejected { code: 121, reason }), None);
        }
        let row = row_of(&state.latest, &write.id);
        let stored = row.and_then(|row| version_of(row)).filter(|version| *version >= 1);
        let matches = match write.expected {
            0 => row.is_none(),
            NO_VERSION => row.is_some() && stored.is_none(),
            expected => {
                stored == Some(expected)
                    || (planted(Bug::FlushWithoutVersionFilter) && stored.is_some())
            }
        };
        if !matches {
            let success = planted(Bug::DuplicateKeyIsSuccess) && write.expected == 0;
            return (success.then_some(RowOutcome::Written), None);
        }
        let check = monitor.row_written(&state, write);
        let is_there = state.latest.collections.contains_key(COLLECTION);
        drop(state);
        self.insist(check);
        if !is_there {
            self.make_rows();
        }
        let key = || Key::Document(write.id.clone());
        let row = Row::Raw(write.row.clone());
        let mut ops = vec![Op::Put { collection: COLLECTION.into(), key: key(), row }];
        if write.is_unsound {
            ops.insert(0, Op::Delete { collection: COLLECTION.into(), key: key() });
        }
        let ticket = self.apply(ops);
        (Some(RowOutcome::Written), Some(ticket))
    }
}

/// What a write that missed finds when it reads the row again at majority.
fn compare(state: &State, write: &RowWrite) -> RowOutcome {
    let mark = |row: &RawDocument| row.get_document("quarantine").ok().map(ToOwned::to_owned);
    let same = |row: &RawDocument| match planted(Bug::SameVersionIsSuccess) {
        true => version_of(row) == Some(write.version) && mark(row) == mark(&write.row),
        false => row.as_bytes() == write.row.as_bytes(),
    };
    match row_of(&state.visible, &write.id) {
        Some(row) if same(row) => RowOutcome::Written,
        _ => RowOutcome::Stale,
    }
}

pub(super) fn refuses(state: &State, row: &RawDocument) -> bool {
    let name = row.get_document("state").ok().and_then(|state| state.get_str("name").ok());
    state.refused_name.is_some() && name == state.refused_name.as_deref()
}

pub(super) fn row_of<'a>(data: &'a Data, id: &DocumentId) -> Option<&'a RawDocumentBuf> {
    data.get(COLLECTION, &Key::Document(id.clone()))?.raw()
}

pub(super) fn version_of(row: &RawDocument) -> Option<i64> {
    row.get("version").ok().flatten().and_then(integral)
}

fn list<'a>(ids: impl Iterator<Item = &'a DocumentId>) -> String {
    ids.map(DocumentId::to_string).collect::<Vec<_>>().join(", ")
}

impl Checkpoints for SimStore {
    async fn load_checkpoints(&self) -> Result<Vec<(Part, Checkpoint)>> {
        let world = self.node.world.clone();
        let work = async move { Ok(saved(&world.state().visible)) };
        self.node.call("load_checkpoints", work).await
    }

    async fn claim_log(&self, log: LogId) -> Result<bool> {
        let (world, monitor) = (self.node.world.clone(), self.monitor.clone());
        let work = async move {
            let stored = saved_of(&world.state().latest, Part::WHOLE);
            if let Some(stored) = stored {
                let found = world.state().last();
                world.majority(found).await?;
                return Ok(stored.log == log || planted(Bug::IdentityIgnored));
            }
            let checkpoint =
                Checkpoint { position: None, log, epoch: 0, passed_events: None, rows: None };
            let check = monitor.checkpoint_saved(&world.state(), Part::WHOLE, &checkpoint);
            world.insist(check);
            let (collection, key) = (CHECKPOINTS.into(), Key::Checkpoint(Part::WHOLE));
            let row = Row::Checkpoint(checkpoint);
            world.majority(world.apply(vec![Op::Put { collection, key, row }])).await?;
            Ok(true)
        };
        self.node.call("claim_log", work).await
    }

    async fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<bool> {
        let (world, monitor, checkpoint) =
            (self.node.world.clone(), self.monitor.clone(), checkpoint.clone());
        let part = self.part;
        let name = self.node.name(|| {
            let time = checkpoint.position.as_ref().map(|position| position.cluster_time);
            format!("save_checkpoint {part} {time:?}")
        });
        let work = async move {
            let stored = saved_of(&world.state().latest, part);
            let fences = |stored: &Checkpoint| {
                let later =
                    stored.epoch > checkpoint.epoch && !planted(Bug::CheckpointWithoutEpoch);
                let other = stored.log != checkpoint.log && !planted(Bug::IdentityIgnored);
                later || other
            };
            if stored.as_ref().is_some_and(fences) {
                return Ok(false);
            }
            let check = monitor.checkpoint_saved(&world.state(), part, &checkpoint);
            world.insist(check);
            let (collection, key) = (CHECKPOINTS.into(), Key::Checkpoint(part));
            let row = Row::Checkpoint(checkpoint);
            world.majority(world.apply(vec![Op::Put { collection, key, row }])).await?;
            Ok(true)
        };
        self.node.call(&name, work).await
    }
}

/// All checkpoints, of whatever divisions.
pub(super) fn saved(data: &Data) -> Vec<(Part, Checkpoint)> {
    let rows = data.collections.get(CHECKPOINTS).into_iter().flat_map(|found| &found.rows);
    let rows = rows.filter_map(|(key, row)| match (key, row) {
        (Key::Checkpoint(part), Row::Checkpoint(checkpoint)) => Some((*part, checkpoint.clone())),
        _ => None,
    });
    rows.collect()
}

/// The checkpoint of a part.
pub(super) fn saved_of(data: &Data, part: Part) -> Option<Checkpoint> {
    match data.get(CHECKPOINTS, &Key::Checkpoint(part)) {
        Some(Row::Checkpoint(checkpoint)) => Some(checkpoint.clone()),
        _ => None,
    }
}

impl QuarantineRows for SimStore {
    async fn load_quarantine(&self) -> Result<Vec<QuarantineRow>> {
        let (world, part) = (self.node.world.clone(), self.part);
        let work = async move {
            let mut rows = waiting(&world.state().visible);
            rows.retain(|row| part.holds(&row.document));
            Ok(rows)
        };
        self.node.call("load_quarantine", work).await
    }

    async fn server_time(&self) -> Result<bson::DateTime> {
        let sim = self.node.sim().clone();
        self.node.call("server_time", async move { Ok(sim.wall()) }).await
    }

    async fn load_quarantine_among(&self, documents: &[DocumentId]) -> Result<Vec<QuarantineRow>> {
        let (world, ids) = (self.node.world.clone(), documents.to_vec());
        let work = async move {
            let mut rows = waiting(&world.state().visible);
            rows.retain(|row| ids.contains(&row.document));
            Ok(rows)
        };
        self.node.call("load_quarantine_among", work).await
    }

    async fn put_quarantine(&self, rows: &[QuarantineRow]) -> Result<()> {
        for row in rows {
            self.node.world.insist(self.monitor.recorded(row, self.node.sim().wall()));
        }
        let puts = rows.iter().map(|row| {
            let (key, put) = (Key::Document(row.document.clone()), Row::Quarantine(row.clone()));
            let earlier = row.mark.version;
            let put = Op::Put { collection: QUARANTINE.into(), key, row: put };
            (row.document.clone(), earlier, put)
        });
        let puts = puts.collect();
        let name = self.node.name(|| {
            let mark = |row: &QuarantineRow| {
                format!("{} {:?} at {}", row.document, row.mark.class, row.mark.version)
            };
            format!("put_quarantine {}", rows.iter().map(mark).collect::<Vec<_>>().join(", "))
        });
        self.bookkeeping(&name, puts).await
    }

    async fn remove_quarantine(&self, healed: &[(DocumentId, i64)]) -> Result<()> {
        let deletes = healed.iter().map(|(document, healed)| {
            let key = Key::Document(document.clone());
            (document.clone(), *healed, Op::Delete { collection: QUARANTINE.into(), key })
        });
        let deletes = deletes.collect();
        let documents = healed.iter().map(|(document, _)| document);
        let name = self.node.name(|| format!("remove_quarantine {}", list(documents)));
        self.bookkeeping(&name, deletes).await
    }
}

impl SimStore {
    /// Carries out the statements one by one, at majority, each only where there is no record of a later version than
    /// it says.
    async fn bookkeeping(&self, name: &str, ops: Vec<(DocumentId, i64, Op)>) -> Result<()> {
        let (world, monitor) = (self.node.world.clone(), self.monitor.clone());
        let work = async move {
            let mut last = None;
            for (document, healed, op) in ops {
                let recorded = waiting(&world.state().latest);
                let later =
                    |row: &QuarantineRow| row.document == document && row.mark.version > healed;
                if !recorded.iter().any(later) {
                    if matches!(op, Op::Delete { .. }) {
                        let check = monitor.record_removed(&world.state(), &document);
                        world.insist(check);
                    }
                    last = Some(world.apply(vec![op]));
                }
            }
            // What changes nothing waits as well: for what it found.
            let found = world.state().last();
            world.majority(last.unwrap_or(found)).await
        };
        self.node.call(name, work).await
    }
}

pub(super) fn waiting(data: &Data) -> Vec<QuarantineRow> {
    let rows = data.collections.get(QUARANTINE).map(|collection| collection.rows.values());
    let rows = rows.into_iter().flatten().filter_map(|row| match row {
        Row::Quarantine(row) => Some(row.clone()),
        _ => None,
    });
    rows.collect()
}

/// The identity of the log as the primary has it.
pub(super) fn log_id(data: &Data) -> Option<crate::model::position::LogId> {
    data.collections.get(EVENTS).map(|events| events.id)
}
