//! Writing the tree back. Neighbours that nobody touched lie next to each other in the arena too, so
//! they are copied as one run.

use super::State;
use super::raw::{self, Malformed};
use super::tree::{Field, Node, Repr, Value};

/// A stretch of the arena that is still to be copied.
#[derive(Default)]
struct Run {
    from: usize,
    to: usize,
}

impl State {
    pub(super) fn encode_value(&self, value: &Value, out: &mut Vec<u8>) {
        match &value.repr {
            Repr::Bytes { .. } => out.extend_from_slice(self.arena_bytes(value)),
            Repr::Inline { len, bytes } => out.extend_from_slice(&bytes[..usize::from(*len)]),
            Repr::Node(node) => self.encode_node(self.node(*node), out),
        }
    }

    fn encode_node(&self, node: &Node, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut run = Run::default();
        let mut index = Index::new();
        for field in &node.fields {
            match self.verbatim(node, field, &index) {
                Some((from, to)) if run.to == from => run.to = to,
                Some((from, to)) => {
                    out.extend_from_slice(&self.arena[run.from..run.to]);
                    run = Run { from, to };
                }
                None => {
                    out.extend_from_slice(&self.arena[run.from..run.to]);
                    run = Run::default();
                    let name = if node.is_array { index.text() } else { self.name(field) };
                    out.push(field.value.tag);
                    out.extend_from_slice(name);
                    out.push(0);
                    self.encode_value(&field.value, out);
                }
            }
            if node.is_array {
                index.step();
            }
        }
        out.extend_from_slice(&self.arena[run.from..run.to]);
        out.push(0);
        let length = (out.len() - start) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// The stretch of the arena that holds the whole element as it is to be written, if there is one.
    fn verbatim(&self, node: &Node, field: &Field, index: &Index) -> Option<(usize, usize)> {
        let Repr::Bytes { at, len } = field.value.repr else { return None };
        let contiguous = field.name_at > 0 && field.name_at + field.name_len + 1 == at;
        let from = (field.name_at as usize).wrapping_sub(1);
        let same = contiguous
            && self.arena[from] == field.value.tag
            && self.arena[at as usize - 1] == 0
            && (!node.is_array || self.name(field) == index.text());
        same.then_some((from, (at + len) as usize))
    }

    /// How many levels of fields lie below the value: none for a scalar. Looks no deeper than
    /// `enough` levels.
    pub(crate) fn depth(&self, value: &Value, enough: usize) -> Result<usize, Malformed> {
        let Repr::Node(node) = value.repr else {
            return self.with_raw(value, |raw| raw::depth(raw, enough));
        };
        let mut deepest = 0;
        for field in &self.node(node).fields {
            let below = if enough == 0 { 0 } else { self.depth(&field.value, enough - 1)? };
            deepest = deepest.max(1 + below);
        }
        Ok(deepest)
    }
}

/// A counter that keeps its own decimal text: formatting every index anew would cost more than
/// copying the elements.
pub(crate) struct Index {
    text: [u8; 20],
    from: usize,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { text: [b'0'; 20], from: 19 }
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.text[self.from..]
    }

    pub(crate) fn step(&mut self) {
        for at in (0..self.text.len()).rev() {
            if self.text[at] < b'9' {
                self.text[at] += 1;
                self.from = self.from.min(at);
                return;
            }
            self.text[at] = b'0';
        }
    }
}
