//! A row that the server refuses: its document is parked at the event that made it so. A row may hold many events, and
//! whoever has to decide about the document is told of the right one.

use std::slice;

use super::{
    Documents,
    memory::{Arrival, SkipsAre},
};
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

/// What is said of a refused row.
pub(super) fn refusal(code: i32, said: &str) -> String {
    format!("the server refuses the row: {said} (code {code})")
}

/// Parks a document whose row at version `refused` the server does not take. The event is found by halving: a row in the
/// middle is tried, until one is taken and the next is not.
pub(super) async fn park<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
    id: &DocumentId,
    refused: i64,
    reason: String,
) -> Result<()> {
    let (mut refused, mut reason) = (refused, reason);
    loop {
        documents.memory.cache.evict(id);
        documents.load(slice::from_ref(id)).await?;
        let Some(slot) = documents.memory.cache.edit(id) else {
            // The stored row cannot be read: there is none to go back to.
            let mark = Quarantine { class: Class::Rejected, version: refused, reason };
            documents.memory.park(id, mark);
            return Ok(());
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
            documents.memory.park(id, mark);
            return Ok(());
        }
        let middle = taken + (refused - taken) / 2;
        match try_row(documents, id, middle).await? {
            Some(RowOutcome::Written) => {}
            Some(RowOutcome::Rejected { code, reason: said }) => {
                (refused, reason) = (middle, refusal(code, &said));
            }
            // Somebody else has moved it, or its log has changed: it is looked at anew.
            Some(RowOutcome::Stale) | None => {
                documents.memory.rechecks.afresh(id, refused);
                return Ok(());
            }
        }
    }
}

/// Folds a document to `version` and writes its row; nothing, if it does not come that far.
async fn try_row<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
    id: &DocumentId,
    version: i64,
) -> Result<Option<RowOutcome>> {
    let Some(expected) = documents.memory.cache.edit(id).map(|slot| slot.stored) else {
        return Ok(None);
    };
    loop {
        let reached = documents.memory.cache.edit(id).map_or(0, |slot| slot.document.version);
        if reached == version {
            break;
        }
        fold_some(documents, id, (reached, version)).await?;
        if documents.memory.cache.edit(id).is_none_or(|slot| slot.document.version == reached) {
            return Ok(None);
        }
    }
    let Some(slot) = documents.memory.cache.edit(id) else { return Ok(None) };
    let write = RowWrite::new(id.clone(), (expected, version), slot.document.to_raw());
    documents.ask.write(&write).await
}

/// Folds some of the events above version `after`, up to `version`.
async fn fold_some<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
    id: &DocumentId,
    (after, version): (i64, i64),
) -> Result<()> {
    let page = documents.ask.read(id, after).await?;
    documents.look_up_skips(id).await?;
    for event in page.documents()? {
        let event = event?;
        let key = EventKey::from_event(event).map_err(|error| Error::damaged(error.to_string()))?;
        if key.version <= version {
            documents.memory.offer(id, &[Arrival { key, event }], SkipsAre::Fresh);
        }
    }
    Ok(())
}
