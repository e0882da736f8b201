//! Rows that somebody touches who is no daemon, and what has them made again.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, raw::cstr, rawdoc};
use tokio::sync::oneshot;

use super::{
    executor::{Owner, Sim},
    monitor::Monitor,
    node::Node,
    plan::What,
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
