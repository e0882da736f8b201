//! BSON as the API writes it: a user's values as Extended JSON v2 with their fields in order, and our own
//! versions, counts and times as plain JSON.

use std::ops::RangeInclusive;

use bson::{
    Binary, Bson, DateTime, JavaScriptCodeWithScope, RawBsonRef, RawDocument, spec::BinarySubtype,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    model::{
        base::is_base,
        clock::Clock,
        document::{Document, Quarantine},
        skip::SkippedEvent,
        snapshot::Snapshot,
        sound,
        state::raw::{Elements, RawValue, tag},
    },
    read::{Missing, MissingEvent, StoredEvent},
};

/// How a user's values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Notation {
    /// Relaxed Extended JSON v2: numbers as JSON numbers.
    #[default]
    Relaxed,
    /// Canonical Extended JSON v2, which loses nothing.
    Canonical,
}

/// Dates that relaxed Extended JSON writes as a text: of the years 1970 to 9999.
const DATES: RangeInclusive<i64> = 0..=253_402_300_799_999;

/// The fields of an event that are a user's, in the order in which the API writes them.
const CHANGE_FIELDS: [&str; 4] = ["state", "patch", "array_filters", "merge"];
const FREE_FIELDS: [&str; 3] = ["id", "type", "meta"];

impl Notation {
    /// Writes one value.
    pub(crate) fn value(self, value: Bson) -> Value {
        match value {
            Bson::Document(fields) => {
                fields.into_iter().map(|(name, value)| (name, self.value(value))).collect()
            }
            Bson::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code, scope }) => {
                json!({ "$code": code, "$scope": self.value(scope.into()) })
            }
            // Those that are out of range for a text the `bson` crate writes as the last moment in range.
            Bson::DateTime(at)
                if self == Self::Relaxed && !DATES.contains(&at.timestamp_millis()) =>
            {
                Bson::DateTime(at).into_canonical_extjson()
            }
            value if self == Self::Relaxed => value.into_relaxed_extjson(),
            value => value.into_canonical_extjson(),
        }
    }

    /// Writes a value as it is stored, which may be any bytes.
    fn raw(self, name: &str, value: RawValue<'_>) -> Value {
        let field = value.in_document(name.as_bytes());
        let read = RawDocument::from_bytes(&field).map_err(|error| error.to_string());
        let read = read.and_then(|field| {
            sound::check(field).map_err(|error| error.to_string())?;
            let value = field.get(name).map_err(|error| error.to_string())?;
            Bson::try_from(value.unwrap_or(RawBsonRef::Undefined))
                .map_err(|error| error.to_string())
        });
        match read {
            Ok(value) => self.value(value),
            // Nothing else can stand for it, least of all null: the bytes are told, in a document of their own.
            Err(reason) => {
                let bytes = Binary { subtype: BinarySubtype::Generic, bytes: field };
                let bytes = Bson::Binary(bytes).into_canonical_extjson();
                json!({ "$unreadable": { "reason": reason, "bson": bytes } })
            }
        }
    }

    /// Writes a document: `{id, version, clock, state, deleted, updated_at, waits}`.
    pub(crate) fn document(self, document: &Document, waits: Option<&Quarantine>) -> Value {
        json!({
            "id": self.value(document.id.to_bson()),
            "version": document.version,
            "clock": clock(&document.clock),
            "state": self.state(document),
            "deleted": document.is_deleted(),
            "updated_at": document.updated_at.map(time),
            "waits": waits.map(waits_for),
        })
    }

    /// Writes a document as a snapshot: `{version, clock, state, deleted, taken_at, reason}`.
    pub(crate) fn snapshot(self, document: &Document, taken_at: DateTime) -> Value {
        json!({
            "version": document.version,
            "clock": clock(&document.clock),
            "state": self.state(document),
            "deleted": document.is_deleted(),
            "taken_at": time(taken_at),
            "reason": "request",
        })
    }

    /// Writes a stored snapshot, in the same shape.
    pub(crate) fn stored_snapshot(self, snapshot: &Snapshot) -> Value {
        let state = snapshot.state.as_deref();
        json!({
            "version": snapshot.version,
            "clock": clock(&snapshot.clock),
            "state": state.map_or(Value::Null, |state| self.stored_document(state)),
            "deleted": snapshot.state.is_none(),
            "taken_at": time(snapshot.taken_at),
            "reason": snapshot.reason.name(),
        })
    }

    /// Writes the state of a document, or null if it is deleted.
    pub(crate) fn state(self, document: &Document) -> Value {
        let state = document.state().map(|state| state.to_raw());
        state.map_or(Value::Null, |state| self.stored_document(&state))
    }

    fn stored_document(self, document: &RawDocument) -> Value {
        self.raw("state", RawValue::new(tag::DOCUMENT, document.as_bytes()))
    }

    /// Writes an event of a history.
    pub(crate) fn stored(self, event: &StoredEvent) -> Value {
        self.event(&event.raw, event.version, None, event.is_skipped)
    }

    /// Writes an event of a missing answer, which has its client sequence.
    pub(crate) fn missing(self, event: &MissingEvent) -> Value {
        self.event(&event.raw, event.version, Some(event.seq), event.is_skipped)
    }

    /// Writes a missing answer; a snapshot in it was taken at `now`.
    pub(crate) fn answer(self, answer: &Missing, now: DateTime) -> Value {
        let events: Vec<Value> = answer.events.iter().map(|event| self.missing(event)).collect();
        let mut json = json!({
            "answer": if answer.snapshot.is_some() { "snapshot" } else { "events" },
            "log": answer.log.to_string(),
            "version": answer.version,
            "clock": clock(&answer.clock),
        });
        if let Some(json) = json.as_object_mut() {
            if let Some(document) = &answer.snapshot {
                let mut snapshot = self.snapshot(document, now);
                if answer.erased {
                    snapshot["erased"] = true.into();
                }
                json.insert("snapshot".into(), snapshot);
            }
            json.insert("events".into(), events.into());
            json.insert("next_clock".into(), clock(&answer.next_clock));
            json.insert("more".into(), answer.more.into());
            json.insert("skips".into(), answer.skips.iter().map(skipped).collect());
            if answer.skips_total > answer.skips.len() as i64 {
                json.insert("skips_total".into(), answer.skips_total.into());
            }
            json.insert("waits".into(), answer.waits.as_ref().map(waits_for).into());
        }
        json
    }

    /// Whatever stands in an event is written, also where it makes the event unusable: the history of a
    /// parked document is read to see just that.
    fn event(self, raw: &RawDocument, version: i64, seq: Option<i64>, is_skipped: bool) -> Value {
        // The first of a name, wherever the event is damaged.
        let field = |name: &str| {
            let elements = Elements::new(raw.as_bytes()).ok()?;
            elements.find(name.as_bytes()).ok().flatten()
        };
        let mut json = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                json.insert(name.to_owned(), value);
            }
        };
        put("version", Some(version.into()));
        put("client", field("client").map(|value| self.raw("client", value)));
        put("seq", seq.map(Value::from));
        put("skipped", is_skipped.then_some(Value::Bool(true)));
        put("op", field("op").map(|value| self.raw("op", value)));
        if is_base(raw) {
            put("clock", field("clock").map(|value| self.raw("clock", value)));
            put("deleted", field("deleted").map(|value| self.raw("deleted", value)));
        }
        for name in CHANGE_FIELDS {
            put(name, field(name).map(|value| self.raw(name, value)));
        }
        put(
            "at",
            field("at").map(|value| match value.tag {
                tag::DATE => time(DateTime::from_millis(value.as_i64())),
                _ => self.raw("at", value),
            }),
        );
        for name in FREE_FIELDS {
            put(name, field(name).map(|value| self.raw(name, value)));
        }
        put(
            "seen",
            field("seen").map(|value| {
                let seen = RawDocument::from_bytes(value.bytes).ok();
                let seen = seen.filter(|_| value.tag == tag::DOCUMENT);
                let seen = seen.and_then(|seen| Clock::from_raw(seen).ok());
                seen.map_or_else(|| self.raw("seen", value), |seen| clock(&seen))
            }),
        );
        Value::Object(json)
    }
}

/// Writes a clock: `{client: count}`.
pub(crate) fn clock(clock: &Clock) -> Value {
    Value::Object(clock.iter().map(|(client, count)| (client.to_owned(), count.into())).collect())
}

/// Writes what a document waits for: `{class, version, reason}`.
fn waits_for(mark: &Quarantine) -> Value {
    json!({ "class": mark.class.name(), "version": mark.version, "reason": mark.reason })
}

/// Writes what a client is told of a skipped event.
fn skipped(event: &SkippedEvent) -> Value {
    json!({ "version": event.version, "client": event.client, "seq": event.seq })
}

/// Writes a time as RFC 3339, or as Extended JSON where its year has no four digits.
pub(crate) fn time(time: DateTime) -> Value {
    match time.try_to_rfc3339_string() {
        Ok(text) => text.into(),
        Err(_) => Bson::DateTime(time).into_canonical_extjson(),
    }
}

#[cfg(test)]
mod tests;
