//! One run: sets the world up as the plan says, lets it go through its trouble, heals it, waits until
//! the documents have caught up, does it once more after a restart, and calls the judge.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bson::Document;
use futures::FutureExt;

use super::{
    compaction, daemon, erasing,
    executor::{Executor, Owner, Sim},
    leases::misled,
    monitor::Monitor,
    node::Node,
    operator,
    plan::{Action, CallFault, Mishap, Plan, What, WriterPlan},
    reader::{self, Answers},
    skips::skipped,
    store::{CHECKPOINTS, log_id, row_of, saved, waiting},
    touching::{repair, touch},
    world::{COLLECTION, EVENTS, Key, Op, World},
    writer::{Appends, DOCUMENTS, Writer, document_id},
};
use crate::{
    judge::{Evidence, Reference, Report, Stop, compare, judge},
    model::{
        id::DocumentId,
        part::Part,
        skip::{Skip, is_filler},
    },
};

/// How long actors and faults may take, in virtual time.
const TROUBLE_LIMIT: Duration = Duration::from_secs(120);
/// How long the documents may take to catch up once nothing goes wrong any more.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// How long a run whose log was dropped is watched for writes that must not come.
const WATCH_TIME: Duration = Duration::from_secs(20);
/// How long a daemon may take to stop.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(8);
/// The first number of a reader among the actors.
const READERS: usize = 50;
/// The number of the operator among the actors.
const OPERATOR: usize = 80;
/// The first number of a compactor among the actors.
const COMPACTORS: usize = 60;
/// The first number of a writer that comes late.
const LATE_WRITERS: usize = 70;
/// The first number of who erases.
const ERASERS: usize = 90;
/// The leadership of the last start: above all others.
const LAST_EPOCH: i64 = 1_000;

/// What a run came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) violation: Option<String>,
    pub(super) story: Vec<String>,
    /// What the judge counted, in a run that came to him: one whose log is lost does not.
    pub(super) report: Option<Report>,
}

pub(super) struct Run {
    pub(super) sim: Sim,
    pub(super) executor: Executor,
    pub(super) world: World,
    pub(super) monitor: Monitor,
    appends: Appends,
    pub(super) answers: Answers,
    nodes: Vec<Node>,
    pub(super) daemons: Vec<Node>,
    pub(super) busy: Arc<AtomicUsize>,
}

/// Runs a plan; with `story`, what happens is written down.
pub(super) fn run(plan: &Plan, story: bool) -> Outcome {
    let sim = Sim::new(plan.seed, story);
    let world = World::new(&sim);
    if plan.parts > 1 {
        world.divide(plan.parts);
        world.state().commit(usize::MAX);
    }
    let mut run = Run {
        sim: sim.clone(),
        executor: Executor::new(&sim),
        world: world.clone(),
        monitor: Monitor::default(),
        appends: Appends::default(),
        answers: Answers::default(),
        nodes: Vec::new(),
        daemons: Vec::new(),
        busy: Arc::default(),
    };
    sim.spawn(Owner::World, world.clone().replicate());
    sim.spawn(Owner::World, world.heartbeat());
    run.daemons(plan);
    run.writers(plan);
    run.readers(plan);
    run.operator(plan);
    run.mishaps(plan);
    run.compaction(plan);
    let report = run.phases(plan);
    let (violation, story) = sim.outcome();
    Outcome { violation, story, report }
}

impl Run {
    fn phases(&mut self, plan: &Plan) -> Option<Report> {
        let busy = Arc::clone(&self.busy);
        if !self.executor.run(TROUBLE_LIMIT, || busy.load(Ordering::Relaxed) == 0) {
            self.sim.violation("the actors did not come to an end".into());
            return None;
        }
        self.heal();
        if plan.drops_log() {
            self.watch();
            return None;
        }
        let led = plan.lease_time.is_some();
        repair(&self.sim, &self.daemons, plan.changed_states());
        self.settle("after the trouble", true, led.then(BTreeMap::new))?;
        self.monitor.repaired();
        self.one_more(plan.changed_states());
        self.settle("after one more event for what was repaired", true, None)?;
        let epochs = saved(&self.world.state().visible).into_iter();
        let epochs = epochs.map(|(part, saved)| (part, saved.epoch)).collect();
        if plan.loses_leases {
            self.world.lose_leases();
        }
        self.epilogue();
        // It takes over, under an epoch of its own.
        let before = led.then_some(epochs);
        self.settle("after a restart and one more event for each", false, before)?;
        if !plan.compaction.is_empty() {
            self.compact_all(plan)?;
            self.judge_what_is_left();
            self.project_again()?;
            self.settle("made again from what is left", false, None)?;
        }
        self.judge()
    }

    /// These documents get one more event, while what was repaired is in memory.
    fn one_more(&mut self, documents: Vec<usize>) {
        if documents.is_empty() {
            return;
        }
        let plan = WriterPlan { careless: false, faults: Vec::new(), steps: Vec::new() };
        let node = Node::new(&self.world, Owner::Actor(98), &[]);
        let mut writer = Writer::new(node, 98, &plan, &self.appends);
        self.actor(Owner::World, async move {
            for document in documents {
                writer.step(document_id(document), Action::Add(1)).await;
            }
        });
        let busy = Arc::clone(&self.busy);
        let limit = self.sim.now() + TROUBLE_LIMIT;
        self.executor.run(limit, || busy.load(Ordering::Relaxed) == 0);
    }

    fn daemons(&mut self, plan: &Plan) {
        for (number, daemon) in plan.daemons.iter().enumerate() {
            let node = Node::new(&self.world, Owner::Daemon(number), &daemon.faults);
            self.daemons.push(node.clone());
            let monitor = self.monitor.clone();
            self.sim.spawn(
                Owner::World,
                daemon::supervise(node, monitor, daemon.clone(), plan.lease_time),
            );
        }
    }

    fn writers(&mut self, plan: &Plan) {
        for (number, writer) in plan.writers.iter().enumerate() {
            let node = Node::new(&self.world, Owner::Actor(number), &writer.faults);
            self.nodes.push(node.clone());
            let work = Writer::new(node, number, writer, &self.appends).run(writer.steps.clone());
            self.actor(Owner::Actor(number), work);
        }
    }

    fn readers(&mut self, plan: &Plan) {
        for (number, reader) in plan.readers.iter().enumerate() {
            let owner = Owner::Actor(READERS + number);
            let node = Node::new(&self.world, owner, &[]);
            self.nodes.push(node.clone());
            let answers = Arc::clone(&self.answers);
            self.actor(owner, reader::run(node, number, reader.pauses.clone(), answers));
        }
    }

    fn operator(&mut self, plan: &Plan) {
        if plan.operator.steps.is_empty() {
            return;
        }
        let owner = Owner::Actor(OPERATOR);
        let node = Node::new(&self.world, owner, &plan.operator.faults);
        self.nodes.push(node.clone());
        let (monitor, daemons) = (self.monitor.clone(), self.daemons.clone());
        self.actor(owner, operator::run(node, monitor, daemons, plan.operator.steps.clone()));
    }

    fn compaction(&mut self, plan: &Plan) {
        let compaction = &plan.compaction;
        compaction.begin(&self.world);
        for (number, compactor) in compaction.compactors.iter().enumerate() {
            let owner = Owner::Actor(COMPACTORS + number);
            let node = Node::new(&self.world, owner, &compactor.faults);
            self.nodes.push(node.clone());
            let (monitor, steps) = (self.monitor.clone(), compactor.steps.clone());
            self.actor(owner, compaction::run(node, monitor, compaction.retention(), steps));
        }
        for (number, erasure) in compaction.erasures.iter().enumerate() {
            let owner = Owner::Actor(ERASERS + number);
            let node = Node::new(&self.world, owner, &erasure.faults);
            self.nodes.push(node.clone());
            let monitor = self.monitor.clone();
            self.actor(owner, erasing::run(node, monitor, erasure.clone()));
        }
        for (number, client) in compaction.clients.iter().enumerate() {
            let (sim, world) = (self.sim.clone(), self.world.clone());
            self.actor(Owner::World, compaction::read(sim, world, number, client.clone()));
        }
        for (number, late) in compaction.late.iter().enumerate() {
            let number = LATE_WRITERS + number;
            let node = Node::new(&self.world, Owner::Actor(number), &[]);
            self.nodes.push(node.clone());
            let work = compaction::write(node, number, *late, self.appends.clone());
            self.actor(Owner::Actor(number), work);
        }
    }

    /// Spawns something whose end the run waits for.
    pub(super) fn actor(&self, owner: Owner, work: impl Future<Output = ()> + Send + 'static) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        let busy = Arc::clone(&self.busy);
        self.sim.spawn(owner, async move {
            work.await;
            busy.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn mishaps(&self, plan: &Plan) {
        for mishap in &plan.mishaps {
            let (world, mishap) = (self.world.clone(), *mishap);
            let (daemons, monitor) = (self.daemons.clone(), self.monitor.clone());
            self.actor(Owner::World, async move {
                world.sim.sleep(mishap.at).await;
                happen(&world, &daemons, &monitor, mishap).await;
            });
        }
    }

    /// From here on nothing goes wrong any more.
    fn heal(&self) {
        self.sim.tell(|| "--- all is healed ---".into());
        self.nodes.iter().chain(&self.daemons).for_each(Node::heal);
        let mut state = self.world.state();
        (state.stalled, state.lagging, state.refused_name) = (false, false, None);
        drop(state);
        self.daemons.iter().for_each(|daemon| self.sim.resume(daemon.owner));
        self.sim.changed();
    }

    /// Waits until every document is what the log makes of it, and what waits is on record; and, where leases
    /// decide, until one daemon leads each part, under a later epoch than `before`.
    fn settle(
        &mut self,
        when: &str,
        excuse_damaged: bool,
        before: Option<BTreeMap<Part, i64>>,
    ) -> Option<()> {
        let limit = self.sim.now() + SETTLE_LIMIT;
        let mut looked_at = usize::MAX;
        let mut left = Vec::new();
        let (world, monitor) = (self.world.clone(), self.monitor.clone());
        let daemons = self.daemons.clone();
        let settled = self.executor.run(limit, || {
            let (seen, is_behind) = {
                let state = world.state();
                (state.seen, state.seen < state.oplog.len())
            };
            let moved = std::mem::replace(&mut looked_at, seen) != seen && !is_behind;
            if moved {
                left = differences(&world, &monitor, excuse_damaged);
                left.extend(before.iter().flat_map(|before| misled(&world, &daemons, before)));
            }
            moved && left.is_empty()
        });
        if !settled {
            let left = left.join("; ");
            self.sim.violation(format!("{when} the documents do not settle: {left}"));
        }
        settled.then_some(())
    }

    /// All daemons die; one starts anew; the holes are filled and every document gets one more event.
    fn epilogue(&mut self) {
        self.sim.tell(|| "--- a restart, the holes filled, one more event for each ---".into());
        let daemons = std::mem::take(&mut self.daemons);
        for daemon in daemons.iter().skip(1) {
            daemon.crash(Duration::MAX / 4);
        }
        daemons[0].promote(LAST_EPOCH);
        daemons[0].crash(Duration::from_millis(10));
        self.daemons = daemons;
        let plan =
            WriterPlan { careless: false, faults: Vec::<CallFault>::new(), steps: Vec::new() };
        let node = Node::new(&self.world, Owner::Actor(99), &[]);
        let mut writer = Writer::new(node, 99, &plan, &self.appends);
        let documents: Vec<DocumentId> = {
            let state = self.world.state();
            let exists = |id: &DocumentId| state.visible.events(id, 0).next().is_some();
            (0..DOCUMENTS).map(document_id).filter(exists).collect()
        };
        let sim = self.sim.clone();
        self.actor(Owner::World, async move {
            sim.sleep(Duration::from_secs(5)).await;
            for id in documents {
                writer.step(id.clone(), Action::Fill).await;
                writer.step(id, Action::Add(1)).await;
            }
        });
        let busy = Arc::clone(&self.busy);
        let limit = self.sim.now() + TROUBLE_LIMIT;
        self.executor.run(limit, || busy.load(Ordering::Relaxed) == 0);
    }

    /// The log is gone: documents stay as they are, whatever is in the new one. The monitor looks on.
    fn watch(&mut self) {
        let limit = self.sim.now() + WATCH_TIME;
        self.executor.run(limit, || false);
    }

    fn judge(&self) -> Option<Report> {
        let state = self.world.state();
        let raw = |collection: &str| {
            let rows = state.visible.collections.get(collection).map(|found| found.rows.values());
            rows.into_iter().flatten().filter_map(|row| row.raw().cloned()).collect::<Vec<_>>()
        };
        let acknowledged = self.appends.taken();
        let evidence = Evidence {
            // What has been pruned belongs to the history.
            log: log_id(&state.visible)
                .and_then(|log| state.archive.get(&log))
                .into_iter()
                .flatten()
                .filter_map(|(_, event)| Document::try_from(event).ok())
                .collect(),
            rows: raw(COLLECTION),
            acknowledged: acknowledged.events,
            together: acknowledged.together,
            skipped: skipped(&state.visible)
                .iter()
                .flat_map(|skip| {
                    let versions = skip.key.version..=skip.through;
                    versions.map(|version| (skip.key.document.to_bson(), version))
                })
                .collect(),
            answers: self.answers.lock().unwrap().clone(),
        };
        drop(state);
        let mut reference = Reference::default();
        let verdict = judge(&evidence, &mut reference).now_or_never().expect("nothing waits");
        verdict.map_err(|findings| self.sim.violation(findings.join("; "))).ok()
    }
}

/// Where the projection is not yet what the log makes of it. A row that was damaged by hand is excused until its document
/// has another event.
fn differences(world: &World, monitor: &Monitor, excuse_damaged: bool) -> Vec<String> {
    let state = world.state();
    let log = monitor.log().or_else(|| state.archive.keys().next().copied());
    let waiting = waiting(&state.visible);
    // A range begins with the event that filled its gap.
    let history = log.and_then(|log| state.archive.get(&log));
    let begins = |skip: &Skip| history.and_then(|history| history.get(&skip.key));
    let ranges = skipped(&state.visible).into_iter().filter(|skip| skip.through > skip.key.version);
    let unfilled = ranges.filter(|skip| {
        log_id(&state.visible) == log && !begins(skip).is_some_and(|event| is_filler(event))
    });
    let mut differences: Vec<String> =
        unfilled.map(|skip| format!("not filled: {skip:?}")).collect();
    for id in (0..DOCUMENTS).map(document_id) {
        let history = monitor.history(&state, log, &id);
        let row = row_of(&state.visible, &id);
        if excuse_damaged && monitor.may_be_damaged(&id) {
            continue;
        }
        let expected = history.rows.last().map(AsRef::as_ref);
        differences.extend(compare(
            &id.to_string(),
            expected,
            row.map(AsRef::as_ref),
            history.stop.as_ref(),
        ));
        let on_record = waiting.iter().find(|row| row.document == id).map(|row| row.mark.version);
        let waits = history.stop.as_ref().map(|stop| match stop {
            Stop::Hole { version } | Stop::Poison { version, .. } => *version,
        });
        if on_record != waits {
            differences.push(format!(
                "{id} is on record as waiting for {on_record:?}, and waits for {waits:?}"
            ));
        }
    }
    differences
}

async fn happen(world: &World, daemons: &[Node], monitor: &Monitor, mishap: Mishap) {
    let sim = &world.sim;
    sim.tell(|| format!("*** {:?}", mishap.what));
    match mishap.what {
        What::RollBack => {
            let lost = world.state().roll_back();
            sim.tell(|| format!("*** {lost} entries are rolled back"));
        }
        What::Elect { entries, lag } => {
            world.elect(entries);
            sim.changed();
            sim.sleep(lag).await;
            world.state().lagging = false;
        }
        What::Stall { time } => {
            world.state().stalled = true;
            sim.sleep(time).await;
            world.state().stalled = false;
        }
        What::Freeze { time } => {
            world.freeze(time);
            sim.sleep(time).await;
        }
        What::LoseHistory => world.state().lose_history(),
        What::Crash { daemon, down } => daemons[daemon].crash(down),
        What::Suspend { daemon, time } => {
            sim.suspend(daemons[daemon].owner);
            sim.sleep(time).await;
            sim.resume(daemons[daemon].owner);
        }
        What::Stop { daemon, down } => {
            daemons[daemon].stop(down);
            sim.sleep(SHUTDOWN_LIMIT).await;
            daemons[daemon].exit();
        }
        What::Cut { daemon, time } => daemons[daemon].cut(sim.now() + time),
        What::DeleteRow { .. }
        | What::DamageRow { .. }
        | What::ChangeState { .. }
        | What::DropRows => touch(world, monitor, mishap.what),
        What::DeleteCheckpoints => {
            let saved = saved(&world.state().latest);
            for (part, _) in saved {
                let (collection, key) = (CHECKPOINTS.into(), Key::Checkpoint(part));
                world.apply(vec![Op::Delete { collection, key }]);
            }
        }
        What::DeleteLeases => world.lose_leases(),
        What::Refuse { name, time } => {
            world.state().refused_name = Some(format!("name-{name}"));
            sim.sleep(time).await;
            world.state().refused_name = None;
        }
        What::RenameLog { gone } => {
            let (name, aside) = (|| EVENTS.to_owned(), || "aside.events".to_owned());
            let there = world.state().latest.collections.contains_key(EVENTS);
            if there {
                world.state().log_is_aside = true;
                world.apply(vec![Op::Rename { from: name(), to: aside() }]);
                sim.sleep(gone).await;
                // Until it has its name for good: a rollback may take the name away again.
                let back = || world.apply(vec![Op::Rename { from: aside(), to: name() }]);
                while world.majority(back()).await.is_err() {}
                world.state().log_is_aside = false;
            }
        }
        What::Divide { of } => while world.majority(world.divide(of)).await.is_err() {},
        What::DropLog { gone } => {
            world.apply(vec![Op::Drop { collection: EVENTS.into() }]);
            sim.sleep(gone).await;
            world.make_log();
        }
    }
    sim.changed();
}
