//! Scenes of a document that is erased while its daemon follows the log: nothing of its content is anywhere afterwards.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bson::{Document, RawDocumentBuf, doc};

use super::{
    archive::archive_of,
    compacted::ALL,
    compaction, erasing,
    executor::Owner,
    monitor::Monitor,
    node::Node,
    plan::Help,
    regressions::{Scene, id},
    skips::{SKIPS, skipped},
    store::{QUARANTINE, SimStore, log_id, waiting},
    world::{Data, EVENTS, Key, Op, Row, World},
};
use crate::{
    archive::Kept,
    model::{
        event::EventKey,
        id::DocumentId,
        part::Part,
        skip::{Skip, SkippedVersions},
    },
    planted::{Bug, plant, planted},
    store::Forgotten,
    upkeep::erase::Begun,
};

/// What is searched for.
const MARKER: &str = "strictly-private";
/// A leader that comes late.
const LATE: Owner = Owner::Actor(63);

fn private(version: i64) -> Document {
    match version {
        1 => doc! { "op": "create", "state": { "name": MARKER, "n": 0 } },
        _ => {
            doc! { "op": "update", "patch": { "$set": { "name": format!("{MARKER} {version}") } } }
        }
    }
}

fn delete() -> Document {
    doc! { "op": "delete" }
}

/// Where the marker is, of what the majority and the archive hold.
fn found(world: &World) -> Vec<String> {
    let state = world.state();
    let rows = state
        .visible
        .collections
        .iter()
        .flat_map(|(name, found)| found.rows.iter().map(move |(key, row)| (name, key, row)));
    let has = |bytes: &[u8]| bytes.windows(MARKER.len()).any(|bytes| bytes == MARKER.as_bytes());
    let holds = |row: &Row| match row.raw() {
        Some(raw) => has(raw.as_bytes()),
        None => format!("{row:?}").contains(MARKER),
    };
    let rows = rows.filter(|(_, _, row)| holds(row));
    let rows = rows.map(|(name, key, _)| format!("{name} {key:?}"));
    let segments = state.archives.contents().filter(|(_, content)| has(content));
    rows.chain(segments.map(|(name, _)| name.clone())).collect()
}

impl Scene {
    /// Erases it as a job does that has found it deleted at this version.
    fn erase(&mut self, version: i64) -> Result<Begun, String> {
        let done = Arc::new(Mutex::new(None));
        let (node, told) = (Node::new(&self.world, Owner::Actor(61), &[]), Arc::clone(&done));
        self.sim.spawn(Owner::Actor(61), async move {
            let begun = Begun { version, is_deleted: true, ..Begun::default() };
            let erased = erasing::erase(&node, &Monitor::default(), &id(), begun).await;
            *told.lock().unwrap() = Some(erased);
        });
        let is_done = Arc::clone(&done);
        self.until("it is erased", move |_| is_done.lock().unwrap().is_some());
        done.lock().unwrap().take().unwrap()
    }
}

/// Six events, with one that is skipped for a reason that tells of the content, and the deletion.
fn deleted(seed: u64) -> Scene {
    let mut scene = Scene::new(seed, None);
    let poison = doc! { "op": "update", "patch": { "$inc": { "name": 1 } } };
    scene.append(&[(1, private(1)), (2, private(2)), (3, poison)]);
    scene.until("it waits", |world| {
        !waiting(&world.state().visible).is_empty() && Scene::is_at(world, 2)
    });
    scene.operate(Help::Skip, Vec::new());
    scene.until("it is skipped", |world| !skipped(&world.state().visible).is_empty());
    scene.append(&[(4, private(4)), (5, private(5)), (6, delete())]);
    scene.until_version(6);
    scene.world.tell_in_skips(MARKER);
    scene.settled();
    scene
}

/// What an erasure of everything up to `through` writes beside the log. There are neither snapshots nor jobs here.
pub(super) fn forgetting(data: &Data, id: &DocumentId, through: i64) -> (Vec<Op>, Forgotten) {
    let (mut ops, mut forgotten) = (Vec::new(), Forgotten::default());
    let rows = |name: &str| data.collections.get(name).into_iter().flat_map(|found| &found.rows);
    for (key, row) in rows(QUARANTINE) {
        let is_its = match (key, row) {
            (Key::Late(event, _), _) => event.document == *id && event.version <= through,
            (_, Row::Quarantine(row)) => row.document == *id && row.mark.version <= through,
            _ => false,
        };
        if is_its && !planted(Bug::ErasureForgetsRecords) {
            ops.push(Op::Delete { collection: QUARANTINE.into(), key: key.clone() });
            forgotten.records += 1;
        }
    }
    for (key, row) in rows(SKIPS) {
        let Row::Skip(skip) = row else { continue };
        let is_its = skip.key.document == *id && skip.key.version <= through;
        if is_its && skip.reason != "erased" && !planted(Bug::ErasureForgetsReasons) {
            let row = Row::Skip(Skip { reason: "erased".into(), ..skip.clone() });
            ops.push(Op::Put { collection: SKIPS.into(), key: key.clone(), row });
            forgotten.skips += 1;
        }
    }
    (ops, forgotten)
}

#[test]
fn nothing_is_left_of_what_is_erased_nor_of_what_comes_late() {
    for seed in 0..20 {
        let mut scene = deleted(seed);
        assert!(scene.erase(6).is_ok(), "seed {seed}");
        scene.settled();
        assert_eq!(found(&scene.world), Vec::<String>::new(), "seed {seed}");
        let versions: Vec<i64> =
            scene.world.state().visible.events(&id(), 0).map(|(version, _)| version).collect();
        assert_eq!(versions, [1, 6], "seed {seed}");
        // It lives again. What comes late then is still of the life before.
        scene.append(&[(7, doc! { "op": "create", "state": { "n": 7 } }), (4, private(4))]);
        scene.until_version(7);
        let node = Node::new(&scene.world, Owner::Actor(62), &[]);
        scene.sim.spawn(Owner::Actor(62), async move {
            let all = crate::model::compaction::Retention {
                min_age: Duration::ZERO,
                keep_events: 0,
                client_ttl: Duration::ZERO,
            };
            compaction::pass(&node, &Monitor::default(), all, (&[id()], false, false)).await;
        });
        scene.until("it is taken out", |world| {
            world.state().visible.events(&id(), 1).all(|(version, _)| version >= 6)
        });
        scene.settled();
        assert_eq!(found(&scene.world), Vec::<String>::new(), "seed {seed}");
        assert!(scene.world.state().visible.collections.contains_key(EVENTS));
    }
}

#[test]
fn an_event_on_record_as_late_is_erased_with_the_document() {
    for seed in 0..20 {
        let mut scene = deleted(seed);
        let key = EventKey { document: id(), version: 3 };
        let row = Row::Raw(RawDocumentBuf::try_from(&private(3)).unwrap());
        let collection = QUARANTINE.into();
        scene.world.apply(vec![Op::Put { collection, key: Key::Late(key, 0), row }]);
        scene.settled();
        let before = found(&scene.world);
        assert!(before.iter().any(|place| place.starts_with(QUARANTINE)), "{before:?}");
        assert!(scene.erase(6).is_ok(), "seed {seed}");
        scene.settled();
        assert_eq!(found(&scene.world), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn what_is_not_deleted_is_not_erased() {
    for seed in 0..20 {
        let mut scene = Scene::new(seed, None);
        scene.append(&[(1, private(1)), (2, private(2))]);
        scene.until_version(2);
        scene.settled();
        let erased = scene.erase(2);
        assert!(erased.is_err(), "seed {seed}: {erased:?}");
    }
}

/// The same, and everything but the deletion is in the archive.
fn archived(seed: u64) -> (Scene, Vec<RawDocumentBuf>) {
    let mut scene = deleted(seed);
    scene.until("it waits for nothing", |world| waiting(&world.state().visible).is_empty());
    let log = scene.log();
    let done = scene.compact(ALL);
    assert_eq!(done.stands, None, "seed {seed}");
    scene.settled();
    assert_eq!(scene.versions(), [1, 6], "seed {seed}: {done:?}");
    assert!(found(&scene.world).iter().any(|place| place.starts_with("segments/")), "seed {seed}");
    (scene, log)
}

#[test]
fn what_was_archived_is_erased_with_the_document() {
    for seed in 0..20 {
        let (mut scene, _) = archived(seed);
        assert!(scene.erase(6).is_ok(), "seed {seed}");
        scene.settled();
        assert_eq!(found(&scene.world), Vec::<String>::new(), "seed {seed}");
        assert!(!scene.restore(), "seed {seed}");
    }
}

#[test]
fn nothing_is_restored_while_its_erasure_has_not_come_to_the_archive() {
    for seed in 0..20 {
        let (mut scene, _) = archived(seed);
        // Its archive is damaged, so that the rest of it is done.
        let whole = scene.world.state().archives.objects.clone();
        let segments = |name: &String| name.starts_with("segments/");
        scene.world.state().archives.objects.retain(|name, _| !segments(name));
        let why = scene.erase(6).unwrap_err();
        assert!(why.contains("not yet in its archive"), "seed {seed}: {why}");
        scene.world.state().archives.objects = whole;
        assert!(!scene.restore(), "seed {seed}");
        assert_eq!(scene.versions(), [1, 6], "seed {seed}");
        assert!(scene.erase(6).is_ok(), "seed {seed}");
        scene.settled();
        assert_eq!(found(&scene.world), Vec::<String>::new(), "seed {seed}");
    }
}

/// A late leader keeps what it had read of the log before the erasure.
fn keep(scene: &mut Scene, log: &[RawDocumentBuf]) -> Arc<Mutex<Option<bool>>> {
    let done = Arc::new(Mutex::new(None));
    let (node, told) = (Node::new(&scene.world, LATE, &[]), Arc::clone(&done));
    let kept = Kept { id: id(), from: 1, events: log.to_vec(), skips: SkippedVersions::default() };
    scene.sim.spawn(LATE, async move {
        let store = SimStore::new(node.clone(), Monitor::default(), Part::WHOLE);
        let log = log_id(&node.world.state().latest).unwrap();
        let kept = archive_of(&node).keep(&store, log, &[kept]).await;
        *told.lock().unwrap() = Some(kept.is_ok());
    });
    done
}

/// The late one comes to nothing, and nothing of the document is left.
fn keeps_nothing(scene: &mut Scene, done: Arc<Mutex<Option<bool>>>, seed: u64) {
    let is_done = Arc::clone(&done);
    scene.until("the late one is done", move |_| is_done.lock().unwrap().is_some());
    assert_eq!(*done.lock().unwrap(), Some(false), "seed {seed}");
    scene.settled();
    assert_eq!(found(&scene.world), Vec::<String>::new(), "seed {seed}");
}

#[test]
fn a_late_leader_archives_nothing_of_what_was_erased() {
    for seed in 0..20 {
        let (mut scene, log) = archived(seed);
        assert!(scene.erase(6).is_ok(), "seed {seed}");
        let done = keep(&mut scene, &log[..4]);
        keeps_nothing(&mut scene, done, seed);
    }
}

#[test]
fn a_leader_that_was_about_to_archive_finds_the_name_of_its_segment_taken() {
    for seed in 0..20 {
        let (mut scene, log) = archived(seed);
        scene.world.state().archives.held_back = Some(LATE);
        let done = keep(&mut scene, &log[..4]);
        scene.pass(Duration::from_secs(3));
        assert!(done.lock().unwrap().is_none(), "seed {seed}");
        assert!(scene.erase(6).is_ok(), "seed {seed}");
        scene.world.state().archives.held_back = None;
        keeps_nothing(&mut scene, done, seed);
    }
}

#[test]
fn bugs_of_erasures_are_found_by_their_scenes() {
    let scenes: [(Bug, fn()); 8] = [
        (Bug::ErasedWithoutDelete, what_is_not_deleted_is_not_erased),
        (Bug::ErasureForgetsRecords, an_event_on_record_as_late_is_erased_with_the_document),
        (Bug::ErasureForgetsReasons, nothing_is_left_of_what_is_erased_nor_of_what_comes_late),
        (Bug::LateKeepsErased, nothing_is_left_of_what_is_erased_nor_of_what_comes_late),
        (Bug::ErasureForgetsSegments, what_was_archived_is_erased_with_the_document),
        (Bug::ErasedIsRestored, nothing_is_restored_while_its_erasure_has_not_come_to_the_archive),
        (Bug::ErasedIsArchived, a_late_leader_archives_nothing_of_what_was_erased),
        (
            Bug::SegmentNameLeftFree,
            a_leader_that_was_about_to_archive_finds_the_name_of_its_segment_taken,
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
