//! The nodes of the tree and every edit of them. Nodes refer to each other and to their bytes by
//! number, so that values are small and copied freely, and an undo is a number and an old value.

use super::State;
use super::journal::Undo;
use super::raw::{Elements, Malformed, RawValue, is_container, tag};

/// A decoded document or array.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) is_array: bool,
    pub(crate) fields: Vec<Field>,
}

/// The number of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(u32);

impl NodeId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A name and a value. Elements of an array keep the name that they were read with only to be
/// copied together with their neighbours; their place gives them their name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(super) name_at: u32,
    pub(super) name_len: u32,
    pub(crate) value: Value,
}

/// A typed value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    pub(crate) tag: u8,
    pub(crate) repr: Repr,
}

/// Where a value's bytes are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Repr {
    /// In the arena, as encoded.
    Bytes { at: u32, len: u32 },
    /// Right here: what is at most eight bytes long, so that counters do not fill the arena.
    Inline { len: u8, bytes: [u8; 8] },
    /// Decoded.
    Node(NodeId),
}

impl Value {
    pub(super) fn document(at: u32, len: usize) -> Self {
        Value { tag: tag::DOCUMENT, repr: Repr::Bytes { at, len: len as u32 } }
    }

    /// A value of at most eight bytes.
    pub(crate) fn inline<const N: usize>(tag: u8, from: [u8; N]) -> Self {
        const { assert!(N <= 8) };
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&from);
        Value { tag, repr: Repr::Inline { len: N as u8, bytes } }
    }

    pub(crate) fn null() -> Self {
        Self::inline(tag::NULL, [])
    }
}

/// What an element takes in an encoded document: its type, its name, a zero and its value.
fn element_len(name: usize, value: usize) -> usize {
    2 + name + value
}

/// How many digits an array index has.
pub(crate) fn digits(index: usize) -> usize {
    index.checked_ilog10().map_or(1, |log| log as usize + 1)
}

impl State {
    /// The root, decoded.
    pub(crate) fn root_node(&mut self) -> Result<NodeId, Malformed> {
        if let Repr::Node(node) = self.root.repr {
            return Ok(node);
        }
        let node = self.decode(self.root)?;
        self.journal.push(Undo::Root { old: self.root });
        self.root.repr = Repr::Node(node);
        Ok(node)
    }

    /// The document or array at that place, decoded; nothing when a scalar is there.
    pub(crate) fn child_node(
        &mut self,
        node: NodeId,
        at: usize,
    ) -> Result<Option<NodeId>, Malformed> {
        let value = self.value(node, at);
        if !is_container(value.tag) {
            return Ok(None);
        }
        if let Repr::Node(child) = value.repr {
            return Ok(Some(child));
        }
        let child = self.decode(value)?;
        self.journal.push(Undo::Value { node, at, old: value });
        self.nodes[node.index()].fields[at].value.repr = Repr::Node(child);
        Ok(Some(child))
    }

    fn decode(&mut self, value: Value) -> Result<NodeId, Malformed> {
        let Repr::Bytes { at: base, .. } = value.repr else {
            return Err(Malformed { at: 0, what: "not a document" });
        };
        let is_array = value.tag == tag::ARRAY;
        let bytes = self.arena_bytes(&value);
        let mut fields = Vec::with_capacity(if is_array { bytes.len() / 16 } else { 16 });
        let mut names = 0;
        let mut elements = Elements::new(bytes)?;
        while let Some(element) = elements.next()? {
            names += element.name.len();
            fields.push(Field {
                name_at: base + element.name_at as u32,
                name_len: element.name.len() as u32,
                value: Value {
                    tag: element.value.tag,
                    repr: Repr::Bytes {
                        at: base + element.value_at as u32,
                        len: element.value.bytes.len() as u32,
                    },
                },
            });
        }
        if is_array {
            // An array with other names than its indexes is written back with its indexes.
            let canonical: usize = (0..fields.len()).map(digits).sum();
            self.bytes = self.bytes + canonical - names;
        }
        Ok(self.add_node(Node { is_array, fields }))
    }

    fn add_node(&mut self, node: Node) -> NodeId {
        self.fields_made += node.fields.len() + 2;
        self.nodes.push(node);
        NodeId((self.nodes.len() - 1) as u32)
    }

    pub(crate) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.index()]
    }

    pub(crate) fn len(&self, node: NodeId) -> usize {
        self.nodes[node.index()].fields.len()
    }

    pub(crate) fn value(&self, node: NodeId, at: usize) -> Value {
        self.nodes[node.index()].fields[at].value
    }

    pub(crate) fn name(&self, field: &Field) -> &[u8] {
        &self.arena[field.name_at as usize..(field.name_at + field.name_len) as usize]
    }

    /// The place of the first field of that name.
    pub(crate) fn find(&self, node: NodeId, name: &[u8]) -> Option<usize> {
        let fields = &self.nodes[node.index()].fields;
        fields
            .iter()
            .position(|field| field.name_len as usize == name.len() && self.name(field) == name)
    }

    /// The encoded bytes of a value that has not been decoded.
    pub(super) fn arena_bytes(&self, value: &Value) -> &[u8] {
        match value.repr {
            Repr::Bytes { at, len } => &self.arena[at as usize..(at + len) as usize],
            _ => &[],
        }
    }

    /// Lends the value's encoded bytes to `read`, encoding it first if it has been decoded.
    pub(crate) fn with_raw<T>(&self, value: &Value, read: impl FnOnce(RawValue<'_>) -> T) -> T {
        match &value.repr {
            Repr::Bytes { .. } => read(RawValue::new(value.tag, self.arena_bytes(value))),
            Repr::Inline { len, bytes } => {
                read(RawValue::new(value.tag, &bytes[..usize::from(*len)]))
            }
            Repr::Node(_) => {
                let mut encoded = Vec::new();
                self.encode_value(value, &mut encoded);
                read(RawValue::new(value.tag, &encoded))
            }
        }
    }

    /// Size of the value when encoded.
    pub(crate) fn value_len(&self, value: &Value) -> usize {
        match value.repr {
            Repr::Bytes { len, .. } => len as usize,
            Repr::Inline { len, .. } => usize::from(len),
            Repr::Node(node) => {
                let node = self.node(node);
                let fields = node.fields.iter().enumerate();
                5 + fields
                    .map(|(at, field)| self.field_len(node.is_array, at, field))
                    .sum::<usize>()
            }
        }
    }

    fn field_len(&self, in_array: bool, at: usize, field: &Field) -> usize {
        let name = if in_array { digits(at) } else { field.name_len as usize };
        element_len(name, self.value_len(&field.value))
    }

    /// Copies a value in, to be put somewhere.
    pub(crate) fn intern(&mut self, value: RawValue<'_>) -> Value {
        let length = value.bytes.len();
        if length <= 8 && !is_container(value.tag) {
            let mut bytes = [0; 8];
            bytes[..length].copy_from_slice(value.bytes);
            return Value { tag: value.tag, repr: Repr::Inline { len: length as u8, bytes } };
        }
        let at = self.arena.len() as u32;
        self.arena.extend_from_slice(value.bytes);
        Value { tag: value.tag, repr: Repr::Bytes { at, len: length as u32 } }
    }

    /// A new document or array without fields.
    pub(crate) fn new_container(&mut self, tag: u8) -> (Value, NodeId) {
        let node = self.add_node(Node { is_array: tag == tag::ARRAY, fields: Vec::new() });
        (Value { tag, repr: Repr::Node(node) }, node)
    }

    /// Replaces the value at that place.
    pub(crate) fn set(&mut self, node: NodeId, at: usize, value: Value) {
        let old = self.value(node, at);
        self.bytes = self.bytes + self.value_len(&value) - self.value_len(&old);
        self.journal.push(Undo::Value { node, at, old });
        self.nodes[node.index()].fields[at].value = value;
    }

    /// Adds a field at the end of a document.
    pub(crate) fn add(&mut self, node: NodeId, name: &[u8], value: Value) -> usize {
        let name_at = self.arena.len() as u32;
        self.arena.extend_from_slice(name);
        self.bytes += element_len(name.len(), self.value_len(&value));
        let field = Field { name_at, name_len: name.len() as u32, value };
        self.place(node, self.len(node), field)
    }

    /// Inserts an element into an array.
    pub(crate) fn insert(&mut self, node: NodeId, at: usize, value: Value) -> usize {
        self.bytes += element_len(digits(self.len(node)), self.value_len(&value));
        self.place(node, at, Field { name_at: 0, name_len: 0, value })
    }

    fn place(&mut self, node: NodeId, at: usize, field: Field) -> usize {
        self.fields_made += 1;
        self.journal.push(Undo::Added { node, at });
        self.nodes[node.index()].fields.insert(at, field);
        at
    }

    /// Removes the field or element at that place.
    pub(crate) fn remove(&mut self, node: NodeId, at: usize) {
        let last = self.len(node) - 1;
        let old = self.nodes[node.index()].fields[at];
        let is_array = self.node(node).is_array;
        let name = if is_array { digits(last) } else { old.name_len as usize };
        self.bytes -= element_len(name, self.value_len(&old.value));
        self.nodes[node.index()].fields.remove(at);
        self.journal.push(Undo::Removed { node, at, old });
    }

    /// Replaces all elements of an array by some of them, in any order.
    pub(crate) fn rearrange(&mut self, node: NodeId, fields: Vec<Field>) {
        let before = self.value_len(&Value { tag: tag::ARRAY, repr: Repr::Node(node) });
        self.fields_made += fields.len();
        let old = std::mem::replace(&mut self.nodes[node.index()].fields, fields);
        let after = self.value_len(&Value { tag: tag::ARRAY, repr: Repr::Node(node) });
        self.bytes = self.bytes + after - before;
        self.journal.push(Undo::Fields { node, old });
    }
}
