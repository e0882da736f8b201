//! What a walk over a log sees of a base, and below that.

use bson::RawDocument;

use crate::model::{event::claimed_version, id::integral};

/// What a walk has seen of a base.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeenBase {
    pub(super) version: i64,
    pruned: i64,
    /// Whether its own event is there, which is never pruned.
    pub(super) has_own: bool,
    /// How many events stand where it says that none is left.
    pub(super) late: i64,
}

impl SeenBase {
    pub(super) fn of(base: &RawDocument) -> Self {
        let pruned = base.get("pruned").ok().flatten().and_then(integral).unwrap_or(1);
        Self { version: claimed_version(base), pruned, has_own: false, late: 0 }
    }

    pub(super) fn take(&mut self, version: i64) {
        self.has_own |= version == self.version;
        self.late += i64::from((2..=self.pruned).contains(&version));
    }
}
