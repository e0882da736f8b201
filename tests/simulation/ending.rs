//! The end of a run in which the log was compacted: what is left of it says all that there ever was.

use std::{sync::Arc, time::Duration};

use bson::RawDocumentBuf;

use super::{
    bases::{base_of, late_on_record},
    compaction, erasing,
    executor::Owner,
    monitor::text,
    node::Node,
    plan::Plan,
    reader,
    run::Run,
    skips::skipped_of,
    store::{CHECKPOINTS, log_id, saved, waiting},
    world::{COLLECTION, EVENTS, Key, Op, Row, State},
    writer::{DOCUMENTS, document_id},
};
use crate::model::{
    document::{Document, FoldLimits},
    event::EventKey,
    id::DocumentId,
};

/// So often everything is compacted at the end: a base needs a mark that is old enough, and is old enough itself then.
const PASSES: usize = 3;
/// The number of who compacts at the end.
const LAST_COMPACTOR: usize = 69;
/// How many clients ask at the end what they are missing, about each document.
const CLIENTS: usize = 4;
const REST_LIMIT: Duration = Duration::from_secs(120);
/// How long no daemon is up when the rows are lost, before and after.
const DOWN: Duration = Duration::from_secs(5);

impl Run {
    /// Compacts everything that there is to compact.
    pub(super) fn compact_all(&mut self, plan: &Plan) -> Option<()> {
        self.sim.tell(|| "--- everything is compacted ---".into());
        let owner = Owner::Actor(LAST_COMPACTOR);
        let node = Node::new(&self.world, owner, &[]);
        let (sim, monitor) = (self.sim.clone(), self.monitor.clone());
        let retention = plan.compaction.retention();
        self.world.state().compaction.busy = 0;
        self.actor(owner, async move {
            erasing::finish(&node, &monitor).await;
            let ids: Vec<DocumentId> = (0..DOCUMENTS).map(document_id).collect();
            for _ in 0..PASSES {
                compaction::note_sizes(&node.world);
                sim.sleep(retention.min_age + Duration::from_millis(100)).await;
                compaction::sound_pass(&node, &monitor, retention, (&ids, false)).await;
            }
        });
        self.come_to_rest("the last compaction")
    }

    /// Waits until all actors are done, and the majority knows.
    fn come_to_rest(&mut self, what: &str) -> Option<()> {
        let (busy, world) = (Arc::clone(&self.busy), self.world.clone());
        let limit = self.sim.now() + REST_LIMIT;
        let done = self.executor.run(limit, || {
            let state = world.state();
            busy.load(std::sync::atomic::Ordering::Relaxed) == 0 && state.seen == state.oplog.len()
        });
        if !done {
            self.sim.violation(format!("{what} does not come to an end"));
        }
        done.then_some(())
    }

    /// A fold of what is left is what everything makes, nothing late is left, and some clients get what they lack.
    pub(super) fn judge_what_is_left(&self) {
        let state = self.world.state();
        let log = log_id(&state.visible);
        let mut rng = self.sim.rng(0x700);
        for id in (0..DOCUMENTS).map(document_id) {
            self.world.insist(self.monitor.log_is_whole(&state, &id));
            let history = self.monitor.history(&state, log, &id);
            let (made, should) = (fold(&state, &id), history.rows.last());
            let made = made.map(|made| made.to_raw());
            if made.as_ref().map(|made| made.as_bytes()) != should.map(|row| row.as_bytes()) {
                self.sim.violation(format!(
                    "what is left of {id} makes {made:?}, and everything {should:?}"
                ));
            }
            let waits = waiting(&state.visible).iter().any(|row| row.document == id);
            let late = late(&state, &id).filter(|_| !waits);
            if let Some(late) = late {
                self.sim.violation(format!("the late event {late} of {id} is still in the log"));
            }
            if let Some(left) = erasing::left(&state, &id) {
                self.sim.violation(left);
            }
            let unkept = unkept(&state, &id);
            if let Some(event) = unkept {
                self.sim.violation(format!("a late event is not on record: {}", text(&event)));
            }
            let answers = (0..CLIENTS).filter_map(|_| reader::ask(&state.visible, &id, &mut rng));
            self.answers.lock().unwrap().extend(answers);
        }
    }

    /// All rows and checkpoints are lost while no daemon is up, and one begins anew.
    pub(super) fn project_again(&mut self) -> Option<()> {
        self.sim.tell(|| "--- all rows are lost ---".into());
        let documents = || (0..DOCUMENTS).map(document_id);
        documents().for_each(|id| self.monitor.deleted_by_hand(id));
        self.daemons[0].crash(DOWN * 2);
        let world = self.world.clone();
        self.actor(Owner::World, async move {
            // What the daemon has sent before is carried out by then.
            world.sim.sleep(DOWN).await;
            let checkpoints = saved(&world.state().latest).into_iter();
            let checkpoints = checkpoints.map(|(part, _)| (CHECKPOINTS, Key::Checkpoint(part)));
            let rows = documents().map(|id| (COLLECTION, Key::Document(id)));
            let delete =
                |(collection, key): (&str, Key)| Op::Delete { collection: collection.into(), key };
            world.apply(checkpoints.chain(rows).map(delete).collect());
        });
        self.come_to_rest("the loss of all rows")
    }
}

/// What is left of the log of a document makes this of it.
fn fold(state: &State, id: &DocumentId) -> Option<Document> {
    let mut document = Document::new(id.clone());
    let skips = skipped_of(&state.visible, id);
    for (version, event) in state.visible.events(id, 0) {
        let key = EventKey { document: id.clone(), version };
        let is_skipped = skips.contains(version);
        let _outcome = document.offer(&key, event, is_skipped, &FoldLimits::default());
    }
    (document.version > 0).then_some(document)
}

/// The version of an event that stands where there should be none.
fn late(state: &State, id: &DocumentId) -> Option<i64> {
    let base = base_of(&state.visible, id)?;
    let next = state.visible.events(id, 1).next().map(|(version, _)| version);
    next.filter(|version| *version <= base.pruned)
}

/// An event that came late, and is neither in the log nor on record.
fn unkept(state: &State, id: &DocumentId) -> Option<RawDocumentBuf> {
    let history = log_id(&state.visible).and_then(|log| state.archive.get(&log))?;
    let on_record = late_on_record(&state.visible);
    let came = state.oplog.iter().flat_map(|entry| &entry.ops).filter_map(|op| match op {
        Op::Put { collection, key: Key::Event(key), row } if collection == EVENTS => {
            Some((key, row.raw()?))
        }
        _ => None,
    });
    let mut late =
        came.filter(|(key, event)| key.document == *id && history.get(key) != Some(*event));
    let erased = base_of(&state.visible, id).map_or(0, |base| base.erased_through);
    let is_kept = |key: &EventKey, event: &RawDocumentBuf| {
        let stands = state.visible.get(EVENTS, &Key::Event(key.clone())).and_then(Row::raw);
        key.version <= erased || stands == Some(event) || on_record.contains(event)
    };
    late.find(|(key, event)| !is_kept(key, event)).map(|(_, event)| event.clone())
}
