//! A row that the server refuses: its document is parked at the event that made it so. A row may hold many events, and
//! whoever has to decide about the document is told of the right one. What refuses a row may go without a word, when another
//! document gives up a value, or an index is dropped; so it is tried again while the document is parked.

use std::{collections::BTreeMap, slice, time::Duration};

use super::Documents;
use crate::{
    database::Result,
    log::EventLog,
    model::{
        document::{Class, Quarantine},
        id::DocumentId,
    },
    planted::{Bug, planted},
    store::{RowOutcome, RowWrite, Store},
    time::Time,
};

/// After so long a refused row is tried again; after twice as long the next time, and so on.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// How many rows are tried at once, and about how many bytes.
const TRIED_MAX: usize = 64;
const TRIED_BYTES_MAX: usize = 4 << 20;
/// Trying may take a twentieth of the time.
const PAUSE_PER_TRY: u32 = 20;

/// When refused rows are tried again.
#[derive(Debug, Default)]
pub(in crate::projector) struct Tries {
    due: BTreeMap<DocumentId, Try>,
    /// Nothing is due before.
    next: Duration,
    /// Nothing is tried before.
    not_before: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Try {
    version: i64,
    at: Duration,
    pause: Duration,
}

impl Tries {
    /// A document is parked because its row at this version is refused.
    pub(in crate::projector) fn note(&mut self, id: &DocumentId, version: i64, now: Duration) {
        let earlier = self.due.get(id).filter(|earlier| earlier.version == version);
        let pause = earlier.map_or(PAUSE_MIN, |earlier| match earlier.at <= now {
            true => (earlier.pause * 2).min(PAUSE_MAX),
            // Its time had not come, and it was tried for the sake of others.
            false => earlier.pause,
        });
        self.due.insert(id.clone(), Try { version, at: now + pause, pause });
        self.next = self.next.min(now + pause);
    }

    /// The same of one that was parked before, by whomever, unless it is known.
    pub(in crate::projector) fn learn(&mut self, id: &DocumentId, version: i64, now: Duration) {
        if self.due.get(id).is_none_or(|known| known.version != version) {
            self.note(id, version, now);
        }
    }

    /// Those that are to be tried now, each with the version of its row: if the time of any has come, the others as well,
    /// whose values it may wait for.
    fn take(&mut self, now: Duration) -> Vec<(DocumentId, i64)> {
        if now < self.next.max(self.not_before) {
            return Vec::new();
        }
        let mut due: Vec<(&DocumentId, &Try)> = self.due.iter().collect();
        due.sort_by_key(|(_, tried)| tried.at);
        self.next = due.first().map_or(Duration::MAX, |(_, tried)| tried.at);
        if now < self.next {
            return Vec::new();
        }
        due.truncate(TRIED_MAX);
        due.into_iter().map(|(id, tried)| (id.clone(), tried.version)).collect()
    }
}

/// Tries refused rows again whose time has come, all of them together.
pub(in crate::projector) async fn try_again<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
) -> Result<()> {
    let begun = documents.ask.time.now();
    // What a flush under way makes of a document must not be taken for what becomes of it here.
    if !documents.ask.flushing.is_idle() || planted(Bug::RefusedForEver) {
        return Ok(());
    }
    let mut due = documents.tries.take(begun);
    let Documents { memory, tries, .. } = documents;
    due.retain(|(id, version)| {
        let mark = memory.waiting.park(id);
        let is_refused =
            mark.is_some_and(|mark| (mark.class, mark.version) == (Class::Rejected, *version));
        if !is_refused {
            tries.due.remove(id);
        }
        // What is about to be written of it goes first.
        is_refused && memory.cache.is_unchanged(id)
    });
    if due.is_empty() {
        return Ok(());
    }
    let counts = documents.memory.counts;
    let writes = fold_due(documents, due, begun).await?;
    let outcomes = match writes.is_empty() {
        true => Vec::new(),
        false => documents.ask.write(&writes).await?,
    };
    if !outcomes.contains(&RowOutcome::Written) {
        // Nothing was applied after all.
        documents.memory.counts = counts;
    }
    let now = documents.ask.time.now();
    for (write, outcome) in writes.iter().zip(outcomes) {
        match outcome {
            RowOutcome::Rejected { .. } => documents.tries.note(&write.id, write.version, now),
            RowOutcome::Written | RowOutcome::Stale => {
                documents.memory.rechecks.afresh(&write.id, 0);
            }
        }
    }
    documents.tries.not_before = now + now.saturating_sub(begun) * PAUSE_PER_TRY;
    Ok(())
}

/// The rows that are to be tried again, as many as fit.
async fn fold_due<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
    due: Vec<(DocumentId, i64)>,
    now: Duration,
) -> Result<Vec<RowWrite>> {
    let (mut writes, mut bytes) = (Vec::new(), 0);
    for (id, version) in &due {
        if bytes >= TRIED_BYTES_MAX {
            break;
        }
        documents.memory.cache.evict(id);
        documents.load(slice::from_ref(id)).await?;
        if let Some(slot) = documents.memory.cache.edit(id) {
            slot.document.quarantine = None;
        }
        let write = fold_to(documents, id, *version).await?;
        // What is in memory now is not what is stored.
        documents.memory.cache.evict(id);
        match write {
            Some(write) => {
                bytes += write.row.as_bytes().len();
                writes.push(write);
            }
            None => {
                documents.tries.note(id, *version, now);
                documents.memory.rechecks.afresh(id, 0);
            }
        }
    }
    Ok(writes)
}

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
        let Some(slot) = documents.memory.cache.edit(id) else { return Ok(()) };
        let taken = slot.document.version;
        if refused <= taken {
            // Even the mark is refused, and the record alone has to do; or somebody has written the row after all.
            slot.stored_mark = slot.document.quarantine.clone();
            documents.memory.rechecks.look(id);
            return Ok(());
        }
        // What is on record of an earlier refusal may not be what stops it now.
        slot.document.quarantine = None;
        if refused == taken + 1 {
            let mark = Quarantine { class: Class::Rejected, version: taken + 1, reason };
            documents.tries.note(id, mark.version, documents.ask.time.now());
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
    match fold_to(documents, id, version).await? {
        Some(write) => Ok(documents.ask.write(slice::from_ref(&write)).await?.into_iter().next()),
        None => Ok(None),
    }
}

/// Folds a document to `version`, and gives its row; nothing, if it does not come that far.
async fn fold_to<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
    id: &DocumentId,
    version: i64,
) -> Result<Option<RowWrite>> {
    let mut before = None;
    loop {
        let Some(slot) = documents.memory.cache.edit(id) else { return Ok(None) };
        let reached = slot.document.version;
        match reached {
            _ if reached == version => return Ok(Some(slot.write())),
            _ if before == Some(reached) => return Ok(None),
            _ => before = Some(reached),
        }
        let page = documents.ask.read(id, reached).await?;
        documents.look_up_skips(id).await?;
        documents.offer_page(id, &page, version)?;
    }
}
