//! Bugs that are planted on purpose, in test builds only, to show that the simulation finds them. The
//! code consults [`planted`] at the place where a bug would stand; outside of tests the answer is a
//! constant `false`, and the branch is compiled away.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only test builds switch one on"))]
pub(crate) enum Bug {
    /// The checkpoint is saved before what precedes it has been flushed.
    CheckpointBeforeFlush,
    /// A checkpoint is saved while a scan is under way.
    CheckpointDuringScan,
    /// A scan reads without the causal session.
    ScanWithoutCausalSession,
    /// What waits is not remembered over a restart.
    ParkedEventForgotten,
    /// A gap does not go on record.
    GapNotRecorded,
    /// The record of a gap is removed before the row above it is written.
    RecordRemovedBeforeRow,
    /// A row is replaced whatever version it has.
    FlushWithoutVersionFilter,
    /// A flush takes error 11000 for success, whoever's row is there.
    DuplicateKeyIsSuccess,
    /// A flush takes a lost answer for success.
    LostAnswerIsSuccess,
    /// A lost compare-and-set is taken for success when the row has the version and the mark, whatever else it holds.
    SameVersionIsSuccess,
    /// What was refused once is never tried again.
    RefusedForEver,
    /// A document moves over a skipped event before the skip is on record.
    RowBeforeSkip,
    /// A projection does not look which events are skipped.
    SkipsForgotten,
    /// What is skipped is not read again when an event comes that fills a gap.
    SkipsNotReadAgain,
    /// What is above a gap is skipped only after the gap was filled, and not together with that.
    SkipAfterFiller,
    /// A document whose stored row is not what was read is folded on from memory.
    StaleRowKept,
    /// A row that somebody has deleted is not made again before its document has another event.
    DeletedRowForgotten,
    /// A row that is to be made again from the log is merely read again.
    RowNotMadeAgain,
    /// A row that is made again stays in memory as it was.
    RepairedRowNotInMemory,
    /// The stream goes on at the present time after lost history, and the log is not scanned.
    LostHistoryIgnored,
    /// The stream begins later than the time up to which the first scan sees everything.
    TailStartsTooLate,
    /// A checkpoint replaces that of a later epoch.
    CheckpointWithoutEpoch,
    /// A lease is taken under an epoch that its checkpoint has left behind.
    LeaseBelowCheckpoint,
    /// A lease is taken whatever has become of it since it was looked at.
    LeaseTakenUnseen,
    /// A part of a new division begins at the largest position of the parts that it comes from.
    PartBeginsAtLargest,
    /// A log with another identity is taken for the same at the beginning.
    IdentityIgnored,
    /// Commands on a log say by what name it goes, and not which one it is.
    LogNotNamed,
    /// A step of pruning does not count what goes.
    StepWithoutCount,
    /// What a base stands for is pruned as soon as it is written.
    PrunedBeforeGrace,
    /// The event of a base is pruned with the others.
    BaseEventPruned,
    /// A base is written although row and log differ.
    BaseNotProven,
    /// A base holds the state of the row, and not that of the fold at its version.
    BaseOfRow,
    /// A base is written over whatever stands first in the log.
    BaseOverAnything,
    /// A step of pruning touches the base and does not say in it how far it went.
    PrunedNotMoved,
    /// The first event that a live client lacks is counted as one that it has.
    FloorOffByOne,
    /// A log that another instance prunes while it is read is told to be wrong.
    OvertakenIsWrong,
    /// What is left below a base is folded on as if there were none.
    LeftoversFolded,
    /// A gap goes on record without a look at whether a base stands for it.
    GapWithoutBase,
    /// Compaction does not look for what came late.
    LateNotLookedFor,
    /// The stream does not suspect what comes at or below its document's version.
    LateNotSuspected,
    /// What is erased is not deleted first, so that a base is written where the document lived.
    ErasedWithoutDelete,
    /// An erasure forgets the records of events that came late.
    ErasureForgetsRecords,
    /// An erasure forgets the reasons of skips.
    ErasureForgetsReasons,
    /// An event that comes late to an erased place is kept whole.
    LateKeepsErased,
    /// An erasure forgets the segments of the archive.
    ErasureForgetsSegments,
    /// A segment that was read before an erasure is written after it.
    ErasedIsArchived,
    /// The name of a segment that held something erased is left to whoever is late.
    SegmentNameLeftFree,
    /// A restore puts back what was erased.
    ErasedIsRestored,
    /// What is skipped is not read again when a base comes that counts events which fill gaps.
    BaseSkipsNotReadAgain,
    /// A segment of the archive is not read back before the log is pruned.
    ArchiveNotReadBack,
    /// What is on record of a segment is relied on before that was read back.
    UnprovenReliedOn,
    /// A segment of the archive is written over one of its name.
    SegmentOverwritten,
    /// A restore says that more is back than is.
    RestoredTooFar,
    /// A writer takes error 11000 on its append for its own success.
    WriterTakesDuplicateKeyForSuccess,
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
