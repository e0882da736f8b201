//! A scanner over BSON bytes. The `bson` crate's own iterator hands out borrowed views and checks
//! UTF-8; folding needs byte ranges that outlive a borrow, and must carry through unchanged
//! whatever the server was willing to store.

use thiserror::Error;

/// Element types as BSON numbers them on the wire.
pub(crate) mod tag {
    pub(crate) const DOUBLE: u8 = 0x01;
    pub(crate) const STRING: u8 = 0x02;
    pub(crate) const DOCUMENT: u8 = 0x03;
    pub(crate) const ARRAY: u8 = 0x04;
    pub(crate) const BINARY: u8 = 0x05;
    pub(crate) const UNDEFINED: u8 = 0x06;
    pub(crate) const OBJECT_ID: u8 = 0x07;
    pub(crate) const BOOLEAN: u8 = 0x08;
    pub(crate) const DATE: u8 = 0x09;
    pub(crate) const NULL: u8 = 0x0A;
    pub(crate) const REGEX: u8 = 0x0B;
    pub(crate) const DB_POINTER: u8 = 0x0C;
    pub(crate) const CODE: u8 = 0x0D;
    pub(crate) const SYMBOL: u8 = 0x0E;
    pub(crate) const CODE_WITH_SCOPE: u8 = 0x0F;
    pub(crate) const INT32: u8 = 0x10;
    pub(crate) const TIMESTAMP: u8 = 0x11;
    pub(crate) const INT64: u8 = 0x12;
    pub(crate) const DECIMAL128: u8 = 0x13;
    pub(crate) const MAX_KEY: u8 = 0x7F;
    pub(crate) const MIN_KEY: u8 = 0xFF;
}

/// The bytes are not BSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not valid BSON at byte {at}: {what}")]
pub struct Malformed {
    /// Offset within the innermost document that could be read.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// One value: its type and its bytes, without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawValue<'a> {
    pub(crate) tag: u8,
    pub(crate) bytes: &'a [u8],
}

impl<'a> RawValue<'a> {
    pub(crate) fn new(tag: u8, bytes: &'a [u8]) -> Self {
        Self { tag, bytes }
    }

    /// A document that has just this value, under that name.
    pub(crate) fn in_document(self, name: &[u8]) -> Vec<u8> {
        let length = 4 + 1 + name.len() + 1 + self.bytes.len() + 1;
        let mut document = Vec::with_capacity(length);
        document.extend_from_slice(&(length as u32).to_le_bytes());
        document.push(self.tag);
        document.extend_from_slice(name);
        document.push(0);
        document.extend_from_slice(self.bytes);
        document.push(0);
        document
    }

    /// The elements of a document or array; none for any other type.
    pub(crate) fn elements(self) -> Result<Elements<'a>, Malformed> {
        if is_container(self.tag) { Elements::new(self.bytes) } else { Ok(Elements::empty()) }
    }

    /// The first `N` bytes as an array; zeros when there are fewer.
    pub(crate) fn fixed<const N: usize>(self) -> [u8; N] {
        let mut out = [0; N];
        if let Some(bytes) = self.bytes.get(..N) {
            out.copy_from_slice(bytes);
        }
        out
    }

    pub(crate) fn as_i32(self) -> i32 {
        i32::from_le_bytes(self.fixed())
    }

    pub(crate) fn as_i64(self) -> i64 {
        i64::from_le_bytes(self.fixed())
    }

    pub(crate) fn as_f64(self) -> f64 {
        f64::from_le_bytes(self.fixed())
    }

    /// The text of a string, symbol or code, without its length and its closing zero.
    pub(crate) fn text(self) -> &'a [u8] {
        self.bytes.get(4..self.bytes.len().saturating_sub(1)).unwrap_or_default()
    }

    /// The code and the scope of code with scope.
    pub(crate) fn code_with_scope(self) -> Result<(RawValue<'a>, RawValue<'a>), Malformed> {
        let rest = self.bytes.get(4..).unwrap_or_default();
        let (code, scope) = rest.split_at(string_len(rest, 0)?.min(rest.len()));
        Ok((RawValue::new(tag::CODE, code), RawValue::new(tag::DOCUMENT, scope)))
    }

    /// Pattern and options of a regular expression.
    pub(crate) fn regex(self) -> (&'a [u8], &'a [u8]) {
        let end = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
        let options = self.bytes.get(end + 1..self.bytes.len().saturating_sub(1));
        (&self.bytes[..end], options.unwrap_or_default())
    }
}

/// One element of a document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: RawValue<'a>,
    /// Where the name begins, counted from the document's first byte.
    pub(crate) name_at: usize,
    /// Where the value begins, counted from the document's first byte.
    pub(crate) value_at: usize,
}

/// Walks the elements of one document, in order.
#[derive(Debug, Clone)]
pub(crate) struct Elements<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Elements<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let length = read_len(bytes, 0)?;
        if length != bytes.len() || length < 5 {
            return Err(Malformed { at: 0, what: "the document's length is wrong" });
        }
        if bytes[length - 1] != 0 {
            return Err(Malformed { at: length - 1, what: "the document does not end in a zero" });
        }
        Ok(Self { bytes, at: 4 })
    }

    /// The same elements from a place on that [`Elements::place`] gave.
    pub(crate) fn skipping_to(self, at: usize) -> Self {
        Self { at: at.max(self.at), ..self }
    }

    /// The place of the next element.
    pub(crate) fn place(&self) -> usize {
        self.at
    }

    fn empty() -> Self {
        Self { bytes: &[0], at: 0 }
    }

    /// The next element, or nothing at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Element<'a>>, Malformed> {
        let end = self.bytes.len() - 1;
        if self.at >= end {
            return Ok(None);
        }
        let tag = self.bytes[self.at];
        let name_at = self.at + 1;
        let rest = &self.bytes[name_at..end];
        let Some(name_len) = rest.iter().position(|byte| *byte == 0) else {
            return Err(Malformed { at: name_at, what: "a field name does not end" });
        };
        let value_at = name_at + name_len + 1;
        let length = value_len(tag, &self.bytes[value_at..end])
            .map_err(|error| Malformed { at: value_at + error.at, ..error })?;
        self.at = value_at + length;
        let value = RawValue::new(tag, &self.bytes[value_at..value_at + length]);
        Ok(Some(Element { name: &rest[..name_len], value, name_at, value_at }))
    }

    /// The first element of that name.
    pub(crate) fn find(mut self, name: &[u8]) -> Result<Option<RawValue<'a>>, Malformed> {
        while let Some(element) = self.next()? {
            if element.name == name {
                return Ok(Some(element.value));
            }
        }
        Ok(None)
    }
}

/// Whether values of this type contain elements that a path can reach.
pub(crate) fn is_container(tag: u8) -> bool {
    tag == tag::DOCUMENT || tag == tag::ARRAY
}

/// How many bytes the value at the beginning of `rest` takes.
fn value_len(tag: u8, rest: &[u8]) -> Result<usize, Malformed> {
    let length = match tag {
        tag::UNDEFINED | tag::NULL | tag::MIN_KEY | tag::MAX_KEY => 0,
        tag::BOOLEAN => 1,
        tag::INT32 => 4,
        tag::DOUBLE | tag::DATE | tag::TIMESTAMP | tag::INT64 => 8,
        tag::OBJECT_ID => 12,
        tag::DECIMAL128 => 16,
        tag::STRING | tag::CODE | tag::SYMBOL => string_len(rest, 0)?,
        tag::DOCUMENT | tag::ARRAY => prefixed_len(rest, 5)?,
        tag::CODE_WITH_SCOPE => code_with_scope_len(rest)?,
        tag::BINARY => read_len(rest, 0)?.saturating_add(5),
        tag::DB_POINTER => string_len(rest, 0)?.saturating_add(12),
        tag::REGEX => {
            let pattern = cstring_len(rest, 0)?;
            pattern + cstring_len(rest, pattern)?
        }
        _ => return Err(Malformed { at: 0, what: "an unknown element type" }),
    };
    if length > rest.len() {
        return Err(Malformed { at: 0, what: "a value is longer than its document" });
    }
    Ok(length)
}

fn read_len(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let Some(prefix) = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()) else {
        return Err(Malformed { at, what: "a length is cut off" });
    };
    usize::try_from(i32::from_le_bytes(*prefix))
        .map_err(|_| Malformed { at, what: "a length is negative" })
}

fn prefixed_len(bytes: &[u8], least: usize) -> Result<usize, Malformed> {
    let length = read_len(bytes, 0)?;
    if length < least {
        return Err(Malformed { at: 0, what: "a length is too small" });
    }
    if length <= bytes.len() && bytes[length - 1] != 0 {
        return Err(Malformed { at: length - 1, what: "a document does not end in a zero" });
    }
    Ok(length)
}

/// The length of a string value: its prefix, its text and a closing zero.
fn string_len(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let length = read_len(bytes, at)?;
    if length == 0 {
        return Err(Malformed { at, what: "a string has no room for its closing zero" });
    }
    match bytes.get(at + 3 + length) {
        Some(0) => Ok(length + 4),
        Some(_) => Err(Malformed { at, what: "a string does not end in a zero" }),
        None => Err(Malformed { at, what: "a string is longer than its document" }),
    }
}

fn cstring_len(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    match bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0)) {
        Some(end) => Ok(end + 1),
        None => Err(Malformed { at, what: "a regular expression does not end" }),
    }
}

fn code_with_scope_len(bytes: &[u8]) -> Result<usize, Malformed> {
    let length = prefixed_len(bytes, 14)?;
    let code = string_len(bytes, 4)?;
    let scope = bytes.get(4 + code..length);
    if scope.is_none_or(|scope| Elements::new(scope).is_err()) {
        return Err(Malformed { at: 4, what: "code with scope has the wrong length" });
    }
    Ok(length)
}

/// How many levels of elements lie below the value: none for a scalar or an empty document. Stops
/// looking at `enough` levels, so that hostile nesting cannot exhaust the stack.
pub(crate) fn depth(value: RawValue<'_>, enough: usize) -> Result<usize, Malformed> {
    let mut deepest = 0;
    let mut elements = value.elements()?;
    while let Some(element) = elements.next()? {
        let below = if enough == 0 { 0 } else { depth(element.value, enough - 1)? };
        deepest = deepest.max(1 + below);
    }
    Ok(deepest)
}
