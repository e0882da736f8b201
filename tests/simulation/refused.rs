//! Rows that somebody's index refuses for a while, and rows of one version that hold different things: as scenes, since
//! the seeds meet them rarely.

use std::time::Duration;

use bson::{DateTime, Document, RawDocumentBuf, doc};
use fastrand::Rng;

use super::{
    plan::{Action, Help, Mishap, OperatorStep, Plan, What, millis},
    regressions::{Scene, create, id, update},
    skips::SKIPS,
    store::waiting,
    world::{COLLECTION, Key, Op, Row, World},
};
use crate::{
    model::{
        document::Class,
        event::EventKey,
        skip::{Skip, SkippedEvent},
    },
    planted::{Bug, plant},
};

fn rename(name: &str) -> Document {
    doc! { "op": "update", "patch": { "$set": { "name": name } } }
}

/// Whether the planted bug makes the scene fail.
fn is_found(bug: Bug, scene: fn()) -> bool {
    let scene = move || {
        plant(Some(bug));
        scene();
    };
    std::thread::spawn(scene).join().is_err()
}

#[test]
fn a_document_whose_row_was_refused_heals_once_nothing_refuses_it() {
    for seed in 0..20 {
        let mut scene = Scene::new(seed, None);
        scene.append(&[(1, create())]);
        scene.until_version(1);
        scene.world.state().refused_name = Some("two".into());
        scene.append(&[(2, rename("two")), (3, update())]);
        let is_parked = |world: &World| !waiting(&world.state().visible).is_empty();
        scene.until("it is parked", is_parked);
        scene.pass(Duration::from_secs(30));
        scene.world.state().refused_name = None;
        scene.until_version(3);
        scene.until("it waits no more", |world| !is_parked(world));
    }
}

#[test]
fn a_refused_document_whose_row_somebody_damages_is_made_again_as_far_as_it_may_be() {
    for damaged in [doc! { "_id": "a", "version": 59_i64 }, doc! { "_id": "a" }] {
        let damaged = Row::Raw(RawDocumentBuf::try_from(&damaged).unwrap());
        for seed in 0..10 {
            let mut scene = Scene::new(seed, None);
            scene.append(&[(1, create())]);
            scene.until_version(1);
            scene.world.state().refused_name = Some("two".into());
            scene.append(&[(2, rename("two")), (3, update())]);
            scene.until("it is parked", |world| !waiting(&world.state().visible).is_empty());
            let (collection, key) = (COLLECTION.into(), Key::Document(id()));
            scene.world.apply(vec![Op::Put { collection, key, row: damaged.clone() }]);
            let marked = |world: &World| {
                let row = Scene::row(world).and_then(|row| {
                    row.get("quarantine").ok()??.as_document()?.get_i64("version").ok()
                });
                row == Some(2) && Scene::is_at(world, 1)
            };
            scene.until("what is not refused is stored", marked);
            scene.world.state().refused_name = None;
            scene.until_version(3);
        }
    }
}

#[test]
fn what_an_operator_skipped_while_it_was_being_written_is_never_applied() {
    for seed in 0..20 {
        let mut scene = Scene::new(seed, None);
        scene.append(&[(1, create())]);
        scene.until_version(1);
        let mut row = Document::try_from(&Scene::row(&scene.world).unwrap()).unwrap();
        row.insert("version", 2_i64);
        row.insert("clock", doc! { "c": 2_i64 });
        row.insert("updated_at", DateTime::from_millis(2));
        let row = Row::Raw(RawDocumentBuf::try_from(&row).unwrap());
        let key = EventKey { document: id(), version: 2 };
        let skip = Row::Skip(Skip {
            key: key.clone(),
            through: 2,
            told: vec![SkippedEvent { version: 2, client: "c".into(), seq: 2 }],
            class: Class::Rejected,
            reason: String::new(),
            skipped_at: DateTime::from_millis(9),
        });
        // The daemon folds the event, and its flush comes to a row of the same version that does without it.
        scene.world.apply(vec![
            Scene::event(2, &rename("two")),
            Op::Put { collection: SKIPS.into(), key: Key::Event(key), row: skip },
            Op::Put { collection: COLLECTION.into(), key: Key::Document(id()), row },
        ]);
        scene.pass(Duration::from_secs(2));
        scene.append(&[(3, update())]);
        scene.until_version(3);
    }
}

#[test]
fn bugs_of_refused_and_of_skipped_rows_are_found_by_their_scenes() {
    let heals = a_document_whose_row_was_refused_heals_once_nothing_refuses_it;
    assert!(is_found(Bug::RefusedForEver, heals));
    let never_applied = what_an_operator_skipped_while_it_was_being_written_is_never_applied;
    assert!(is_found(Bug::SameVersionIsSuccess, never_applied));
}

/// In a part of the runs an index of somebody's refuses some rows for a while, and an operator skips what it stops, often
/// while the server hangs or somebody leads who should not. With randomness of its own, since it came later than the rest.
pub(super) fn refuse(plan: &mut Plan, length: Duration) {
    let mut rng = Rng::with_seed(plan.seed ^ 0xA110_0003);
    if rng.u8(..4) != 0 || plan.drops_log() {
        return;
    }
    let span = length.as_millis() as u64 + 2_000;
    for step in plan.writers.iter_mut().flat_map(|writer| &mut writer.steps) {
        if rng.u8(..3) == 0 {
            step.action = Action::Rename(rng.u8(..3));
        }
    }
    for _ in 0..rng.usize(1..=3) {
        let (at, time) = (millis(&mut rng, 0..span), millis(&mut rng, 500..8_000));
        plan.mishaps.push(Mishap { at, what: What::Refuse { name: rng.u8(..3), time } });
        let at = at + millis(&mut rng, 0..4_000);
        if rng.bool() {
            let time = millis(&mut rng, 10..4_000);
            let what = if rng.bool() { What::Freeze { time } } else { What::Stall { time } };
            plan.mishaps.push(Mishap { at, what });
        }
    }
    let documents = plan.writers.iter().flat_map(|writer| &writer.steps);
    let documents = documents.map(|step| step.document + 1).max().unwrap_or(1);
    let steps = rng.usize(2..12);
    let pace = (span * 2 / steps as u64).max(2);
    for _ in 0..steps {
        let help = if rng.u8(..4) == 0 { Help::Retry } else { Help::Skip };
        let pause = millis(&mut rng, 0..pace);
        plan.operator.steps.push(OperatorStep { pause, document: rng.usize(..documents), help });
    }
    plan.mishaps.sort_by_key(|mishap| mishap.at);
}
