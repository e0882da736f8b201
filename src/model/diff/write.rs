//! Writing differences down as update operators.

use bson::RawDocumentBuf;

use crate::model::state::raw::{RawValue, tag};

use super::changes::Changes;

/// The patch that makes the changes.
pub(super) fn patch(changes: &Changes<'_>) -> RawDocumentBuf {
    let bytes = document(|out| {
        if !changes.set.is_empty() {
            element(out, tag::DOCUMENT, b"$set", |out| {
                nested(out, |out| {
                    changes.set.iter().for_each(|(path, value)| plain(out, path, *value));
                });
            });
        }
        if !changes.unset.is_empty() {
            element(out, tag::DOCUMENT, b"$unset", |out| {
                let empty = RawValue::new(tag::STRING, &[1, 0, 0, 0, 0]);
                nested(out, |out| changes.unset.iter().for_each(|path| plain(out, path, empty)));
            });
        }
        if !changes.push.is_empty() {
            element(out, tag::DOCUMENT, b"$push", |out| {
                nested(out, |out| changes.push.iter().for_each(|(path, new)| push(out, path, new)));
            });
        }
    });
    // What is written here always has the right length and a closing zero.
    RawDocumentBuf::from_bytes(bytes).unwrap_or_default()
}

fn push(out: &mut Vec<u8>, path: &[u8], values: &[RawValue<'_>]) {
    element(out, tag::DOCUMENT, path, |out| {
        nested(out, |out| {
            element(out, tag::ARRAY, b"$each", |out| {
                nested(out, |out| {
                    for (at, value) in values.iter().enumerate() {
                        plain(out, at.to_string().as_bytes(), *value);
                    }
                });
            });
        });
    });
}

fn plain(out: &mut Vec<u8>, name: &[u8], value: RawValue<'_>) {
    element(out, value.tag, name, |out| out.extend_from_slice(value.bytes));
}

fn element(out: &mut Vec<u8>, tag: u8, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    out.extend_from_slice(name);
    out.push(0);
    write(out);
}

fn document(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    nested(&mut out, write);
    out
}

fn nested(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    out.push(0);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}
