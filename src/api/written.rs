//! Answers as they are written, value by value: as a tree of JSON one of them would take thirty times the memory of what it
//! is about.

use bson::{Binary, Bson, DateTime, RawBsonRef, RawDocument, RawDocumentBuf, spec::BinarySubtype};
use serde::{
    Serialize, Serializer,
    ser::{Error, SerializeMap, SerializeSeq},
};
use serde_json::{Value, json};

use super::value::{Notation, clock, skipped, time, waits_for};
use crate::{
    model::{
        clock::Clock,
        document::{Document, Quarantine},
        event::is_base,
        snapshot::Snapshot,
        sound,
        state::raw::{Elements, RawValue, tag},
    },
    read::{History, Missing, MissingEvent, StoredEvent},
};

/// The fields of an event that are a user's, in the order in which the API writes them.
const CHANGE_FIELDS: [&str; 4] = ["state", "patch", "array_filters", "merge"];
const FREE_FIELDS: [&str; 3] = ["id", "type", "meta"];

/// What is written, for whoever looks into it.
pub(crate) fn tree(written: &impl Serialize) -> Value {
    serde_json::to_value(written)
        .unwrap_or_else(|error| json!({ "$unreadable": { "reason": error.to_string() } }))
}

/// A sound value.
struct Sound<'a>(Notation, RawBsonRef<'a>);

impl Serialize for Sound<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(notation, value) = *self;
        match value {
            RawBsonRef::Document(fields) => {
                let mut map = serializer.serialize_map(None)?;
                for field in fields {
                    let (name, value) = field.map_err(Error::custom)?;
                    map.serialize_entry(name.as_str(), &Sound(notation, value))?;
                }
                map.end()
            }
            RawBsonRef::Array(items) => {
                let mut list = serializer.serialize_seq(None)?;
                for item in items {
                    list.serialize_element(&Sound(notation, item.map_err(Error::custom)?))?;
                }
                list.end()
            }
            other => {
                let value = Bson::try_from(other).map_err(Error::custom)?;
                notation.value(value).serialize(serializer)
            }
        }
    }
}

/// A value as it is stored, which may be any bytes.
struct Raw<'a>(Notation, &'a str, RawValue<'a>);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(notation, name, value) = *self;
        let field = value.in_document(name.as_bytes());
        let read = RawDocument::from_bytes(&field).map_err(|error| error.to_string());
        let read = read.and_then(|field| {
            sound::check(field).map_err(|error| error.to_string())?;
            let value = field.get(name).map_err(|error| error.to_string())?;
            Ok(value.unwrap_or(RawBsonRef::Undefined))
        });
        match read {
            Ok(value) => Sound(notation, value).serialize(serializer),
            // Nothing else can stand for it, least of all null: the bytes are told, in a document of their own.
            Err(reason) => {
                let bytes = Binary { subtype: BinarySubtype::Generic, bytes: field };
                let bytes = Bson::Binary(bytes).into_canonical_extjson();
                json!({ "$unreadable": { "reason": reason, "bson": bytes } }).serialize(serializer)
            }
        }
    }
}

/// A document of anybody's, which may be any bytes.
pub(crate) struct Whole<'a>(pub(crate) Notation, pub(crate) &'a RawDocument);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(notation, document) = *self;
        let value = RawValue::new(tag::DOCUMENT, document.as_bytes());
        Raw(notation, "document", value).serialize(serializer)
    }
}

/// The state of a document, or null if it is deleted.
pub(crate) struct State {
    pub(crate) notation: Notation,
    pub(crate) state: Option<RawDocumentBuf>,
}

impl State {
    pub(crate) fn of(notation: Notation, document: &Document) -> Self {
        Self { notation, state: document.state().map(|state| state.to_raw()) }
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.state {
            Some(state) => Whole(self.notation, state).serialize(serializer),
            None => serializer.serialize_unit(),
        }
    }
}

/// A document: `{id, version, clock, state, deleted, updated_at, waits}`.
pub(crate) struct Projected<'a> {
    pub(crate) notation: Notation,
    pub(crate) document: &'a Document,
    pub(crate) waits: Option<&'a Quarantine>,
}

impl Serialize for Projected<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { notation, document, waits } = *self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &notation.value(document.id.to_bson()))?;
        map.serialize_entry("version", &document.version)?;
        map.serialize_entry("clock", &clock(&document.clock))?;
        map.serialize_entry("state", &State::of(notation, document))?;
        map.serialize_entry("deleted", &document.is_deleted())?;
        map.serialize_entry("updated_at", &document.updated_at.map(time))?;
        map.serialize_entry("waits", &waits.map(waits_for))?;
        map.end()
    }
}

/// A snapshot: `{version, clock, state, deleted, taken_at, reason}`.
pub(crate) struct Taken<'a> {
    version: i64,
    clock: &'a Clock,
    state: State,
    taken_at: DateTime,
    reason: &'static str,
    erased: bool,
}

impl<'a> Taken<'a> {
    /// A document that stands for what a client is missing.
    fn now(
        notation: Notation,
        (document, erased): (&'a Document, bool),
        taken_at: DateTime,
    ) -> Self {
        let Document { version, clock, .. } = document;
        let state = State::of(notation, document);
        Self { version: *version, clock, state, taken_at, reason: "request", erased }
    }

    /// One that is stored.
    pub(crate) fn stored(notation: Notation, snapshot: &'a Snapshot) -> Self {
        let Snapshot { version, clock, state, taken_at, reason, .. } = snapshot;
        let state = State { notation, state: state.clone() };
        Self {
            version: *version,
            clock,
            state,
            taken_at: *taken_at,
            reason: reason.name(),
            erased: false,
        }
    }
}

impl Serialize for Taken<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &self.version)?;
        map.serialize_entry("clock", &clock(self.clock))?;
        map.serialize_entry("state", &self.state)?;
        map.serialize_entry("deleted", &self.state.state.is_none())?;
        map.serialize_entry("taken_at", &time(self.taken_at))?;
        map.serialize_entry("reason", self.reason)?;
        if self.erased {
            map.serialize_entry("erased", &true)?;
        }
        map.end()
    }
}

/// An event. Whatever stands in it is written, also where it makes the event unusable: the history of a parked document is
/// read to see just that.
pub(crate) struct Event<'a> {
    notation: Notation,
    raw: &'a RawDocument,
    version: i64,
    seq: Option<i64>,
    is_skipped: bool,
}

impl<'a> Event<'a> {
    /// One of a history.
    pub(crate) fn stored(notation: Notation, event: &'a StoredEvent) -> Self {
        let StoredEvent { version, is_skipped, raw } = event;
        Self { notation, raw, version: *version, seq: None, is_skipped: *is_skipped }
    }

    /// One of a missing answer, which has its client sequence.
    pub(crate) fn missing(notation: Notation, event: &'a MissingEvent) -> Self {
        let (raw, seq, is_skipped) = (&event.raw, Some(event.seq), event.is_skipped);
        Self { notation, raw, version: event.version, seq, is_skipped }
    }

    /// The first of a name, wherever the event is damaged.
    fn field(&self, name: &str) -> Option<RawValue<'a>> {
        Elements::new(self.raw.as_bytes()).ok()?.find(name.as_bytes()).ok().flatten()
    }
}

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let raw = |map: &mut S::SerializeMap, name| match self.field(name) {
            Some(value) => map.serialize_entry(name, &Raw(self.notation, name, value)),
            None => Ok(()),
        };
        map.serialize_entry("version", &self.version)?;
        raw(&mut map, "client")?;
        if let Some(seq) = self.seq {
            map.serialize_entry("seq", &seq)?;
        }
        if self.is_skipped {
            map.serialize_entry("skipped", &true)?;
        }
        raw(&mut map, "op")?;
        if is_base(self.raw) {
            raw(&mut map, "clock")?;
            raw(&mut map, "deleted")?;
        }
        CHANGE_FIELDS.iter().try_for_each(|name| raw(&mut map, name))?;
        match self.field("at").filter(|value| value.tag == tag::DATE) {
            Some(at) => map.serialize_entry("at", &time(DateTime::from_millis(at.as_i64())))?,
            None => raw(&mut map, "at")?,
        }
        FREE_FIELDS.iter().try_for_each(|name| raw(&mut map, name))?;
        let seen = self.field("seen").filter(|value| value.tag == tag::DOCUMENT);
        let seen = seen.and_then(|seen| RawDocument::from_bytes(seen.bytes).ok());
        match seen.and_then(|seen| Clock::from_raw(seen).ok()) {
            Some(seen) => map.serialize_entry("seen", &clock(&seen))?,
            None => raw(&mut map, "seen")?,
        }
        map.end()
    }
}

/// Events, one by one.
struct Events<F>(F);

impl<'a, I: Iterator<Item = Event<'a>>, F: Fn() -> I> Serialize for Events<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// A page of a history: `{events, next}`.
pub(crate) struct Page<'a> {
    pub(crate) notation: Notation,
    pub(crate) page: &'a History,
}

impl Serialize for Page<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { notation, page } = *self;
        let events = || page.events.iter().map(|event| Event::stored(notation, event));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("events", &Events(events))?;
        map.serialize_entry("next", &page.next)?;
        map.end()
    }
}

/// A missing answer; a snapshot in it was taken at `now`.
pub(crate) struct Answer<'a> {
    pub(crate) notation: Notation,
    pub(crate) answer: &'a Missing,
    pub(crate) now: DateTime,
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { notation, answer, now } = *self;
        let mut map = serializer.serialize_map(None)?;
        let kind = if answer.snapshot.is_some() { "snapshot" } else { "events" };
        map.serialize_entry("answer", kind)?;
        map.serialize_entry("log", &answer.log.to_string())?;
        map.serialize_entry("version", &answer.version)?;
        map.serialize_entry("clock", &clock(&answer.clock))?;
        if let Some(document) = &answer.snapshot {
            map.serialize_entry("snapshot", &Taken::now(notation, (document, answer.erased), now))?;
        }
        let events = || answer.events.iter().map(|event| Event::missing(notation, event));
        map.serialize_entry("events", &Events(events))?;
        map.serialize_entry("next_clock", &clock(&answer.next_clock))?;
        map.serialize_entry("more", &answer.more)?;
        let skips: Vec<Value> = answer.skips.iter().map(skipped).collect();
        map.serialize_entry("skips", &skips)?;
        if answer.skips_total > answer.skips.len() as i64 {
            map.serialize_entry("skips_total", &answer.skips_total)?;
        }
        map.serialize_entry("waits", &answer.waits.as_ref().map(waits_for))?;
        map.end()
    }
}

#[cfg(test)]
mod tests;
