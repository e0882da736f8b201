//! `$rename`: the value moves, decoded parts and all. Neither path may lead through an array.

use crate::model::state::NodeId;
use crate::model::state::raw::tag;

use super::error::PatchError;
use super::path;
use super::plan::Entry;
use super::walk::{Place, Walk};

impl Walk<'_> {
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
            self.step(self.state.len(node), entry)?;
            let is_array = self.state.node(node).is_array;
            through_array |= is_array;
            let found = if is_array {
                let Some(index) = path::index(name) else {
                    return Err(entry.mismatch(tag::ARRAY, "an array is reached into by index"));
                };
                // Here, and only here, the server looks at the index's last eight bits.
                Some(index % 256).filter(|index| *index < self.state.len(node))
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

    pub(crate) fn rename(
        &mut self,
        place: Place<'_>,
        found: Option<usize>,
        entry: &Entry<'_>,
        from: &[u8],
    ) -> Result<(), PatchError> {
        let Some((node, at)) = self.rename_source(entry, from)? else { return Ok(()) };
        self.check_no_array(entry)?;
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

    /// Refuses a new path that leads through an array. What is at its end may be one.
    fn check_no_array(&mut self, entry: &Entry<'_>) -> Result<(), PatchError> {
        let mut node = self.state.root_node()?;
        let mut at = 0;
        loop {
            if self.state.node(node).is_array {
                return Err(entry.mismatch(tag::ARRAY, "elements of an array cannot be renamed"));
            }
            let (name, next) = path::component(entry.full, at);
            let Some(next) = next else { return Ok(()) };
            let child = match self.state.find(node, name) {
                Some(found) => self.state.child_node(node, found)?,
                None => None,
            };
            let Some(child) = child else { return Ok(()) };
            (node, at) = (child, next);
        }
    }
}
