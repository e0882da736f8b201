//! Looking again at what waits, every minute. Late writes of a dead leader can leave stale records behind, which would stay
//! for ever although nothing waits, or erase the mark of a parked document from its row; so everything is checked again.

use std::{collections::HashSet, time::Duration};

use super::Documents;
use crate::{
    database::Result,
    log::EventLog,
    model::{document::Class, id::DocumentId},
    store::Store,
    time::Time,
};

/// The shortest time between two reviews.
const INTERVAL: Duration = Duration::from_secs(60);
/// A review that takes long is the rarer: it may take a hundredth of the time.
const PAUSE_PER_REVIEW: u32 = 100;
/// How many rows of parked documents one review looks at; the next one goes on behind them.
const ROWS_MAX: usize = 1_000;

/// When the next review is due, and where it begins.
#[derive(Debug)]
pub(in crate::projector) struct Review {
    at: Duration,
    /// The last parked document that was looked at, if there are more.
    last: Option<DocumentId>,
    /// The overdue gap that was last told of.
    overdue: Option<(DocumentId, i64)>,
}

impl Review {
    /// That of a projection that begins at `now`.
    pub(in crate::projector) fn new(now: Duration) -> Self {
        Self { at: now + INTERVAL, last: None, overdue: None }
    }

    /// Whether it is time.
    pub(in crate::projector) fn is_due(&self, now: Duration) -> bool {
        now >= self.at
    }

    /// Reads what is on record, and notes every document that has to be looked at again.
    pub(in crate::projector) async fn run<L: EventLog, D: Store, T: Time>(
        &mut self,
        documents: &mut Documents<L, D, T>,
    ) -> Result<()> {
        let begun = documents.ask.time.now();
        documents.memory.skips = documents.ask.skips().await?;
        let records = documents.ask.records().await?;
        let memory = &mut documents.memory;
        let recorded: HashSet<DocumentId> =
            records.iter().map(|row| row.document.clone()).collect();
        for row in records {
            let (id, is_gap) = (row.document.clone(), row.mark.class == Class::Gap);
            match memory.waiting.learn(row) {
                true if is_gap => memory.rechecks.look(&id),
                true => memory.rechecks.afresh(&id, 0),
                false => {}
            }
        }
        // Another instance may have found a gap closed, before something came above it.
        for (id, missing) in memory.waiting.gaps() {
            if !recorded.contains(&id) && memory.waiting.is_saved(&id) {
                memory.waiting.forget(&id);
                memory.rechecks.behind(&id, missing);
            }
        }
        documents.learn_refused();
        self.last = note_parked(documents, self.last.take(), ROWS_MAX);
        let now = documents.ask.time.now();
        self.at = now + INTERVAL.max(now.saturating_sub(begun) * PAUSE_PER_REVIEW);
        Ok(())
    }

    /// Tells how long the oldest gap has been open; of each that is older than `grace` once.
    pub(in crate::projector) fn tell_oldest_gap<L: EventLog, D: Store, T: Time>(
        &mut self,
        documents: &Documents<L, D, T>,
        grace: Duration,
    ) {
        let observer = &documents.ask.observer;
        let Some(row) = documents.memory.waiting.oldest_gap() else {
            return observer.oldest_gap(Duration::ZERO);
        };
        let age = documents.ask.time.wall().saturating_duration_since(row.since);
        observer.oldest_gap(age);
        let gap = (row.document.clone(), row.mark.version);
        if age >= grace && self.overdue.as_ref() != Some(&gap) {
            observer.overdue_gap(row, age);
            self.overdue = Some(gap);
        }
    }
}

/// Notes that parked documents, at most `limit` of them behind `after`, are to be looked at again: each row has to bear its
/// mark, and to be as far as it can be. The last of them, if there are more.
pub(in crate::projector) fn note_parked<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
    after: Option<DocumentId>,
    limit: usize,
) -> Option<DocumentId> {
    let memory = &mut documents.memory;
    let parked = memory.waiting.parked(after.as_ref(), limit);
    parked.iter().for_each(|id| memory.rechecks.afresh(id, 0));
    parked.last().filter(|_| parked.len() == limit).cloned()
}
