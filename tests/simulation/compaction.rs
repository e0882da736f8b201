//! Who compacts the log, who reads it and tells how far, and who comes late: at random moments, through the daemon's own
//! code, while everything else goes on. In a part of the runs, with randomness of its own.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use fastrand::Rng;
use futures::future::{Either, select};
use tokio::sync::mpsc;

use super::{
    archive::archive_of,
    erasing::{self, ErasePlan},
    executor::Sim,
    log::SimLogSource,
    monitor::Monitor,
    node::Node,
    plan::{
        Action, CallFault, Help, Mishap, OperatorStep, Plan, Step, Trouble, What, When, WriterPlan,
    },
    restoring::RestoringPlan,
    store::{SimStore, log_id, row_of, version_of},
    world::{COLLECTION, World},
    writer::{Appends, DOCUMENTS, Writer, document_id},
};
use crate::{
    archive::Kept,
    log::{EventLog, LogSource},
    model::{
        clock::Clock,
        compaction::{LiveClient, Mark, Notice, Retention},
        document,
        id::DocumentId,
        part::Part,
        skip::SkippedVersions,
    },
    store::{ArchiveRows, Bases},
    upkeep::compact::{Compacted, Compactor},
};

/// How long a client counts. Some runs are longer.
const CLIENT_TTL: Duration = Duration::from_secs(20);
/// So many marks of a document are kept.
const MARKS_MAX: usize = 10;

/// What there is of compaction in a run. Without compactors there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CompactionPlan {
    pub(super) keep_events: i64,
    pub(super) min_age: Duration,
    /// See [`super::bases::Known`].
    pub(super) busy: usize,
    pub(super) compactors: Vec<CompactorPlan>,
    pub(super) clients: Vec<ClientPlan>,
    pub(super) late: Vec<LatePlan>,
    pub(super) erasures: Vec<ErasePlan>,
    pub(super) restoring: RestoringPlan,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct CompactorPlan {
    pub(super) faults: Vec<CallFault>,
    pub(super) steps: Vec<CompactStep>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CompactStep {
    pub(super) pause: Duration,
    /// Only this document, or all.
    pub(super) document: Option<usize>,
    pub(super) is_dry: bool,
    /// It is killed after so long, wherever it stands.
    pub(super) killed: Option<Duration>,
}

/// A client that tells what it has of a document: first nothing, then more.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ClientPlan {
    pub(super) document: usize,
    pub(super) pauses: Vec<Duration>,
}

/// A writer that has read the last version, and inserts after a nap: at the next place, or further down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LatePlan {
    pub(super) pause: Duration,
    pub(super) document: usize,
    pub(super) nap: Duration,
    pub(super) down: i64,
}

pub(super) fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

/// In a part of the runs the log is compacted. The writers have more to do in these.
pub(super) fn compact(plan: &mut Plan, length: Duration) {
    let mut rng = Rng::with_seed(plan.seed ^ 0xA110_0005);
    if rng.u8(..4) != 0 || plan.drops_log() {
        return;
    }
    let span = length.as_millis() as u64 + 3_000;
    let documents = plan.writers.iter().flat_map(|writer| &writer.steps);
    let documents = documents.map(|step| step.document + 1).max().unwrap_or(1);
    for writer in &mut plan.writers {
        for _ in 0..rng.usize(5..35) {
            let at = rng.usize(..=writer.steps.len());
            let pause = if rng.u8(..3) == 0 { millis(&mut rng, 0..400) } else { Duration::ZERO };
            let action = Action::Add(rng.i64(1..100));
            let document = rng.usize(..documents.min(2));
            writer.steps.insert(at, Step { pause, document, action });
        }
    }
    let compactor = |rng: &mut Rng| {
        let steps = rng.usize(4..20);
        let pace = (span * 2 / steps as u64).max(2);
        let step = |rng: &mut Rng| CompactStep {
            pause: if rng.u8(..4) == 0 { Duration::ZERO } else { millis(rng, 0..pace) },
            document: rng.bool().then(|| rng.usize(..documents)),
            is_dry: rng.u8(..10) == 0,
            killed: (rng.u8(..4) == 0).then(|| millis(rng, 0..200)),
        };
        let steps = (0..steps).map(|_| step(rng)).collect();
        CompactorPlan { faults: faults(rng), steps }
    };
    let compactors = [1, 1, 2][rng.usize(..3)];
    let compactors = (0..compactors).map(|_| compactor(&mut rng)).collect();
    let clients = (0..rng.usize(..3)).map(|_| ClientPlan {
        document: rng.usize(..documents),
        pauses: (0..rng.usize(1..8)).map(|_| millis(&mut rng, 0..span / 2)).collect(),
    });
    let clients = clients.collect();
    let late = (0..rng.usize(1..10)).map(|_| LatePlan {
        pause: millis(&mut rng, 0..span),
        document: rng.usize(..documents.min(2)),
        nap: millis(&mut rng, 0..4_000),
        down: [0, 0, 1, 2, 3, 4, 5, 7, 9, 12][rng.usize(..10)],
    });
    let mut late: Vec<LatePlan> = late.collect();
    // Whoever makes a row again, and reads on below a base that he has not met, is protected from what comes late by the
    // grace alone.
    let is_refold = |step: &OperatorStep| step.help == Help::Refold;
    let is_lost = |mishap: &Mishap| {
        let Mishap { what, .. } = mishap;
        matches!(what, What::DeleteRow { .. } | What::DamageRow { .. } | What::DropRows)
            || matches!(what, What::ChangeState { .. })
    };
    if plan.operator.steps.iter().any(is_refold) || plan.mishaps.iter().any(is_lost) {
        late.clear();
    }
    plan.compaction = CompactionPlan {
        keep_events: [0, 0, 1, 2, 4][rng.usize(..5)],
        min_age: [0, 0, 300, 2_000, 5_000].map(Duration::from_millis)[rng.usize(..5)],
        busy: [0, 2, 5][rng.usize(..3)],
        compactors,
        clients,
        late,
        erasures: erasing::planned(plan.seed, span, documents),
        restoring: RestoringPlan::new(&mut rng, documents, span),
    };
}

pub(super) fn faults(rng: &mut Rng) -> Vec<CallFault> {
    let count = if rng.bool() { 0 } else { rng.usize(1..6) };
    let fault = |rng: &mut Rng| CallFault {
        call: rng.u32(..80),
        when: [When::Before, When::During, When::After][rng.usize(..3)],
        trouble: Trouble::Error,
    };
    (0..count).map(|_| fault(rng)).collect()
}

impl CompactionPlan {
    pub(super) fn is_empty(&self) -> bool {
        self.compactors.is_empty()
    }

    pub(super) fn retention(&self) -> Retention {
        let Self { keep_events, min_age, .. } = self;
        Retention { min_age: *min_age, keep_events: *keep_events, client_ttl: CLIENT_TTL }
    }

    /// Tells the world of it.
    pub(super) fn begin(&self, world: &World) {
        let mut state = world.state();
        state.compaction.is_on = !self.is_empty();
        state.compaction.grace = self.min_age;
        state.compaction.client_ttl = CLIENT_TTL;
        state.compaction.busy = self.busy;
    }
}

/// Compacts again and again.
pub(super) async fn run(
    node: Node,
    monitor: Monitor,
    retention: Retention,
    steps: Vec<CompactStep>,
) {
    let sim = node.sim().clone();
    for step in steps {
        sim.sleep(step.pause).await;
        note_sizes(&node.world);
        let ids = match step.document {
            Some(document) => vec![document_id(document)],
            None => (0..DOCUMENTS).map(document_id).collect(),
        };
        // As a job about one document is.
        let is_asked = step.document.is_some();
        let work = sound_pass(&node, &monitor, retention, (&ids, step.is_dry, is_asked));
        let Some(killed) = step.killed else {
            work.await;
            continue;
        };
        if let Either::Right(_) = select(Box::pin(sim.sleep(killed)), Box::pin(work)).await {
            continue;
        }
        sim.tell(|| format!("{:?} is killed", node.owner));
    }
}

/// One pass over some documents.
pub(super) async fn pass(
    node: &Node,
    monitor: &Monitor,
    retention: Retention,
    (ids, is_dry, is_asked): (&[DocumentId], bool, bool),
) -> Option<Compacted> {
    let source = SimLogSource { node: node.clone() };
    let store = SimStore::new(node.clone(), monitor.clone(), Part::WHOLE);
    let log = source.open(COLLECTION).await.ok().flatten()?;
    let archive = archive_of(node);
    if is_asked && !is_dry {
        for id in ids {
            store.hold(log.id(), id, false).await.ok()?;
        }
    }
    let compactor = Compactor {
        source: &source,
        log: &log,
        store: &store,
        retention,
        archive: Some(&archive),
        is_asked,
        pace: (),
    };
    let done = compactor.compact(ids, is_dry).await;
    node.sim().tell(|| format!("{:?} has compacted {}: {done:?}", node.owner, log.id()));
    done.ok()
}

/// Looks at whatever the daemon's projectors suspect, as its policy does.
pub(super) async fn clear_late(node: Node, monitor: Monitor, mut notices: mpsc::Receiver<Notice>) {
    let source = SimLogSource { node: node.clone() };
    let store = SimStore::new(node.clone(), monitor.clone(), Part::WHOLE);
    while let Some(notice) = notices.recv().await {
        let Notice::Late(ids) = notice else { continue };
        node.sim().tell(|| format!("{:?} suspects {ids:?}", node.owner));
        let retention = CompactionPlan::default().retention();
        let Ok(Some(log)) = source.open(COLLECTION).await else { continue };
        let (source, log, store) = (&source, &log, &store);
        let compactor =
            Compactor { source, log, store, retention, archive: None, is_asked: false, pace: () };
        // What fails is found by whoever compacts.
        drop(compactor.clear_late(&ids).await);
    }
}

/// Keeps events once more, in the same segments.
pub(super) async fn keep_again(
    node: &Node,
    monitor: &Monitor,
    (id, events): (&DocumentId, &[RawDocumentBuf]),
) -> Option<()> {
    let source = SimLogSource { node: node.clone() };
    let store = SimStore::new(node.clone(), monitor.clone(), Part::WHOLE);
    let log = source.open(COLLECTION).await.ok().flatten()?;
    let place = |version: i64| usize::try_from(version).unwrap();
    let rows = store.archived(std::slice::from_ref(id)).await.ok()?;
    let kept: Vec<Kept> = rows
        .into_iter()
        .map(|row| Kept {
            id: row.id,
            from: row.from,
            events: events[place(row.from - 1)..place(row.to)].to_vec(),
            skips: SkippedVersions::default(),
        })
        .collect();
    archive_of(node).keep(&store, log.id(), &kept).await.ok().map(drop)
}

/// The same in a run: but for rows that somebody has touched there is nothing to find.
pub(super) async fn sound_pass(
    node: &Node,
    monitor: &Monitor,
    retention: Retention,
    what: (&[DocumentId], bool, bool),
) {
    let done = pass(node, monitor, retention, what).await;
    let found = done.map(|done| done.findings).unwrap_or_default();
    if let Some(finding) = found.iter().find(|finding| !monitor.was_touched(&finding.id)) {
        node.sim().violation(format!("a false alarm: {finding:?}"));
    }
}

/// Notes how large each document is, as projectors do now and then.
pub(super) fn note_sizes(world: &World) {
    let at = world.sim.wall();
    let (log, sizes): (_, Vec<(DocumentId, i64)>) = {
        let state = world.state();
        let version = |id: &DocumentId| version_of(row_of(&state.visible, id)?);
        let ids = (0..DOCUMENTS).map(document_id);
        let sizes = ids.filter_map(|id| Some((id.clone(), version(&id)?)));
        (log_id(&state.visible), sizes.collect())
    };
    let Some(log) = log else { return };
    for (id, version) in sizes {
        world.mark(log, &id, Mark { version, at }, MARKS_MAX);
    }
}

/// Tells, after every pause, that it has a little more of the document.
pub(super) async fn read(sim: Sim, world: World, number: usize, plan: ClientPlan) {
    let mut rng = sim.rng(0x600 + number as u64);
    let id = document_id(plan.document);
    let mut clock = Clock::new();
    for pause in plan.pauses {
        sim.sleep(pause).await;
        let row = row_of(&world.state().visible, &id).cloned();
        let row = row.and_then(|row| document::Document::from_raw(&row).ok());
        if let Some(row) = row {
            for (client, count) in row.clock.iter() {
                let has = clock.get(client).min(count);
                clock.set(client, if rng.bool() { count } else { rng.i64(has..=count) });
            }
        }
        let (name, seen_at) = (format!("client-{number}"), sim.wall());
        sim.tell(|| format!("{name} has {clock:?} of {id}"));
        world.acknowledge(
            &id,
            LiveClient { name, clock: clock.clone(), seen_at, is_readable: true },
        );
    }
}

/// Inserts one event late.
pub(super) async fn write(node: Node, number: usize, plan: LatePlan, appends: Appends) {
    let writer = WriterPlan { careless: false, faults: Vec::new(), steps: Vec::new() };
    node.sim().sleep(plan.pause).await;
    let mut writer = Writer::new(node, number, &writer, &appends);
    writer.nap(&document_id(plan.document), plan.nap, plan.down).await;
}

/// What a writer does that has slept.
pub(super) fn late_body(version: i64) -> Document {
    doc! { "op": "update", "patch": { "$set": { "late": version } } }
}

/// What the stories of runs tell.
pub(super) fn told(plans: impl Iterator<Item = Plan>, words: &[&str]) -> Vec<usize> {
    let mut counts = vec![0; words.len()];
    for plan in plans {
        let story = super::run::run(&plan, true).story;
        let until = story.iter().take_while(|line| !line.contains("--- all is healed"));
        let lines: Vec<&String> = until.collect();
        for (count, word) in counts.iter_mut().zip(words) {
            *count += usize::from(lines.iter().any(|line| line.contains(word)));
        }
    }
    counts
}

#[test]
fn bases_are_written_logs_pruned_and_late_events_taken_out_in_many_runs() {
    let plans = || (0..1_000).map(Plan::new).filter(|plan| !plan.compaction.is_empty());
    let words = [
        ("put_base", 40),
        (" prune ", 30),
        ("comes late", 15),
        ("remove_late", 5),
        ("is killed", 60),
        ("has restored", 10),
        ("keeps halves", 15),
    ];
    let counts = told(plans().take(120), &words.map(|(word, _)| word));
    for ((word, least), count) in words.iter().zip(&counts) {
        assert!(count >= least, "`{word}` in {count} of 120 runs");
    }
}
