//! Documents that wait: behind a hole in their versions, or parked by a poison event. Nothing waits in
//! memory only: what changes here is written before any checkpoint passes it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    model::{
        document::{Class, Quarantine},
        id::DocumentId,
    },
    store::{Healed, QuarantineRow},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    rows: HashMap<DocumentId, QuarantineRow>,
    unsaved: HashSet<DocumentId>,
    /// Documents whose records were written here, or are about to be.
    written: HashSet<DocumentId>,
    /// Documents that wait no more.
    healed: HashMap<DocumentId, Healed>,
    /// The last version that was seen above a hole.
    seen_above: HashMap<DocumentId, i64>,
}

/// How many documents wait, by class: every class is there.
pub(super) type WaitingClasses = BTreeMap<Class, u64>;

/// What has to be written.
#[derive(Debug, Default)]
pub(super) struct WaitingChanges {
    pub(super) put: Vec<QuarantineRow>,
    pub(super) remove: Vec<(DocumentId, Healed)>,
}

impl Waiting {
    /// What was on record.
    pub(super) fn new(rows: Vec<QuarantineRow>) -> Self {
        let rows = rows.into_iter().map(|row| (row.document.clone(), row)).collect();
        Self { rows, ..Self::default() }
    }

    pub(super) fn put(&mut self, row: QuarantineRow) {
        self.unsaved.insert(row.document.clone());
        self.written.insert(row.document.clone());
        self.healed.remove(&row.document);
        self.rows.insert(row.document.clone(), row);
    }

    /// A checkpoint is going to pass an event of a document because that waits; whether its record has to be written
    /// again for that. One that was merely read may be gone: a member that lags behind still shows what another instance
    /// has removed.
    pub(super) fn rest_on(&mut self, document: &DocumentId) -> bool {
        let is_unwritten =
            self.rows.contains_key(document) && self.written.insert(document.clone());
        if is_unwritten {
            self.unsaved.insert(document.clone());
        }
        is_unwritten
    }

    /// Takes over what another instance has put on record, unless as much is known here; whether it did.
    pub(super) fn learn(&mut self, row: QuarantineRow) -> bool {
        let rank = |row: &QuarantineRow| (row.mark.version, row.mark.class != Class::Gap);
        let known = self.rows.get(&row.document).is_some_and(|known| rank(known) >= rank(&row));
        let healed = self.healed.get(&row.document).is_some_and(|healed| healed.covers(&row.mark));
        let is_news = !known && !healed;
        if is_news {
            self.written.remove(&row.document);
            self.rows.insert(row.document.clone(), row);
        }
        is_news
    }

    /// A document waits no more; whether it did.
    pub(super) fn heal(&mut self, document: &DocumentId, healed: Healed) -> bool {
        let waited = self.forget(document);
        self.seen_above.remove(document);
        if waited {
            self.healed.insert(document.clone(), healed);
        }
        waited
    }

    /// Takes a document to wait for nothing, until it is looked at again; whether it waited.
    pub(super) fn forget(&mut self, document: &DocumentId) -> bool {
        self.unsaved.remove(document);
        self.written.remove(document);
        self.rows.remove(document).is_some()
    }

    /// The record of a healed document could not be removed yet, since its row was not written.
    pub(super) fn still_recorded(&mut self, document: &DocumentId, healed: Healed) {
        if !self.rows.contains_key(document) {
            self.healed.entry(document.clone()).or_insert(healed);
        }
    }

    /// The hole that a document waits behind: the version that is missing.
    pub(super) fn hole(&self, document: &DocumentId) -> Option<i64> {
        let row = self.rows.get(document)?;
        (row.mark.class == Class::Gap).then_some(row.mark.version)
    }

    /// An event above the document's hole was seen.
    pub(super) fn see_above(&mut self, document: &DocumentId, version: i64) {
        self.seen_above.insert(document.clone(), version);
    }

    /// Since when the document is parked at this version for this reason, if it is.
    pub(super) fn parked_since(
        &self,
        document: &DocumentId,
        mark: &Quarantine,
    ) -> Option<bson::DateTime> {
        let row = self.rows.get(document)?;
        let same = (row.mark.class, row.mark.version) == (mark.class, mark.version);
        same.then_some(row.since)
    }

    /// The last version that was seen above the document's hole; 0 if there is none.
    pub(super) fn seen_above(&self, document: &DocumentId) -> i64 {
        self.seen_above.get(document).copied().unwrap_or(0)
    }

    /// Why a document is parked, if it is.
    pub(super) fn park(&self, document: &DocumentId) -> Option<&Quarantine> {
        let row = self.rows.get(document)?;
        (row.mark.class != Class::Gap).then_some(&row.mark)
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether a document waits, for whatever reason.
    pub(super) fn waits(&self, document: &DocumentId) -> bool {
        self.rows.contains_key(document)
    }

    /// The documents that wait behind a hole.
    pub(super) fn holes(&self) -> Vec<DocumentId> {
        let holes = self.rows.keys().filter(|document| self.hole(document).is_some());
        let mut holes: Vec<DocumentId> = holes.cloned().collect();
        holes.sort_unstable();
        holes
    }

    /// At most `limit` of the parked documents, from behind `after` on.
    pub(super) fn parked(&self, after: Option<&DocumentId>, limit: usize) -> Vec<DocumentId> {
        let behind = |id: &&DocumentId| after.is_none_or(|after| *id > after);
        let parked = self.rows.keys().filter(|id| self.park(id).is_some()).filter(behind);
        let mut parked: Vec<DocumentId> = parked.cloned().collect();
        parked.sort_unstable();
        parked.truncate(limit);
        parked
    }

    /// The hole that has been open the longest.
    pub(super) fn oldest_hole(&self) -> Option<&QuarantineRow> {
        let holes = self.rows.values().filter(|row| row.mark.class == Class::Gap);
        holes.min_by(|a, b| (a.since, &a.document).cmp(&(b.since, &b.document)))
    }

    /// How many documents wait.
    pub(super) fn classes(&self) -> WaitingClasses {
        let mut classes: WaitingClasses = Class::ALL.into_iter().map(|class| (class, 0)).collect();
        for row in self.rows.values() {
            *classes.entry(row.mark.class).or_default() += 1;
        }
        classes
    }

    pub(super) fn take_changes(&mut self) -> WaitingChanges {
        let mut changes = WaitingChanges::default();
        let mut unsaved: Vec<DocumentId> = self.unsaved.drain().collect();
        unsaved.sort_unstable();
        for document in unsaved {
            changes.put.extend(self.rows.get(&document).cloned());
        }
        changes.remove = self.healed.drain().collect();
        changes.remove.sort_unstable();
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_rests_only_on_a_record_that_was_written_here() {
        let document = DocumentId::String("a".into());
        let mark = Quarantine { class: Class::BadPatch, version: 2, reason: String::new() };
        let since = bson::DateTime::from_millis(1);
        let row = QuarantineRow { document: document.clone(), mark, since };
        let mut waiting = Waiting::new(vec![row.clone()]);
        assert!(waiting.take_changes().put.is_empty());
        // Once is enough, until it is read anew.
        assert!(waiting.rest_on(&document) && !waiting.rest_on(&document));
        assert_eq!(waiting.take_changes().put, std::slice::from_ref(&row));
        let later = Quarantine { version: 3, ..row.mark.clone() };
        assert!(waiting.learn(QuarantineRow { mark: later, ..row.clone() }));
        assert!(waiting.rest_on(&document));
        waiting.put(row);
        assert!(!waiting.rest_on(&document));
    }
}
