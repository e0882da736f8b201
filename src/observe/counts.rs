//! What is counted until a flush returns, and is told then.

use std::time::Duration;

use bson::DateTime;

use crate::{model::event::Op, status::WaitingClasses};

/// Events counted since the last flush, told once it has returned.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) applied: [u64; 3],
    pub(crate) replayed: u64,
    pub(crate) skipped: u64,
    pub(crate) scanned: u64,
    pub(crate) loaded: u64,
}

impl Counts {
    pub(crate) fn applied(&mut self, op: Op) {
        self.applied[op as usize] += 1;
    }
}

/// What a flush has written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    pub(crate) counts: Counts,
    /// How many rows.
    pub(crate) rows: usize,
    pub(crate) took: Duration,
    /// When the oldest event in it was appended, by the server's clock.
    pub(crate) oldest: Option<DateTime>,
    /// How many documents wait.
    pub(crate) classes: &'a WaitingClasses,
    /// How much memory the documents take.
    pub(crate) cache_bytes: usize,
}
