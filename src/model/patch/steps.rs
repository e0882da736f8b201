//! The work that one patch may cause, counted where it is done. A patch of a few kilobytes can ask for
//! more comparisons than there are atoms (a path of indexes through documents that have numbers for
//! names doubles at every level), and nothing in its size or in that of the state tells.

use std::cell::Cell;

use crate::model::state::raw::{Malformed, RawValue};

/// Steps that are left. Shared, because they are taken while the state is being read.
pub(crate) struct Steps(Cell<usize>);

/// Why a question about a value got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    Malformed(Malformed),
    OutOfSteps,
    /// A regular expression cannot say whether a text matches, and why.
    Pattern(&'static str),
}

impl From<Malformed> for Halt {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Bytes that are skipped or compared in about the time of one step.
const STEP_BYTES: usize = 16;

impl Steps {
    pub(crate) fn new(max: usize) -> Self {
        Self(Cell::new(max))
    }

    pub(crate) fn take(&self, steps: usize) -> Result<(), Halt> {
        let left = self.0.get().checked_sub(steps);
        self.0.set(left.unwrap_or(0));
        left.map(drop).ok_or(Halt::OutOfSteps)
    }

    /// The steps of looking through a value or comparing it once.
    pub(crate) fn look(&self, value: RawValue<'_>) -> Result<(), Halt> {
        self.take(1 + value.bytes.len() / STEP_BYTES)
    }
}
