//! A row that the server refuses: its document is parked at the event that made it so. A row may hold many events, and
//! whoever has to decide about the document is told of the right one.

use std::slice;

use super::work::{Arrival, Work, drive};
use crate::{
    database::{Error, Result},
    log::EventLog,
    model::{
        document::{Class, Quarantine},
        event::EventKey,
        id::DocumentId,
    },
    store::{RowOutcome, RowWrite, Store},
    time::Time,
};

/// How many events of one document are asked for at once.
const READ_EVENTS_MAX: i64 = 1_000;

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// Parks a document whose row at `refused` the server does not take.
    pub(super) async fn reject(
        &mut self,
        id: &DocumentId,
        refused: i64,
        reason: String,
    ) -> Result<()> {
        let (mut refused, mut reason) = (refused, reason);
        loop {
            self.cache.evict(id);
            self.load(slice::from_ref(id)).await?;
            let Some(slot) = self.cache.edit(id) else {
                return Err(Error::damaged("a document that was just loaded is not in memory"));
            };
            let taken = slot.document.version;
            if refused <= taken && slot.document.quarantine.is_some() {
                // Even the mark is refused: the record alone has to do.
                slot.stored_mark = slot.document.quarantine.clone();
                return Ok(());
            }
            // What is on record of an earlier refusal may not be what stops it now.
            slot.document.quarantine = None;
            if refused <= taken + 1 {
                let mark = Quarantine { class: Class::Rejected, version: taken + 1, reason };
                self.park(id, mark);
                return Ok(());
            }
            // Half way between a row that is taken and one that is not.
            let middle = taken + (refused - taken) / 2;
            match self.try_row(id, middle).await? {
                Some(RowOutcome::Written) => {}
                Some(RowOutcome::Rejected { code, reason: said }) => {
                    (refused, reason) = (middle, refusal(code, &said));
                }
                // Somebody else has moved it, or its log has changed: it is looked at anew.
                Some(RowOutcome::Stale) | None => {
                    self.cache.evict(id);
                    self.note_change();
                    return self.read_on(id, 0).await;
                }
            }
        }
    }

    /// Folds a document to `version` and writes its row; nothing, if it does not come that far.
    async fn try_row(&mut self, id: &DocumentId, version: i64) -> Result<Option<RowOutcome>> {
        let Some(expected) = self.cache.edit(id).map(|slot| slot.stored) else { return Ok(None) };
        self.load_skips_of(id).await?;
        loop {
            let reached = self.cache.edit(id).map_or(0, |slot| slot.document.version);
            if reached == version {
                break;
            }
            self.fold_some(id, reached, version).await?;
            if self.cache.edit(id).is_none_or(|slot| slot.document.version == reached) {
                return Ok(None);
            }
        }
        let Some(slot) = self.cache.edit(id) else { return Ok(None) };
        let write = RowWrite { id: id.clone(), expected, version, row: slot.document.to_raw() };
        let (store, time, observer) = (&self.store, &self.time, &self.observer);
        let report = |error: &Error, _| observer.tried(error, time);
        let write =
            self.settings.backoff.retry(time, report, || store.write(slice::from_ref(&write)));
        let outcomes = drive(&mut self.flush, &mut self.flushed, write).await?;
        Ok(outcomes.into_iter().next())
    }

    /// Folds some of the events above version `after`, up to `version`.
    async fn fold_some(&mut self, id: &DocumentId, after: i64, version: i64) -> Result<()> {
        let limit = u32::try_from((version - after).min(READ_EVENTS_MAX)).unwrap_or(1);
        let batch = self.read(id, after, limit).await?;
        for event in batch.documents()? {
            let event = event?;
            let key =
                EventKey::from_event(event).map_err(|error| Error::damaged(error.to_string()))?;
            if key.version <= version {
                // What this says of a hole is found out when the document is read on.
                let _reading_on = self.offer(id, &[Arrival { key, event }]);
            }
        }
        Ok(())
    }
}

/// What is said of a refused row.
pub(super) fn refusal(code: i32, said: &str) -> String {
    format!("the server refuses the row: {said} (code {code})")
}
