//! The fold: what a document becomes event by event. Pure, and total: bad input is an [`Outcome`],
//! never a panic, and leaves the document exactly as it was.

use bson::{DateTime, RawBsonRef, RawDocument, RawDocumentBuf, raw::cstr};

use super::{
    clock::{Clock, ClockError},
    event::{Change, Event, Op},
    id::{DocumentId, IdError, integral},
    patch,
    skip::Remains,
    state::{Limits, State},
};

/// What a document holds at its version.
#[derive(Clone, Debug)]
pub enum Body {
    /// No event has been applied: version 0.
    Absent,
    /// The document lives and has this state.
    Live(State),
    /// The last event deleted it. The row, its version and its clock stay.
    Deleted,
}

/// One document as the projection holds it.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its id.
    pub id: DocumentId,
    /// How many events it is made of.
    pub version: i64,
    /// How many of them each client wrote. Sums to `version`.
    pub clock: Clock,
    /// Its state.
    pub body: Body,
    /// The writer's time of the event at `version`.
    pub updated_at: Option<DateTime>,
    /// Why it is parked, if it is.
    pub quarantine: Option<Quarantine>,
    /// The youngest of the events that were applied in memory. Not part of the row.
    pub youngest: Option<Youngest>,
}

/// The youngest of a document's last events, by their writers' clocks: what a snapshot keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Youngest {
    /// It is known of the events above this version.
    pub above: i64,
    /// The largest `at` among them.
    pub at: DateTime,
}

/// Why an event stands in quarantine. The set is closed: it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The patch cannot be applied to the state.
    BadPatch,
    /// The event itself is malformed, or does not fit what came before (a create of what exists).
    BadEvent,
    /// The server refuses the projected document: a unique index or a validator of the user's.
    Rejected,
    /// The event or its result is beyond a limit.
    TooLarge,
    /// An event before it is missing.
    Gap,
    /// It arrived after its place was pruned.
    Late,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::BadPatch, Self::BadEvent, Self::Rejected, Self::TooLarge, Self::Gap, Self::Late];

    /// As it stands in rows, metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadPatch => "bad_patch",
            Self::BadEvent => "bad_event",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::Gap => "gap",
            Self::Late => "late",
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

/// Bounds of what a document may become. Beyond them an event is poison.
#[derive(Clone, Copy, Debug)]
pub struct FoldLimits {
    /// Of the state.
    pub state: Limits,
    /// How many clients one document's clock may name.
    pub clients_max: usize,
}

impl Default for FoldLimits {
    fn default() -> Self {
        Self { state: Limits::default(), clients_max: 10_000 }
    }
}

/// What became of an event that was offered to its document.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was the next one and has been applied.
    Applied(Op),
    /// It was the next one, and an operator has skipped it: it counts, and the state is as it was.
    Skipped,
    /// It had been applied before.
    Replay,
    /// It is not the next one: an earlier event is missing.
    Gap {
        /// The version that has to come first.
        expected: i64,
    },
    /// It was the next one and cannot be applied. The document is as it was, and is not yet parked.
    Poison(Quarantine),
    /// The document is parked, so it stays where it is.
    Parked,
}

/// Why a stored row is not a projected document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The bytes are not BSON.
    #[error("the row is not readable BSON: {0}")]
    Malformed(String),
    /// The `_id` is no document id.
    #[error("`_id`: {0}")]
    Id(#[from] IdError),
    /// The clock is unusable.
    #[error("`clock`: {0}")]
    Clock(#[from] ClockError),
    /// A field is absent or has the wrong type.
    #[error("`{0}` is missing or has the wrong type")]
    Field(&'static str),
    /// The clock does not sum to the version.
    #[error("the clock sums to {total}, but the version is {version}")]
    Sum {
        /// The sum.
        total: i64,
        /// The version.
        version: i64,
    },
}

impl Document {
    /// The document before its first event.
    pub fn new(id: DocumentId) -> Self {
        Self {
            id,
            version: 0,
            clock: Clock::new(),
            body: Body::Absent,
            updated_at: None,
            quarantine: None,
            youngest: None,
        }
    }

    /// Offers the document an event of its own.
    pub fn apply(&mut self, event: &Event<'_>, limits: &FoldLimits) -> Outcome {
        if event.key.version <= self.version {
            return Outcome::Replay;
        }
        if self.quarantine.is_some() {
            return Outcome::Parked;
        }
        if event.key.version != self.version + 1 {
            return Outcome::Gap { expected: self.version + 1 };
        }
        if self.clock.clients() >= limits.clients_max && self.clock.get(event.client) == 0 {
            let reason = format!("the document already has {} clients", self.clock.clients());
            return poison(event, Class::TooLarge, reason);
        }
        if let Err((class, reason)) = self.change(event, limits) {
            return poison(event, class, reason);
        }
        self.note_time(event.at);
        self.version = event.key.version;
        self.clock.increment(event.client);
        self.updated_at = Some(event.at);
        Outcome::Applied(event.change.op())
    }

    /// Offers the document an event of its own that an operator has skipped. Before its first create a
    /// document is as good as deleted.
    pub fn skip(&mut self, version: i64, event: Remains<'_>) -> Outcome {
        if version <= self.version {
            return Outcome::Replay;
        }
        if self.quarantine.is_some() {
            return Outcome::Parked;
        }
        if version != self.version + 1 {
            return Outcome::Gap { expected: self.version + 1 };
        }
        if matches!(self.body, Body::Absent) {
            self.body = Body::Deleted;
        }
        if let Some(at) = event.at {
            self.note_time(at);
            self.updated_at = Some(at);
        }
        self.version = version;
        self.clock.increment(event.client);
        Outcome::Skipped
    }

    /// The event after the present version is of this time.
    fn note_time(&mut self, at: DateTime) {
        self.youngest = Some(match self.youngest {
            Some(youngest) => Youngest { at: youngest.at.max(at), ..youngest },
            None => Youngest { above: self.version, at },
        });
    }

    fn change(&mut self, event: &Event<'_>, limits: &FoldLimits) -> Result<(), (Class, String)> {
        match (&event.change, &mut self.body) {
            (Change::Create { state }, Body::Absent | Body::Deleted) => {
                let state =
                    State::from_raw(state).map_err(|error| (Class::BadEvent, error.to_string()))?;
                if state.bytes() > limits.state.state_bytes_max {
                    let (bytes, max) = (state.bytes(), limits.state.state_bytes_max);
                    return Err((
                        Class::TooLarge,
                        format!("the state has {bytes} bytes, {max} are allowed"),
                    ));
                }
                self.body = Body::Live(state);
                Ok(())
            }
            (Change::Create { .. }, Body::Live(_)) => {
                Err((Class::BadEvent, "a create of a document that exists".into()))
            }
            (Change::Patch { patch, array_filters }, Body::Live(state)) => {
                patch::apply(state, patch, *array_filters, event.at, &limits.state)
                    .map_err(classify)
            }
            (Change::Merge { merge }, Body::Live(state)) => {
                patch::merge(state, merge, &limits.state).map_err(classify)
            }
            (Change::Delete, Body::Live(_)) => {
                self.body = Body::Deleted;
                Ok(())
            }
            (change, Body::Absent | Body::Deleted) => Err((
                Class::BadEvent,
                format!(
                    "an event with op `{}` of a document that is deleted or was never created",
                    change.op().name()
                ),
            )),
        }
    }

    /// The state, if the document lives.
    pub fn state(&self) -> Option<&State> {
        match &self.body {
            Body::Live(state) => Some(state),
            Body::Absent | Body::Deleted => None,
        }
    }

    /// Whether the last event deleted it.
    pub fn is_deleted(&self) -> bool {
        matches!(self.body, Body::Deleted)
    }

    /// Roughly how many bytes of memory it takes.
    pub fn heap_bytes(&self) -> usize {
        let state = self.state().map_or(0, State::memory_bytes);
        size_of::<Self>() + self.id.heap_bytes() + self.clock.heap_bytes() + state
    }

    /// The row as it stands in the collection of projected documents. Two folds of the same events
    /// give the same bytes.
    pub fn to_raw(&self) -> RawDocumentBuf {
        let mut row = RawDocumentBuf::new();
        row.append(cstr!("_id"), self.id.as_raw());
        row.append(cstr!("version"), self.version);
        row.append(cstr!("clock"), self.clock.to_raw());
        match &self.body {
            Body::Live(state) => row.append(cstr!("state"), state.to_raw()),
            Body::Deleted => row.append(cstr!("deleted"), true),
            Body::Absent => {}
        }
        if let Some(at) = self.updated_at {
            row.append(cstr!("updated_at"), at);
        }
        if let Some(quarantine) = &self.quarantine {
            row.append(cstr!("quarantine"), quarantine.to_raw());
        }
        row
    }

    /// Reads a row back.
    ///
    /// # Errors
    /// [`RowError`] naming the field at fault: the row was not written by this projection.
    pub fn from_raw(row: &RawDocument) -> Result<Self, RowError> {
        let mut id = None;
        let mut document = Self::new(DocumentId::Integer(0));
        let mut version = None;
        let mut deleted = false;
        for element in row {
            let (key, value) = element.map_err(|error| RowError::Malformed(error.to_string()))?;
            match (key.as_str(), value) {
                ("_id", value) => id = Some(DocumentId::from_raw(value)?),
                ("version", value) => version = integral(value),
                ("clock", RawBsonRef::Document(clock)) => document.clock = Clock::from_raw(clock)?,
                ("state", RawBsonRef::Document(state)) => {
                    let state = State::from_raw(state)
                        .map_err(|error| RowError::Malformed(error.to_string()))?;
                    document.body = Body::Live(state);
                }
                ("deleted", RawBsonRef::Boolean(flag)) => deleted = flag,
                ("updated_at", RawBsonRef::DateTime(at)) => document.updated_at = Some(at),
                ("quarantine", RawBsonRef::Document(mark)) => {
                    document.quarantine =
                        Some(Quarantine::from_raw(mark).ok_or(RowError::Field("quarantine"))?);
                }
                _ => {}
            }
        }
        document.id = id.ok_or(RowError::Field("_id"))?;
        document.version =
            version.filter(|version| *version >= 1).ok_or(RowError::Field("version"))?;
        match (&document.body, deleted) {
            (Body::Absent, true) => document.body = Body::Deleted,
            (Body::Live(_), false) => {}
            _ => return Err(RowError::Field("state")),
        }
        if document.clock.total() != document.version {
            let (total, version) = (document.clock.total(), document.version);
            return Err(RowError::Sum { total, version });
        }
        Ok(document)
    }
}

impl Quarantine {
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

fn classify(error: patch::PatchError) -> (Class, String) {
    let class = if error.too_large() { Class::TooLarge } else { Class::BadPatch };
    (class, error.to_string())
}

fn poison(event: &Event<'_>, class: Class, reason: String) -> Outcome {
    Outcome::Poison(Quarantine { class, version: event.key.version, reason })
}
