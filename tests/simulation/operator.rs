//! An operator who looks after documents that wait: retries them, skips events that cannot be applied, fills gaps and skips
//! what is above them, at any moment and through the code that the daemon does it with.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{
    executor::VirtualTime,
    log::SimLogSource,
    monitor::Monitor,
    node::Node,
    plan::{Help, OperatorStep},
    store::SimStore,
    world::{COLLECTION, Key, Op},
    writer::document_id,
};
use crate::{
    model::{id::DocumentId, part::Part},
    projector::revisit::{How, Revisit},
    time::Time,
    upkeep::operate::{self, Filling, Means, OperateError},
};

/// How often a step is tried while the database is away.
const ATTEMPTS: usize = 4;

/// Helps after every pause, and has all projectors look at the document then.
pub(super) async fn run(
    node: Node,
    monitor: Monitor,
    daemons: Vec<Node>,
    steps: Vec<OperatorStep>,
) {
    let time = VirtualTime::new(node.sim(), 0);
    for OperatorStep { pause, document, help } in steps {
        node.sim().sleep(pause).await;
        let id = document_id(document);
        for _ in 0..ATTEMPTS {
            match step(&node, &monitor, &time, (&id, help)).await {
                Err(OperateError::Database(_)) => time.sleep(Duration::from_millis(100)).await,
                done => {
                    node.sim().tell(|| format!("{:?} {help:?} {id}: {done:?}", node.owner));
                    break;
                }
            }
        }
        for daemon in &daemons {
            daemon.revisit(&id, || Revisit {
                document: id.clone(),
                how: How::OnItsRow,
                done: oneshot::channel().0,
            });
        }
    }
}

async fn step(
    node: &Node,
    monitor: &Monitor,
    time: &VirtualTime,
    (id, help): (&DocumentId, Help),
) -> Result<(), OperateError> {
    let source = SimLogSource { node: node.clone() };
    let store = SimStore::new(node.clone(), monitor.clone(), Part::WHOLE);
    let open = async || operate::open(&source, COLLECTION, &store).await;
    match help {
        Help::Retry => Ok(()),
        Help::Skip => {
            let version = operate::parked_at(&store, id, None).await?;
            operate::skip(&source, &open().await?, &store, time, (id, version)).await.map(drop)
        }
        Help::Fill | Help::SkipAbove => {
            let gap = operate::closable(&store, id, None, Duration::ZERO).await?;
            let (source, log, store) = (&source, &open().await?, &store);
            let means = Means { source, log, store, time };
            let skips_above = help == Help::SkipAbove;
            let mut filling = Filling::begin(means, (id, gap), skips_above).await?;
            while filling.step(means).await?.is_none() {}
            Ok(())
        }
        Help::Refold => {
            monitor.deleted_by_hand(id.clone());
            let (collection, key) = (COLLECTION.into(), Key::Document(id.clone()));
            node.world.apply(vec![Op::Delete { collection, key }]);
            Ok(())
        }
    }
}
