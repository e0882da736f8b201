//! From what a closure did to a typed value to an event's change. Only what the closure changed is
//! written: fields that the type does not know stay as they are in the document.

use bson::{Bson, DateTime, Document, RawBsonRef, RawDocument, RawDocumentBuf, raw::CString};

use super::error::{Result, WriteError};
use crate::model::{
    diff::{Diff, Order, diff},
    new_event::NewChange,
    patch,
    state::{Limits, State},
};

/// The change that makes of `actual` what the closure made of its value. `before` is the value as the
/// type read it from `actual`, `after` is the value afterwards. `None` if nothing changed. `reread`
/// says how the type reads a state and writes it back.
pub(super) fn between(
    actual: &RawDocument,
    before: &RawDocument,
    after: &RawDocument,
    reread: impl Fn(&RawDocument) -> Option<RawDocumentBuf>,
) -> Result<Option<(NewChange, Order)>> {
    let Diff { patch, order } = diff(before, after);
    if order == Order::RootFieldsLeft {
        return merge(before, after).map(|merge| Some((NewChange::Merge { merge }, order)));
    }
    if patch.is_empty() {
        return Ok(None);
    }
    // If the type knows all fields, `before` is the document itself and the patch fits.
    let exact = before.as_bytes() == actual.as_bytes() || leads_to(actual, &patch, after, reread);
    let patch = if exact { patch } else { whole_fields(before, after)? };
    Ok(Some((NewChange::Patch { patch, array_filters: None }, order)))
}

/// Whether the type reads `after` from the patched `actual`. An example where it does not: the type has
/// filled in a document that is absent, and the patch sets only one field in it.
fn leads_to(
    actual: &RawDocument,
    patch: &RawDocument,
    after: &RawDocument,
    reread: impl Fn(&RawDocument) -> Option<RawDocumentBuf>,
) -> bool {
    let applied = || {
        let mut state = State::from_raw(actual).ok()?;
        // The time matters only to an operator that a diff never uses.
        let epoch = DateTime::from_millis(0);
        patch::apply(&mut state, patch, None, epoch, &Limits::default()).ok()?;
        Document::try_from(reread(&state.to_raw())?.as_ref()).ok()
    };
    applied().is_some_and(|applied| Document::try_from(after).is_ok_and(|after| after == applied))
}

/// The patch that sets whatever differs at the root as a whole.
fn whole_fields(before: &RawDocument, after: &RawDocument) -> Result<RawDocumentBuf> {
    let mut set = RawDocumentBuf::new();
    let mut unset = RawDocumentBuf::new();
    for (key, value) in fields(after)? {
        if !same(before.get(&key).ok().flatten(), value) {
            append(&mut set, &key, value)?;
        }
    }
    for (key, _) in fields(before)? {
        if after.get(&key).ok().flatten().is_none() {
            append(&mut unset, &key, RawBsonRef::Boolean(true))?;
        }
    }
    let mut patch = RawDocumentBuf::new();
    for (operator, fields) in [("$set", set), ("$unset", unset)] {
        if !fields.is_empty() {
            append(&mut patch, operator, RawBsonRef::Document(&fields))?;
        }
    }
    Ok(patch)
}

/// The JSON Merge Patch from `before` to `after`.
fn merge(before: &RawDocument, after: &RawDocument) -> Result<RawDocumentBuf> {
    let mut merged = RawDocumentBuf::new();
    for (key, value) in fields(after)? {
        let old = before.get(&key).ok().flatten();
        match (old, value) {
            (old, value) if same(old, value) => {}
            (Some(RawBsonRef::Document(old)), RawBsonRef::Document(new)) => {
                append(&mut merged, &key, RawBsonRef::Document(&merge(old, new)?))?;
            }
            (_, value) if holds_null(value) || key == "_id" => {
                return Err(WriteError::Inexpressible { field: key });
            }
            (_, value) => append(&mut merged, &key, value)?,
        }
    }
    for (key, _) in fields(before)? {
        if after.get(&key).ok().flatten().is_none() {
            append(&mut merged, &key, RawBsonRef::Null)?;
        }
    }
    Ok(merged)
}

/// Whether a null stands where a merge would take it for a removal: in documents, not in arrays.
fn holds_null(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Null => true,
        RawBsonRef::Document(document) => {
            document.iter().flatten().any(|(_, value)| holds_null(value))
        }
        _ => false,
    }
}

fn same(old: Option<RawBsonRef<'_>>, new: RawBsonRef<'_>) -> bool {
    match (old, Bson::try_from(new)) {
        (Some(old), Ok(new)) => Bson::try_from(old).is_ok_and(|old| old == new),
        _ => false,
    }
}

fn fields(document: &RawDocument) -> Result<Vec<(String, RawBsonRef<'_>)>> {
    let fields =
        document.iter().map(|field| field.map(|(key, value)| (key.as_str().to_owned(), value)));
    fields.collect::<std::result::Result<_, _>>().map_err(unreadable)
}

fn append(document: &mut RawDocumentBuf, key: &str, value: RawBsonRef<'_>) -> Result<()> {
    document.append(CString::try_from(key).map_err(unreadable)?, value);
    Ok(())
}

fn unreadable(error: bson::error::Error) -> WriteError {
    WriteError::Unfit { reason: error.to_string() }
}
