//! BSON written byte by byte: what is hostile is too deep for the `bson` crate's own types, or takes
//! more memory in them than what is to be measured.

use bson::{RawArrayBuf, RawDocumentBuf};

pub(crate) const STRING: u8 = 0x02;
pub(crate) const DOCUMENT: u8 = 0x03;
pub(crate) const ARRAY: u8 = 0x04;
pub(crate) const BINARY: u8 = 0x05;
pub(crate) const NULL: u8 = 0x0A;
pub(crate) const REGEX: u8 = 0x0B;
pub(crate) const INT: u8 = 0x10;

/// A value: its type and its bytes.
#[derive(Clone)]
pub(crate) struct Value(pub(crate) u8, pub(crate) Vec<u8>);

pub(crate) fn int(number: i32) -> Value {
    Value(INT, number.to_le_bytes().to_vec())
}

pub(crate) fn null() -> Value {
    Value(NULL, Vec::new())
}

pub(crate) fn string(text: &str) -> Value {
    let mut bytes = (text.len() as u32 + 1).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    Value(STRING, bytes)
}

pub(crate) fn binary(data: &[u8]) -> Value {
    let mut bytes = (data.len() as u32).to_le_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(data);
    Value(BINARY, bytes)
}

pub(crate) fn pattern(text: &str) -> Value {
    Value(REGEX, [text.as_bytes(), &[0, 0]].concat())
}

pub(crate) fn document<N: AsRef<str>>(fields: impl IntoIterator<Item = (N, Value)>) -> Value {
    let mut bytes = vec![0; 4];
    for (name, Value(tag, value)) in fields {
        bytes.push(tag);
        bytes.extend_from_slice(name.as_ref().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&value);
    }
    bytes.push(0);
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Value(DOCUMENT, bytes)
}

pub(crate) fn array(values: impl IntoIterator<Item = Value>) -> Value {
    let elements = values.into_iter().enumerate().map(|(at, value)| (at.to_string(), value));
    Value(ARRAY, document(elements).1)
}

/// Documents in documents, each of them named `a`.
pub(crate) fn nested(levels: usize) -> Value {
    let mut bytes = Vec::new();
    for below in (0..levels).rev() {
        bytes.extend_from_slice(&(8 * (below as u32 + 1) + 5).to_le_bytes());
        bytes.extend_from_slice(&[DOCUMENT, b'a', 0]);
    }
    bytes.extend_from_slice(&5_u32.to_le_bytes());
    bytes.resize(bytes.len() + levels + 1, 0);
    Value(DOCUMENT, bytes)
}

impl Value {
    pub(crate) fn into_document(self) -> RawDocumentBuf {
        RawDocumentBuf::from_bytes(self.1).unwrap()
    }

    pub(crate) fn into_array(self) -> RawArrayBuf {
        let holder = document([("a", self)]).into_document();
        holder.get_array("a").unwrap().to_owned()
    }
}
