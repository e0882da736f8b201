//! BSON as the API writes it: a user's values as Extended JSON v2 with their fields in order, and our own
//! versions, counts and times as plain JSON.

use bson::{Bson, DateTime, RawBsonRef, RawDocument};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    model::{
        clock::Clock,
        document::{Document, Quarantine},
        skip::SkippedEvent,
        snapshot::Snapshot,
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

/// The fields of an event that are a user's, in the order in which the API writes them.
const CHANGE_FIELDS: [&str; 4] = ["state", "patch", "array_filters", "merge"];
const FREE_FIELDS: [&str; 3] = ["id", "type", "meta"];

impl Notation {
    /// Writes one value.
    pub(crate) fn value(self, value: Bson) -> Value {
        match self {
            Self::Relaxed => value.into_relaxed_extjson(),
            Self::Canonical => value.into_canonical_extjson(),
        }
    }

    fn raw(self, value: RawBsonRef<'_>) -> Value {
        // Damage inside a stored value must not make the rest of the answer unreadable.
        Bson::try_from(value).map_or(Value::Null, |value| self.value(value))
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
            "state": state.map_or(Value::Null, |state| self.raw(RawBsonRef::Document(state))),
            "deleted": snapshot.state.is_none(),
            "taken_at": time(snapshot.taken_at),
            "reason": snapshot.reason.name(),
        })
    }

    /// Writes the state of a document, or null if it is deleted.
    pub(crate) fn state(self, document: &Document) -> Value {
        let state = document.state().map(|state| state.to_raw());
        state.map_or(Value::Null, |state| self.raw(RawBsonRef::Document(&state)))
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
                json.insert("snapshot".into(), self.snapshot(document, now));
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
        let field = |name: &str| raw.get(name).ok().flatten();
        let mut json = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                json.insert(name.to_owned(), value);
            }
        };
        put("version", Some(version.into()));
        put("client", field("client").map(|value| self.raw(value)));
        put("seq", seq.map(Value::from));
        put("skipped", is_skipped.then_some(Value::Bool(true)));
        put("op", field("op").map(|value| self.raw(value)));
        for name in CHANGE_FIELDS {
            put(name, field(name).map(|value| self.raw(value)));
        }
        put(
            "at",
            field("at").map(|value| match value {
                RawBsonRef::DateTime(at) => time(at),
                other => self.raw(other),
            }),
        );
        for name in FREE_FIELDS {
            put(name, field(name).map(|value| self.raw(value)));
        }
        put(
            "seen",
            field("seen").map(|value| {
                let seen = value.as_document().and_then(|seen| Clock::from_raw(seen).ok());
                seen.map_or_else(|| self.raw(value), |seen| clock(&seen))
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
mod tests {
    use super::*;
    use bson::{RawDocumentBuf, doc};

    fn written(notation: Notation, event: bson::Document) -> String {
        let raw = RawDocumentBuf::try_from(&event).unwrap();
        notation.stored(&StoredEvent { version: 7, is_skipped: false, raw }).to_string()
    }

    #[test]
    fn an_event_is_written_with_its_fields_in_order() {
        let at = DateTime::from_millis(1_500);
        let event = doc! {
            "_id": { "d": "a", "s": 7.0 }, "meta": { "z": 1_i64, "a": 2.0 }, "client": "c", "op": "update",
            "at": at, "patch": { "$set": { "z": 1_i32, "a": at } }, "seen": { "b": 2.0, "a": 1_i64 },
            "other": "ignored", "id": 5_i64,
        };
        assert_eq!(
            written(Notation::Relaxed, event.clone()),
            r#"{"version":7,"client":"c","op":"update","#.to_owned()
                + r#""patch":{"$set":{"z":1,"a":{"$date":"1970-01-01T00:00:01.5Z"}}},"#
                + r#""at":"1970-01-01T00:00:01.5Z","id":5,"meta":{"z":1,"a":2.0},"seen":{"a":1,"b":2}}"#
        );
        assert_eq!(
            written(Notation::Canonical, event),
            r#"{"version":7,"client":"c","op":"update","#.to_owned()
                + r#""patch":{"$set":{"z":{"$numberInt":"1"},"a":{"$date":{"$numberLong":"1500"}}}},"#
                + r#""at":"1970-01-01T00:00:01.5Z","id":{"$numberLong":"5"},"#
                + r#""meta":{"z":{"$numberLong":"1"},"a":{"$numberDouble":"2.0"}},"seen":{"a":1,"b":2}}"#
        );
    }

    #[test]
    fn a_poison_event_is_written_as_it_stands() {
        let event =
            doc! { "_id": { "d": "a", "s": 7 }, "client": ["c"], "op": 5, "at": "soon", "seen": 1 };
        let expected = r#"{"version":7,"client":["c"],"op":5,"at":"soon","seen":1}"#;
        assert_eq!(written(Notation::Relaxed, event), expected);
    }
}
