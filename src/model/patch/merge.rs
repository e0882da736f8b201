//! JSON Merge Patch (RFC 7396) on BSON: what a writer sends that holds the new values and does not
//! want to think about operators.

use crate::model::state::raw::{Elements, RawValue, tag};
use crate::model::state::{Limits, NodeId, State};

use super::error::{PatchError, shown};
use super::within;

const NAME: &str = "merge";

pub(super) fn merge(state: &mut State, merge: &[u8], limits: &Limits) -> Result<(), PatchError> {
    let root = state.root_node()?;
    let mut elements = Elements::new(merge)?;
    while let Some(element) = elements.clone().next()? {
        if element.name == b"_id" {
            return Err(PatchError::Path {
                operator: NAME,
                path: "_id".to_owned(),
                reason: "_id identifies the document and is not part of its state",
            });
        }
        elements.next()?;
    }
    merge_into(state, root, RawValue::new(tag::DOCUMENT, merge), 1, limits)
}

fn merge_into(
    state: &mut State,
    node: NodeId,
    patch: RawValue<'_>,
    level: usize,
    limits: &Limits,
) -> Result<(), PatchError> {
    let mut elements = patch.elements()?;
    while let Some(element) = elements.next()? {
        let found = state.find(node, element.name);
        if element.value.tag == tag::NULL {
            if let Some(at) = found {
                state.remove(node, at);
            }
            continue;
        }
        if level > limits.depth_max {
            let (path, max) = (shown(element.name), limits.depth_max);
            return Err(PatchError::TooDeep { operator: NAME, path, max });
        }
        if element.value.tag == tag::DOCUMENT {
            let child = document_at(state, node, found, element.name)?;
            merge_into(state, child, element.value, level + 1, limits)?;
            continue;
        }
        let depth = crate::model::state::raw::depth(element.value, limits.depth_max)?;
        if level + depth > limits.depth_max {
            let (path, max) = (shown(element.name), limits.depth_max);
            return Err(PatchError::TooDeep { operator: NAME, path, max });
        }
        let value = state.intern(element.value);
        match found {
            Some(at) => state.set(node, at, value),
            None => {
                state.add(node, element.name, value);
            }
        }
        within(state.bytes(), 2 * limits.state_bytes_max)?;
    }
    Ok(())
}

/// The document of that name, emptied first if something else was there.
fn document_at(
    state: &mut State,
    node: NodeId,
    found: Option<usize>,
    name: &[u8],
) -> Result<NodeId, PatchError> {
    if let Some(at) = found
        && state.value(node, at).tag == tag::DOCUMENT
        && let Some(child) = state.child_node(node, at)?
    {
        return Ok(child);
    }
    let (value, child) = state.new_container(tag::DOCUMENT);
    match found {
        Some(at) => state.set(node, at, value),
        None => {
            state.add(node, name, value);
        }
    }
    Ok(child)
}
