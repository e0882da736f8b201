//! Events as writers append them: the one place that decides what a well-formed event is. The
//! server's validator (`log::validator`) refuses the same mistakes on arrival; this check is for what got past it, in a
//! collection without the validator or from an older writer.

mod fields;

use std::ops::RangeInclusive;

use bson::{
    DateTime, RawArray, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc, spec::ElementType,
};

use fields::Fields;

use super::{
    clock::{CLIENT_RULE, ClockError, is_client_name},
    id::{DocumentId, INTEGER_MAX, IdError, display_number, integral},
    shown::shown,
    sound::{self, Unsound},
    state::raw::{Elements, tag},
};

/// The place of an event: which document, and the version that the document has after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey {
    /// The document.
    pub document: DocumentId,
    /// The version after the event, from 1, dense.
    pub version: i64,
}

/// What an event does to its document.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Makes the document, with its whole state.
    Create {
        /// The first state.
        state: &'a RawDocument,
    },
    /// Applies MongoDB update operators to the state.
    Patch {
        /// The operators.
        patch: &'a RawDocument,
        /// The conditions that `$[name]` in paths refer to.
        array_filters: Option<&'a RawArray>,
    },
    /// Applies a JSON Merge Patch (RFC 7396) to the state.
    Merge {
        /// The merge patch.
        merge: &'a RawDocument,
    },
    /// Deletes the document. Its row, version and clock stay.
    Delete,
}

/// The name of an event's `op` field, and the label of the metrics that count events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `create`
    Create,
    /// `update`
    Update,
    /// `delete`
    Delete,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Create, Self::Update, Self::Delete];

    /// As it stands in the event.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl Change<'_> {
    /// Which of the three operations this is.
    pub fn op(&self) -> Op {
        match self {
            Self::Create { .. } => Op::Create,
            Self::Patch { .. } | Self::Merge { .. } => Op::Update,
            Self::Delete => Op::Delete,
        }
    }
}

/// A well-formed event, borrowed from the bytes it was read from.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Its place.
    pub key: EventKey,
    /// Who wrote it.
    pub client: &'a str,
    /// What it does.
    pub change: Change<'a>,
    /// The writer's clock. Orders nothing.
    pub at: DateTime,
    /// The writer's own mark.
    pub id: Option<RawBsonRef<'a>>,
    /// How many clients its `seen` names.
    pub seen_clients: usize,
    /// The bytes it was read from, for the fields that only a reader of history wants.
    pub raw: &'a RawDocument,
}

/// What is wrong with an event. The message names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The bytes are not BSON.
    #[error("the event is not readable BSON: {0}")]
    Malformed(String),
    /// A name stands twice, a text is not UTF-8, or something inside is not BSON.
    #[error(transparent)]
    Unsound(#[from] Unsound),
    /// The key is not `{d, s}`.
    #[error(
        "`_id` must be {{d: <document id>, s: <version>}}, exactly these two in this order: {0}"
    )]
    Key(String),
    /// The document id is unusable.
    #[error("`_id.d`: {0}")]
    Document(#[from] IdError),
    /// The version is unusable.
    #[error("`_id.s` must be an integer from 1 to 2^53 - 1, not {0}")]
    Version(String),
    /// A required field is absent.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field has the wrong type.
    #[error("`{field}` must be {expected}, not {found:?}")]
    Type {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: ElementType,
    },
    /// The client's name is unusable.
    #[error("`client` must be {CLIENT_RULE}, not `{0}`")]
    Client(String),
    /// The causal context is no clock.
    #[error("`seen`: {0}")]
    Seen(#[from] ClockError),
    /// The operation is unknown.
    #[error("`op` must be create, update or delete")]
    Op,
    /// A field that does not go with the operation.
    #[error("an event with op `{op}` {rule}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What its fields must be.
        rule: &'static str,
    },
}

/// The `op` of a base. Writers cannot have it.
pub const BASE_OP: &str = "base";

/// Whether something that stands in the place of a first event is a base.
pub fn is_base(raw: &RawDocument) -> bool {
    matches!(raw.get_str("op"), Ok(BASE_OP))
}

/// The version of a base, as far as it can be read: what it claims to stand for.
pub fn claimed_version(raw: &RawDocument) -> i64 {
    raw.get("version").ok().flatten().and_then(integral).unwrap_or(i64::MAX)
}

impl EventKey {
    /// Reads the place of an event, and nothing else of it.
    ///
    /// # Errors
    /// [`EventError`] when `_id` is not of the form `{d, s}`: such an event belongs to no document.
    pub fn from_event(raw: &RawDocument) -> Result<Self, EventError> {
        Self::from_event_near(raw, None)
    }

    /// The same, but takes the id from `near` if it is equal. In a scan most events are of the same
    /// document as the one before, and comparing ids is quicker than copying one.
    ///
    /// # Errors
    /// As [`EventKey::from_event`].
    pub fn from_event_near(
        raw: &RawDocument,
        near: Option<&DocumentId>,
    ) -> Result<Self, EventError> {
        if let Some(key) = Self::usual(raw, near) {
            return Ok(key);
        }
        match raw.get("_id") {
            Ok(Some(RawBsonRef::Document(key))) => Self::from_raw(key),
            Ok(Some(other)) => Err(EventError::Type {
                field: "_id",
                expected: "a document",
                found: other.element_type(),
            }),
            Ok(None) => Err(EventError::Missing("_id")),
            Err(error) => Err(malformed(&error)),
        }
    }

    /// The fast path for the commonest key, a string and an integer. `None`: use the slow path, which
    /// explains what is wrong.
    fn usual(raw: &RawDocument, near: Option<&DocumentId>) -> Option<Self> {
        let first = Elements::new(raw.as_bytes()).ok()?.next().ok()??;
        if first.name != b"_id" || first.value.tag != tag::DOCUMENT {
            return None;
        }
        let mut key = first.value.elements().ok()?;
        let (d, s) = (key.next().ok()??, key.next().ok()??);
        if (d.name, d.value.tag, s.name) != (b"d", tag::STRING, b"s") || key.next().ok()?.is_some()
        {
            return None;
        }
        let version = match s.value.tag {
            tag::INT32 => i64::from(s.value.as_i32()),
            tag::INT64 => s.value.as_i64(),
            _ => return None,
        };
        let text = d.value.text();
        let document = match near {
            Some(DocumentId::String(known)) if known.as_bytes() == text => near?.clone(),
            _ => DocumentId::from_raw(RawBsonRef::String(std::str::from_utf8(text).ok()?)).ok()?,
        };
        (1..=INTEGER_MAX).contains(&version).then_some(Self { document, version })
    }

    /// Matches the keys of these versions of a document: one bounded range of whole keys, the only form that a clustered
    /// collection does not answer by reading everything. Numbers of any type compare by value.
    pub fn range(document: &DocumentId, versions: &RangeInclusive<i64>) -> RawDocumentBuf {
        let key = |version: &i64| Self { document: document.clone(), version: *version }.to_raw();
        rawdoc! { "$gte": key(versions.start()), "$lte": key(versions.end()) }
    }

    /// Reads `{d, s}`.
    ///
    /// # Errors
    /// [`EventError`] when it is of another form.
    pub fn from_raw(key: &RawDocument) -> Result<Self, EventError> {
        let mut fields = key.iter();
        let mut field = |name: &str| match fields.next() {
            Some(Ok((key, value))) if key == name => Ok(value),
            Some(Ok((key, _))) => {
                let key = shown(key.as_str().as_bytes());
                Err(EventError::Key(format!("found `{key}` where `{name}` belongs")))
            }
            Some(Err(error)) => Err(malformed(&error)),
            None => Err(EventError::Key(format!("`{name}` is missing"))),
        };
        let (d, s) = (field("d")?, field("s")?);
        if fields.next().is_some() {
            return Err(EventError::Key("there are more than two fields".into()));
        }
        let document = DocumentId::from_raw(d)?;
        let version = integral(s).filter(|version| (1..=INTEGER_MAX).contains(version));
        let version = version.ok_or_else(|| EventError::Version(display_number(s)))?;
        Ok(Self { document, version })
    }
}

impl<'a> Event<'a> {
    /// Reads and judges an event.
    ///
    /// # Errors
    /// [`EventError`] naming the field at fault.
    pub fn decode(raw: &'a RawDocument) -> Result<Self, EventError> {
        Self::decode_at(EventKey::from_event(raw)?, raw)
    }

    /// The same, for a caller that has read the key already.
    ///
    /// # Errors
    /// [`EventError`] naming the field at fault.
    pub fn decode_at(key: EventKey, raw: &'a RawDocument) -> Result<Self, EventError> {
        sound::check(raw)?;
        let fields = Fields::read(raw)?;
        let client = string("client", fields.client)?;
        if !is_client_name(client) {
            return Err(EventError::Client(shown(client.as_bytes())));
        }
        let change = fields.change()?;
        if key.version == 1 && change.op() != Op::Create {
            return Err(EventError::Shape {
                op: change.op().name(),
                rule: "cannot be version 1: a document begins with a create",
            });
        }
        let at = match fields.at.ok_or(EventError::Missing("at"))? {
            RawBsonRef::DateTime(at) => at,
            other => return Err(wrong_type("at", "a date", other)),
        };
        let seen_clients = fields.seen_clients()?;
        Ok(Self { key, client, change, at, id: fields.id, seen_clients, raw })
    }
}

fn malformed(error: &bson::error::Error) -> EventError {
    EventError::Malformed(shown(error.to_string().as_bytes()))
}

fn wrong_type(field: &'static str, expected: &'static str, found: RawBsonRef<'_>) -> EventError {
    EventError::Type { field, expected, found: found.element_type() }
}

fn string<'a>(field: &'static str, value: Option<RawBsonRef<'a>>) -> Result<&'a str, EventError> {
    match value.ok_or(EventError::Missing(field))? {
        RawBsonRef::String(text) => Ok(text),
        other => Err(wrong_type(field, "a string", other)),
    }
}

#[cfg(test)]
mod tests;
