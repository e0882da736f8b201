//! Names of root fields that begin with `$`. The server keeps them for itself, but for those of a
//! reference to another document (`$ref`, `$id`, `$db`, in this order), and looks at them only where
//! an update changes something.

use crate::model::state::NodeId;
use crate::model::state::raw::tag;

use super::error::PatchError;
use super::number::Number;
use super::operator::Operator;
use super::plan::Entry;
use super::walk::{Place, Walk};

impl Walk<'_> {
    /// Applies an operator to a root field with such a name.
    pub(crate) fn update_reserved(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
    ) -> Result<(), PatchError> {
        // What only removes is not looked at.
        if matches!(
            entry.operator,
            Operator::Unset | Operator::Pop { .. } | Operator::Pull(_) | Operator::PullAll(_)
        ) {
            return self.change(place, found, entry);
        }
        // Renaming counts as a change whatever was there.
        let moves = match entry.operator {
            Operator::RenameInto { from } => self.rename_source(entry, from)?.is_some(),
            _ => false,
        };
        let before = self.bytes_at(place.node, found);
        self.change(place, found, entry)?;
        // A renaming may have moved the field.
        let Some(found) = self.state.find(place.node, place.name) else { return Ok(()) };
        let changed = moves
            || self.rewrites(place.node, found, entry)
            || self.bytes_at(place.node, found) != before;
        if changed { self.check_reserved(place.node, found, entry) } else { Ok(()) }
    }

    /// Whether the server counts the operation as a change even where the bytes are the same.
    fn rewrites(&self, node: NodeId, at: usize, entry: &Entry<'_>) -> bool {
        match &entry.operator {
            Operator::Push(push) => push.sort.is_some() || !push.values.is_empty(),
            // Not-a-number is not equal to itself.
            Operator::Inc(..) | Operator::Mul(_) => {
                let value = self.state.value(node, at);
                self.state.with_raw(&value, Number::read).is_some_and(Number::is_nan)
            }
            _ => false,
        }
    }

    fn bytes_at(&self, node: NodeId, at: usize) -> (u8, Vec<u8>) {
        let value = self.state.value(node, at);
        self.state.with_raw(&value, |raw| (raw.tag, raw.bytes.to_vec()))
    }

    /// Refuses a root field that has such a name and is not part of a reference.
    pub(crate) fn check_reserved(
        &self,
        node: NodeId,
        at: usize,
        entry: &Entry<'_>,
    ) -> Result<(), PatchError> {
        let fields = &self.state.node(node).fields;
        let name = |at: usize| fields.get(at).map(|field| self.state.name(field));
        let is_string = |at: usize| fields[at].value.tag == tag::STRING;
        if !name(at).is_some_and(|name| name.starts_with(b"$")) {
            return Ok(());
        }
        let refuse = || {
            Err(entry.bad_path(
                "a root field whose name begins with $ can only be $ref, $id and $db, in this order",
            ))
        };
        let mut at = at;
        for (field, before) in [(&b"$db"[..], &b"$id"[..]), (b"$id", b"$ref")] {
            if name(at) == Some(field) {
                let whole = at > 0 && name(at - 1) == Some(before);
                if !whole || field == b"$db" && !is_string(at) {
                    return refuse();
                }
                at -= 1;
            }
        }
        if name(at) == Some(b"$ref") && is_string(at) && name(at + 1) == Some(b"$id") {
            return Ok(());
        }
        refuse()
    }
}
