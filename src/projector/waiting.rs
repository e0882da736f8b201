//! Documents that wait: behind a hole in their versions, or parked by a poison event. Nothing waits in
//! memory only: what changes here is written before any checkpoint passes it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    model::{
        document::{Class, Quarantine},
        id::DocumentId,
    },
    store::QuarantineRow,
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    rows: HashMap<DocumentId, QuarantineRow>,
    unsaved: HashSet<DocumentId>,
}

/// How many documents wait, by class: every class is there.
pub(super) type WaitingClasses = BTreeMap<Class, u64>;

/// What has to be written.
#[derive(Debug, Default)]
pub(super) struct WaitingChanges {
    pub(super) put: Vec<QuarantineRow>,
    pub(super) remove: Vec<DocumentId>,
}

impl Waiting {
    /// What was on record.
    pub(super) fn new(rows: Vec<QuarantineRow>) -> Self {
        let rows = rows.into_iter().map(|row| (row.document.clone(), row)).collect();
        Self { rows, unsaved: HashSet::new() }
    }

    pub(super) fn put(&mut self, row: QuarantineRow) {
        self.unsaved.insert(row.document.clone());
        self.rows.insert(row.document.clone(), row);
    }

    /// Removes a document's record; whether there was one.
    pub(super) fn remove(&mut self, document: &DocumentId) -> bool {
        let was_there = self.rows.remove(document).is_some();
        if was_there {
            self.unsaved.insert(document.clone());
        }
        was_there
    }

    /// The hole that a document waits behind: the version that is missing.
    pub(super) fn hole(&self, document: &DocumentId) -> Option<i64> {
        let row = self.rows.get(document)?;
        (row.mark.class == Class::Gap).then_some(row.mark.version)
    }

    /// Why a document is parked, if it is.
    pub(super) fn park(&self, document: &DocumentId) -> Option<&Quarantine> {
        let row = self.rows.get(document)?;
        (row.mark.class != Class::Gap).then_some(&row.mark)
    }

    /// The documents that wait behind a hole.
    pub(super) fn holes(&self) -> Vec<DocumentId> {
        let holes = self.rows.keys().filter(|document| self.hole(document).is_some());
        let mut holes: Vec<DocumentId> = holes.cloned().collect();
        holes.sort_unstable();
        holes
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
            match self.rows.get(&document) {
                Some(row) => changes.put.push(row.clone()),
                None => changes.remove.push(document),
            }
        }
        changes
    }
}
