//! Documents that wait: behind a gap in their versions, or parked by a poison event. Nothing waits in
//! memory only: what changes here is written before any checkpoint passes it.

use std::collections::{HashMap, HashSet};

use crate::{
    model::{
        document::{Class, Quarantine},
        id::DocumentId,
    },
    projector::flush::WaitingChanges,
    status::WaitingClasses,
    store::QuarantineRow,
};

/// See the module.
#[derive(Debug, Default)]
pub(in crate::projector) struct Waiting {
    rows: HashMap<DocumentId, QuarantineRow>,
    unsaved: HashSet<DocumentId>,
    /// Documents whose records were written here, or are about to be.
    written: HashSet<DocumentId>,
    /// Documents that wait no more, with the versions that they have come to.
    healed: HashMap<DocumentId, i64>,
}

impl Waiting {
    /// What was on record.
    pub(in crate::projector) fn new(rows: Vec<QuarantineRow>) -> Self {
        let rows = rows.into_iter().map(|row| (row.document.clone(), row)).collect();
        Self { rows, ..Self::default() }
    }

    pub(in crate::projector) fn put(&mut self, row: QuarantineRow) {
        self.unsaved.insert(row.document.clone());
        self.written.insert(row.document.clone());
        self.healed.remove(&row.document);
        self.rows.insert(row.document.clone(), row);
    }

    /// A checkpoint is going to pass an event of a document because that waits; whether its record has to be written
    /// again for that. One that was merely read may be gone: a member that lags behind still shows what another instance
    /// has removed.
    pub(in crate::projector) fn rest_on(&mut self, document: &DocumentId) -> bool {
        let is_unwritten =
            self.rows.contains_key(document) && self.written.insert(document.clone());
        if is_unwritten {
            self.unsaved.insert(document.clone());
        }
        is_unwritten
    }

    /// Takes over what another instance has put on record, unless as much is known here; whether it did.
    pub(in crate::projector) fn learn(&mut self, row: QuarantineRow) -> bool {
        let rank = |row: &QuarantineRow| (row.mark.version, row.mark.class != Class::Gap);
        let known = self.rows.get(&row.document).is_some_and(|known| rank(known) >= rank(&row));
        let healed = self.healed.get(&row.document);
        let healed = healed.is_some_and(|version| row.mark.version <= *version);
        let is_news = !known && !healed;
        if is_news {
            self.written.remove(&row.document);
            self.rows.insert(row.document.clone(), row);
        }
        is_news
    }

    /// A document has come to `version` and waits no more; whether it did.
    pub(in crate::projector) fn heal(&mut self, document: &DocumentId, version: i64) -> bool {
        let waited = self.forget(document);
        if waited {
            self.healed.insert(document.clone(), version);
        }
        waited
    }

    /// Takes a document to wait for nothing, until it is looked at again; whether it waited.
    pub(in crate::projector) fn forget(&mut self, document: &DocumentId) -> bool {
        self.unsaved.remove(document);
        self.written.remove(document);
        self.rows.remove(document).is_some()
    }

    /// The record of a healed document could not be removed yet, since its row was not written.
    pub(in crate::projector) fn still_recorded(&mut self, document: &DocumentId, version: i64) {
        if !self.rows.contains_key(document) {
            self.healed.entry(document.clone()).or_insert(version);
        }
    }

    /// The gap that a document waits behind: the version that is missing.
    pub(in crate::projector) fn gap(&self, document: &DocumentId) -> Option<i64> {
        let row = self.rows.get(document)?;
        (row.mark.class == Class::Gap).then_some(row.mark.version)
    }

    /// Since when the document is parked at this version for this reason, if it is.
    pub(in crate::projector) fn parked_since(
        &self,
        document: &DocumentId,
        mark: &Quarantine,
    ) -> Option<bson::DateTime> {
        let row = self.rows.get(document)?;
        let same = (row.mark.class, row.mark.version) == (mark.class, mark.version);
        same.then_some(row.since)
    }

    /// Whether the record of a waiting document is written, or was read.
    pub(in crate::projector) fn is_saved(&self, document: &DocumentId) -> bool {
        !self.unsaved.contains(document)
    }

    /// Why a document is parked, if it is.
    pub(in crate::projector) fn park(&self, document: &DocumentId) -> Option<&Quarantine> {
        let row = self.rows.get(document)?;
        (row.mark.class != Class::Gap).then_some(&row.mark)
    }

    /// Whether none waits.
    pub(in crate::projector) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether a document waits, for whatever reason.
    pub(in crate::projector) fn waits(&self, document: &DocumentId) -> bool {
        self.rows.contains_key(document)
    }

    /// The documents that wait behind a gap, each with the version that is missing.
    pub(in crate::projector) fn gaps(&self) -> Vec<(DocumentId, i64)> {
        let gaps = self.rows.keys().filter_map(|id| Some((id.clone(), self.gap(id)?)));
        let mut gaps: Vec<(DocumentId, i64)> = gaps.collect();
        gaps.sort_unstable();
        gaps
    }

    /// The documents that are parked because the server refuses their rows, each with the version of that row.
    pub(in crate::projector) fn refused(&self) -> Vec<(DocumentId, i64)> {
        let refused = self.rows.values().filter(|row| row.mark.class == Class::Rejected);
        let mut refused: Vec<(DocumentId, i64)> =
            refused.map(|row| (row.document.clone(), row.mark.version)).collect();
        refused.sort_unstable();
        refused
    }

    /// At most `limit` of the parked documents, from behind `after` on.
    pub(in crate::projector) fn parked(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Vec<DocumentId> {
        let behind = |id: &&DocumentId| after.is_none_or(|after| *id > after);
        let parked = self.rows.keys().filter(|id| self.park(id).is_some()).filter(behind);
        let mut parked: Vec<DocumentId> = parked.cloned().collect();
        parked.sort_unstable();
        parked.truncate(limit);
        parked
    }

    /// The gap that has been open the longest.
    pub(in crate::projector) fn oldest_gap(&self) -> Option<&QuarantineRow> {
        let gaps = self.rows.values().filter(|row| row.mark.class == Class::Gap);
        gaps.min_by(|a, b| (a.since, &a.document).cmp(&(b.since, &b.document)))
    }

    /// How many documents wait.
    pub(in crate::projector) fn classes(&self) -> WaitingClasses {
        let mut classes: WaitingClasses = Class::ALL.into_iter().map(|class| (class, 0)).collect();
        for row in self.rows.values() {
            *classes.entry(row.mark.class).or_default() += 1;
        }
        classes
    }

    pub(in crate::projector) fn take_changes(&mut self) -> WaitingChanges {
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
