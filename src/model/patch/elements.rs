//! `$[]` and `$[name]`: the same operators on every element that the filters let through.

use crate::model::state::NodeId;
use crate::model::state::raw::tag;

use super::error::PatchError;
use super::path;
use super::plan::{self, Entry};
use super::steps::Halt;
use super::walk::{Place, Walk};

impl Walk<'_> {
    /// Applies entries to the elements of an array that their filters choose. Their component with
    /// the filter begins at `at`.
    pub(crate) fn elements(
        &mut self,
        place: Place<'_>,
        found: usize,
        group: &[Entry<'_>],
        at: usize,
    ) -> Result<(), PatchError> {
        let tag = self.state.value(place.node, found).tag;
        let array = self.state.child_node(place.node, found)?;
        let Some(array) = array.filter(|_| tag == tag::ARRAY) else {
            return Err(group[0].mismatch(tag, "$[] and $[name] need an array"));
        };
        let choices = Choices::new(group, at);
        let mut last: Option<(Vec<bool>, Vec<Entry<'_>>)> = None;
        for index in 0..self.state.len(array) {
            self.step(group.len(), &group[0])?;
            let chosen = self.chosen(&choices, array, index);
            let chosen = chosen.map_err(|halt| self.halted(halt, &group[0]))?;
            if last.as_ref().is_none_or(|(known, _)| *known != chosen) {
                last = Some((chosen.clone(), choices.merged(&chosen)?));
            }
            let Some((_, entries)) = &last else { continue };
            let inside = Place { node: array, name: b"", level: place.level + 1 };
            match entries.first() {
                None => {}
                // All paths end here; merging has made sure that there is only one.
                Some(entry) if entry.path.is_empty() => self.update(inside, index, entry)?,
                Some(_) => self.existing(inside, index, entries, Some(0))?,
            }
        }
        Ok(())
    }

    fn chosen(
        &self,
        choices: &Choices<'_, '_>,
        array: NodeId,
        index: usize,
    ) -> Result<Vec<bool>, Halt> {
        let value = self.state.value(array, index);
        let admits = |identifier: &[u8]| {
            self.state.with_raw(&value, |raw| self.filters.admits(identifier, raw, &self.steps))
        };
        choices.0.iter().map(|(identifier, _)| admits(identifier)).collect()
    }
}

/// Entries by the identifier that their next component has, with what their paths go on with.
struct Choices<'a, 'p>(Vec<(&'a [u8], Vec<Entry<'p>>)>);

impl<'a, 'p> Choices<'a, 'p> {
    fn new(group: &'a [Entry<'p>], at: usize) -> Self {
        let mut choices: Vec<(&[u8], Vec<Entry<'p>>)> = Vec::new();
        for entry in group {
            let (component, next) = path::component(entry.path, at);
            let identifier = path::array_filter(component).unwrap_or_default();
            let rest = next.map_or(&b""[..], |next| &entry.path[next..]);
            let entry = Entry { path: rest, ..entry.clone() };
            match choices.last_mut() {
                Some((last, entries)) if *last == identifier => entries.push(entry),
                _ => choices.push((identifier, vec![entry])),
            }
        }
        Self(choices)
    }

    /// The entries for an element that these identifiers apply to, in path order.
    fn merged(&self, chosen: &[bool]) -> Result<Vec<Entry<'p>>, PatchError> {
        let groups = self.0.iter().zip(chosen).filter(|(_, chosen)| **chosen);
        let mut entries: Vec<_> = groups.flat_map(|((_, entries), _)| entries.clone()).collect();
        entries.sort_by(|left, right| path::compare(left.path, right.path));
        plan::check_conflicts(&entries)?;
        Ok(entries)
    }
}
