//! The documents that a projector holds in memory: those being worked on, which must stay until they
//! are written, and those that are merely worth keeping, bounded in bytes.

use std::collections::HashMap;

use ahash::RandomState;
use bson::RawDocument;
use quick_cache::{Weighter, unsync};

use crate::{
    model::{
        document::{Document, Quarantine},
        id::{DocumentId, integral},
    },
    store::{NO_VERSION, RowWrite},
};

/// How the stored row stands to what was read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::projector) enum Stored {
    /// The document was made from it, or there is none.
    AsRead,
    /// Its log makes something else of the document, which is written over it.
    Differs,
    /// It is no projected document, and must not be replaced in place.
    Unreadable,
}

/// A document and how much of it is stored.
#[derive(Clone, Debug)]
pub(in crate::projector) struct Slot {
    pub(in crate::projector) document: Document,
    /// The version of the stored row; 0 when there is none.
    pub(in crate::projector) stored: i64,
    pub(in crate::projector) is: Stored,
    /// The quarantine mark of the stored row. It changes without the version.
    pub(in crate::projector) stored_mark: Option<Quarantine>,
    /// What the slot was last counted with.
    bytes: usize,
}

impl Slot {
    pub(in crate::projector) fn new(
        document: Document,
        stored: i64,
        stored_mark: Option<Quarantine>,
    ) -> Self {
        Self { document, stored, is: Stored::AsRead, stored_mark, bytes: 0 }
    }

    /// What is stored is this row, which cannot be read.
    pub(in crate::projector) fn is_over(&mut self, row: &RawDocument) {
        let version = row.get("version").ok().flatten().and_then(integral);
        self.stored = version.filter(|version| *version >= 1).unwrap_or(NO_VERSION);
        (self.is, self.stored_mark) = (Stored::Unreadable, None);
    }

    /// The row of the document, which is to be written over what is stored.
    pub(in crate::projector) fn write(&self) -> RowWrite {
        let versions = (self.stored, self.document.version);
        let write = RowWrite::new(self.document.id.clone(), versions, self.document.to_raw());
        RowWrite { is_unsound: self.is == Stored::Unreadable, ..write }
    }

    /// Whether the stored row is behind.
    pub(in crate::projector) fn changed(&self) -> bool {
        let remarked = self.document.quarantine != self.stored_mark;
        let differs = remarked || self.is != Stored::AsRead;
        self.document.version > 0 && (self.document.version > self.stored || differs)
    }
}

#[derive(Clone, Copy, Debug)]
struct Bytes;

impl Weighter<DocumentId, Box<Slot>> for Bytes {
    fn weight(&self, _id: &DocumentId, slot: &Box<Slot>) -> u64 {
        slot.bytes as u64
    }
}

/// See the module. Slots stand apart from their maps, which are looked into for every event.
pub(in crate::projector) struct Cache {
    working: HashMap<DocumentId, Box<Slot>, RandomState>,
    working_bytes: usize,
    idle: unsync::Cache<DocumentId, Box<Slot>, Bytes, RandomState>,
    bytes_max: usize,
}

impl Cache {
    /// A cache that keeps idle documents of at most half of `bytes_max`, and asks for a flush when
    /// those being worked on take the other half.
    pub(in crate::projector) fn new(bytes_max: usize) -> Self {
        let idle_bytes = (bytes_max / 2).max(1);
        let idle = unsync::Cache::with(
            idle_bytes / 1024 + 1,
            idle_bytes as u64,
            Bytes,
            RandomState::default(),
            unsync::DefaultLifecycle::default(),
        );
        Self { working: HashMap::default(), working_bytes: 0, idle, bytes_max }
    }

    pub(in crate::projector) fn holds(&self, id: &DocumentId) -> bool {
        self.working.contains_key(id) || self.idle.peek(id).is_some()
    }

    /// Whether nothing of the document waits to be written.
    pub(in crate::projector) fn is_unchanged(&self, id: &DocumentId) -> bool {
        self.working.get(id).is_none_or(|slot| !slot.changed())
    }

    /// Adds a document that was just loaded.
    pub(in crate::projector) fn admit(&mut self, slot: Slot) {
        let id = slot.document.id.clone();
        self.idle.remove(&id);
        self.start_work(id, Box::new(slot));
    }

    /// The document, to be worked on; `edited` must follow.
    pub(in crate::projector) fn edit(&mut self, id: &DocumentId) -> Option<&mut Slot> {
        if !self.working.contains_key(id) {
            let (id, slot) = self.idle.remove(id)?;
            self.start_work(id, slot);
        }
        self.working.get_mut(id).map(Box::as_mut)
    }

    /// Counts the bytes of a document after an edit.
    pub(in crate::projector) fn edited(&mut self, id: &DocumentId) {
        if let Some(slot) = self.working.get_mut(id) {
            let bytes = slot.document.heap_bytes();
            self.working_bytes = self.working_bytes + bytes - slot.bytes;
            slot.bytes = bytes;
        }
    }

    /// Forgets a document: what is stored is not what was thought.
    pub(in crate::projector) fn evict(&mut self, id: &DocumentId) {
        if let Some(slot) = self.working.remove(id) {
            self.working_bytes -= slot.bytes;
        }
        self.idle.remove(id);
    }

    /// Forgets all documents of which nothing is to be written. Where the row of another is gone, its write tells.
    pub(in crate::projector) fn forget_unchanged(&mut self) {
        self.rest_unchanged();
        self.idle.clear();
    }

    /// The documents being worked on that have changed, in the order of their ids, which a replay
    /// of a simulation needs and the server's index likes. The others become idle.
    pub(in crate::projector) fn changed(&mut self) -> Vec<&Slot> {
        self.rest_unchanged();
        let mut changed: Vec<&Slot> = self.working.values().map(Box::as_ref).collect();
        changed.sort_unstable_by(|a, b| a.document.id.cmp(&b.document.id));
        changed
    }

    /// Documents being worked on that have not changed become idle.
    pub(in crate::projector) fn rest_unchanged(&mut self) {
        let mut unchanged: Vec<DocumentId> = self
            .working
            .iter()
            .filter(|(_, slot)| !slot.changed())
            .map(|(id, _)| id.clone())
            .collect();
        unchanged.sort_unstable();
        unchanged.iter().for_each(|id| self.rest(id));
    }

    /// Notes that the row of a document is stored at `version` with `mark`; the version that was stored before.
    pub(in crate::projector) fn stored(
        &mut self,
        id: &DocumentId,
        version: i64,
        mark: Option<Quarantine>,
    ) -> Option<i64> {
        let slot = self.working.get_mut(id)?;
        let before = std::mem::replace(&mut slot.stored, version);
        (slot.is, slot.stored_mark) = (Stored::AsRead, mark);
        if !slot.changed() {
            self.rest(id);
        }
        Some(before)
    }

    /// Whether documents being worked on take their whole share.
    pub(in crate::projector) fn is_full(&self) -> bool {
        self.working_bytes >= self.bytes_max / 2
    }

    /// How many documents are being worked on.
    pub(in crate::projector) fn working(&self) -> usize {
        self.working.len()
    }

    /// How many bytes all documents take.
    pub(in crate::projector) fn bytes(&self) -> usize {
        self.working_bytes + self.idle.weight() as usize
    }

    fn start_work(&mut self, id: DocumentId, mut slot: Box<Slot>) {
        slot.bytes = slot.document.heap_bytes();
        self.working_bytes += slot.bytes;
        if let Some(previous) = self.working.insert(id, slot) {
            self.working_bytes -= previous.bytes;
        }
    }

    fn rest(&mut self, id: &DocumentId) {
        if let Some((id, slot)) = self.working.remove_entry(id) {
            self.working_bytes -= slot.bytes;
            self.idle.insert(id, slot);
        }
    }
}
