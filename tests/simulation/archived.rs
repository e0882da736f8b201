//! Scenes of archives: a disk that lies, a late leader, and events that are put back while everything goes on.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bson::RawDocumentBuf;

use super::{
    compacted::{ALL, long},
    compaction,
    executor::Owner,
    monitor::Monitor,
    node::Node,
    regressions::{Scene, id},
    restoring,
};
use crate::planted::{Bug, plant};

impl Scene {
    /// Puts back what was archived, as the daemon does; whether all of it was.
    pub(super) fn restore(&mut self) -> bool {
        let done = Arc::new(Mutex::new(None));
        let node = Node::new(&self.world, Owner::Actor(61), &[]);
        let told = Arc::clone(&done);
        self.sim.spawn(Owner::Actor(61), async move {
            let restored = restoring::restore(&node, &Monitor::default(), &id()).await;
            *told.lock().unwrap() = Some(restored.is_some());
        });
        let is_done = Arc::clone(&done);
        self.until("it is restored", move |_| is_done.lock().unwrap().is_some());
        done.lock().unwrap().take().unwrap()
    }

    pub(super) fn log(&self) -> Vec<RawDocumentBuf> {
        let state = self.world.state();
        state.visible.events(&id(), 0).map(|(_, event)| event.clone()).collect()
    }
}

#[test]
fn what_is_restored_is_the_log_that_was_there_byte_for_byte_and_is_held() {
    for seed in 0..20 {
        let mut scene = long(seed);
        let before = scene.log();
        assert_eq!(scene.compact(ALL).stands, None, "seed {seed}");
        assert_eq!(scene.versions(), [1, 12], "seed {seed}");
        assert!(scene.restore(), "seed {seed}");
        scene.settled();
        assert_eq!(scene.log(), before, "seed {seed}");
        // Nobody has asked for it.
        scene.compact(ALL);
        assert_eq!(scene.log(), before, "seed {seed}");
        scene.pass(Duration::from_secs(3));
        scene.until_version(12);
    }
}

#[test]
fn nothing_is_pruned_whose_segment_is_not_what_was_written() {
    for seed in 0..20 {
        let mut scene = long(seed);
        let before = scene.log();
        scene.world.state().archives.truncates = true;
        let done = scene.compact(ALL);
        let stands = done.stands.unwrap_or_default();
        assert!(
            stands.contains("segments/") && stands.contains("truncated"),
            "seed {seed}: {stands}"
        );
        assert_eq!(scene.log(), before, "seed {seed}");
    }
}

#[test]
fn what_is_gone_from_the_archive_is_written_anew_before_it_goes_from_the_log() {
    for seed in 0..20 {
        let mut scene = long(seed);
        let before = scene.log();
        scene.compact(ALL);
        assert!(scene.restore(), "seed {seed}");
        scene.settled();
        // What is left has the name, in every other run.
        let objects = std::mem::take(&mut scene.world.state().archives.objects);
        for (name, bytes) in objects {
            let is_segment = name.starts_with("segments/");
            let bytes = if is_segment { b"damaged".to_vec() } else { bytes };
            if !is_segment || seed % 2 == 0 {
                scene.world.state().archives.objects.insert(name, bytes);
            }
        }
        scene.world.state().archives.held.clear();
        let done = scene.compact(ALL);
        assert_eq!(done.stands, None, "seed {seed}");
        assert_eq!(scene.versions(), [1, 12], "seed {seed}");
        scene.settled();
        assert!(scene.restore(), "seed {seed}");
        scene.settled();
        assert_eq!(scene.log(), before, "seed {seed}");
    }
}

#[test]
fn a_late_leader_leaves_a_segment_as_it_is() {
    for seed in 0..20 {
        let mut scene = long(seed);
        let before = scene.log();
        let log = before.clone();
        scene.compact(ALL);
        assert_eq!(scene.versions(), [1, 12], "seed {seed}");
        // It had read the same events, and writes them from a disk that lies.
        scene.world.state().archives.truncates = true;
        let done = Arc::new(Mutex::new(false));
        let node = Node::new(&scene.world, Owner::Actor(62), &[]);
        let told = Arc::clone(&done);
        scene.sim.spawn(Owner::Actor(62), async move {
            compaction::keep_again(&node, &Monitor::default(), (&id(), &log[..11])).await;
            *told.lock().unwrap() = true;
        });
        let is_done = Arc::clone(&done);
        scene.until("the late one is done", move |_| *is_done.lock().unwrap());
        assert!(scene.restore(), "seed {seed}");
        scene.settled();
        assert_eq!(scene.log(), before, "seed {seed}");
    }
}

#[test]
fn bugs_of_archives_are_found_by_their_scenes() {
    let scenes: [(Bug, fn()); 3] = [
        (Bug::ArchiveNotReadBack, nothing_is_pruned_whose_segment_is_not_what_was_written),
        (Bug::SegmentOverwritten, a_late_leader_leaves_a_segment_as_it_is),
        (Bug::RestoredTooFar, what_is_restored_is_the_log_that_was_there_byte_for_byte_and_is_held),
    ];
    for (bug, scene) in scenes {
        let found = std::thread::spawn(move || {
            plant(Some(bug));
            scene();
        });
        assert!(found.join().is_err(), "{bug:?}");
    }
}
