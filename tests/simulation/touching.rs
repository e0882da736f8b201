//! Rows that somebody touches who is no daemon, and what has them made again.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, raw::cstr, rawdoc};
use fastrand::Rng;
use tokio::sync::oneshot;

use super::{
    executor::{Owner, Sim},
    monitor::Monitor,
    node::Node,
    plan::{Mishap, Plan, What, millis},
    regressions::{Scene, create},
    store::row_of,
    world::{COLLECTION, Key, Op, Row, World},
    writer::{DOCUMENTS, document_id},
};
use crate::{
    model::id::DocumentId,
    projector::revisit::{How, Revisit},
};

/// How often a repair is asked for, since it may be heard by nobody.
const ASKED: usize = 10;

/// Touches rows in one way.
pub(super) fn touch(world: &World, monitor: &Monitor, what: What) {
    let stored = |id: &DocumentId| row_of(&world.state().latest, id).cloned();
    let put = |id: DocumentId, row| {
        let (collection, key) = (COLLECTION.into(), Key::Document(id));
        world.apply(vec![Op::Put { collection, key, row: Row::Raw(row) }]);
    };
    match what {
        What::DeleteRow { document } => {
            monitor.deleted_by_hand(document_id(document));
            let key = Key::Document(document_id(document));
            world.apply(vec![Op::Delete { collection: COLLECTION.into(), key }]);
        }
        What::DamageRow { document, version } => {
            let id = document_id(document);
            let Some(row) = stored(&id) else { return };
            monitor.damaged_by_hand(id.clone());
            let mut damaged = rawdoc! { "_id": id.as_raw() };
            if let Some(version) = version {
                damaged.append(cstr!("version"), version);
            }
            let others = row.iter().flatten();
            let others = others.filter(|(name, _)| *name != "_id" && *name != "version");
            others.for_each(|(name, value)| damaged.append(name, value));
            put(id, damaged);
        }
        What::ChangeState { document } => {
            let id = document_id(document);
            let row = stored(&id).and_then(|row| Document::try_from(row).ok());
            let Some(mut row) = row else { return };
            let Ok(state) = row.get_document_mut("state") else { return };
            state.insert("touched", true);
            monitor.changed_by_hand(id.clone());
            put(id, RawDocumentBuf::try_from(&row).unwrap());
        }
        What::DropRows => {
            (0..DOCUMENTS).for_each(|document| monitor.deleted_by_hand(document_id(document)));
            world.apply(vec![Op::Drop { collection: COLLECTION.into() }]);
        }
        _ => {}
    }
}

/// Has the documents made again whose states were changed, until somebody has heard of it.
pub(super) fn repair(sim: &Sim, daemons: &[Node], changed: Vec<usize>) {
    if changed.is_empty() {
        return;
    }
    let (pauses, daemons) = (sim.clone(), daemons.to_vec());
    sim.spawn(Owner::World, async move {
        for _ in 0..ASKED {
            for document in &changed {
                let id = document_id(*document);
                for daemon in &daemons {
                    let (document, done) = (id.clone(), oneshot::channel().0);
                    let how = How::FromItsLog(None);
                    daemon.revisit(&id, || Revisit { document, how, done });
                }
            }
            pauses.sleep(Duration::from_secs(4)).await;
        }
    });
}

#[test]
fn a_row_that_is_gone_is_made_again_whichever_member_is_asked_for_it() {
    for seed in 0..100 {
        let mut scene = Scene::new(seed, None);
        scene.append(&[(1, create())]);
        scene.until_version(1);
        scene.pass(Duration::from_secs(1));
        let before = scene.world.state().oplog.len();
        touch(&scene.world, &scene.monitor, What::DeleteRow { document: 0 });
        let (world, mut rng) = (scene.world.clone(), scene.sim.rng(1));
        scene.sim.spawn(Owner::World, async move {
            world.sim.sleep(Duration::from_millis(rng.u64(1..60))).await;
            // Another member answers, which still has the row.
            world.state().elect(before);
            world.state().lagging = true;
            world.sim.changed();
            world.sim.sleep(Duration::from_millis(500)).await;
            world.state().lagging = false;
            world.sim.changed();
        });
        scene.pass(Duration::from_secs(10));
        assert!(Scene::is_at(&scene.world, 1), "seed {seed}");
    }
}

/// In a part of the runs somebody touches rows. With randomness of its own, since it came later than the rest.
pub(super) fn touch_rows(plan: &mut Plan, documents: usize, length: Duration) {
    let mut rng = Rng::with_seed(plan.seed ^ 0xA110_0004);
    if rng.u8(..4) != 0 {
        return;
    }
    let refuses = plan.mishaps.iter().any(|mishap| matches!(mishap.what, What::Refuse { .. }));
    let span = length.as_millis() as u64 + 4_000;
    for _ in 0..rng.usize(1..4) {
        let document = rng.usize(..documents);
        let what = match rng.u8(..8) {
            // With one daemon, which has the only copies in memory, and reads none of them again because it is refused.
            6 | 7 if plan.daemons.len() == 1 && !refuses => What::ChangeState { document },
            0..=2 | 6 | 7 => What::DeleteRow { document },
            3 | 4 => What::DamageRow { document, version: rng.bool().then(|| rng.i64(50..60)) },
            _ => What::DropRows,
        };
        // A state is mostly changed once its document has come to rest: the next event would repair it, since the document
        // in memory is right.
        let is_late = matches!(what, What::ChangeState { .. }) && rng.u8(..4) != 0;
        let at = millis(&mut rng, if is_late { span..span + 4_000 } else { 0..span });
        plan.mishaps.push(Mishap { at, what });
    }
    plan.mishaps.sort_by_key(|mishap| mishap.at);
}
