//! What each operator does once its path has been found, or found missing.

use crate::model::state::raw::tag;
use crate::model::state::{NodeId, Value};

use super::error::PatchError;
use super::number::Number;
use super::operator::Operator;
use super::path;
use super::plan::Entry;
use super::push::Push;
use super::walk::{Place, Walk};

impl Walk<'_> {
    /// Applies an operator to a field that exists.
    pub(crate) fn update(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
    ) -> Result<(), PatchError> {
        match &entry.operator {
            Operator::Set(value) => {
                let value = self.state.intern(*value);
                self.put(place, found, entry, value)
            }
            Operator::Unset => {
                self.unset(place, found);
                Ok(())
            }
            Operator::Inc(by) => self.inc(place, found, entry, *by),
            Operator::Push(push) => self.push(place, found, entry, push),
            Operator::RenameInto { from } => self.rename(place, Some(found), entry, from),
            Operator::Rename { .. } | Operator::SetOnInsert => Ok(()),
        }
    }

    /// Gives a value to a field that does not exist, by an operator that creates.
    pub(crate) fn create(&mut self, place: Place<'_>, entry: &Entry<'_>) -> Result<(), PatchError> {
        let value = match &entry.operator {
            Operator::Set(value) => self.state.intern(*value),
            Operator::Inc(by) => by.to_value(),
            Operator::Push(push) => {
                let (value, _) = self.state.new_container(tag::ARRAY);
                let at = self.add(place, entry, value)?;
                return self.push(place, at, entry, push);
            }
            Operator::RenameInto { from } => return self.rename(place, None, entry, from),
            Operator::Unset | Operator::Rename { .. } | Operator::SetOnInsert => return Ok(()),
        };
        self.add(place, entry, value).map(drop)
    }

    fn unset(&mut self, place: Place<'_>, found: usize) {
        if self.state.node(place.node).is_array {
            // Elements keep their indexes.
            self.state.set(place.node, found, Value::null());
        } else {
            self.state.remove(place.node, found);
        }
    }

    fn inc(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
        by: Number,
    ) -> Result<(), PatchError> {
        let old = self.state.value(place.node, found);
        let Some(number) = self.state.with_raw(&old, Number::read) else {
            return Err(entry.mismatch(old.tag, "it needs a number"));
        };
        let Some(sum) = number.add(by) else {
            return Err(entry.mismatch(old.tag, "the result does not fit 64 bits; use a double"));
        };
        if !number.is_same(sum) {
            self.state.set(place.node, found, sum.to_value());
        }
        Ok(())
    }

    fn push(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
        push: &Push<'_>,
    ) -> Result<(), PatchError> {
        let tag = self.state.value(place.node, found).tag;
        let array = self.state.child_node(place.node, found)?;
        let Some(array) = array.filter(|_| tag == tag::ARRAY) else {
            return Err(entry.mismatch(tag, "it needs an array"));
        };
        let inside = Place { node: array, name: b"", level: place.level + 1 };
        for value in &push.values {
            let value = self.state.intern(*value);
            self.check_depth(inside, entry, &value)?;
            self.state.insert(array, self.state.len(array), value);
            self.check_growth()?;
        }
        Ok(())
    }

    /// Where the field to be renamed is; nothing when it does not exist.
    pub(crate) fn rename_source(
        &mut self,
        entry: &Entry<'_>,
        from: &[u8],
    ) -> Result<Option<(NodeId, usize)>, PatchError> {
        let mut node = self.state.root_node()?;
        let mut at = 0;
        let mut through_array = false;
        loop {
            let (name, next) = path::component(from, at);
            let is_array = self.state.node(node).is_array;
            through_array |= is_array;
            let found = if is_array {
                let Some(index) = path::index(name) else {
                    return Err(entry.mismatch(tag::ARRAY, "an array is reached into by index"));
                };
                Some(index).filter(|index| *index < self.state.len(node))
            } else {
                self.state.find(node, name)
            };
            let Some(found) = found else { return Ok(None) };
            let Some(next) = next else {
                if through_array {
                    return Err(
                        entry.mismatch(tag::ARRAY, "elements of an array cannot be renamed")
                    );
                }
                return Ok(Some((node, found)));
            };
            let Some(child) = self.state.child_node(node, found)? else {
                let tag = self.state.value(node, found).tag;
                return Err(entry.mismatch(tag, "a path goes on only through documents"));
            };
            (node, at) = (child, next);
        }
    }

    fn rename(
        &mut self,
        place: Place<'_>,
        found: Option<usize>,
        entry: &Entry<'_>,
        from: &[u8],
    ) -> Result<(), PatchError> {
        let Some((node, at)) = self.rename_source(entry, from)? else { return Ok(()) };
        let value = self.state.value(node, at);
        match found {
            Some(found) => self.put(place, found, entry, value)?,
            None => {
                self.add(place, entry, value)?;
            }
        }
        self.state.remove(node, at);
        Ok(())
    }
}
