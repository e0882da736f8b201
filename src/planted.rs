//! Bugs that are planted on purpose, in test builds only, to show that the simulation finds them. The
//! code consults [`planted`] at the place where a bug would stand; outside of tests the answer is a
//! constant `false`, and the branch is compiled away.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only test builds switch one on"))]
pub(crate) enum Bug {
    /// The checkpoint is saved before what precedes it has been flushed.
    CheckpointBeforeFlush,
    /// The first scan reads without the causal session.
    ScanWithoutCausalSession,
    /// A document that waits is not remembered over a restart.
    ParkedEventForgotten,
    /// A row is replaced whatever version it has.
    FlushWithoutVersionFilter,
    /// An insert's error 11000 counts as success, whoever's row is there.
    DuplicateKeyIsSuccess,
    /// A writer takes error 11000 on its append for its own success.
    WriterTakesDuplicateKeyForSuccess,
    /// A lost answer to a flush counts as success.
    LostAnswerIsSuccess,
    /// An event after a hole is applied as if it were the next.
    HolePassedOver,
    /// Lost history restarts the tail at the present time, without a scan.
    LostHistoryIgnored,
    /// The checkpoint's epoch is not compared.
    CheckpointWithoutEpoch,
    /// A log with another identity is taken for the same.
    IdentityIgnored,
    /// A document that was found stale is folded on from the cached state.
    StaleRowKept,
    /// The scan begins after the tail's start was taken too late.
    TailStartsAfterScan,
}

/// Whether `bug` is planted.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether `bug` is planted in this thread.
#[cfg(test)]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants `bug`, or none, in this thread.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
