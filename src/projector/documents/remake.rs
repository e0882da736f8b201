//! Rows that count for nothing: somebody has taken them away, or has found that they are not what their log makes of them.
//! Their documents are folded again from the log, and written over whatever is stored.

use std::collections::HashMap;

use bson::{RawBsonRef, RawDocumentBuf};

use super::{Documents, cache::Stored, memory::Memory, recheck::Recheck};
use crate::{
    database::Result,
    log::{EventLog, history},
    model::{document::Document, id::DocumentId, skip::has_fillers},
    planted::{Bug, planted},
    store::Store,
    time::Time,
};

/// Folds documents again, and notes those whose rows are to be written.
pub(super) async fn remake<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
    taken: Vec<(DocumentId, Recheck)>,
) -> Result<()> {
    let mut ids: Vec<DocumentId> = taken.iter().map(|(id, _)| id.clone()).collect();
    ids.iter().for_each(|id| documents.memory.cache.evict(id));
    let (rows, left) = documents.ask.load_some(&ids).await?;
    ids.retain(|id| !left.contains(id));
    documents.memory.counts.loaded += ids.len() as u64;
    let mut behind = Vec::with_capacity(taken.len());
    for (id, why) in taken {
        if left.contains(&id) {
            // There was no room for it.
            documents.memory.rechecks.note(&id, why);
            continue;
        }
        let begun = why.folded.map_or_else(|| history::start(&id), |folded| *folded);
        if has_fillers(&begun.clock) {
            documents.look_up_skips(&id).await?;
        }
        let version = begun.version;
        documents.memory.admit(begun, 0);
        let Memory { cache, waiting, .. } = &mut documents.memory;
        let slot = cache.edit(&id).filter(|slot| slot.document.quarantine.is_some());
        match slot {
            Some(slot) if why.is_retried => slot.document.quarantine = None,
            Some(_) if why.known > 0 && waiting.rest_on(&id) => documents.memory.note_change(),
            _ => {}
        }
        behind.push((id, version));
        documents.askers.extend(why.askers);
    }
    let is_free = |(id, _): &&(DocumentId, i64)| {
        let slot = documents.memory.cache.edit(id);
        slot.is_some_and(|slot| slot.document.quarantine.is_none())
    };
    let free: Vec<(DocumentId, i64)> = behind.iter().filter(is_free).cloned().collect();
    documents.read_all_on(&free).await?;
    let mut rows: HashMap<DocumentId, RawDocumentBuf> =
        rows.into_iter().filter_map(|row| Some((DocumentId::of_row(&row)?, row))).collect();
    for id in ids {
        if let Some(row) = rows.remove(&id) {
            stands_over(&mut documents.memory, &id, &row);
            if planted(Bug::RepairedRowNotInMemory) {
                repair_beside_memory(documents, &id, &row).await?;
            }
        }
    }
    Ok(())
}

/// What a repair would be that knows nothing of the projector: a planted bug.
async fn repair_beside_memory<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
    id: &DocumentId,
    row: &RawDocumentBuf,
) -> Result<()> {
    let slot = documents.memory.cache.edit(id).filter(|slot| slot.is == Stored::Differs);
    let Some(write) = slot.map(|slot| slot.write()) else { return Ok(()) };
    documents.ask.write(std::slice::from_ref(&write)).await?;
    documents.memory.cache.evict(id);
    documents.memory.admit_row(row);
    Ok(())
}

/// A row was deleted. A projection takes none away for good, so that somebody else did, or it is back by now.
pub(in crate::projector) fn row_taken_away<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
    id: RawBsonRef<'_>,
) {
    if let Ok(id) = DocumentId::from_raw(id)
        && documents.part.holds(&id)
        && !planted(Bug::DeletedRowForgotten)
    {
        documents.memory.rechecks.afresh(&id, 1);
    }
}

/// What was folded is written over this row, if it is another one. A sound row that is ahead of its log stays, and so
/// does one of which the log knows nothing: it is somebody else's.
fn stands_over<T: Time>(memory: &mut Memory<T>, id: &DocumentId, row: &RawDocumentBuf) {
    let Some(slot) = memory.cache.edit(id) else { return };
    let (version, is_parked) = (slot.document.version, slot.document.quarantine.is_some());
    match Document::from_raw(row) {
        _ if version == 0 => return memory.cache.evict(id),
        Ok(stored) if stored.version > version && !is_parked => return memory.cache.evict(id),
        Ok(stored) => {
            let is_same = slot.document.to_raw().as_bytes() == row.as_bytes();
            slot.is = if is_same { Stored::AsRead } else { Stored::Differs };
            (slot.stored, slot.stored_mark) = (stored.version, stored.quarantine);
        }
        Err(_) => slot.is_over(row),
    }
    if slot.changed() {
        memory.note_change();
    }
}
