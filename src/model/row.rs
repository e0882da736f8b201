//! Rows: projected documents as bytes, and back. They are written by hand, into one buffer of the right
//! size. A flush writes many of them, and building each part by itself would cost more than the fold.

use bson::{RawBsonRef, RawDocument, RawDocumentBuf};

use super::{
    clock::{Clock, ClockError},
    document::{Body, Document, Quarantine},
    id::{DocumentId, IdError, integral},
    sound::{self, Unsound},
    state::{State, raw::tag},
};

/// What a row takes beside its state, its id and its clock, about.
const ROW_BYTES: usize = 128;
/// How BSON marks a binary value as a UUID.
const UUID_SUBTYPE: u8 = 4;

/// Why a stored row is not a projected document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The bytes are not BSON.
    #[error("the row is not readable BSON: {0}")]
    Malformed(String),
    /// A name stands twice, a text is not UTF-8, or something inside is not BSON. The server may abort when such
    /// a row is replaced.
    #[error(transparent)]
    Unsound(#[from] Unsound),
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
    /// The row as it stands in the collection of projected documents. Two folds of the same events
    /// give the same bytes.
    pub fn to_raw(&self) -> RawDocumentBuf {
        let state = self.state().map_or(0, State::bytes);
        let bytes = ROW_BYTES + self.id.heap_bytes() + self.clock.heap_bytes() + state;
        let mut row = Writer(Vec::with_capacity(bytes));
        row.0.extend_from_slice(&[0; 4]);
        row.id(&self.id);
        row.name(tag::INT64, "version");
        row.0.extend_from_slice(&self.version.to_le_bytes());
        row.name(tag::DOCUMENT, "clock");
        self.clock.append_to(&mut row.0);
        match &self.body {
            Body::Live(state) => {
                row.name(tag::DOCUMENT, "state");
                state.append_to(&mut row.0);
            }
            Body::Deleted => {
                row.name(tag::BOOLEAN, "deleted");
                row.0.push(1);
            }
            Body::Absent => {}
        }
        if let Some(at) = self.updated_at {
            row.name(tag::DATE, "updated_at");
            row.0.extend_from_slice(&at.timestamp_millis().to_le_bytes());
        }
        if let Some(quarantine) = &self.quarantine {
            row.name(tag::DOCUMENT, "quarantine");
            row.0.extend_from_slice(quarantine.to_raw().as_bytes());
        }
        row.0.push(0);
        let length = (row.0.len() as u32).to_le_bytes();
        row.0[..4].copy_from_slice(&length);
        // What is written here always has the right length and a closing zero.
        RawDocumentBuf::from_bytes(row.0).unwrap_or_default()
    }

    /// Reads a row back.
    ///
    /// # Errors
    /// [`RowError`] naming the field at fault: the row was not written by this projection.
    pub fn from_raw(row: &RawDocument) -> Result<Self, RowError> {
        sound::check(row)?;
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

/// BSON under construction.
struct Writer(Vec<u8>);

impl Writer {
    fn name(&mut self, tag: u8, name: &str) {
        self.0.push(tag);
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
    }

    fn id(&mut self, id: &DocumentId) {
        const NAME: &str = "_id";
        match id {
            DocumentId::Integer(number) => {
                self.name(tag::INT64, NAME);
                self.0.extend_from_slice(&number.to_le_bytes());
            }
            DocumentId::String(text) => {
                self.name(tag::STRING, NAME);
                self.0.extend_from_slice(&(text.len() as u32 + 1).to_le_bytes());
                self.0.extend_from_slice(text.as_bytes());
                self.0.push(0);
            }
            DocumentId::Uuid(bytes) => {
                self.name(tag::BINARY, NAME);
                self.0.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                self.0.push(UUID_SUBTYPE);
                self.0.extend_from_slice(bytes);
            }
            DocumentId::ObjectId(oid) => {
                self.name(tag::OBJECT_ID, NAME);
                self.0.extend_from_slice(&oid.bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quarantine::Class;
    use bson::{DateTime, oid::ObjectId, rawdoc};

    fn row(id: DocumentId, body: Body) -> Document {
        let mut clock = Clock::new();
        clock.set("phone", 2);
        clock.set("desk", 1);
        let at = DateTime::from_millis(-5);
        let mark = Quarantine { class: Class::BadPatch, version: 4, reason: "it is bad".into() };
        let document = Document::new(id);
        let (updated_at, quarantine) = (Some(at), Some(mark));
        Document { version: 3, clock, body, updated_at, quarantine, ..document }
    }

    #[test]
    fn a_row_is_what_the_bson_crate_would_write() {
        let uuid = bson::Uuid::from_bytes([7; 16]);
        let state = rawdoc! { "gold": 5_i64, "items": ["sword", 1] };
        for (id, raw) in [
            (DocumentId::Integer(-7), bson::RawBson::Int64(-7)),
            (DocumentId::String("j\u{fc}rgen".into()), bson::RawBson::String("j\u{fc}rgen".into())),
            (DocumentId::Uuid([7; 16]), bson::RawBson::Binary(uuid.into())),
            (
                DocumentId::ObjectId(ObjectId::from_bytes([9; 12])),
                bson::RawBson::ObjectId(ObjectId::from_bytes([9; 12])),
            ),
        ] {
            let head = rawdoc! { "_id": raw, "version": 3_i64, "clock": { "desk": 1_i64, "phone": 2_i64 } };
            let tail = rawdoc! {
                "updated_at": DateTime::from_millis(-5),
                "quarantine": { "class": "bad_patch", "version": 4_i64, "reason": "it is bad" },
            };
            let expected = |middle: RawDocumentBuf| {
                let mut all = RawDocumentBuf::new();
                for (name, value) in
                    [&head, &middle, &tail].into_iter().flat_map(|part| part.iter().flatten())
                {
                    all.append(name, value);
                }
                all
            };
            let live = row(id.clone(), Body::Live(State::from_raw(&state).unwrap()));
            assert_eq!(live.to_raw(), expected(rawdoc! { "state": state.clone() }));
            assert_eq!(row(id, Body::Deleted).to_raw(), expected(rawdoc! { "deleted": true }));
        }
    }
}
