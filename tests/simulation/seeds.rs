//! The runs: many seeds on all cores, one seed exactly as it was, and every planted bug found.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use super::{
    plan::Plan,
    run::{Outcome, run},
    shrink::{fails, report},
};
use crate::planted::{Bug, plant};

/// How many seeds `cargo test` runs. `.ci/run` runs more.
const SEEDS: u64 = 3_000;
/// Within how many seeds a planted bug must be found, however many run without one.
const SEEDS_PER_BUG: u64 = 1_000;
/// The same of bugs that show in few runs.
const SEEDS_PER_RARE_BUG: u64 = 6_000;
const RARE: &[Bug] = &[
    Bug::OvertakenIsWrong,
    Bug::PartBeginsAtLargest,
    Bug::RepairedRowNotInMemory,
    Bug::SkipAfterFiller,
];

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not `{text}`")))
}

/// The first of `seeds` that fails, with `bug` planted, on all cores.
fn first_failure(seeds: std::ops::Range<u64>, bug: Option<Bug>) -> Option<u64> {
    let next = AtomicU64::new(seeds.start);
    let found = AtomicU64::new(u64::MAX);
    let cores = thread::available_parallelism().map_or(2, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                plant(bug);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || found.load(Ordering::Relaxed) < seed {
                        return;
                    }
                    if fails(&Plan::new(seed)) {
                        found.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    Some(found.into_inner()).filter(|seed| *seed != u64::MAX)
}

/// How many of the first seeds fail with `bug` planted.
fn failures(seeds: u64, bug: Bug) -> usize {
    let mut count = 0;
    let mut first = 0;
    while let Some(seed) = first_failure(first..seeds, Some(bug)) {
        (count, first) = (count + 1, seed + 1);
    }
    count
}

#[test]
fn whatever_happens_the_documents_are_what_their_events_make() {
    let first = number("ALLUVIUM_FIRST_SEED").unwrap_or(0);
    let seeds = match (number("ALLUVIUM_SEED"), number("ALLUVIUM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => first..first + count.unwrap_or(SEEDS),
    };
    let count = seeds.end - seeds.start;
    let started = Instant::now();
    let failure = first_failure(seeds, None);
    println!("{count} seeds in {:.1} s", started.elapsed().as_secs_f64());
    if let Some(seed) = failure {
        if std::env::var_os("ALLUVIUM_WHOLE").is_some() {
            let Outcome { violation, story, .. } = run(&Plan::new(seed), true);
            panic!("seed {seed} fails: {violation:?}\n{}", story.join("\n"));
        }
        println!("seed {seed} fails; it is being made smaller");
        panic!("{}", report(seed, &Plan::new(seed)));
    }
}

#[test]
fn every_planted_bug_is_found() {
    use Bug::*;
    let bugs = [
        CheckpointBeforeFlush,
        CheckpointDuringScan,
        ScanWithoutCausalSession,
        ParkedEventForgotten,
        GapNotRecorded,
        RecordRemovedBeforeRow,
        FlushWithoutVersionFilter,
        DuplicateKeyIsSuccess,
        LostAnswerIsSuccess,
        RefusedForEver,
        RowBeforeSkip,
        SkipsForgotten,
        SkipsNotReadAgain,
        SkipAfterFiller,
        StaleRowKept,
        DeletedRowForgotten,
        RowNotMadeAgain,
        RepairedRowNotInMemory,
        LostHistoryIgnored,
        TailStartsTooLate,
        CheckpointWithoutEpoch,
        LeaseBelowCheckpoint,
        LeaseTakenUnseen,
        PartBeginsAtLargest,
        IdentityIgnored,
        PrunedBeforeGrace,
        BaseEventPruned,
        BaseOfRow,
        BaseOverAnything,
        PrunedNotMoved,
        FloorOffByOne,
        LeftoversFolded,
        LateNotLookedFor,
        OvertakenIsWrong,
        ArchiveNotReadBack,
        UnprovenReliedOn,
        RestoredTooFar,
        WriterTakesDuplicateKeyForSuccess,
    ];
    let only = std::env::var("ALLUVIUM_BUG").ok();
    let is_asked = |bug: &Bug| only.as_ref().is_none_or(|only| format!("{bug:?}") == *only);
    let seeds = |bug: Bug| if RARE.contains(&bug) { SEEDS_PER_RARE_BUG } else { SEEDS_PER_BUG };
    let asked = bugs.into_iter().filter(is_asked);
    let found: Vec<_> = asked.map(|bug| (bug, first_failure(0..seeds(bug), Some(bug)))).collect();
    for (bug, seed) in &found {
        match number("ALLUVIUM_COUNT") {
            Some(seeds) => println!("{bug:?}: {} of {seeds} seeds", failures(seeds, *bug)),
            None => println!("{bug:?}: {seed:?}"),
        }
    }
    let missed: Vec<Bug> =
        found.iter().filter(|(_, seed)| seed.is_none()).map(|(bug, _)| *bug).collect();
    assert_eq!(missed, [], "not found within their seeds");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..200 {
        let plan = Plan::new(seed);
        let (one, other) = (run(&plan, true), run(&plan, true));
        assert_eq!(one.story, other.story, "seed {seed}");
        assert_eq!(one.violation, other.violation, "seed {seed}");
        assert_eq!(one.report, other.report, "seed {seed}");
    }
}

/// The epochs under which a daemon of a run asked for the lease before the last start.
fn epochs(story: &[String]) -> Vec<i64> {
    let before = story.iter().take_while(|line| !line.contains("--- a restart"));
    let asked = before.filter_map(|line| line.split_once(" take_lease "));
    asked.filter_map(|(_, lease)| lease.split(' ').next()?.parse().ok()).collect()
}

#[test]
fn leases_decide_among_three_daemons_and_more_in_many_runs_and_change_hands_in_most_of_these() {
    let plans = (0..500).map(Plan::new);
    let plans: Vec<Plan> =
        plans.filter(|plan| plan.lease_time.is_some() && plan.daemons.len() >= 3).collect();
    assert!(plans.len() > 75, "{} of 500", plans.len());
    let changes = plans
        .iter()
        .take(60)
        .filter(|plan| epochs(&run(plan, true).story).iter().any(|epoch| *epoch > 1));
    let changes = changes.count();
    assert!(changes > 30, "the lease changed hands in {changes} of 60 runs");
}

#[test]
fn the_runs_meet_what_they_are_meant_to_meet() {
    let reports: Vec<_> = (0..300).filter_map(|seed| run(&Plan::new(seed), false).report).collect();
    assert!(reports.len() > 200);
    let all = |count: fn(&crate::judge::Report) -> usize| reports.iter().map(count).sum::<usize>();
    assert!(all(|report| report.documents) > 300);
    assert!(all(|report| report.poisoned) > 0);
    assert!(all(|report| report.skipped) > 0);
    assert!(all(|report| report.filled) > 0);
    assert!(all(|report| report.answers) > 0);
    assert!(reports.iter().map(|report| report.events).sum::<i64>() > 3_000);
}
