//! Document ids. MongoDB holds 5, 5.0 and `NumberLong(5)` to be one key, so everything of ours that
//! compares, hashes or prints an id goes through the one canonical form that this module defines.

use std::{fmt, sync::Arc};

use bson::{
    Binary, Bson, RawBinaryRef, RawBsonRef, RawDocument, oid::ObjectId, spec::BinarySubtype,
};

/// The longest string id, in bytes.
pub const STRING_ID_BYTES_MAX: usize = 1024;

/// The largest integer that a double holds exactly, 2^53 - 1: the bound of versions and integer ids,
/// since JavaScript sends every integer as a double.
pub const INTEGER_MAX: i64 = (1 << 53) - 1;

/// The canonical form of a document's id.
///
/// The order of the variants and of their values is MongoDB's order of `_id`s, so a scan of the log
/// and a walk over the documents meet in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DocumentId {
    /// An integer within ±(2^53 - 1), whichever numeric type carried it; -0 is 0.
    Integer(i64),
    /// A string of 1 to [`STRING_ID_BYTES_MAX`] bytes. Shared, since an id is copied wherever its document goes.
    String(Arc<str>),
    /// A UUID: binary of subtype 4.
    Uuid([u8; 16]),
    /// An ObjectId.
    ObjectId(ObjectId),
}

/// Why a value cannot be the id of a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The string is empty or too long.
    #[error("a string id has 1 to {STRING_ID_BYTES_MAX} bytes, this one has {bytes}")]
    StringLength {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The number is fractional or beyond 2^53 - 1.
    #[error("a numeric id is an integer within ±(2^53 - 1), not {value}")]
    NotAnInteger {
        /// The value as text.
        value: String,
    },
    /// The type is not one of the four.
    #[error("an id is a string, an ObjectId, a UUID (binary subtype 4) or an integer, not {found}")]
    Type {
        /// What was found instead.
        found: String,
    },
    /// The text of an id in a URL or on the command line is not valid Extended JSON.
    #[error(
        "the id begins with `{first}` but is not valid JSON: {reason}; \
         write a plain string, 24 hex digits for an ObjectId, or Extended JSON such as {{\"$numberLong\":\"5\"}}"
    )]
    Json {
        /// The first character, which announced JSON.
        first: char,
        /// The parser's words.
        reason: String,
    },
}

impl DocumentId {
    /// Reads an id from a BSON value.
    ///
    /// # Errors
    /// [`IdError`] when the value is of another type or out of range.
    pub fn from_raw(value: RawBsonRef<'_>) -> Result<Self, IdError> {
        match value {
            RawBsonRef::String(text) => Self::from_string(text),
            RawBsonRef::ObjectId(oid) => Ok(Self::ObjectId(oid)),
            RawBsonRef::Binary(binary) if binary.subtype == BinarySubtype::Uuid => {
                match <[u8; 16]>::try_from(binary.bytes) {
                    Ok(bytes) => Ok(Self::Uuid(bytes)),
                    Err(_) => Err(IdError::Type {
                        found: format!("a UUID of {} bytes", binary.bytes.len()),
                    }),
                }
            }
            RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Double(_) => {
                match integral(value) {
                    Some(number) if (-INTEGER_MAX..=INTEGER_MAX).contains(&number) => {
                        Ok(Self::Integer(number))
                    }
                    _ => Err(IdError::NotAnInteger { value: display_number(value) }),
                }
            }
            other => Err(IdError::Type { found: format!("{:?}", other.element_type()) }),
        }
    }

    /// The id of a row, its `_id`; `None` of one that is no document of ours.
    pub fn of_row(row: &RawDocument) -> Option<Self> {
        Self::from_raw(row.get("_id").ok()??).ok()
    }

    /// Reads an id from an owned BSON value; the same as [`DocumentId::from_raw`].
    ///
    /// # Errors
    /// [`IdError`] when the value is of another type or out of range.
    pub fn from_bson(value: &Bson) -> Result<Self, IdError> {
        match value {
            Bson::String(text) => Self::from_string(text),
            Bson::ObjectId(oid) => Ok(Self::ObjectId(*oid)),
            Bson::Int32(number) => Self::from_raw(RawBsonRef::Int32(*number)),
            Bson::Int64(number) => Self::from_raw(RawBsonRef::Int64(*number)),
            Bson::Double(number) => Self::from_raw(RawBsonRef::Double(*number)),
            Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes }) => {
                <[u8; 16]>::try_from(bytes.as_slice()).map(Self::Uuid).map_err(|_| IdError::Type {
                    found: format!("a UUID of {} bytes", bytes.len()),
                })
            }
            other => Err(IdError::Type { found: format!("{:?}", other.element_type()) }),
        }
    }

    /// Reads an id as it stands in a URL's path (percent-decoded) or on the command line: 24 hex
    /// digits are an ObjectId, what starts with `{` is Extended JSON, what starts with `"` a JSON
    /// string (so that every string can be reached), and all else is a string.
    ///
    /// # Errors
    /// [`IdError`] when the JSON is malformed or its value cannot be an id.
    pub fn from_text(text: &str) -> Result<Self, IdError> {
        match text.chars().next() {
            Some(first @ ('{' | '"')) => {
                let json_error = |reason: String| IdError::Json { first, reason };
                let json: serde_json::Value =
                    serde_json::from_str(text).map_err(|error| json_error(error.to_string()))?;
                let value = Bson::try_from(json).map_err(|error| json_error(error.to_string()))?;
                Self::from_bson(&value)
            }
            _ if text.len() == 24 => ObjectId::parse_str(text)
                .map_or_else(|_| Self::from_string(text), |oid| Ok(Self::ObjectId(oid))),
            _ => Self::from_string(text),
        }
    }

    fn from_string(text: &str) -> Result<Self, IdError> {
        if (1..=STRING_ID_BYTES_MAX).contains(&text.len()) {
            Ok(Self::String(text.into()))
        } else {
            Err(IdError::StringLength { bytes: text.len() })
        }
    }

    /// The id as BSON, integers as int64.
    pub fn to_bson(&self) -> Bson {
        match self {
            Self::Integer(number) => Bson::Int64(*number),
            Self::String(text) => Bson::String(text.to_string()),
            Self::Uuid(bytes) => {
                Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: bytes.to_vec() })
            }
            Self::ObjectId(oid) => Bson::ObjectId(*oid),
        }
    }

    /// The id as raw BSON, integers as int64.
    pub fn as_raw(&self) -> RawBsonRef<'_> {
        match self {
            Self::Integer(number) => RawBsonRef::Int64(*number),
            Self::String(text) => RawBsonRef::String(text),
            Self::Uuid(bytes) => {
                RawBsonRef::Binary(RawBinaryRef { subtype: BinarySubtype::Uuid, bytes })
            }
            Self::ObjectId(oid) => RawBsonRef::ObjectId(*oid),
        }
    }

    /// Roughly how many bytes of memory the id takes beyond its own size.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            _ => 0,
        }
    }
}

impl fmt::Display for DocumentId {
    /// The text that [`DocumentId::from_text`] reads back as the same id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text)
                if text.starts_with(['{', '"'])
                    || text.chars().any(char::is_control)
                    || ObjectId::parse_str(text).is_ok() =>
            {
                write!(f, "{}", serde_json::Value::String(text.to_string()))
            }
            Self::String(text) => f.write_str(text),
            Self::ObjectId(oid) => write!(f, "{oid}"),
            other => write!(f, "{}", other.to_bson().into_canonical_extjson()),
        }
    }
}

/// The integer that a BSON number holds, if it holds one exactly: int, long, or integral double
/// (-0 is 0).
pub fn integral(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(number) => Some(i64::from(number)),
        RawBsonRef::Int64(number) => Some(number),
        RawBsonRef::Double(number)
            if number.fract() == 0.0 && number.abs() <= INTEGER_MAX as f64 =>
        {
            Some(number as i64)
        }
        _ => None,
    }
}

/// The number as text, or the type of what is none.
pub(super) fn display_number(value: RawBsonRef<'_>) -> String {
    match value {
        RawBsonRef::Int32(number) => number.to_string(),
        RawBsonRef::Int64(number) => number.to_string(),
        RawBsonRef::Double(number) => number.to_string(),
        other => format!("{:?}", other.element_type()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;
    use proptest::prelude::*;

    fn id(value: impl Into<Bson>) -> Result<DocumentId, IdError> {
        let value = value.into();
        let by_bson = DocumentId::from_bson(&value);
        let raw = rawdoc! { "v": bson::RawBson::try_from(value).unwrap() };
        let by_raw = DocumentId::from_raw(raw.get("v").unwrap().unwrap());
        assert_eq!(by_bson, by_raw);
        by_raw
    }

    #[test]
    fn equal_numbers_are_one_document() {
        assert_eq!(id(5_i32), Ok(DocumentId::Integer(5)));
        assert_eq!(id(5_i64), Ok(DocumentId::Integer(5)));
        assert_eq!(id(5.0), Ok(DocumentId::Integer(5)));
        assert_eq!(id(-0.0), Ok(DocumentId::Integer(0)));
    }

    #[test]
    fn what_cannot_be_an_id_is_refused() {
        assert!(matches!(id(5.5), Err(IdError::NotAnInteger { .. })));
        assert!(matches!(id(f64::NAN), Err(IdError::NotAnInteger { .. })));
        assert!(matches!(id(1_i64 << 53), Err(IdError::NotAnInteger { .. })));
        assert!(matches!(id(i64::MIN + 1), Err(IdError::NotAnInteger { .. })));
        assert!(matches!(id(i64::MIN), Err(IdError::NotAnInteger { .. })));
        assert!(matches!(id(""), Err(IdError::StringLength { bytes: 0 })));
        assert!(matches!(id("x".repeat(1025)), Err(IdError::StringLength { bytes: 1025 })));
        assert!(matches!(id(true), Err(IdError::Type { .. })));
        assert!(matches!(id(vec![1_i32]), Err(IdError::Type { .. })));
    }

    #[test]
    fn text_reaches_every_kind_of_id() {
        let oid = "65a000000000000000000001";
        assert_eq!(
            DocumentId::from_text(oid),
            Ok(DocumentId::ObjectId(ObjectId::parse_str(oid).unwrap()))
        );
        assert_eq!(
            DocumentId::from_text(&format!("\"{oid}\"")),
            Ok(DocumentId::String(oid.into()))
        );
        assert_eq!(DocumentId::from_text("{\"$numberLong\":\"5\"}"), Ok(DocumentId::Integer(5)));
        assert_eq!(DocumentId::from_text("5"), Ok(DocumentId::String("5".into())));
        assert!(matches!(DocumentId::from_text("{nope"), Err(IdError::Json { .. })));
    }

    proptest! {
        #[test]
        fn the_text_form_reads_back(text in ".{1,30}", number in -INTEGER_MAX..=INTEGER_MAX, bytes: [u8; 16]) {
            for id in [DocumentId::String(text.as_str().into()), DocumentId::Integer(number), DocumentId::Uuid(bytes)] {
                prop_assert_eq!(DocumentId::from_text(&id.to_string()), Ok(id));
            }
        }

        #[test]
        fn the_bson_form_reads_back(text in ".{1,30}", number in -INTEGER_MAX..=INTEGER_MAX) {
            for id in [DocumentId::String(text.as_str().into()), DocumentId::Integer(number)] {
                prop_assert_eq!(DocumentId::from_bson(&id.to_bson()), Ok(id));
            }
        }
    }
}
