//! What jobs do, and what each of them may be about.

/// What a job does. The set is closed: it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Takes the snapshot of one document, or of every document of a collection.
    Snapshot,
    /// Folds the log anew and compares rows with it: those of a whole collection, or one. May make those again that
    /// differ.
    Verify,
    /// Makes every row of a collection again that is not what its log makes of it.
    Rebuild,
    /// Looks again at a document that waits, or at all that are parked.
    Retry,
    /// Skips the event at which a document is parked.
    Skip,
    /// Inserts events that change nothing where some are missing.
    GapFill,
    /// Writes bases, and prunes what they stand for: of one document, or of every document of a collection.
    Compact,
    /// Puts back what compaction has taken out: of one document, or of every document of a collection.
    Restore,
    /// Reads back everything that was archived of a collection.
    ArchiveCheck,
    /// Removes the content of a document for good.
    Erase,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Snapshot,
        Self::Verify,
        Self::Rebuild,
        Self::Retry,
        Self::Skip,
        Self::GapFill,
        Self::Compact,
        Self::Restore,
        Self::ArchiveCheck,
        Self::Erase,
    ];

    /// As it stands in rows, metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Verify => "verify",
            Self::Rebuild => "rebuild",
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::GapFill => "gap_fill",
            Self::Compact => "compact",
            Self::Restore => "restore",
            Self::ArchiveCheck => "archive_check",
            Self::Erase => "erase",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What a job of this kind may be about.
    pub fn scope(self) -> Scope {
        match self {
            Self::Rebuild | Self::ArchiveCheck => Scope::Whole,
            Self::Snapshot | Self::Verify | Self::Retry | Self::Compact | Self::Restore => {
                Scope::Either
            }
            Self::Skip | Self::GapFill | Self::Erase => Scope::One,
        }
    }
}

/// What a kind of job may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A whole collection.
    Whole,
    /// One document.
    One,
    /// Either of them.
    Either,
}
