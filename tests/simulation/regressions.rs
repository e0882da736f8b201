//! What seeds have found and planted bugs cannot stand for, since it is too rare to be found again within a
//! few seeds: each as a scene of its own, played under some seeds.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bson::{DateTime, Document, RawDocumentBuf, doc};
use futures::FutureExt;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    daemon,
    executor::{Executor, Owner, Sim, VirtualTime},
    layouts::SimLayouts,
    leases::{SimLeases, roster},
    monitor::Monitor,
    node::Node,
    operator,
    plan::{DaemonPlan, Help, OperatorStep},
    skips::{SKIPS, skipped},
    store::{CHECKPOINTS, QUARANTINE, row_of, saved_of, version_of, waiting},
    world::{COLLECTION, EVENTS, Key, Op, Row, World},
};
use crate::{
    health::Heart,
    lease::{Keeper, Leaderships, LeaseSettings, Standing},
    model::{
        document::{Class, Quarantine},
        event::EventKey,
        id::DocumentId,
        part::Part,
        position::Checkpoint,
        skip::{Skip, SkippedEvent},
    },
    observe::Observer,
    projector::revisit::{How, Revisit},
    status::CollectionStatus,
    store::{LeaseName, QuarantineRow, format::FORMAT},
    upkeep::layout::{LayoutWatch, Watched},
};

/// One daemon over a log with one document.
pub(super) struct Scene {
    pub(super) sim: Sim,
    pub(super) world: World,
    pub(super) node: Node,
    pub(super) monitor: Monitor,
    executor: Executor,
}

/// The checkpoint that a daemon of this part begins at.
pub(super) fn checkpoint(world: &World, part: Part) -> Option<Checkpoint> {
    saved_of(&world.state().visible, part).filter(|saved| saved.position.is_some())
}

impl Scene {
    pub(super) fn new(seed: u64, lease_time: Option<Duration>) -> Self {
        Self::with_cache(seed, lease_time, 1 << 20)
    }

    /// The same with a cache of another size.
    pub(super) fn with_cache(seed: u64, lease_time: Option<Duration>, cache_bytes: usize) -> Self {
        let sim = Sim::new(seed, true);
        let world = World::new(&sim);
        sim.spawn(Owner::World, world.clone().replicate());
        sim.spawn(Owner::World, world.clone().heartbeat());
        let node = Node::new(&world, Owner::Daemon(0), &[]);
        let plan = DaemonPlan {
            start: Duration::ZERO,
            epoch: 1,
            wall_ahead_millis: 0,
            cache_bytes,
            scans_backlogs: true,
            faults: Vec::new(),
        };
        let monitor = Monitor::default();
        let daemon = daemon::supervise(node.clone(), monitor.clone(), plan, lease_time);
        sim.spawn(Owner::World, daemon);
        Self { executor: Executor::new(&sim), sim, world, node, monitor }
    }

    /// An operator does this about the document.
    pub(super) fn operate(&self, help: Help, daemons: Vec<Node>) {
        let operator = Owner::Actor(80);
        let node = Node::new(&self.world, operator, &[]);
        let step = OperatorStep { pause: Duration::ZERO, document: 0, help };
        let work = operator::run(node, Monitor::default(), daemons, vec![step]);
        self.sim.spawn(operator, work);
    }

    /// Appends events to the document at once, in this order.
    pub(super) fn append(&self, events: &[(i64, Document)]) {
        let put = |(version, body): &(i64, Document)| Self::event(*version, body);
        self.world.apply(events.iter().map(put).collect());
    }

    /// The appending of one event.
    pub(super) fn event(version: i64, body: &Document) -> Op {
        let mut event = doc! { "_id": { "d": "a", "s": version }, "client": "c" };
        event.extend(body.clone());
        event.insert("at", DateTime::from_millis(version));
        let key = Key::Event(EventKey { document: id(), version });
        let row = Row::Raw(RawDocumentBuf::try_from(&event).unwrap());
        Op::Put { collection: EVENTS.into(), key, row }
    }

    fn put(&self, collection: &str, key: Key, row: Row) {
        self.world.apply(vec![Op::Put { collection: collection.into(), key, row }]);
    }

    pub(super) fn row(world: &World) -> Option<RawDocumentBuf> {
        row_of(&world.state().visible, &id()).cloned()
    }

    /// Runs until `done`, for three minutes at most.
    pub(super) fn until(&mut self, what: &str, done: impl FnMut(&World) -> bool) {
        self.within(Duration::from_secs(180), what, done);
    }

    /// The same for as long as is said.
    pub(super) fn within(
        &mut self,
        longest: Duration,
        what: &str,
        mut done: impl FnMut(&World) -> bool,
    ) {
        let (limit, world) = (self.sim.now() + longest, self.world.clone());
        let reached = self.executor.run(limit, || done(&world));
        assert_eq!(self.sim.outcome().0, None, "{what}");
        assert!(reached, "{what}");
    }

    pub(super) fn until_version(&mut self, version: i64) {
        self.until("the version is reached", |world| Self::is_at(world, version));
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        let later = self.sim.now() + time;
        self.until("time has passed", |world| world.sim.now() > later);
    }

    /// Whether the document has come to this version.
    pub(super) fn is_at(world: &World, version: i64) -> bool {
        Self::row(world).and_then(|row| version_of(&row)) == Some(version)
    }
}

pub(super) fn id() -> DocumentId {
    DocumentId::String("a".into())
}

pub(super) fn create() -> Document {
    doc! { "op": "create", "state": { "name": "one" } }
}

pub(super) fn update() -> Document {
    doc! { "op": "update", "patch": {} }
}

#[test]
fn a_record_that_comes_late_is_removed() {
    for seed in 0..20 {
        let mut scene = Scene::new(seed, None);
        scene.append(&[(1, create()), (2, update()), (3, update())]);
        scene.until_version(3);
        // As an instance sent it that saw the third event and not yet the second, and has died since.
        let mark = Quarantine { class: Class::Gap, version: 2, reason: "late".into() };
        let row = QuarantineRow { document: id(), mark, since: DateTime::from_millis(0) };
        scene.put(QUARANTINE, Key::Document(id()), Row::Quarantine(row));
        let recorded = |world: &World| !waiting(&world.state().visible).is_empty();
        scene.until("the record is there", recorded);
        scene.until("the record is gone", |world| !recorded(world));
    }
}

#[test]
fn a_parked_row_that_lost_its_mark_gets_it_again() {
    for seed in 0..20 {
        let mut scene = Scene::new(seed, None);
        scene.append(&[
            (1, create()),
            (2, doc! { "op": "update", "patch": { "$inc": { "name": 1 } } }),
        ]);
        let is_marked = |world: &World| {
            Scene::row(world).is_some_and(|row| row.get("quarantine").unwrap().is_some())
        };
        scene.until("the row is marked", is_marked);
        let mut bare = Document::try_from(&Scene::row(&scene.world).unwrap()).unwrap();
        bare.remove("quarantine");
        // As an instance writes it that was relieved, and knows nothing of the record.
        let bare = RawDocumentBuf::try_from(&bare).unwrap();
        scene.put(COLLECTION, Key::Document(id()), Row::Raw(bare));
        scene.until("the mark is gone", |world| !is_marked(world));
        scene.until("the mark is back", is_marked);
    }
}

/// A document that is parked at its second event, with more above it; and the skip of that event.
pub(super) fn parked(seed: u64) -> (Scene, Op) {
    let mut scene = Scene::new(seed, None);
    let poison = doc! { "op": "update", "patch": { "$inc": { "name": 1 } } };
    scene.append(&[(1, create()), (2, poison), (3, update())]);
    scene.until("the row is marked", |world| {
        Scene::row(world).is_some_and(|row| row.get("quarantine").unwrap().is_some())
    });
    let key = EventKey { document: id(), version: 2 };
    let row = Row::Skip(Skip {
        key: key.clone(),
        through: 2,
        told: vec![SkippedEvent { version: 2, client: "c".into(), seq: 2 }],
        class: Class::BadPatch,
        reason: String::new(),
        skipped_at: DateTime::from_millis(9),
    });
    (scene, Op::Put { collection: SKIPS.into(), key: Key::Event(key), row })
}

#[test]
fn a_skipped_event_does_not_park_its_document_again() {
    for seed in 0..20 {
        let (mut scene, skip) = parked(seed);
        // The row is as an instance wrote it late that had parked the document before the skip.
        scene.world.apply(vec![skip]);
        scene.until_version(3);
    }
}

#[test]
fn what_another_instance_has_skipped_is_noticed_before_a_checkpoint_passes_more() {
    for seed in 0..20 {
        let (mut scene, skip) = parked(seed);
        let mut moved = Document::try_from(&Scene::row(&scene.world).unwrap()).unwrap();
        moved.remove("quarantine");
        moved.insert("version", 3_i64);
        moved.insert("clock", doc! { "c": 3_i64 });
        moved.insert("updated_at", DateTime::from_millis(3));
        let row = Row::Raw(RawDocumentBuf::try_from(&moved).unwrap());
        let key = || Key::Document(id());
        // Skipped, gone on and off the record, all by another instance.
        scene.world.apply(vec![skip, Op::Put { collection: COLLECTION.into(), key: key(), row }]);
        scene.world.apply(vec![Op::Delete { collection: QUARANTINE.into(), key: key() }]);
        scene.until("it is off the record", |world| waiting(&world.state().visible).is_empty());
        scene.append(&[(4, update())]);
        scene.until_version(4);
    }
}

#[test]
fn a_lease_that_its_checkpoint_has_left_behind_is_raised() {
    for seed in 0..20 {
        let mut scene = Scene::new(seed, Some(Duration::from_secs(4)));
        scene.append(&[(1, create())]);
        let saved = |world: &World| saved_of(&world.state().visible, Part::WHOLE);
        let epoch = |world: &World| saved(world).map_or(0, |saved| saved.epoch);
        scene.until("it leads", |world| epoch(world) == 1);
        // As one that led before saves it late, after the row of its lease was lost.
        let mut later = saved(&scene.world).unwrap();
        later.epoch = 10;
        scene.put(CHECKPOINTS, Key::Checkpoint(Part::WHOLE), Row::Checkpoint(later));
        scene.until("it leads above that", |world| epoch(world) == 11);
        let leases = roster(&scene.world.state().visible).leases;
        assert_eq!(leases.iter().map(|lease| lease.epoch).collect::<Vec<_>>(), [11]);
    }
}

#[test]
fn a_lease_that_is_released_and_wanted_again_at_once_is_still_led() {
    for seed in 0..20 {
        let sim = Sim::new(seed, false);
        let world = World::new(&sim);
        sim.spawn(Owner::World, world.clone().replicate());
        let node = Node::new(&world, Owner::Daemon(0), &[]);
        let leaderships = Leaderships::default();
        let name = LeaseName { collection: COLLECTION.into(), part: Part::WHOLE };
        let settings = LeaseSettings { instance: "me".into(), lease_time: Duration::from_secs(4) };
        let time = VirtualTime::new(&sim, 0);
        let keeper = Keeper::new(SimLeases { node }, time, settings, leaderships.clone());
        sim.spawn(Owner::Daemon(0), keeper.run(CancellationToken::new()).map(Result::unwrap));
        let mut executor = Executor::new(&sim);
        // As when a collection is divided anew and back before the keeper looks.
        for limit in [60, 120] {
            leaderships.release(&name);
            let standing = leaderships.want(name.clone());
            let leads = || *standing.borrow() == Standing::Leader(1);
            assert!(executor.run(Duration::from_secs(limit), leads), "seed {seed}");
        }
    }
}

#[test]
fn nobody_leads_or_writes_any_more_once_the_data_is_in_a_newer_format() {
    for seed in 0..20 {
        let sim = Sim::new(seed, false);
        let world = World::new(&sim);
        sim.spawn(Owner::World, world.clone().replicate());
        let node = Node::new(&world, Owner::Daemon(0), &[]);
        let leaderships = Leaderships::default();
        let name = LeaseName { collection: COLLECTION.into(), part: Part::WHOLE };
        let settings = LeaseSettings { instance: "me".into(), lease_time: Duration::from_secs(4) };
        let time = VirtualTime::new(&sim, 0);
        let keeper = Keeper::new(SimLeases { node }, time, settings, leaderships.clone());
        let standing = leaderships.want(name);
        let (end, mut ended) = oneshot::channel();
        sim.spawn(Owner::Daemon(0), async move {
            end.send(keeper.run(CancellationToken::new()).await).unwrap();
        });
        let mut executor = Executor::new(&sim);
        world.put_format(FORMAT);
        let leads = || *standing.borrow() == Standing::Leader(1);
        assert!(executor.run(Duration::from_secs(60), leads), "seed {seed}");
        world.put_format(FORMAT + 1);
        let before = world.state().oplog.len();
        let mut outcome = None;
        let ends = || {
            outcome = ended.try_recv().ok();
            outcome.is_some()
        };
        assert!(executor.run(Duration::from_secs(120), ends), "seed {seed}");
        assert_eq!(outcome.unwrap().unwrap_err().found, FORMAT + 1);
        assert_eq!(*standing.borrow(), Standing::Standby, "seed {seed}");
        let wrote = world.state().oplog.len() - before;
        assert!(wrote <= 2, "seed {seed}: {wrote} writes, of a beat that had begun before");
    }
}

#[test]
fn what_was_read_from_one_member_is_not_missed_in_what_another_knows() {
    for seed in 0..400 {
        // So small a cache that the document is loaded again at every step.
        let mut scene = Scene::with_cache(seed, None, 2);
        let saved = |world: &World| saved_of(&world.state().visible, Part::WHOLE);
        scene.until("a checkpoint is there", |world| {
            saved(world).is_some_and(|saved| saved.position.is_some())
        });
        let before = scene.world.state().oplog.len();
        scene.append(&[(1, create())]);
        scene.until_version(1);
        // It begins before the event, and goes on with a scan, which the stream is far behind.
        scene.node.crash(Duration::from_millis(10));
        scene.world.state().lose_history();
        let (world, node, mut rng) = (scene.world.clone(), scene.node.clone(), scene.sim.rng(1));
        scene.sim.spawn(Owner::World, async move {
            world.sim.sleep(Duration::from_millis(rng.u64(50..1_000))).await;
            // One member answers that knows of the event and not of the row, and then one that knows of neither.
            for seen in [before + 1, before] {
                world.state().elect(seen);
                world.state().lagging = true;
                world.sim.changed();
                if seen > before {
                    let done = oneshot::channel().0;
                    node.revisit(&id(), || Revisit { document: id(), how: How::OnItsRow, done });
                }
                world.sim.sleep(Duration::from_millis(rng.u64(2..40))).await;
            }
            world.sim.sleep(Duration::from_millis(500)).await;
            world.state().lagging = false;
            world.sim.changed();
        });
        let later = scene.sim.now() + Duration::from_secs(10);
        scene.until("a while has passed", |world| {
            assert!(waiting(&world.state().latest).is_empty(), "a hole at an event that is there");
            world.sim.now() > later
        });
    }
}

#[test]
fn a_document_is_looked_at_again_only_once_its_flush_has_returned() {
    for seed in 0..400 {
        let (mut scene, skip) = parked(seed);
        let before = scene.world.state().oplog.len();
        scene.world.apply(vec![skip]);
        let (world, node, mut rng) = (scene.world.clone(), scene.node.clone(), scene.sim.rng(1));
        scene.sim.spawn(Owner::World, async move {
            let look = || {
                node.revisit(&id(), || Revisit {
                    document: id(),
                    how: How::OnItsRow,
                    done: oneshot::channel().0,
                });
            };
            world.sim.sleep(Duration::from_millis(rng.u64(5..20))).await;
            look();
            world.sim.sleep(Duration::from_millis(rng.u64(5..40))).await;
            // Its row is on its way, and another member answers, which does not know of the skip.
            world.state().elect(before);
            world.state().lagging = true;
            look();
            world.sim.sleep(Duration::from_millis(300)).await;
            world.state().lagging = false;
            world.sim.changed();
        });
        scene.until_version(3);
        scene.pass(Duration::from_secs(5));
    }
}

/// A document behind a gap, with what would change it above that, and a daemon that stands still.
fn behind_a_gap(seed: u64) -> Scene {
    let mut scene = Scene::new(seed, None);
    let rename = |name: &str| doc! { "op": "update", "patch": { "$set": { "name": name } } };
    scene.append(&[(1, create()), (3, rename("three")), (4, rename("four"))]);
    let waits = |world: &World| !waiting(&world.state().visible).is_empty();
    scene.until("it waits", |world| waits(world) && Scene::is_at(world, 1));
    scene
}

/// Whether the state is what it was below the gap.
fn is_as_below(scene: &Scene) -> bool {
    let row = Scene::row(&scene.world).unwrap();
    row.get_document("state").and_then(|state| state.get_str("name")).ok() == Some("one")
}

#[test]
fn an_old_leader_applies_nothing_that_was_skipped_above_a_gap_while_he_stood_still() {
    for seed in 0..50 {
        let mut scene = behind_a_gap(seed);
        scene.sim.suspend(scene.node.owner);
        scene.operate(Help::SkipAbove, Vec::new());
        scene.until("it is skipped", |world| !skipped(&world.state().visible).is_empty());
        scene.sim.resume(scene.node.owner);
        scene.until_version(4);
        assert!(is_as_below(&scene), "seed {seed}");
        scene.append(&[(5, update())]);
        scene.until_version(5);
        assert!(is_as_below(&scene), "seed {seed}");
    }
}

#[test]
fn a_member_that_does_not_know_of_a_skip_yet_does_not_let_what_is_skipped_be_applied() {
    for seed in 0..200 {
        let mut scene = behind_a_gap(seed);
        let before = scene.world.state().oplog.len();
        scene.operate(Help::SkipAbove, vec![scene.node.clone()]);
        let (world, mut rng) = (scene.world.clone(), scene.sim.rng(1));
        scene.sim.spawn(Owner::World, async move {
            world.sim.sleep(Duration::from_millis(rng.u64(5..120))).await;
            // Another member answers, which has seen less than was read before.
            let seen = world.state().seen.min(before + rng.usize(..4));
            world.state().elect(seen);
            world.state().lagging = true;
            world.sim.changed();
            world.sim.sleep(Duration::from_millis(300)).await;
            world.state().lagging = false;
            world.sim.changed();
        });
        scene.until_version(4);
        assert!(is_as_below(&scene), "seed {seed}");
    }
}

#[test]
fn two_who_skip_the_same_at_once_do_it_once() {
    for seed in 0..50 {
        let mut scene = behind_a_gap(seed);
        scene.operate(Help::SkipAbove, vec![scene.node.clone()]);
        scene.operate(Help::SkipAbove, vec![scene.node.clone()]);
        scene.until_version(4);
        assert!(is_as_below(&scene), "seed {seed}");
        assert_eq!(skipped(&scene.world.state().visible).len(), 1, "seed {seed}");
    }
}

#[test]
fn whoever_begins_to_lead_soon_has_what_is_left_of_earlier_divisions_forgotten() {
    for seed in 0..20 {
        let mut scene = Scene::new(seed, None);
        scene.append(&[(1, create())]);
        let is_saved = |world: &World, part: Part| checkpoint(world, part).is_some();
        scene.until("a checkpoint is there", |world| is_saved(world, Part::WHOLE));
        let left = Part { index: 0, of: 2 };
        let saved = checkpoint(&scene.world, Part::WHOLE).unwrap();
        scene.put(CHECKPOINTS, Key::Checkpoint(left), Row::Checkpoint(saved));
        let node = Node::new(&scene.world, Owner::Actor(80), &[]);
        let time = VirtualTime::new(&scene.sim, 0);
        let (stands, first) = watch::channel(Standing::Standby);
        let status = Arc::new(watch::Sender::new(CollectionStatus::new(COLLECTION)));
        let observer = Observer::new(status, daemon::metrics(), time.clone());
        let watched = Watched { layout: watch::channel(None).0, first, observer };
        let watching = LayoutWatch {
            layouts: SimLayouts { node },
            time,
            collections: BTreeMap::from([(COLLECTION.to_owned(), watched)]),
            heart: Heart::unheard(),
        };
        scene.sim.spawn(Owner::Actor(80), watching.run());
        scene.pass(Duration::from_secs(20));
        assert!(is_saved(&scene.world, left), "only who leads has it forgotten");
        stands.send_replace(Standing::Leader(2));
        scene.within(Duration::from_secs(20), "it is gone", |world| !is_saved(world, left));
    }
}
