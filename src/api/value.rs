//! BSON as the API writes it: a user's values as Extended JSON v2 with their fields in order, and our own
//! versions, counts and times as plain JSON.

use std::ops::RangeInclusive;

use bson::{Bson, DateTime, JavaScriptCodeWithScope};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{clock::Clock, document::Quarantine, skip::SkippedEvent};

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
pub(super) const DATES: RangeInclusive<i64> = 0..=253_402_300_799_999;

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
}

/// Writes what an instance tells of itself.
pub(crate) fn told(value: &Bson) -> Value {
    match value {
        Bson::DateTime(at) => time(*at),
        Bson::Document(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), told(value))).collect()
        }
        Bson::Array(items) => items.iter().map(told).collect(),
        other => other.clone().into_relaxed_extjson(),
    }
}

/// Writes a clock: `{client: count}`.
pub(crate) fn clock(clock: &Clock) -> Value {
    Value::Object(clock.iter().map(|(client, count)| (client.to_owned(), count.into())).collect())
}

/// Writes what a document waits for: `{class, version, reason}`.
pub(super) fn waits_for(mark: &Quarantine) -> Value {
    json!({ "class": mark.class.name(), "version": mark.version, "reason": mark.reason })
}

/// Writes what a client is told of a skipped event.
pub(super) fn skipped(event: &SkippedEvent) -> Value {
    json!({ "version": event.version, "client": event.client, "seq": event.seq })
}

/// Writes a time as RFC 3339, or as Extended JSON where its year has no four digits.
pub(crate) fn time(time: DateTime) -> Value {
    match time.try_to_rfc3339_string() {
        Ok(text) => text.into(),
        Err(_) => Bson::DateTime(time).into_canonical_extjson(),
    }
}
