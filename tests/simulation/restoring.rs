//! An operator who puts back what compaction has taken out, at any moment, and a disk that lies for a while; and what must
//! hold in the end: archive and log together are everything that there ever was, and all of it can be put back.

use std::time::Duration;

use fastrand::Rng;
use futures::future::{Either, select};

use super::{
    archive::archive_of,
    bases::base_of,
    compaction::{faults, millis},
    executor::{Owner, Sim},
    log::SimLogSource,
    monitor::Monitor,
    node::Node,
    plan::CallFault,
    run::Run,
    skips::skipped_of,
    store::{SimStore, log_id},
    world::{COLLECTION, Data, World},
    writer::{DOCUMENTS, document_id},
};
use crate::{
    archive::{LastRead, holding},
    log::LogSource,
    model::{
        document::{Document, FoldLimits},
        event::EventKey,
        id::DocumentId,
        part::Part,
    },
    store::ArchiveRows,
    upkeep::restore::{RestoreError, Restorer},
};

/// The number of who restores in between.
const RESTORER: usize = 81;
/// The number of who puts everything back at the end.
const LAST_RESTORER: usize = 82;

/// What there is of that in a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RestoringPlan {
    pub(super) faults: Vec<CallFault>,
    pub(super) steps: Vec<RestoreStep>,
    /// From when, and for how long, only a half is kept of each segment that is written.
    pub(super) lies: Option<(Duration, Duration)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RestoreStep {
    pub(super) pause: Duration,
    /// Only this document, or all.
    pub(super) document: Option<usize>,
    /// It is killed after so long, wherever it stands.
    pub(super) killed: Option<Duration>,
}

impl RestoringPlan {
    /// In a half of the runs in which the log is compacted somebody restores, and in a quarter the disk lies.
    pub(super) fn new(rng: &mut Rng, documents: usize, span: u64) -> Self {
        let step = |rng: &mut Rng| RestoreStep {
            pause: millis(rng, 0..span),
            document: (rng.u8(..4) != 0).then(|| rng.usize(..documents)),
            killed: (rng.u8(..4) == 0).then(|| millis(rng, 0..200)),
        };
        let steps = if rng.bool() { 0 } else { rng.usize(1..6) };
        let steps = (0..steps).map(|_| step(rng)).collect();
        let lies = (rng.u8(..4) == 0).then(|| (millis(rng, 0..span), millis(rng, 0..span / 2)));
        Self { faults: faults(rng), steps, lies }
    }
}

/// Restores again and again.
pub(super) async fn run(node: Node, monitor: Monitor, steps: Vec<RestoreStep>) {
    let sim = node.sim().clone();
    for step in steps {
        sim.sleep(step.pause).await;
        let ids: Vec<DocumentId> = match step.document {
            Some(document) => vec![document_id(document)],
            None => (0..DOCUMENTS).map(document_id).collect(),
        };
        let work = async {
            for id in &ids {
                restore(&node, &monitor, id).await;
            }
        };
        let Some(killed) = step.killed else {
            work.await;
            continue;
        };
        if let Either::Left(_) = select(Box::pin(sim.sleep(killed)), Box::pin(work)).await {
            sim.tell(|| format!("{:?} is killed", node.owner));
        }
    }
}

/// Puts back everything of a document; whether that was done. What is missing in the archive, or damaged, is a violation.
pub(super) async fn restore(node: &Node, monitor: &Monitor, id: &DocumentId) -> Option<()> {
    let source = SimLogSource { node: node.clone() };
    let store = SimStore::new(node.clone(), monitor.clone(), Part::WHOLE);
    let log = source.open(COLLECTION).await.ok().flatten()?;
    let archive = archive_of(node);
    let (source, log, store, archive) = (&source, &log, &store, &archive);
    let restorer = Restorer { source, log, store, archive, last: LastRead::default() };
    let mut is_held = false;
    loop {
        match restorer.step(id, &mut is_held).await {
            Ok(None) => return Some(()),
            Ok(Some(events)) => {
                node.sim()
                    .tell(|| format!("{:?} has restored {events} events of {id}", node.owner));
            }
            Err(RestoreError::Database(_) | RestoreError::Busy | RestoreError::Erased) => {
                return None;
            }
            Err(error) => {
                node.sim().violation(format!("{id} cannot be restored: {error}"));
                return None;
            }
        }
    }
}

/// The disk lies for a while. Afterwards somebody deletes what it has not kept.
pub(super) async fn lie(sim: Sim, world: World, (at, time): (Duration, Duration)) {
    sim.sleep(at).await;
    sim.tell(|| "*** the archive keeps halves".into());
    world.state().archives.truncates = true;
    sim.sleep(time).await;
    world.state().archives.heal();
    sim.tell(|| "*** the archive keeps what it is given".into());
}

/// What archive and log have of a document, folded; none of it may be missing.
async fn folded(
    node: &Node,
    monitor: &Monitor,
    id: &DocumentId,
) -> Result<Option<Document>, String> {
    let store = SimStore::new(node.clone(), monitor.clone(), Part::WHOLE);
    let (log, base, skips) = {
        let state = node.world.state();
        let log = log_id(&state.visible).ok_or("there is no log")?;
        (log, base_of(&state.visible, id), skipped_of(&state.visible, id))
    };
    let floor = base.map_or(1, |base| base.version);
    let rows = store.archived(std::slice::from_ref(id)).await.map_err(|error| error.to_string())?;
    let place = |version: i64| usize::try_from(version).unwrap();
    let mut events = Vec::new();
    while events.len() as i64 + 1 < floor {
        let next = events.len() as i64 + 1;
        let row = holding(&rows, log, next);
        let row = row.ok_or_else(|| format!("event {next} of {id} is in no segment"))?;
        let archived = archive_of(node).events(row).await.map_err(|error| error.to_string())?;
        events.extend(archived.into_iter().skip(place(next - row.from)));
    }
    events.truncate(place(floor - 1));
    events.extend(node.world.state().visible.events(id, floor - 1).map(|(_, raw)| raw.clone()));
    let mut document = Document::new(id.clone());
    for event in &events {
        let Ok(key) = EventKey::from_event(event) else { continue };
        let is_skipped = skips.contains(key.version);
        let _outcome = document.offer(&key, event, is_skipped, &FoldLimits::default());
    }
    Ok((document.version > 0).then_some(document))
}

/// Whether there is something of a document that cannot be put back, since it was erased.
fn is_erased(data: &Data, id: &DocumentId) -> bool {
    base_of(data, id).is_some_and(|base| base.erased_through > 0)
}

impl Run {
    /// Somebody restores, and the disk lies, if that is planned.
    pub(super) fn restoring(&mut self, plan: &RestoringPlan) {
        if !plan.steps.is_empty() {
            let node = Node::new(&self.world, Owner::Actor(RESTORER), &plan.faults);
            self.nodes.push(node.clone());
            let (monitor, steps) = (self.monitor.clone(), plan.steps.clone());
            self.actor(Owner::Actor(RESTORER), run(node, monitor, steps));
        }
        if let Some(when) = plan.lies {
            let (sim, world) = (self.sim.clone(), self.world.clone());
            self.actor(Owner::World, lie(sim, world, when));
        }
    }

    /// A fold over archive and log is the fold of everything, but for what was erased.
    pub(super) fn read_through(&mut self) -> Option<()> {
        self.sim.tell(|| "--- everything is read through the archive ---".into());
        let owner = Owner::Actor(LAST_RESTORER);
        let (node, monitor) = (Node::new(&self.world, owner, &[]), self.monitor.clone());
        self.actor(owner, async move {
            for id in (0..DOCUMENTS).map(document_id) {
                if is_erased(&node.world.state().visible, &id) {
                    continue;
                }
                let made = folded(&node, &monitor, &id).await;
                let made = made.map(|made| made.map(|made| made.to_raw()));
                let state = node.world.state();
                let history = monitor.history(&state, log_id(&state.visible), &id);
                drop(state);
                if made.as_ref().map(Option::as_ref) != Ok(history.rows.last()) {
                    let expected = history.rows.last();
                    let said =
                        format!("archive and log of {id} make {made:?}, and all {expected:?}");
                    node.sim().violation(said);
                }
            }
        });
        self.come_to_rest("the reading of everything")
    }

    /// Restoring everything gives back the log that there was, byte for byte, but for what was erased.
    pub(super) fn put_back(&mut self) -> Option<()> {
        self.sim.tell(|| "--- everything is put back ---".into());
        let owner = Owner::Actor(LAST_RESTORER);
        let (node, monitor) = (Node::new(&self.world, owner, &[]), self.monitor.clone());
        self.actor(owner, async move {
            for id in (0..DOCUMENTS).map(document_id) {
                let is_back = restore(&node, &monitor, &id).await.is_some();
                if !is_back && !is_erased(&node.world.state().visible, &id) {
                    node.sim().violation(format!("{id} is not restored"));
                }
            }
        });
        self.come_to_rest("the restoring of everything")?;
        let state = self.world.state();
        let history = log_id(&state.visible).and_then(|log| state.archive.get(&log));
        let ids = (0..DOCUMENTS).map(document_id);
        for id in ids.filter(|id| !is_erased(&state.visible, id)) {
            let of = |(key, _): &(&EventKey, _)| key.document == id;
            let all = history.into_iter().flatten().filter(of);
            let all = all.map(|(key, event)| (key.version, event));
            if !state.visible.events(&id, 0).eq(all) {
                self.sim.violation(format!("the restored log of {id} is not what there was"));
            }
        }
        Some(())
    }
}
