//! MongoDB's update operators on a [`State`], with exactly the server's meaning: the same bytes, or
//! a refusal where the server refuses. A patch is read and checked as a whole, sorted by path, and
//! then walked through the state once.

mod arrays;
mod compare;
mod decimal;
mod elements;
mod error;
mod merge;
mod number;
mod operator;
pub(crate) mod path;
mod plan;
mod push;
mod query;
mod rename;
mod reserved;
mod sort;
mod update;
mod walk;

use bson::{DateTime, RawArray, RawDocument};

pub use error::PatchError;
use query::Filters;
use walk::Walk;

use super::state::{Limits, Malformed, State};

/// Applies update operators to the state, as if the state were the document itself.
///
/// `at` is the event's own time. It is what `$currentDate` writes: the one deliberate difference
/// from the server, because folding the same events again must give the same bytes.
///
/// # Errors
///
/// When the patch is wrong, or its result would exceed `limits`. The state is then as it was.
pub fn apply(
    state: &mut State,
    patch: &RawDocument,
    array_filters: Option<&RawArray>,
    at: DateTime,
    limits: &Limits,
) -> Result<(), PatchError> {
    let entries = plan::parse(patch.as_bytes())?;
    let filters = match array_filters {
        Some(filters) => Filters::parse(filters.as_bytes())?,
        None => Filters::default(),
    };
    filters.check_use(plan::identifiers(&entries))?;
    transact(state, limits, |state| {
        Walk { state, limits, at, filters: &filters, steps: 0 }.run(&entries)
    })
}

/// Applies a JSON Merge Patch (RFC 7396) to the state: fields of `merge` replace those of the
/// state, documents are merged into documents, and null removes.
///
/// # Errors
///
/// When the result would exceed `limits`. The state is then as it was.
pub fn merge(state: &mut State, merge: &RawDocument, limits: &Limits) -> Result<(), PatchError> {
    transact(state, limits, |state| merge::merge(state, merge.as_bytes(), limits))
}

/// Runs an edit that either happens as a whole or not at all.
fn transact(
    state: &mut State,
    limits: &Limits,
    edit: impl FnOnce(&mut State) -> Result<(), PatchError>,
) -> Result<(), PatchError> {
    state.begin();
    let outcome = edit(state).and_then(|()| within(state.bytes(), limits.state_bytes_max));
    match outcome {
        Ok(()) => state.commit(),
        Err(_) => state.roll_back(),
    }
    outcome
}

fn within(bytes: usize, max: usize) -> Result<(), PatchError> {
    if bytes > max { Err(PatchError::TooLarge { bytes, max }) } else { Ok(()) }
}

/// What is said of an argument that is not BSON.
fn unreadable(error: Malformed) -> String {
    format!("cannot be read: {error}; write the event again with a MongoDB driver")
}
