//! Walking a patch through a state: both are visited in path order, each document on the way once.

use bson::DateTime;

use crate::model::state::raw::tag;
use crate::model::state::{Limits, NodeId, State, Value};

use crate::model::shown::shown;

use super::error::PatchError;
use super::operator::Operator;
use super::plan::Entry;
use super::query::Filters;
use super::steps::{Halt, Steps};
use super::{path, within};

/// One application of one patch.
pub(crate) struct Walk<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) limits: &'a Limits,
    pub(crate) at: DateTime,
    pub(crate) filters: &'a Filters<'a>,
    pub(crate) steps: Steps,
}

/// A field that exists or is to exist: its parent, its name and how deep it lies.
#[derive(Clone, Copy)]
pub(crate) struct Place<'p> {
    pub(crate) node: NodeId,
    pub(crate) name: &'p [u8],
    /// The root's fields are at level 1.
    pub(crate) level: usize,
}

impl Place<'_> {
    /// Whether the server keeps the field's name for itself.
    pub(crate) fn is_reserved(&self) -> bool {
        self.level == 1 && self.name.starts_with(b"$")
    }
}

impl Walk<'_> {
    pub(crate) fn run(&mut self, entries: &[Entry<'_>]) -> Result<(), PatchError> {
        if entries.is_empty() {
            return Ok(());
        }
        let root = self.state.root_node()?;
        self.fields(root, entries, 0, 1)
    }

    /// Applies entries to the fields of one document or array. Their next component begins at `at`.
    fn fields(
        &mut self,
        node: NodeId,
        mut entries: &[Entry<'_>],
        at: usize,
        level: usize,
    ) -> Result<(), PatchError> {
        while let Some(first) = entries.first() {
            let (name, next) = path::component(first.path, at);
            let same = |entry: &Entry<'_>| path::component(entry.path, at).0 == name;
            let size = 1 + entries[1..].iter().take_while(|entry| same(entry)).count();
            let (group, rest) = entries.split_at(size);
            let place = Place { node, name, level };
            let fields = if self.state.node(node).is_array { 0 } else { self.state.len(node) };
            self.step(fields + size, first)?;
            match self.find(node, name) {
                Some(found) => self.existing(place, found, group, next)?,
                None => self.missing(place, group, next)?,
            }
            entries = rest;
        }
        Ok(())
    }

    fn find(&self, node: NodeId, name: &[u8]) -> Option<usize> {
        if self.state.node(node).is_array {
            path::index(name).filter(|index| *index < self.state.len(node))
        } else {
            self.state.find(node, name)
        }
    }

    /// Applies a group of entries that go on from a field that exists.
    pub(crate) fn existing(
        &mut self,
        place: Place<'_>,
        found: usize,
        group: &[Entry<'_>],
        next: Option<usize>,
    ) -> Result<(), PatchError> {
        let Some(next) = next else {
            return group.iter().try_for_each(|entry| self.update(place, found, entry));
        };
        let (component, _) = path::component(group[0].path, next);
        if path::array_filter(component).is_some() {
            return self.elements(place, found, group, next);
        }
        match self.state.child_node(place.node, found)? {
            Some(child) => self.fields(child, group, next, place.level + 1),
            None => {
                let tag = self.state.value(place.node, found).tag;
                group.iter().try_for_each(|entry| self.blocked(entry, next, tag))
            }
        }
    }

    /// Applies a group of entries that go on from a field that does not exist.
    fn missing(
        &mut self,
        place: Place<'_>,
        group: &[Entry<'_>],
        next: Option<usize>,
    ) -> Result<(), PatchError> {
        for (done, entry) in group.iter().enumerate() {
            if next.is_some_and(|next| filters_ahead(entry, next)) {
                return Err(entry.bad_path(
                    "$[] and $[name] need an array that exists; create it in an earlier event",
                ));
            }
            if !self.creates(entry)? {
                self.check_reachable(place, entry)?;
                continue;
            }
            let Some(next) = next else {
                self.create(place, entry)?;
                continue;
            };
            let (value, child) = self.state.new_container(tag::DOCUMENT);
            self.add(place, entry, value)?;
            return self.fields(child, &group[done..], next, place.level + 1);
        }
        Ok(())
    }

    fn creates(&mut self, entry: &Entry<'_>) -> Result<bool, PatchError> {
        Ok(match entry.operator {
            Operator::RenameInto { from } => self.rename_source(entry, from)?.is_some(),
            _ => entry.operator.creates(),
        })
    }

    /// Refuses an entry whose path leads through a scalar, unless its operator would do nothing.
    fn blocked(&mut self, entry: &Entry<'_>, at: usize, found: u8) -> Result<(), PatchError> {
        let idle = match entry.operator {
            Operator::RenameInto { from } => self.rename_source(entry, from)?.is_none(),
            _ => entry.operator.ignores_unreachable(),
        };
        if idle && !filters_ahead(entry, at) {
            return Ok(());
        }
        Err(entry.mismatch(found, "a path goes on only through documents and arrays"))
    }

    fn check_reachable(&self, place: Place<'_>, entry: &Entry<'_>) -> Result<(), PatchError> {
        let unreachable = self.state.node(place.node).is_array && path::index(place.name).is_none();
        let idle = matches!(entry.operator, Operator::RenameInto { .. })
            || entry.operator.ignores_unreachable();
        if unreachable && !idle {
            return Err(entry.mismatch(tag::ARRAY, "an array is reached into by index"));
        }
        Ok(())
    }

    /// Puts a value where nothing was, with nulls before it if that is what an array needs.
    pub(crate) fn add(
        &mut self,
        place: Place<'_>,
        entry: &Entry<'_>,
        value: Value,
    ) -> Result<usize, PatchError> {
        self.check_depth(place, entry, &value)?;
        if !self.state.node(place.node).is_array {
            let at = self.state.add(place.node, place.name, value);
            if place.is_reserved() {
                self.check_reserved(place.node, at, entry)?;
            }
            return self.check_growth().map(|()| at);
        }
        let Some(index) = path::index(place.name) else {
            return Err(entry.mismatch(tag::ARRAY, "an array is reached into by index"));
        };
        let length = self.state.len(place.node);
        let padding = index.saturating_sub(length);
        if padding > self.limits.padding_max {
            let (operator, path, max) = (entry.name, shown(entry.full), self.limits.padding_max);
            return Err(PatchError::TooMuchPadding { operator, path, max });
        }
        // Checked before the nulls are there: each takes its type, a name and a zero.
        within(self.state.bytes() + 3 * padding, 2 * self.limits.state_bytes_max)?;
        for at in length..index {
            self.state.insert(place.node, at, Value::null());
        }
        let at = self.state.insert(place.node, index, value);
        self.check_growth().map(|()| at)
    }

    /// Replaces a value.
    pub(crate) fn put(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
        value: Value,
    ) -> Result<(), PatchError> {
        self.check_depth(place, entry, &value)?;
        self.state.set(place.node, found, value);
        self.check_growth()
    }

    pub(crate) fn check_depth(
        &self,
        place: Place<'_>,
        entry: &Entry<'_>,
        value: &Value,
    ) -> Result<(), PatchError> {
        let max = self.limits.depth_max;
        if place.level + self.state.depth(value, max)? > max {
            return Err(PatchError::TooDeep { operator: entry.name, path: shown(entry.full), max });
        }
        Ok(())
    }

    /// Counts steps, and refuses a patch that takes too many.
    pub(crate) fn step(&self, steps: usize, entry: &Entry<'_>) -> Result<(), PatchError> {
        self.steps.take(steps).map_err(|halt| self.halted(halt, entry))
    }

    /// What a halt on the way of that entry means.
    pub(crate) fn halted(&self, halt: Halt, entry: &Entry<'_>) -> PatchError {
        match halt {
            Halt::Malformed(malformed) => malformed.into(),
            Halt::OutOfSteps => {
                let (operator, path, max) = (entry.name, shown(entry.full), self.limits.steps_max);
                PatchError::TooMuchWork { operator, path, max }
            }
            Halt::Pattern(reason) => {
                PatchError::Pattern { operator: entry.name, path: shown(entry.full), reason }
            }
        }
    }

    pub(crate) fn check_growth(&self) -> Result<(), PatchError> {
        within(self.state.bytes(), 2 * self.limits.state_bytes_max)
    }
}

fn filters_ahead(entry: &Entry<'_>, at: usize) -> bool {
    let ahead = entry.path.get(at..).unwrap_or_default();
    ahead.split(|byte| *byte == b'.').any(|component| path::array_filter(component).is_some())
}
