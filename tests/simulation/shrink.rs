//! From a failing plan to a short one: leaves out one actor, fault or step after the other for as long
//! as the run still fails, so that what is left is the story of the failure.

use super::{
    compaction::CompactionPlan,
    plan::{Plan, Step},
    restoring::RestoringPlan,
    run::{Outcome, run},
};

/// How many smaller plans are tried.
const TRIALS: usize = 3_000;

/// The smallest failing plan that was found.
pub(super) fn shrink(plan: &Plan) -> Plan {
    let mut best = plan.clone();
    let mut trials = 0;
    loop {
        let smaller = candidates(&best).into_iter().find(|candidate| {
            trials += 1;
            trials <= TRIALS && fails(candidate)
        });
        match smaller {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}

/// Whether a run of the plan fails.
pub(super) fn fails(plan: &Plan) -> bool {
    run(plan, false).violation.is_some()
}

/// The story of the smallest failing plan of a seed, and how to see it again.
pub(super) fn report(seed: u64, plan: &Plan) -> String {
    let small = shrink(plan);
    let Outcome { violation, story, .. } = run(&small, true);
    format!(
        "seed {seed} fails: {}\n\nThe smallest plan that still fails:\n{small:#?}\n\nIts story:\n{}\n\n\
         See it again: ALLUVIUM_SEED={seed} cargo test --lib simulation -- --nocapture\n",
        violation.as_deref().unwrap_or("the smaller plan does not fail any more"),
        story.join("\n")
    )
}

/// Plans with less in them, the boldest first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut candidates = Vec::new();
    let mut offer = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        if smaller != *plan {
            candidates.push(smaller);
        }
    };
    offer(&|plan| plan.readers.clear());
    offer(&|plan| plan.mishaps.clear());
    offer(&|plan| plan.operator.steps.clear());
    offer(&|plan| plan.operator.faults.clear());
    for at in 0..plan.operator.steps.len() {
        offer(&|plan| {
            let _out = plan.operator.steps.remove(at);
        });
    }
    compacting(plan, &mut offer);
    offer(&|plan| plan.lease_time = None);
    offer(&|plan| plan.loses_leases = false);
    offer(&|plan| plan.parts = 1);
    for at in 0..plan.writers.len() {
        // Silenced and not removed: the others keep their numbers, and with them their randomness.
        offer(&|plan| plan.writers[at].steps.clear());
        offer(&|plan| plan.writers[at].faults.clear());
        for half in halves(plan.writers[at].steps.len()) {
            offer(&|plan| {
                let _out = plan.writers[at].steps.drain(half.clone());
            });
        }
    }
    for at in 1..plan.daemons.len() {
        offer(&|plan| {
            let _out = plan.daemons.remove(at);
        });
    }
    for at in 0..plan.mishaps.len() {
        offer(&|plan| {
            let _out = plan.mishaps.remove(at);
        });
    }
    for at in 0..plan.daemons.len() {
        offer(&|plan| plan.daemons[at].faults.clear());
        for fault in 0..plan.daemons[at].faults.len() {
            offer(&|plan| {
                let _out = plan.daemons[at].faults.remove(fault);
            });
        }
        offer(&|plan| plan.daemons[at].wall_ahead_millis = 0);
    }
    for at in 0..plan.writers.len() {
        offer(&|plan| plan.writers[at].careless = false);
        for fault in 0..plan.writers[at].faults.len() {
            offer(&|plan| {
                let _out = plan.writers[at].faults.remove(fault);
            });
        }
        for step in 0..plan.writers[at].steps.len() {
            offer(&|plan| {
                let _out = plan.writers[at].steps.remove(step);
            });
        }
        for step in 0..plan.writers[at].steps.len() {
            let simple = |step: &mut Step| {
                step.document = 0;
                step.action = super::plan::Action::Add(1);
            };
            offer(&|plan| simple(&mut plan.writers[at].steps[step]));
        }
    }
    candidates.retain(|candidate| {
        // A mishap may only name a daemon that is there.
        candidate.mishaps.iter().all(|mishap| mishap.daemon() < candidate.daemons.len().max(1))
    });
    candidates
}

/// Plans with less compaction in them.
fn compacting(plan: &Plan, offer: &mut impl FnMut(&dyn Fn(&mut Plan))) {
    offer(&|plan| plan.compaction = CompactionPlan::default());
    offer(&|plan| plan.compaction.clients.clear());
    offer(&|plan| plan.compaction.late.clear());
    offer(&|plan| plan.compaction.busy = 0);
    offer(&|plan| plan.compaction.restoring = RestoringPlan::default());
    offer(&|plan| plan.compaction.restoring.lies = None);
    offer(&|plan| plan.compaction.restoring.faults.clear());
    for at in 0..plan.compaction.restoring.steps.len() {
        offer(&|plan| {
            let _out = plan.compaction.restoring.steps.remove(at);
        });
    }
    for at in 0..plan.compaction.late.len() {
        offer(&|plan| {
            let _out = plan.compaction.late.remove(at);
        });
    }
    for at in 0..plan.compaction.compactors.len() {
        offer(&|plan| plan.compaction.compactors[at].faults.clear());
        // Silenced and not removed, as writers are.
        offer(&|plan| plan.compaction.compactors[at].steps.clear());
        for step in 0..plan.compaction.compactors[at].steps.len() {
            offer(&|plan| {
                let _out = plan.compaction.compactors[at].steps.remove(step);
            });
        }
    }
}

/// Ranges that leave out a half, a quarter, and so on.
fn halves(length: usize) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut size = length / 2;
    while size > 1 {
        ranges.extend((0..length / size).map(|at| at * size..(at + 1) * size));
        size /= 2;
    }
    ranges
}
