//! What must hold of a log that is compacted, looked at whenever a base is written, events are pruned or late ones are
//! taken out. The truth is the history: every event that the majority ever had, in its place.

use bson::DateTime;

use super::{
    bases::{base_of, first_of},
    monitor::{Monitor, text},
    store::{log_id, row_of, version_of},
    world::{EVENTS, Key, State},
};
use crate::{
    model::{base::Base, compaction::LiveClient, event::EventKey, id::DocumentId},
    store::Prune,
};

impl Monitor {
    /// A base is about to be written: it must be what the history makes of the document at its version, which the row has
    /// reached, and pass no client that the plan counted.
    pub(super) fn base_written(
        &self,
        state: &State,
        base: &Base,
        told: &[LiveClient],
    ) -> Result<(), String> {
        if self.is_blind() {
            return Ok(());
        }
        let (id, version) = (&base.id, base.version);
        let wrong = |what: String| Err(format!("the base of {id} at {version} {what}"));
        let log = self.log().or_else(|| log_id(&state.latest));
        let history = self.history(state, log, id);
        let expected = usize::try_from(version - 1).ok().and_then(|at| history.rows.get(at));
        let made = base.document().map(|document| document.to_raw());
        match (expected, &made) {
            (Some(expected), Ok(made)) if expected.as_bytes() == made.as_bytes() => {}
            (expected, made) => {
                let (made, expected) = (made.as_ref().map(text), expected.map(text));
                return wrong(format!("says {made:?}, and its events make {expected:?}"));
            }
        }
        let row = state.majority(|data| row_of(data, id).and_then(|row| version_of(row)));
        if row.is_none_or(|row| row < version) && !self.was_deleted_by_hand(id) {
            return wrong(format!("is above the row, at {row:?}"));
        }
        let old = base_of(&state.latest, id);
        let follows = match &old {
            None => base.pruned == 1,
            Some(old) => {
                let goes_on = old.version < version && old.is_pruned();
                // One that stands at an erasure, or above it, says so from now on.
                let is_erased = old.version == version && old.erased_through < base.erased_through;
                old.pruned == base.pruned && (goes_on || is_erased)
            }
        };
        if !follows {
            return wrong(format!("does not follow the one before: {old:?}"));
        }
        let ttl = state.compaction.client_ttl;
        let counts = |client: &&LiveClient| {
            let age = base.based_at.saturating_duration_since(client.seen_at);
            let is_below = old.as_ref().is_some_and(|old| !client.clock.includes(&old.clock));
            age <= ttl && !is_below
        };
        match told.iter().filter(counts).find(|client| !client.clock.includes(&base.clock)) {
            Some(client) => wrong(format!("passes {client:?}")),
            None => Ok(()),
        }
    }

    /// Events are about to go: their base must be the majority's, be above them, and old enough.
    pub(super) fn prune_begins(
        &self,
        state: &State,
        step: &Prune,
        now: DateTime,
    ) -> Result<(), String> {
        if self.is_blind() {
            return Ok(());
        }
        let Prune { id, base: which, through } = step;
        let base = state.majority(|data| base_of(data, id));
        let Some(base) = base.filter(|base| base.version == which.version) else {
            return Err(format!("{id} is pruned below a base that the majority does not have"));
        };
        let age = now.saturating_duration_since(base.based_at);
        if *through >= base.version {
            return Err(format!("{id} is pruned to {through}, with a base at {}", base.version));
        }
        // What is erased goes at once.
        let is_erased = base.is_erased() || state.compaction.erasing.contains_key(id);
        match age >= state.compaction.grace || is_erased {
            true => Ok(()),
            false => Err(format!("{id} is pruned {age:?} after its base was written")),
        }
    }

    /// Each event of the history must be in its place, or a base at or above it say that it went; and what a base rests
    /// on must be there.
    pub(super) fn log_is_whole(&self, state: &State, id: &DocumentId) -> Result<(), String> {
        if self.is_blind() {
            return Ok(());
        }
        let log = log_id(&state.latest);
        let key = |version| EventKey { document: id.clone(), version };
        let at = |version| {
            let row = state.latest.get(EVENTS, &Key::Event(key(version)));
            row.and_then(|row| row.raw())
        };
        let base = base_of(&state.latest, id);
        let (floor, pruned) = base.as_ref().map_or((0, 0), |base| (base.version, base.pruned));
        let history = log.and_then(|log| state.archive.get(&log)).into_iter();
        for (EventKey { version, .. }, event) in
            history.flat_map(|history| history.range(key(i64::MIN)..=key(i64::MAX)))
        {
            let is_covered = match version {
                1 => base.is_some(),
                version => *version <= pruned,
            };
            if !is_covered && at(*version) != Some(event) {
                let found = at(*version).map(text);
                return Err(format!(
                    "event {version} of {id} is gone, with a base at {floor} pruned to {pruned}: {found:?}"
                ));
            }
        }
        let is_there = floor == 0 || (first_of(&state.latest, id).is_some() && at(floor).is_some());
        match is_there {
            true => Ok(()),
            false => Err(format!("the event of the base of {id}, at {floor}, is gone")),
        }
    }
}
