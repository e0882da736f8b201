//! JSON Merge Patch (RFC 7396) on BSON: what a writer sends that holds the new values and does not
//! want to think about operators.

use crate::model::state::raw::{self, Element, Elements, RawValue, tag};
use crate::model::state::{Limits, NodeId, State};

use crate::model::shown::shown;

use super::error::PatchError;
use super::within;

const NAME: &str = "merge";

/// One merge into one state.
pub(super) struct Merge<'a> {
    pub(super) state: &'a mut State,
    pub(super) limits: &'a Limits,
    /// Steps taken so far.
    pub(super) steps: usize,
}

impl Merge<'_> {
    pub(super) fn run(&mut self, merge: &[u8]) -> Result<(), PatchError> {
        if Elements::new(merge)?.find(b"_id")?.is_some() {
            return Err(PatchError::Path {
                operator: NAME,
                path: "_id".to_owned(),
                reason: "_id identifies the document and is not part of its state",
            });
        }
        let root = self.state.root_node()?;
        self.fields(root, RawValue::new(tag::DOCUMENT, merge), 1)
    }

    fn fields(
        &mut self,
        node: NodeId,
        merge: RawValue<'_>,
        level: usize,
    ) -> Result<(), PatchError> {
        let mut elements = merge.elements()?;
        while let Some(element) = elements.next()? {
            self.check(node, &element, level)?;
            let found = self.state.find(node, element.name);
            match (element.value.tag, found) {
                (tag::NULL, Some(at)) => self.state.remove(node, at),
                (tag::NULL, None) => {}
                (tag::DOCUMENT, _) => {
                    let child = self.document_at(node, found, element.name)?;
                    self.fields(child, element.value, level + 1)?;
                }
                _ => {
                    let value = self.state.intern(element.value);
                    match found {
                        Some(at) => self.state.set(node, at, value),
                        None => {
                            self.state.add(node, element.name, value);
                        }
                    }
                }
            }
            within(self.state.bytes(), 2 * self.limits.state_bytes_max)?;
        }
        Ok(())
    }

    /// Refuses a field that lies too deep, or takes too long to find.
    fn check(
        &mut self,
        node: NodeId,
        element: &Element<'_>,
        level: usize,
    ) -> Result<(), PatchError> {
        let Limits { depth_max, steps_max, .. } = *self.limits;
        self.steps = self.steps.saturating_add(1 + self.state.len(node));
        if self.steps > steps_max {
            let path = shown(element.name);
            return Err(PatchError::TooMuchWork { operator: NAME, path, max: steps_max });
        }
        // Documents are looked into field by field.
        let depth = match element.value.tag {
            tag::DOCUMENT => 0,
            _ => raw::depth(element.value, depth_max)?,
        };
        if level + depth > depth_max {
            let path = shown(element.name);
            return Err(PatchError::TooDeep { operator: NAME, path, max: depth_max });
        }
        Ok(())
    }

    /// The document of that name, emptied first if something else was there.
    fn document_at(
        &mut self,
        node: NodeId,
        found: Option<usize>,
        name: &[u8],
    ) -> Result<NodeId, PatchError> {
        if let Some(at) = found
            && self.state.value(node, at).tag == tag::DOCUMENT
            && let Some(child) = self.state.child_node(node, at)?
        {
            return Ok(child);
        }
        let (value, child) = self.state.new_container(tag::DOCUMENT);
        match found {
            Some(at) => self.state.set(node, at, value),
            None => {
                self.state.add(node, name, value);
            }
        }
        Ok(child)
    }
}
