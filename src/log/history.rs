//! The history of one document in its log: under which keys its events stand, and what a fold of them starts from.
//! Whoever reads or folds a log asks here.

use std::ops::RangeInclusive;

use bson::{RawDocumentBuf, rawdoc};

use crate::model::{
    document::Document,
    event::EventKey,
    id::{DocumentId, INTEGER_MAX},
};

/// The document before the first thing that its log has of it: what a fold of the whole history starts from.
pub fn start(id: &DocumentId) -> Document {
    Document::new(id.clone())
}

/// All versions above `after`.
pub fn above(after: i64) -> RangeInclusive<i64> {
    after.saturating_add(1).max(1)..=INTEGER_MAX
}

/// The filter for these versions of a document.
pub fn range(id: &DocumentId, versions: &RangeInclusive<i64>) -> RawDocumentBuf {
    rawdoc! { "_id": EventKey::range(id, versions) }
}
