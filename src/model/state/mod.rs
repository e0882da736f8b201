//! The state of one document while events are folded into it. It is an editable tree over the raw
//! bytes that decodes only what a patch touches and is encoded once per flush: decoding and encoding
//! a whole document for every event costs many times what the event itself does.

mod encode;
mod journal;
mod limits;
pub(crate) mod raw;
mod tree;

use bson::{RawDocument, RawDocumentBuf};
use thiserror::Error;

pub(crate) use encode::Index;
use journal::{Mark, Undo};
pub use limits::Limits;
pub use raw::Malformed;
use raw::tag;
pub(crate) use tree::{Field, Node, NodeId, Repr, Value, digits};

/// What keeps bytes from being a state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// The bytes are not a BSON document.
    #[error("the state cannot be read: {0}")]
    Malformed(#[from] Malformed),
}

/// A document's state: an editable tree over raw BSON.
///
/// Reading one in copies its bytes and decodes nothing. A patch decodes the documents and arrays on
/// its paths, one level each; everything else is copied through as bytes when the state is encoded.
#[derive(Clone, Debug)]
pub struct State {
    /// The bytes that fields and values refer to: the document as read, then what patches added.
    arena: Vec<u8>,
    /// The documents and arrays decoded so far.
    nodes: Vec<Node>,
    root: Value,
    /// Encoded size, kept up to date by every edit.
    bytes: usize,
    /// Fields ever decoded or added since the last compaction: a bound on what the nodes hold.
    fields_made: usize,
    journal: Vec<Undo>,
    mark: Mark,
}

impl State {
    /// Takes over a document. Costs one copy of its bytes; nested values are checked only once a
    /// patch reaches them.
    ///
    /// # Errors
    ///
    /// When the document is longer than BSON allows.
    pub fn from_raw(raw: &RawDocument) -> Result<State, StateError> {
        let bytes = raw.as_bytes();
        raw::Elements::new(bytes)?;
        let length = u32::try_from(bytes.len())
            .map_err(|_| Malformed { at: 0, what: "the document is longer than 4 GiB" })?;
        Ok(State {
            arena: bytes.to_vec(),
            nodes: Vec::new(),
            root: Value { tag: tag::DOCUMENT, repr: Repr::Bytes { at: 0, len: length } },
            bytes: bytes.len(),
            fields_made: 0,
            journal: Vec::new(),
            mark: Mark::default(),
        })
    }

    /// The state as a BSON document.
    #[must_use]
    pub fn to_raw(&self) -> RawDocumentBuf {
        let mut out = Vec::with_capacity(self.bytes);
        self.append_to(&mut out);
        // What the encoder writes always has the right length and a closing zero.
        RawDocumentBuf::from_bytes(out).unwrap_or_default()
    }

    /// Appends the document's bytes to `out`, for building a larger document around it without a
    /// copy in between.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes);
        self.encode_value(&self.root, out);
    }

    /// Size of the encoded document in bytes. Constant time.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// About how much memory the state occupies, in bytes, for a cache that bounds itself.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.arena.capacity()
            + self.nodes.capacity() * size_of::<Node>()
            + self.fields_made * size_of::<Field>()
            + self.journal.capacity() * size_of::<Undo>()
    }
}
