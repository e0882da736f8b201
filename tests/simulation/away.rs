//! Scenes of a log that has another name for a moment, while something is read from it: it reads as empty then, and is
//! there again, the same as before, when its identity is asked for.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{
    executor::Owner,
    plan::Help,
    regressions::{Scene, checkpoint, create, id, parked, update},
    store::waiting,
    world::{EVENTS, Op, World},
};
use crate::{
    model::part::Part,
    planted::{Bug, plant},
    projector::revisit::{How, Revisit},
};

/// When the log goes, after now, and for how long it is away, in milliseconds.
struct Absence {
    after: u64,
    gone: u64,
    /// For how long the majority does not learn that it is back.
    unheard: u64,
}

impl Absence {
    async fn happen(self, world: World) {
        let rename = |from: &str, to: &str| Op::Rename { from: from.into(), to: to.into() };
        world.sim.sleep(Duration::from_millis(self.after)).await;
        world.apply(vec![rename(EVENTS, "aside.events")]);
        world.sim.sleep(Duration::from_millis(self.gone)).await;
        world.state().stalled = self.unheard > 0;
        world.apply(vec![rename("aside.events", EVENTS)]);
        world.sim.sleep(Duration::from_millis(self.unheard)).await;
        world.state().stalled = false;
        world.sim.changed();
    }
}

fn has_checkpoint(world: &World) -> bool {
    checkpoint(world, Part::WHOLE).is_some()
}

impl Scene {
    fn loses_its_log(&self, absence: Absence) {
        self.sim.spawn(Owner::World, absence.happen(self.world.clone()));
    }

    /// The document is looked at again after so long.
    fn look_again(&self, after: u64) {
        let node = self.node.clone();
        self.sim.spawn(Owner::World, async move {
            node.sim().sleep(Duration::from_millis(after)).await;
            node.revisit(&id(), || Revisit {
                document: id(),
                how: How::OnItsRow,
                done: oneshot::channel().0,
            });
        });
    }
}

#[test]
fn a_gap_that_is_looked_at_while_the_log_is_away_stays_on_record() {
    for seed in 0..400 {
        let mut scene = Scene::new(seed, None);
        scene.append(&[(2, update()), (3, update())]);
        scene.until("a checkpoint has passed them, on record", |world| {
            has_checkpoint(world) && !waiting(&world.state().visible).is_empty()
        });
        let mut rng = scene.sim.rng(1);
        let (looked_at, back) = (rng.u64(0..8), rng.u64(0..12));
        let absence = Absence { after: 0, gone: looked_at + back, unheard: 0 };
        scene.loses_its_log(absence);
        scene.look_again(looked_at);
        scene.pass(Duration::from_secs(1));
        scene.append(&[(1, create())]);
        scene.until_version(3);
    }
}

#[test]
fn a_log_that_is_away_while_it_is_read_is_not_at_its_end() {
    for seed in 0..400 {
        let mut scene = Scene::new(seed, None);
        scene.append(&[(1, create())]);
        scene.until_version(1);
        // The third event comes first, so that the log is read on from the first.
        scene.append(&[(3, update()), (2, update())]);
        let mut rng = scene.sim.rng(1);
        let absence = Absence { after: rng.u64(0..20), gone: rng.u64(1..20), unheard: 0 };
        scene.loses_its_log(absence);
        // No checkpoint passes an event that is neither in the row nor on record.
        scene.until_version(3);
    }
}

#[test]
fn what_a_skipped_document_waits_for_stays_on_record_while_the_log_is_away() {
    for seed in 0..400 {
        let (mut scene, _) = parked(seed);
        scene.until("a checkpoint has passed its events, on record", has_checkpoint);
        scene.operate(Help::Skip, Vec::new());
        scene.until_version(2);
        let mut rng = scene.sim.rng(1);
        let (looked_at, back) = (rng.u64(0..8), rng.u64(0..12));
        let absence = Absence { after: 0, gone: looked_at + back, unheard: rng.u64(0..100) };
        scene.loses_its_log(absence);
        scene.look_again(looked_at);
        scene.until_version(3);
        scene.until("it is off the record", |world| waiting(&world.state().visible).is_empty());
    }
}

#[test]
fn a_document_that_is_looked_at_again_while_the_log_is_away_does_not_go_back() {
    for seed in 0..2_000 {
        let mut scene = Scene::new(seed, None);
        scene.append(&[(1, create())]);
        scene.until_version(1);
        scene.until("a checkpoint is there", has_checkpoint);
        // Its next events may be on their way to it, in memory, or in a flush under way.
        scene.append(&[(2, update()), (3, update())]);
        let mut rng = scene.sim.rng(1);
        let (after, gone) = (rng.u64(0..20), rng.u64(1..20));
        let absence = Absence { after, gone, unheard: rng.u64(0..1_500) };
        scene.loses_its_log(absence);
        scene.look_again(after + rng.u64(0..gone));
        scene.until_version(3);
        scene.pass(Duration::from_secs(5));
    }
}

#[test]
fn no_checkpoint_passes_what_a_scan_did_not_see_while_the_log_was_away() {
    for seed in 0..2_000 {
        let mut scene = Scene::new(seed, None);
        scene.append(&[(1, create()), (2, update()), (3, update())]);
        let mut rng = scene.sim.rng(1);
        let (after, gone) = (rng.u64(0..40), rng.u64(1..30));
        let absence = Absence { after, gone, unheard: rng.u64(0..1_500) };
        scene.loses_its_log(absence);
        scene.until_version(3);
        scene.until("a checkpoint has passed them", has_checkpoint);
    }
}

/// Too rare for the seeds: a log has to be away just when it is read.
#[test]
fn a_command_that_does_not_name_its_log_is_found_by_a_scene() {
    let scene = std::thread::spawn(|| {
        plant(Some(Bug::LogNotNamed));
        a_log_that_is_away_while_it_is_read_is_not_at_its_end();
    });
    assert!(scene.join().is_err());
}
