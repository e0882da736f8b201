//! The fields of an event as they are found, and what they say it does. Read without a look at what an event does not
//! need, since this is done for every event of every fold.

use bson::{DateTime, RawArray, RawBsonRef, RawDocument, oid::ObjectId};

use super::{Change, EventError, string, wrong_type};
use crate::model::{
    clock::Clock,
    state::{
        Malformed,
        raw::{Element, Elements, RawValue, tag},
    },
};

/// The fields of an event before they are judged.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) client: Option<RawBsonRef<'a>>,
    pub(super) op: Option<RawBsonRef<'a>>,
    pub(super) state: Option<RawBsonRef<'a>>,
    pub(super) patch: Option<RawBsonRef<'a>>,
    pub(super) array_filters: Option<RawBsonRef<'a>>,
    pub(super) merge: Option<RawBsonRef<'a>>,
    pub(super) at: Option<RawBsonRef<'a>>,
    pub(super) id: Option<RawBsonRef<'a>>,
    pub(super) seen: Option<RawBsonRef<'a>>,
}

impl<'a> Fields<'a> {
    pub(super) fn read(raw: &'a RawDocument) -> Result<Self, EventError> {
        let mut fields = Self::default();
        let malformed = |error: Malformed| EventError::Malformed(error.to_string());
        let mut elements = Elements::new(raw.as_bytes()).map_err(malformed)?;
        while let Some(Element { name, value, .. }) = elements.next().map_err(malformed)? {
            let (name, slot) = match name {
                b"client" => ("client", &mut fields.client),
                b"op" => ("op", &mut fields.op),
                b"state" => ("state", &mut fields.state),
                b"patch" => ("patch", &mut fields.patch),
                b"array_filters" => ("array_filters", &mut fields.array_filters),
                b"merge" => ("merge", &mut fields.merge),
                b"at" => ("at", &mut fields.at),
                b"id" => ("id", &mut fields.id),
                b"seen" => ("seen", &mut fields.seen),
                _ => continue,
            };
            *slot = match usual(value) {
                Some(value) => Some(value),
                None => raw.get(name).map_err(|error| super::malformed(&error))?,
            };
        }
        Ok(fields)
    }

    /// How many clients the causal context names, each of them once: the event has been looked through.
    pub(super) fn seen_clients(&self) -> Result<usize, EventError> {
        let Some(seen) = self.seen else { return Ok(0) };
        Ok(Clock::count_raw(document("seen", seen)?)?)
    }

    pub(super) fn change(&self) -> Result<Change<'a>, EventError> {
        let op = string("op", self.op)?;
        let shape = |op, rule| Err(EventError::Shape { op, rule });
        match (op, self.state, self.patch, self.merge, self.array_filters) {
            ("create", Some(state), None, None, None) => {
                let state = document("state", state)?;
                match state.get("_id") {
                    Ok(None) => Ok(Change::Create { state }),
                    _ => shape("create", "has a `state` without an `_id` of its own"),
                }
            }
            ("create", ..) => {
                shape("create", "carries `state`, and neither `patch`, `merge` nor `array_filters`")
            }
            ("update", None, Some(patch), None, filters) => {
                let array_filters = filters.map(array_filters).transpose()?;
                Ok(Change::Patch { patch: document("patch", patch)?, array_filters })
            }
            ("update", None, None, Some(merge), None) => {
                Ok(Change::Merge { merge: document("merge", merge)? })
            }
            ("update", ..) => shape(
                "update",
                "carries exactly one of `patch` and `merge`, no `state`, and `array_filters` only with `patch`",
            ),
            ("delete", None, None, None, None) => Ok(Change::Delete),
            ("delete", ..) => {
                shape("delete", "carries none of `state`, `patch`, `merge` and `array_filters`")
            }
            _ => Err(EventError::Op),
        }
    }
}

/// A value of the types that the fields of an event mostly have.
fn usual(value: RawValue<'_>) -> Option<RawBsonRef<'_>> {
    match value.tag {
        tag::STRING => std::str::from_utf8(value.text()).ok().map(RawBsonRef::String),
        tag::DOCUMENT => RawDocument::from_bytes(value.bytes).ok().map(RawBsonRef::Document),
        tag::DATE => Some(RawBsonRef::DateTime(DateTime::from_millis(value.as_i64()))),
        tag::OBJECT_ID => Some(RawBsonRef::ObjectId(ObjectId::from_bytes(value.fixed()))),
        _ => None,
    }
}

fn document<'a>(field: &'static str, value: RawBsonRef<'a>) -> Result<&'a RawDocument, EventError> {
    value.as_document().ok_or_else(|| wrong_type(field, "a document", value))
}

fn array_filters(value: RawBsonRef<'_>) -> Result<&RawArray, EventError> {
    value.as_array().ok_or_else(|| wrong_type("array_filters", "an array", value))
}
