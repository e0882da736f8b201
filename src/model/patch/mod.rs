//! MongoDB's update operators on a [`State`], with exactly the server's meaning: the same bytes, or
//! a refusal where the server refuses. A patch is read and checked as a whole, sorted by path, and
//! then walked through the state once.
//!
//! The differential test compares with a real server. These differences are deliberate, and
//! `tests/differential/deliberate.rs` shows what each side does:
//!
//! - `$currentDate` writes the event's own time, because folding the same events again must give the
//!   same bytes. As a timestamp its increment is 0.
//! - `$setOnInsert` does nothing, because a patch never makes a document: a create carries its state.
//! - `{}` changes nothing, and a document without operators is refused, where the server takes both for
//!   the new document. Pipelines are refused: an event's patch is a document. All three would make
//!   an event mean something else than a change.
//! - Paths that begin with `_id` are refused even where they would change nothing: the state has none.
//! - The positional `$` is refused always, because it needs a query, which an event has not. The server
//!   refuses it too, but does nothing where no element leads to it.
//! - Regular expressions are matched by PCRE2, where the server (6.0) has PCRE. What the two read differently is
//!   refused: see `query::pattern`. So is a match that takes too many tries, where the server gives up and goes
//!   on as if nothing matched. One patch compiles at most 64 of them, of 16 KiB each.
//! - Geographic conditions, `$sampleRate` and the server's internal operators are refused in `$pull`
//!   and array filters, because they ask about more than a value, or by chance. (The server itself
//!   refuses `$expr`, `$where`, `$text` and `$jsonSchema` there.)
//! - The limits on size, depth, padding and steps, and at most 250 levels in what `$addToSet`,
//!   `$pullAll` and `$in` compare with each other, refuse what the server would do at the expense of memory
//!   or time without bound: see [`Limits`].
//! - A patch that reaches one element by two spellings of its index (`a.1` and `a.01`) makes some
//!   servers abort (6.0.5 does). Here both operators are applied, in the order of their paths.

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
mod steps;
mod update;
mod walk;

use bson::{DateTime, RawArray, RawDocument};

pub use error::PatchError;
use merge::Merge;
use query::{Filters, Patterns};
use steps::Steps;
use walk::Walk;

use super::state::raw::{self, RawValue};
use super::state::{Limits, Malformed, State};

/// Applies update operators to the state, as if the state were the document itself.
///
/// `at` is the event's own time, which `$currentDate` writes: folding the same events again must give
/// the same bytes.
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
    let patterns = Patterns::default();
    let entries = plan::parse(patch.as_bytes(), &patterns)?;
    let filters = match array_filters {
        Some(filters) => Filters::parse(filters.as_bytes(), &patterns)?,
        None => Filters::default(),
    };
    filters.check_use(plan::identifiers(&entries))?;
    transact(state, limits, |state| {
        Walk { state, limits, at, filters: &filters, steps: Steps::new(limits.steps_max) }
            .run(&entries)
    })
}

/// Applies a JSON Merge Patch (RFC 7396) to the state: fields of `merge` replace those of the
/// state, documents are merged into documents, and null removes.
///
/// # Errors
///
/// When the result would exceed `limits`. The state is then as it was.
pub fn merge(state: &mut State, merge: &RawDocument, limits: &Limits) -> Result<(), PatchError> {
    transact(state, limits, |state| Merge { state, limits, steps: 0 }.run(merge.as_bytes()))
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

/// Largest state whatever the limits say, in bytes: positions within it are 32 bits wide, and while
/// it is being changed it takes several times its size. The server stores 16 MiB.
const STATE_BYTES_MAX: usize = 256 * 1024 * 1024;

fn within(bytes: usize, max: usize) -> Result<(), PatchError> {
    let max = max.min(STATE_BYTES_MAX);
    if bytes > max { Err(PatchError::TooLarge { bytes, max }) } else { Ok(()) }
}

/// Deepest argument of which values are compared with each other, in levels: more than a server
/// stores, and much less than a stack holds.
const ARGUMENT_DEPTH_MAX: usize = 250;

/// Refuses a value that is not BSON all the way down, or nests too deep to be compared.
fn check_comparable(value: RawValue<'_>) -> Result<(), String> {
    if raw::depth(value, ARGUMENT_DEPTH_MAX).map_err(unreadable)? > ARGUMENT_DEPTH_MAX {
        return Err(format!("nests deeper than {ARGUMENT_DEPTH_MAX} levels; flatten it"));
    }
    Ok(())
}

/// What is said of an argument that is not BSON.
fn unreadable(error: Malformed) -> String {
    format!("cannot be read: {error}; write the event again with a MongoDB driver")
}
