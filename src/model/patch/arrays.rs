//! What the array operators do to an array that exists.

use std::cmp::Ordering;

use crate::model::state::raw::{Malformed, RawValue, depth, tag};
use crate::model::state::{Field, NodeId};

use super::compare::{compare, equal};
use super::error::PatchError;
use super::plan::Entry;
use super::push::Push;
use super::sort::{Sort, sort};
use super::steps::{Halt, Steps};
use super::walk::{Place, Walk};

/// Arrays and sets up to this size are searched one by one.
const LINEAR_MAX: usize = 8;

impl Walk<'_> {
    fn array(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
    ) -> Result<NodeId, PatchError> {
        let tag = self.state.value(place.node, found).tag;
        let array = self.state.child_node(place.node, found)?;
        array
            .filter(|_| tag == tag::ARRAY)
            .ok_or_else(|| entry.mismatch(tag, "the operator needs an array"))
    }

    pub(crate) fn push(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
        push: &Push<'_>,
    ) -> Result<(), PatchError> {
        let array = self.array(place, found, entry)?;
        let length = self.state.len(array);
        let at = push.index(length);
        if at < length && push.values.len() > LINEAR_MAX {
            // Many elements at once would each move all that follow.
            let mut fields = self.state.node(array).fields.clone();
            let tail = fields.split_off(at);
            self.insert_all(place, entry, array, length, &push.values)?;
            fields.extend_from_slice(&self.state.node(array).fields[length..]);
            fields.extend(tail);
            self.state.rearrange(array, fields);
        } else {
            self.insert_all(place, entry, array, at, &push.values)?;
        }
        if let Some(sort) = &push.sort {
            self.sort(array, sort).map_err(|halt| self.halted(halt, entry))?;
        }
        self.keep(array, push.kept(self.state.len(array)));
        Ok(())
    }

    fn insert_all(
        &mut self,
        place: Place<'_>,
        entry: &Entry<'_>,
        array: NodeId,
        at: usize,
        values: &[RawValue<'_>],
    ) -> Result<(), PatchError> {
        let inside = Place { node: array, name: b"", level: place.level + 1 };
        for (offset, value) in values.iter().enumerate() {
            let value = self.state.intern(*value);
            self.check_depth(inside, entry, &value)?;
            self.state.insert(array, at + offset, value);
            self.check_growth()?;
        }
        Ok(())
    }

    fn sort(&mut self, array: NodeId, by: &Sort<'_>) -> Result<(), Halt> {
        let fields = self.state.node(array).fields.clone();
        let mut elements = Vec::with_capacity(fields.len());
        for field in &fields {
            let (tag, bytes) =
                self.state.with_raw(&field.value, |raw| (raw.tag, raw.bytes.to_vec()));
            // What can be read all the way down compares consistently.
            depth(RawValue::new(tag, &bytes), self.limits.depth_max)?;
            elements.push((tag, bytes));
        }
        let mut order: Vec<usize> = (0..fields.len()).collect();
        let raw = |at: usize| RawValue::new(elements[at].0, &elements[at].1);
        // Out of steps nothing is less than anything, which ends the sorting at once.
        sort(&mut order, &|left, right| {
            by.compare(raw(left), raw(right), &self.steps).is_ok_and(Ordering::is_lt)
        });
        self.steps.take(1)?;
        self.state.rearrange(array, order.into_iter().map(|at| fields[at]).collect());
        Ok(())
    }

    /// Drops the elements outside of the range.
    fn keep(&mut self, array: NodeId, range: std::ops::Range<usize>) {
        let length = self.state.len(array);
        if length - range.len() <= 1 {
            for at in (0..length).rev().filter(|at| !range.contains(at)) {
                self.state.remove(array, at);
            }
        } else {
            let fields = self.state.node(array).fields[range].to_vec();
            self.state.rearrange(array, fields);
        }
    }

    pub(crate) fn add_to_set(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
        values: &[RawValue<'_>],
    ) -> Result<(), PatchError> {
        let array = self.array(place, found, entry)?;
        let missing = self.not_in(array, values)?;
        self.insert_all(place, entry, array, self.state.len(array), &missing)
    }

    /// Which of the values the array has not, each once.
    fn not_in<'p>(
        &self,
        array: NodeId,
        values: &[RawValue<'p>],
    ) -> Result<Vec<RawValue<'p>>, Malformed> {
        // Their order, equal ones by their place. More than one have been checked to be well-formed.
        let mut sorted: Vec<usize> = (0..values.len()).collect();
        sorted.sort_by(|left, right| {
            compare(values[*left], values[*right]).unwrap_or(Ordering::Equal).then(left.cmp(right))
        });
        let mut known = vec![false; values.len()];
        for pair in sorted.windows(2) {
            known[pair[1]] = equal(values[pair[0]], values[pair[1]])?;
        }
        for field in &self.state.node(array).fields {
            self.state.with_raw(&field.value, |element| -> Result<(), Malformed> {
                let mut low = 0;
                let mut high = sorted.len();
                while low < high {
                    let middle = low.midpoint(high);
                    if compare(values[sorted[middle]], element)?.is_lt() {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                // The first of equal values is the one that would be added.
                if let Some(first) = sorted.get(low) {
                    known[*first] = known[*first] || equal(values[*first], element)?;
                }
                Ok(())
            })?;
        }
        let missing = values.iter().zip(known).filter(|(_, known)| !known);
        Ok(missing.map(|(value, _)| *value).collect())
    }

    pub(crate) fn pop(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
        first: bool,
    ) -> Result<(), PatchError> {
        let array = self.array(place, found, entry)?;
        if let Some(last) = self.state.len(array).checked_sub(1) {
            self.state.remove(array, if first { 0 } else { last });
        }
        Ok(())
    }

    /// Removes the elements that `takes` says.
    pub(crate) fn cull(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
        takes: &mut dyn FnMut(RawValue<'_>, &Steps) -> Result<bool, Halt>,
    ) -> Result<(), PatchError> {
        let array = self.array(place, found, entry)?;
        let steps = &self.steps;
        let mut kept: Vec<Field> = Vec::new();
        for field in &self.state.node(array).fields {
            let taken = self.state.with_raw(&field.value, |element| takes(element, steps));
            if !taken.map_err(|halt| self.halted(halt, entry))? {
                kept.push(*field);
            }
        }
        if kept.len() < self.state.len(array) {
            self.state.rearrange(array, kept);
        }
        Ok(())
    }
}
