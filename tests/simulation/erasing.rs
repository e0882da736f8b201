//! Erasures in runs: documents are erased at any moment, by the code that a job runs, which is killed and goes on, while
//! everything else goes on as well. At the end nothing is left of what they have erased.

use std::time::Duration;

use bson::RawDocument;
use fastrand::Rng;
use futures::future::{Either, select};

use super::{
    archive::archive_of,
    bases::base_of,
    compaction,
    log::SimLogSource,
    monitor::Monitor,
    node::Node,
    plan::{CallFault, Plan},
    skips::SKIPS,
    store::{QUARANTINE, SimStore, waiting},
    world::{COLLECTION, Key, Row, State},
    writer::document_id,
};
use crate::{
    log::LogSource,
    model::{
        compaction::{GRACE_MAX, Retention},
        event::EventKey,
        id::DocumentId,
        part::Part,
    },
    upkeep::erase::{Begun, EraseError, Eraser, Stepped},
};

/// How often a step is tried, at the most.
const STEPS_MAX: usize = 300;
/// How often somebody asks for the erasure of what cannot be erased yet, and after what time.
const ATTEMPTS: usize = 4;
const AGAIN: Duration = Duration::from_secs(2);
/// The pause after a step that waits, or that the database refused.
const PAUSE: Duration = Duration::from_millis(100);

/// Somebody erases a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ErasePlan {
    pub(super) pause: Duration,
    pub(super) document: usize,
    pub(super) faults: Vec<CallFault>,
    /// Whoever does it is killed after so long, and another one goes on after the pause.
    pub(super) killed: Option<(Duration, Duration)>,
}

/// The erasures of a run, of those that there may be.
pub(super) fn planned(seed: u64, span: u64, documents: usize) -> Vec<ErasePlan> {
    let mut rng = Rng::with_seed(seed ^ 0xA110_0006);
    let millis = |rng: &mut Rng, upto: u64| Duration::from_millis(rng.u64(0..upto));
    let count = [0, 0, 1, 1, 2][rng.usize(..5)];
    let plan = |rng: &mut Rng| ErasePlan {
        pause: millis(rng, span),
        document: rng.usize(..documents.min(2)),
        faults: compaction::faults(rng),
        killed: rng.bool().then(|| (millis(rng, 300), millis(rng, 3_000))),
    };
    (0..count).map(|_| plan(&mut rng)).collect()
}

pub(super) async fn run(node: Node, monitor: Monitor, plan: ErasePlan) {
    let sim = node.sim().clone();
    let id = document_id(plan.document);
    sim.sleep(plan.pause).await;
    if let Some((killed, pause)) = plan.killed {
        let work = erase(&node, &monitor, &id, Begun::default());
        if let Either::Right(_) = select(Box::pin(sim.sleep(killed)), Box::pin(work)).await {
            return;
        }
        sim.tell(|| format!("{:?} is killed", node.owner));
        sim.sleep(pause).await;
    }
    for _ in 0..ATTEMPTS {
        let begun = node.world.state().compaction.erasing.get(&id).copied();
        if erase(&node, &monitor, &id, begun.unwrap_or_default()).await.is_ok() {
            return;
        }
        // It waits, or is not there yet.
        sim.sleep(AGAIN).await;
    }
}

/// Whoever was stopped in the middle goes on.
pub(super) async fn finish(node: &Node, monitor: &Monitor) {
    let erasing = node.world.state().compaction.erasing.clone();
    for (id, begun) in erasing {
        drop(erase(node, monitor, &id, begun).await);
    }
}

/// Erases a document as a job does, from where it is; what it has come to, or why it is not done.
pub(super) async fn erase(
    node: &Node,
    monitor: &Monitor,
    id: &DocumentId,
    mut begun: Begun,
) -> Result<Begun, String> {
    let source = SimLogSource { node: node.clone() };
    let store = SimStore::new(node.clone(), monitor.clone(), Part::WHOLE);
    let archive = archive_of(node);
    let retention = Retention { min_age: GRACE_MAX, keep_events: 9, client_ttl: GRACE_MAX };
    for _ in 0..STEPS_MAX {
        node.world.state().compaction.erasing.insert(id.clone(), begun);
        let Ok(Some(log)) = source.open(COLLECTION).await else {
            node.sim().sleep(PAUSE).await;
            continue;
        };
        let eraser = Eraser {
            source: &source,
            log: &log,
            store: &store,
            archive: Some(&archive),
            retention,
        };
        match eraser.step(id, &mut begun).await {
            Ok(Stepped::Done) => {
                node.sim().tell(|| format!("{:?} has erased {id}: {begun:?}", node.owner));
                let known = &mut node.world.state().compaction;
                known.erasing.remove(id);
                let through = known.erased.entry(id.clone()).or_default();
                *through = begun.version.max(*through);
                return Ok(begun);
            }
            Ok(Stepped::Went) => {}
            Ok(Stepped::Waits) | Err(EraseError::Database(_)) => node.sim().sleep(PAUSE).await,
            Err(error) => {
                let why = error.to_string();
                node.sim().tell(|| format!("{:?}: {why}", node.owner));
                node.world.state().compaction.erasing.remove(id);
                if why.contains("what its log makes of it") && !monitor.was_touched(id) {
                    node.sim().violation(format!("a false alarm: {why}"));
                }
                return Err(why);
            }
        }
    }
    Err("given up".into())
}

/// Where something is left of a document that was erased.
pub(super) fn left(state: &State, id: &DocumentId) -> Option<String> {
    let through = *state.compaction.erased.get(id)?;
    let told = |what: String| Some(format!("{id} is erased up to {through}, and {what}"));
    let says = base_of(&state.visible, id).map_or(0, |base| base.erased_through);
    if says < through {
        return told(format!("its base says {says}"));
    }
    let rows = |name: &str| {
        let found = state.visible.collections.get(name);
        found.into_iter().flat_map(|found| &found.rows)
    };
    for (key, row) in rows(QUARANTINE) {
        let Key::Late(event, _) = key else { continue };
        let has = |field| row.raw().is_some_and(|raw| raw.get(field).is_ok_and(|it| it.is_some()));
        let is_kept = ["state", "patch", "merge", "id"].into_iter().any(has);
        if event.document == *id && event.version <= through && is_kept {
            return told(format!("{row:?} is on record"));
        }
    }
    if let Some(row) = waiting(&state.visible)
        .iter()
        .find(|row| row.document == *id && row.mark.version <= through)
    {
        return told(format!("{row:?} is on record"));
    }
    for (_, row) in rows(SKIPS) {
        let Row::Skip(skip) = row else { continue };
        let is_its = skip.key.document == *id && skip.key.version <= through;
        if is_its && skip.reason != "erased" {
            return told(format!("{skip:?} tells of it"));
        }
    }
    for (name, content) in state.archives.contents() {
        let mut rest = &content[..];
        while let Some((event, behind)) = next(rest) {
            rest = behind;
            let key = EventKey::from_event(event).ok();
            if let Some(key) = key.filter(|key| key.document == *id && key.version <= through) {
                return told(format!("version {} is in {name}", key.version));
            }
        }
    }
    None
}

/// The first of the documents that stand one after the other, and the rest.
fn next(bytes: &[u8]) -> Option<(&RawDocument, &[u8])> {
    let size = usize::try_from(i32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let (first, rest) = bytes.split_at_checked(size)?;
    Some((RawDocument::from_bytes(first).ok()?, rest))
}

#[test]
fn documents_are_erased_in_many_runs_from_log_and_archive_and_by_a_second_one_too() {
    let plans = || (0..2_000).map(Plan::new).filter(|plan| !plan.compaction.erasures.is_empty());
    let words = ["has erased", "put_base", "create segments/", "delete segments/", "is killed"];
    let counts = compaction::told(plans().take(60), &words);
    for (word, (count, least)) in words.iter().zip(counts.iter().zip([30, 30, 15, 3, 20])) {
        assert!(*count >= least, "`{word}` in {count} of 60 runs");
    }
}
