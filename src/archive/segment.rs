//! Segments as bytes: what is written into one, and how it is read. See README.md for the format.

use bson::{RawBson, RawBsonRef, RawDocument, RawDocumentBuf, raw::cstr, rawdoc};
use sha2::{Digest, Sha256};

use super::error::{ArchiveError, Result};
use crate::{
    model::{event::EventKey, id::DocumentId, position::LogId, skip::SkippedVersions},
    store::archive::Archived,
};

/// The format of segments and manifests.
pub(super) const FORMAT: i32 = 1;
/// How hard is compressed.
const LEVEL: i32 = 6;
/// The largest content that is read: four times what is ever written.
const CONTENT_BYTES_MAX: i64 = 128 << 20;

/// A segment that is being made.
#[derive(Debug)]
pub(super) struct Segment {
    log: LogId,
    content: Vec<u8>,
    ranges: Vec<Span>,
}

#[derive(Clone, Debug)]
struct Span {
    id: DocumentId,
    from: i64,
    to: i64,
    offset: usize,
    length: usize,
}

impl Segment {
    pub(super) fn new((database, collection): (&str, &str), log: LogId) -> Self {
        let mut header = rawdoc! {
            "alluvium": "segment", "format": FORMAT, "database": database, "collection": collection,
        };
        header.append(cstr!("log"), RawBson::Binary(log.0.into()));
        Self { log, content: header.as_bytes().to_vec(), ranges: Vec::new() }
    }

    /// Adds the events of a document from one version on, ascending and without a gap.
    pub(super) fn add(
        &mut self,
        (id, from): (&DocumentId, i64),
        events: &[RawDocumentBuf],
        skips: &SkippedVersions,
    ) {
        let Ok(count) = i64::try_from(events.len()) else { return };
        let (offset, to) = (self.content.len(), from + count - 1);
        let skips = skips.ranges().iter().filter(|(first, last)| *first <= to && *last >= from);
        let skips: bson::RawArrayBuf =
            skips.map(|(first, last)| rawdoc! { "s": *first, "through": *last }).collect();
        let mut range = rawdoc! {};
        range.append(cstr!("d"), id.as_raw());
        range.append(cstr!("from"), from);
        range.append(cstr!("to"), to);
        range.append(cstr!("skips"), skips);
        self.content.extend_from_slice(rawdoc! { "range": range }.as_bytes());
        for event in events {
            self.content.extend_from_slice(event.as_bytes());
        }
        let length = self.content.len() - offset;
        self.ranges.push(Span { id: id.clone(), from, to, offset, length });
    }

    /// Takes over a range of another segment as it stands there.
    pub(super) fn copy(&mut self, row: &Archived, bytes: &[u8]) {
        let (offset, length) = (self.content.len(), bytes.len());
        self.content.extend_from_slice(bytes);
        self.ranges.push(Span { id: row.id.clone(), from: row.from, to: row.to, offset, length });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.content.len()
    }

    /// Its name, by its ranges and by its content, and by which copy of that it is.
    fn name(&self, copy: u32) -> String {
        let mut ranges = Sha256::new();
        for Span { id, from, to, .. } in &self.ranges {
            let mut range = rawdoc! { "from": *from, "to": *to };
            range.append(cstr!("d"), id.as_raw());
            ranges.update(range.as_bytes());
        }
        let ranges: [u8; 32] = ranges.finalize().into();
        let (ranges, content) = (hex(&ranges[..8]), hex(&hash(&self.content)));
        let copy = if copy > 1 { format!("-{copy}") } else { String::new() };
        format!("segments/{ranges}-{content}{copy}.bson.zst")
    }

    /// The rows of the index that tell of it.
    pub(super) fn rows(&self, copy: u32) -> Vec<Archived> {
        let (segment, hash) = (self.name(copy), hash(&self.content));
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        let row = |span: &Span| Archived {
            id: span.id.clone(),
            log: self.log,
            from: span.from,
            to: span.to,
            segment: segment.clone(),
            offset: size(span.offset),
            length: size(span.length),
            bytes: size(self.content.len()),
            hash,
            is_proven: false,
        };
        self.ranges.iter().map(row).collect()
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.content
    }

    /// As it is kept.
    pub(super) fn compressed(&self) -> Result<Vec<u8>> {
        let packed = zstd::bulk::compress(&self.content, LEVEL);
        packed.map_err(|error| ArchiveError::Away(format!("nothing can be compressed: {error}")))
    }
}

pub(super) fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of a segment as it is kept, proven by what the index says of it.
pub(super) fn content(row: &Archived, kept: &[u8]) -> Result<Vec<u8>> {
    let damaged = |problem: &str| ArchiveError::damaged(&row.segment, problem);
    let size = usize::try_from(row.bytes.clamp(0, CONTENT_BYTES_MAX)).unwrap_or_default();
    let content = zstd::bulk::decompress(kept, size).map_err(|error| {
        damaged(&format!("is truncated or damaged ({} bytes: {error})", kept.len()))
    })?;
    match hash(&content) == row.hash {
        true => Ok(content),
        false => Err(damaged("is another than was written: its checksum differs")),
    }
}

/// The bytes of a range in the content of its segment.
pub(super) fn range<'c>(row: &Archived, content: &'c [u8]) -> Result<&'c [u8]> {
    let place = || {
        let begin = usize::try_from(row.offset).ok()?;
        let end = begin.checked_add(usize::try_from(row.length).ok()?)?;
        content.get(begin..end)
    };
    place().ok_or_else(|| {
        ArchiveError::damaged(&row.segment, "is shorter than the index of the archive says")
    })
}

/// What of the events of a range is skipped, as it stood on record.
pub(super) fn skips(row: &Archived, content: &[u8]) -> Result<SkippedVersions> {
    let unreadable = || ArchiveError::damaged(&row.segment, "holds a range without its header");
    let range = range(row, content)?;
    let size = range.first_chunk().map(|size| i32::from_le_bytes(*size));
    let header = size.and_then(|size| range.get(..usize::try_from(size).ok()?));
    let header = header.and_then(|header| RawDocument::from_bytes(header).ok());
    let skips =
        header.and_then(|header| header.get_document("range").ok()?.get_array("skips").ok());
    let skip = |skip: Result<RawBsonRef<'_>, _>| {
        let skip = skip.ok()?.as_document()?;
        Some((skip.get_i64("s").ok()?, skip.get_i64("through").ok()?))
    };
    skips.and_then(|skips| skips.into_iter().map(skip).collect()).ok_or_else(unreadable)
}

/// The events of a range, each with its version.
pub(super) fn events(row: &Archived, content: &[u8]) -> Result<Vec<RawDocumentBuf>> {
    let damaged = |problem: &str| ArchiveError::damaged(&row.segment, problem);
    let mut rest = range(row, content)?;
    let mut events = Vec::new();
    let mut expected = row.from;
    let mut is_header = true;
    while !rest.is_empty() {
        let unreadable = || damaged("holds something that is no BSON");
        let size = rest.first_chunk().map(|size| i32::from_le_bytes(*size));
        let size = size.and_then(|size| usize::try_from(size).ok());
        let (event, behind) =
            size.and_then(|size| rest.split_at_checked(size)).ok_or_else(unreadable)?;
        rest = behind;
        let event = RawDocument::from_bytes(event).map_err(|_| unreadable())?;
        if std::mem::take(&mut is_header) {
            continue;
        }
        let key = EventKey::from_event(event).ok();
        if key.is_none_or(|key| key.document != row.id || key.version != expected) {
            return Err(damaged("does not hold the events that the index of the archive says"));
        }
        expected += 1;
        events.push(event.to_owned());
    }
    match expected == row.to + 1 {
        true => Ok(events),
        false => Err(damaged("does not hold all events that the index of the archive says")),
    }
}
