//! How a refused patch leaves no trace: every edit notes how to take it back. A note costs a few
//! nanoseconds, where a copy of the state to fall back on would cost as much as decoding it.

use super::{Field, NodeId, State, Value};

/// How to take one edit back.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    /// A value was replaced.
    Value { node: NodeId, at: usize, old: Value },
    /// The root was decoded.
    Root { old: Value },
    /// A field was added.
    Added { node: NodeId, at: usize },
    /// A field was removed.
    Removed { node: NodeId, at: usize, old: Field },
    /// The fields were replaced as a whole.
    Fields { node: NodeId, old: Vec<Field> },
}

/// Where everything stood when the patch began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    bytes: usize,
    arena: usize,
    nodes: usize,
    fields_made: usize,
}

/// Garbage that is always tolerated, so that small documents are not compacted at every event.
const SLACK_BYTES: usize = 16 * 1024;
const SLACK_FIELDS: usize = 4 * 1024;

impl State {
    /// Begins a patch.
    pub(crate) fn begin(&mut self) {
        self.journal.clear();
        self.mark = Mark {
            bytes: self.bytes,
            arena: self.arena.len(),
            nodes: self.nodes.len(),
            fields_made: self.fields_made,
        };
    }

    /// Keeps what the patch did.
    pub(crate) fn commit(&mut self) {
        self.journal.clear();
        let garbage = self.arena.len() > 2 * self.bytes + SLACK_BYTES
            || self.fields_made > self.bytes + SLACK_FIELDS;
        if garbage {
            self.compact();
        }
    }

    /// Takes back everything since [`State::begin`].
    pub(crate) fn roll_back(&mut self) {
        while let Some(undo) = self.journal.pop() {
            match undo {
                Undo::Value { node, at, old } => self.nodes[node.index()].fields[at].value = old,
                Undo::Root { old } => self.root = old,
                Undo::Added { node, at } => {
                    self.nodes[node.index()].fields.remove(at);
                }
                Undo::Removed { node, at, old } => {
                    self.nodes[node.index()].fields.insert(at, old);
                }
                Undo::Fields { node, old } => self.nodes[node.index()].fields = old,
            }
        }
        self.bytes = self.mark.bytes;
        self.arena.truncate(self.mark.arena);
        self.nodes.truncate(self.mark.nodes);
        self.fields_made = self.mark.fields_made;
    }

    /// Drops overwritten values and unreachable nodes.
    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.bytes + self.bytes / 2);
        self.append_to(&mut arena);
        self.root = Value::document(0, arena.len());
        self.arena = arena;
        self.nodes.clear();
        self.fields_made = 0;
    }
}
