//! Why a document waits: the mark that stands in its row, and on record.

use bson::{RawDocument, RawDocumentBuf, raw::cstr};

use super::id::integral;

/// Why an event stands in quarantine. The set is closed: it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The patch cannot be applied to the state.
    BadPatch,
    /// The event itself is malformed, or does not fit what came before (a create of what exists).
    BadEvent,
    /// The server refuses the projected document: an index or a validator of the user's, or its size. It is tried again.
    Rejected,
    /// The event or its result is beyond a limit.
    TooLarge,
    /// An event before it is missing.
    Gap,
    /// It arrived after its place was pruned.
    Late,
    /// The base of its log is damaged.
    BadBase,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::BadPatch,
        Self::BadEvent,
        Self::Rejected,
        Self::TooLarge,
        Self::Gap,
        Self::Late,
        Self::BadBase,
    ];

    /// As it stands in rows, metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadPatch => "bad_patch",
            Self::BadEvent => "bad_event",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::Gap => "gap",
            Self::Late => "late",
            Self::BadBase => "bad_base",
        }
    }

    /// The class of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

/// The mark of a parked document: which event stopped it and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The kind of trouble.
    pub class: Class,
    /// The version of the event that could not be applied.
    pub version: i64,
    /// What was wrong, for the operator.
    pub reason: String,
}

impl Quarantine {
    /// Of a document whose event of this version is missing while later ones exist.
    pub fn gap(version: i64) -> Self {
        let reason = format!("version {version} is missing; later ones are there");
        Self { class: Class::Gap, version, reason }
    }

    /// As it stands in the document's row.
    pub fn to_raw(&self) -> RawDocumentBuf {
        let mut raw = RawDocumentBuf::new();
        raw.append(cstr!("class"), self.class.name());
        raw.append(cstr!("version"), self.version);
        raw.append(cstr!("reason"), self.reason.as_str());
        raw
    }

    /// Reads it back; `None` if it is not one.
    pub fn from_raw(raw: &RawDocument) -> Option<Self> {
        Some(Self {
            class: Class::from_name(raw.get_str("class").ok()?)?,
            version: integral(raw.get("version").ok()??)?,
            reason: raw.get_str("reason").ok()?.to_owned(),
        })
    }
}
