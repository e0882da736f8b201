//! Pruning, in steps of one transaction each: many small documents together, a large one in pieces.

use std::collections::VecDeque;

use super::{Compactor, Pacing, look::Finding};
use crate::{
    database::{Error, Result},
    log::{EventLog, LogSource},
    model::base::Base,
    planted::{Bug, planted},
    store::{Bases, Prune, PruneOutcome, Which},
};

/// How many events one transaction deletes at most. A thousand make one entry of the oplog of about 107 kB.
const EVENTS_MAX: i64 = 1_000;
/// And where others wait for events meanwhile.
const EVENTS_GENTLE: i64 = 200;
/// How often fewer events at once are tried where others write, before it is left for later.
const HALVINGS_MAX: u32 = 12;

/// What pruning has come to.
#[derive(Clone, Debug, Default)]
pub(in crate::upkeep) struct Pruned {
    pub(in crate::upkeep) events: i64,
    pub(in crate::upkeep) findings: Vec<Finding>,
}

impl<S: LogSource, D: Bases, P: Pacing> Compactor<'_, S, D, P> {
    /// Deletes what these bases stand for.
    ///
    /// # Errors
    /// When the database refuses or is away: what is left goes another time.
    pub(super) async fn prune_all(&self, bases: Vec<Base>) -> Result<Pruned> {
        let mut queue: VecDeque<(Base, i64)> =
            bases.into_iter().map(|base| (base.clone(), base.pruned)).collect();
        let (mut pruned, mut room, mut busy) = (Pruned::default(), self.room(), 0);
        let mut documents_max = usize::MAX;
        while let Some(steps) = next(&queue, (room, documents_max)) {
            match self.pace.step(self.store.prune(self.log.id(), &steps)).await? {
                PruneOutcome::Done => {
                    pruned.events += steps.iter().map(Prune::events).sum::<i64>();
                    pass(&mut queue, &steps);
                    (room, busy) = (self.room(), 0);
                }
                PruneOutcome::Busy if busy == HALVINGS_MAX => {
                    return Err(Error::server(112, "others write to what is to be pruned"));
                }
                PruneOutcome::Busy => (room, busy) = ((room / 2).max(1), busy + 1),
                // Which one it is shows when each is tried alone.
                PruneOutcome::Moved | PruneOutcome::Short if steps.len() > 1 => documents_max = 1,
                outcome => {
                    let Some((base, _)) = queue.pop_front() else { break };
                    if outcome == PruneOutcome::Short {
                        let problem = format!(
                            "below its base, at version {}, are fewer events than there have to be: somebody has deleted \
                             some. None was pruned",
                            base.version
                        );
                        let (id, version) = (base.id, base.version);
                        pruned.findings.push(Finding { id, version, problem });
                    }
                    (room, busy) = (self.room(), 0);
                }
            }
        }
        Ok(pruned)
    }

    fn room(&self) -> i64 {
        if self.pace.is_gentle() { EVENTS_GENTLE } else { EVENTS_MAX }
    }
}

/// The next steps, of as many documents as there is room for.
fn next(queue: &VecDeque<(Base, i64)>, (room, documents_max): (i64, usize)) -> Option<Vec<Prune>> {
    let mut left = room;
    let mut steps = Vec::new();
    for (base, pruned) in queue.iter().take(documents_max) {
        let last = if planted(Bug::BaseEventPruned) { base.version } else { base.version - 1 };
        let events = (last - pruned).min(left);
        if events <= 0 {
            break;
        }
        left -= events;
        let which = Which { pruned: *pruned, ..Which::from(base) };
        steps.push(Prune { id: base.id.clone(), base: which, through: pruned + events });
    }
    (!steps.is_empty()).then_some(steps)
}

/// Takes note of what has gone.
fn pass(queue: &mut VecDeque<(Base, i64)>, steps: &[Prune]) {
    for step in steps {
        if let Some((_, pruned)) = queue.iter_mut().find(|(base, _)| base.id == step.id) {
            *pruned = step.through;
        }
    }
    let last =
        |base: &Base| if planted(Bug::BaseEventPruned) { base.version } else { base.version - 1 };
    while queue.front().is_some_and(|(base, pruned)| *pruned >= last(base)) {
        queue.pop_front();
    }
}
