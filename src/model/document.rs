//! The fold: what a document becomes event by event. Pure, and total: bad input is an [`Outcome`],
//! never a panic, and leaves the document exactly as it was.

use bson::{DateTime, RawDocument};

use super::{
    clock::Clock,
    event::{Change, Event, EventKey, Op, is_base},
    id::DocumentId,
    patch,
    skip::Remains,
    state::{Limits, State},
};

pub use super::quarantine::{Class, Quarantine};

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
    /// The latest `at` of the events that were applied in memory. Not part of the row.
    pub youngest: Option<Youngest>,
}

/// The latest `at` of a document's newest events, by their writers' clocks. A snapshot keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Youngest {
    /// Only the events above this version are considered.
    pub above: i64,
    /// The largest `at` among them.
    pub at: DateTime,
}

/// Bounds of what a document may become. Beyond them an event is poison.
#[derive(Clone, Copy, Debug)]
pub struct FoldLimits {
    /// Of the state.
    pub state: Limits,
    /// How many clients one document's clock may name.
    pub clients_max: usize,
    /// How many bytes an event may have.
    pub event_bytes_max: usize,
}

impl Default for FoldLimits {
    fn default() -> Self {
        Self { state: Limits::default(), clients_max: 10_000, event_bytes_max: 4 << 20 }
    }
}

/// What became of an event that was offered to its document.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was the next one and has been applied.
    Applied(Op),
    /// It was the next one, and an operator has skipped it: it counts, and the state is as it was.
    Skipped,
    /// It is the base of the log, and the document is what it says now.
    Based,
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

    /// Offers the document its event as it is stored. All folds decide here, and only here.
    /// `is_skipped` says that an operator has skipped the event. An event that is not the next one is
    /// not even decoded.
    pub fn offer(
        &mut self,
        key: &EventKey,
        raw: &RawDocument,
        is_skipped: bool,
        limits: &FoldLimits,
    ) -> Outcome {
        if key.version == 1 && is_base(raw) {
            return self.take_base(raw);
        }
        if let Some(outcome) = self.not_next(key.version) {
            return outcome;
        }
        if is_skipped {
            return self.skip(key.version, Remains::of(raw));
        }
        let poison =
            |class, reason| Outcome::Poison(Quarantine { class, version: key.version, reason });
        let (bytes, max) = (raw.as_bytes().len(), limits.event_bytes_max);
        if bytes > max {
            let reason = format!("the event has {bytes} bytes, `max_event_bytes` allows {max}");
            return poison(Class::TooLarge, reason);
        }
        match Event::decode_at(key.clone(), raw) {
            Ok(event) => self.apply(&event, limits),
            Err(error) => poison(Class::BadEvent, error.to_string()),
        }
    }

    /// The outcome for an event that is not the next one, and for every event while the document is
    /// parked.
    fn not_next(&self, version: i64) -> Option<Outcome> {
        if version <= self.version {
            return Some(Outcome::Replay);
        }
        if self.quarantine.is_some() {
            return Some(Outcome::Parked);
        }
        let expected = self.version + 1;
        (version != expected).then_some(Outcome::Gap { expected })
    }

    /// Offers the document an event of its own that is decoded already.
    pub fn apply(&mut self, event: &Event<'_>, limits: &FoldLimits) -> Outcome {
        if let Some(outcome) = self.not_next(event.key.version) {
            return outcome;
        }
        if self.clock.clients() >= limits.clients_max && self.clock.get(event.client) == 0 {
            let reason = format!("the document already has {} clients", self.clock.clients());
            return poison(event, Class::TooLarge, reason);
        }
        if event.seen_clients > limits.clients_max {
            let (clients, max) = (event.seen_clients, limits.clients_max);
            let reason = format!("`seen` names {clients} clients, a clock has at most {max}");
            return poison(event, Class::BadEvent, reason);
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

    /// Counts an event that an operator has skipped. If the document had no event before, it is as good
    /// as deleted afterwards.
    pub fn skip(&mut self, version: i64, event: Remains<'_>) -> Outcome {
        if let Some(outcome) = self.not_next(version) {
            return outcome;
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
}

fn classify(error: patch::PatchError) -> (Class, String) {
    let class = if error.too_large() { Class::TooLarge } else { Class::BadPatch };
    (class, error.to_string())
}

fn poison(event: &Event<'_>, class: Class, reason: String) -> Outcome {
    Outcome::Poison(Quarantine { class, version: event.key.version, reason })
}
