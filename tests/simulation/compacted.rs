//! Scenes of logs that are compacted at the very moment, or were meddled with: too rare for the seeds.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bson::{Document, RawDocumentBuf, doc};

use super::{
    bases::{base_of, late_on_record},
    compaction,
    executor::Owner,
    monitor::Monitor,
    node::Node,
    plan::Help,
    regressions::{Scene, create, id, update},
    skips::{skipped, skipped_of},
    store::waiting,
    world::{COLLECTION, EVENTS, Key, Op, Row, World},
};
use crate::{
    model::{
        base::Base,
        compaction::Retention,
        document::{self, FoldLimits},
        event::EventKey,
    },
    planted::{Bug, plant},
    upkeep::compact::Compacted,
};

pub(super) const ALL: Retention =
    Retention { min_age: Duration::ZERO, keep_events: 0, client_ttl: Duration::ZERO };

fn key(version: i64) -> Key {
    Key::Event(EventKey { document: id(), version })
}

fn delete(version: i64) -> Op {
    Op::Delete { collection: EVENTS.into(), key: key(version) }
}

/// What compacts the document to `version` in one go: the base, and the deletion of what it stands for.
fn compacting(world: &World, version: i64) -> Vec<Op> {
    let state = world.state();
    let skips = skipped_of(&state.visible, &id());
    let mut folded = document::Document::new(id());
    let mut first = None;
    for (at, event) in state.visible.events(&id(), 0).take_while(|(at, _)| *at <= version) {
        first.get_or_insert(event);
        let key = EventKey { document: id(), version: at };
        let _outcome = folded.offer(&key, event, skips.contains(at), &FoldLimits::default());
    }
    let base = Base::of(&folded, first.unwrap(), world.sim.wall()).unwrap();
    assert_eq!(base.version, version);
    let base = Base { pruned: version - 1, ..base };
    let row = Row::Raw(base.to_raw());
    let put = Op::Replace { collection: EVENTS.into(), key: key(1), row };
    [put].into_iter().chain((2..version).map(delete)).collect()
}

impl Scene {
    /// Compacts the log as the daemon does.
    pub(super) fn compact(&mut self, retention: Retention) -> Compacted {
        let done = Arc::new(Mutex::new(None));
        let node = Node::new(&self.world, Owner::Actor(60), &[]);
        let told = Arc::clone(&done);
        self.sim.spawn(Owner::Actor(60), async move {
            let monitor = Monitor::default();
            let compacted =
                compaction::pass(&node, &monitor, retention, (&[id()], false, false)).await;
            *told.lock().unwrap() = compacted;
        });
        let is_done = Arc::clone(&done);
        self.until("it is compacted", move |_| is_done.lock().unwrap().is_some());
        done.lock().unwrap().take().unwrap()
    }

    pub(super) fn versions(&self) -> Vec<i64> {
        let state = self.world.state();
        state.visible.events(&id(), 0).map(|(version, _)| version).collect()
    }

    pub(super) fn settled(&mut self) {
        self.until("the majority has it", |world| {
            let state = world.state();
            state.seen == state.oplog.len()
        });
    }
}

fn inc() -> Document {
    doc! { "op": "update", "patch": { "$inc": { "n": 1_i64 } } }
}

/// A document with so many events that a base saves some.
pub(super) fn long(seed: u64) -> Scene {
    let mut scene = Scene::new(seed, None);
    let events: Vec<(i64, Document)> =
        (1..=12).map(|version| (version, if version == 1 { create() } else { inc() })).collect();
    scene.append(&events);
    scene.until_version(12);
    scene
}

/// A document is scanned from its first event on, and its log compacted meanwhile; to a second version at the moment at
/// which the event of the first base is asked for.
fn compacted_while_scanned(seed: u64, version: i64, then: Option<i64>) {
    let mut scene = long(seed);
    scene.node.crash(Duration::from_millis(500));
    scene.pass(Duration::from_millis(400));
    let gone = |collection: &str, key| Op::Delete { collection: collection.into(), key };
    let row = gone(COLLECTION, Key::Document(id()));
    scene.world.apply(vec![row]);
    scene.world.state().lose_history();
    scene.settled();
    let first = compacting(&scene.world, version);
    let then = then.map(|version| compacting(&scene.world, version));
    let (world, mut rng) = (scene.world.clone(), scene.sim.rng(1));
    scene.sim.spawn(Owner::World, async move {
        world.sim.sleep(Duration::from_millis(rng.u64(90..180))).await;
        world.apply(first);
        let Some(then) = then else { return };
        let asked = format!("read a above {}", version - 1);
        while !world.sim.was_told(&asked) {
            world.sim.sleep(Duration::from_millis(1)).await;
        }
        world.apply(then);
    });
    scene.until_version(12);
    scene.pass(Duration::from_secs(3));
    assert_eq!(waiting(&scene.world.state().visible), [], "seed {seed}");
}

#[test]
fn a_log_that_is_compacted_while_it_is_scanned_has_no_gap() {
    (0..100).for_each(|seed| compacted_while_scanned(seed, 11, None));
}

#[test]
fn a_base_that_another_replaces_while_it_is_read_parks_nothing() {
    (0..200).for_each(|seed| compacted_while_scanned(seed, 6, Some(11)));
}

#[test]
fn where_events_are_missing_below_a_base_none_is_pruned_and_it_is_told() {
    for seed in 0..20 {
        let mut scene = long(seed);
        let slow = Retention { min_age: Duration::from_secs(30), ..ALL };
        compaction::note_sizes(&scene.world);
        scene.pass(Duration::from_secs(31));
        let done = scene.compact(slow);
        assert!(done.findings.is_empty(), "seed {seed}: {done:?}");
        assert!(base_of(&scene.world.state().visible, &id()).is_some(), "seed {seed}");
        scene.world.apply(vec![delete(3)]);
        scene.pass(Duration::from_secs(31));
        let done = scene.compact(slow);
        assert_eq!(done.findings.len(), 1, "seed {seed}: {done:?}");
        assert_eq!(scene.versions().len(), 11, "seed {seed}");
    }
}

#[test]
fn what_came_late_is_taken_out_also_where_there_is_nothing_to_compact() {
    for seed in 0..20 {
        let mut scene = long(seed);
        let done = scene.compact(ALL);
        assert!(done.findings.is_empty(), "seed {seed}: {done:?}");
        assert_eq!(scene.versions(), [1, 12], "seed {seed}");
        scene.node.crash(Duration::from_secs(600));
        scene.append(&[(5, inc())]);
        scene.settled();
        let done = scene.compact(ALL);
        assert!(done.findings.is_empty(), "seed {seed}: {done:?}");
        assert_eq!(scene.versions(), [1, 12], "seed {seed}");
        assert_eq!(late_on_record(&scene.world.state().visible).len(), 1, "seed {seed}");
    }
}

#[test]
fn what_comes_late_while_the_stream_is_followed_goes_on_record_by_itself() {
    for seed in 0..20 {
        let mut scene = long(seed);
        let done = scene.compact(ALL);
        assert!(done.findings.is_empty(), "seed {seed}: {done:?}");
        scene.append(&[(5, inc())]);
        scene.until("it is on record", |world| late_on_record(&world.state().visible).len() == 1);
        assert_eq!(scene.versions(), [1, 12], "seed {seed}");
    }
}

#[test]
fn what_came_late_is_met_by_a_scan_behind_the_base() {
    for seed in 0..20 {
        let mut scene = long(seed);
        let done = scene.compact(ALL);
        assert!(done.findings.is_empty(), "seed {seed}: {done:?}");
        scene.node.crash(Duration::from_millis(500));
        scene.append(&[(5, inc())]);
        scene.settled();
        scene.world.state().lose_history();
        scene.until("it is on record", |world| late_on_record(&world.state().visible).len() == 1);
        assert_eq!(scene.versions(), [1, 12], "seed {seed}");
    }
}

#[test]
fn no_base_is_written_of_a_document_whose_row_was_meddled_with() {
    for seed in 0..20 {
        let mut scene = long(seed);
        let mut row = Document::try_from(&Scene::row(&scene.world).unwrap()).unwrap();
        row.get_document_mut("state").unwrap().insert("n", 99_i64);
        let row = Row::Raw(RawDocumentBuf::try_from(&row).unwrap());
        let collection = COLLECTION.into();
        scene.world.apply(vec![Op::Put { collection, key: Key::Document(id()), row }]);
        scene.settled();
        let done = scene.compact(ALL);
        assert_eq!(done.findings.len(), 1, "seed {seed}: {done:?}");
        assert!(base_of(&scene.world.state().visible, &id()).is_none(), "seed {seed}");
    }
}

#[test]
fn what_is_skipped_above_a_base_is_not_applied_by_whoever_meets_the_base_first() {
    for seed in 0..50 {
        let mut scene = Scene::new(seed, None);
        let rename = doc! { "op": "update", "patch": { "$set": { "name": "four" } } };
        scene.append(&[(1, create()), (3, update()), (4, rename)]);
        let waits = |world: &World| !waiting(&world.state().visible).is_empty();
        scene.until("it waits", |world| waits(world) && Scene::is_at(world, 1));
        scene.sim.suspend(scene.node.owner);
        scene.operate(Help::SkipAbove, Vec::new());
        scene.until("it is skipped", |world| !skipped(&world.state().visible).is_empty());
        scene.settled();
        scene.world.apply(compacting(&scene.world, 3));
        scene.settled();
        // The stream is over, so that the log is scanned, and begins with the base.
        scene.world.state().lose_history();
        scene.world.state().term += 1;
        scene.sim.resume(scene.node.owner);
        scene.sim.changed();
        scene.until_version(4);
        let row = Scene::row(&scene.world).unwrap();
        let name = row.get_document("state").unwrap().get_str("name").unwrap();
        assert_eq!(name, "one", "seed {seed}");
    }
}

#[test]
fn bugs_of_compaction_that_are_too_rare_for_seeds_are_found_by_their_scenes() {
    let scenes: [(Bug, fn()); 5] = [
        (Bug::GapWithoutBase, a_log_that_is_compacted_while_it_is_scanned_has_no_gap),
        (
            Bug::LateNotSuspected,
            what_comes_late_while_the_stream_is_followed_goes_on_record_by_itself,
        ),
        (
            Bug::StepWithoutCount,
            where_events_are_missing_below_a_base_none_is_pruned_and_it_is_told,
        ),
        (Bug::BaseNotProven, no_base_is_written_of_a_document_whose_row_was_meddled_with),
        (
            Bug::BaseSkipsNotReadAgain,
            what_is_skipped_above_a_base_is_not_applied_by_whoever_meets_the_base_first,
        ),
    ];
    for (bug, scene) in scenes {
        let found = std::thread::spawn(move || {
            plant(Some(bug));
            scene();
        });
        assert!(found.join().is_err(), "{bug:?}");
    }
}
