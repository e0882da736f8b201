//! The archive of one collection's log: what compaction takes away is kept there before, in segments that are created, read
//! back and compared, and never overwritten. README.md has the format.

mod erase;
mod error;
mod objects;
mod segment;
mod trouble;

use std::{fmt, sync::Arc, time::Duration};

use bson::RawDocumentBuf;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

pub use crate::model::place::Place;
pub use erase::{Erased, Shredder};
pub use error::{ArchiveError, Result};
pub use objects::Objects;

use crate::{
    model::{id::DocumentId, position::LogId, skip::SkippedVersions},
    planted::{Bug, planted},
    store::archive::{ArchiveRows, Archived},
};
use erase::MOVED;
use segment::{FORMAT, Segment};

/// The object that says whose archive it is.
const MANIFEST: &str = "manifest.json";
/// How much is told of one that cannot be read.
const MANIFEST_SAID_MAX: usize = 200;
/// A segment is closed when its content has so many bytes.
pub(crate) const SEGMENT_BYTES: usize = 4 << 20;

/// Under so many names the same content is kept at most, where what has its name is damaged.
const COPIES_MAX: u32 = 9;

/// The archive of one collection. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    objects: Arc<dyn Objects>,
    database: String,
    collection: String,
    /// Set once it was seen that the place leaves what is there as it is.
    never_overwrites: Arc<OnceCell<()>>,
}

/// The segment that was read last. Cheap to clone.
#[derive(Clone, Default)]
pub struct LastRead(Arc<Mutex<LastSegment>>);

/// Its name, its checksum and its content.
type LastSegment = Option<(String, [u8; 32], Vec<u8>)>;

/// Some events of one document that are to be kept, ascending and without a gap.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The document.
    pub id: DocumentId,
    /// The version of the first of them.
    pub from: i64,
    /// The events, byte for byte.
    pub events: Vec<RawDocumentBuf>,
    /// What is skipped of the document.
    pub skips: SkippedVersions,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Archive({}.{})", self.database, self.collection)
    }
}

impl Archive {
    /// The archive of a collection at a place, which is opened at its first use.
    pub fn at(place: &Place, database: &str, collection: &str) -> Self {
        Self::over(Arc::new(objects::Kept::new(place.clone())), database, collection)
    }

    /// The archive of a collection in these objects.
    pub fn over(objects: Arc<dyn Objects>, database: &str, collection: &str) -> Self {
        let (database, collection) = (database.to_owned(), collection.to_owned());
        Self { objects, database, collection, never_overwrites: Arc::default() }
    }

    /// Makes sure that the archive is this log's, and that nothing there is ever overwritten. An empty one becomes this
    /// log's, unless the index says that there was something.
    ///
    /// # Errors
    /// [`ArchiveError::Foreign`] when it is another's, [`ArchiveError::Manifest`] when it does not say whose it is,
    /// [`ArchiveError::Overwrites`] when objects that are there can be overwritten, [`ArchiveError::Away`] when it cannot be reached or is empty and must not be.
    pub async fn claim(&self, rows: &impl ArchiveRows, log: LogId) -> Result<()> {
        let ours = json!({
            "format": FORMAT, "database": self.database, "collection": self.collection,
            "log": log.to_string(),
        });
        if self.manifest().await?.is_none() {
            let known = rows.segments(None).await?;
            if let Some(row) = known.iter().find(|row| row.is_proven && row.log == log) {
                return Err(ArchiveError::Away(format!(
                    "it has no manifest, although segments of it are on record, `{}` among them; is it mounted?",
                    row.segment
                )));
            }
            self.objects.create(MANIFEST, written(&ours)).await?;
        }
        match self.manifest().await? {
            Some(found) if found == ours => self.never_overwrites(&ours).await,
            Some(Value::String(found)) => {
                Err(ArchiveError::Manifest { found, expected: ours.to_string() })
            }
            Some(found) => {
                let (found, expected) = (found.to_string(), ours.to_string());
                Err(ArchiveError::Foreign { found, expected })
            }
            None => Err(ArchiveError::Away("what is written there does not stay".into())),
        }
    }

    /// Creates the manifest that is there once more, which must not be done. A server that speaks S3 may not heed the
    /// condition under which objects are created.
    async fn never_overwrites(&self, manifest: &Value) -> Result<()> {
        let look = || async {
            match self.objects.create(MANIFEST, written(manifest)).await? {
                false => Ok(()),
                true => Err(ArchiveError::Overwrites),
            }
        };
        self.never_overwrites.get_or_try_init(look).await.copied()
    }

    async fn manifest(&self) -> Result<Option<Value>> {
        let Some(bytes) = self.objects.read(MANIFEST).await? else { return Ok(None) };
        let text = || {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.chars().take(MANIFEST_SAID_MAX).collect::<String>()
        };
        Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| text().into())))
    }

    /// Keeps events, in as many segments as they need. When this returns each was read back and compared, and the index
    /// says so. Gives how many bytes were written.
    ///
    /// # Errors
    /// When anything of it failed: nothing may be taken out of the log. The same may be kept again.
    pub async fn keep(&self, rows: &impl ArchiveRows, log: LogId, kept: &[Kept]) -> Result<u64> {
        let mut written = 0;
        let mut segment = self.segment(log);
        for Kept { id, from, events, skips } in kept {
            segment.add((id, *from), events, skips);
            if segment.len() >= SEGMENT_BYTES {
                let full = std::mem::replace(&mut segment, self.segment(log));
                written += self.write(rows, &full).await?;
            }
        }
        if !segment.is_empty() {
            written += self.write(rows, &segment).await?;
        }
        Ok(written)
    }

    fn segment(&self, log: LogId) -> Segment {
        Segment::new((&self.database, &self.collection), log)
    }

    /// Under its name, or the next that is free where something damaged has that.
    async fn write(&self, rows: &impl ArchiveRows, segment: &Segment) -> Result<u64> {
        let mut copy = 1;
        loop {
            match self.write_as(rows, segment, copy).await? {
                Some(bytes) => return Ok(bytes),
                None => copy += 1,
            }
        }
    }

    /// The index comes first, so that an erasure finds whatever segments there may be. `None` when something damaged has the
    /// name.
    async fn write_as(
        &self,
        rows: &impl ArchiveRows,
        segment: &Segment,
        copy: u32,
    ) -> Result<Option<u64>> {
        let (index, bytes) = (segment.rows(copy), segment.compressed()?);
        let Some(row) = index.first() else { return Ok(Some(0)) };
        rows.note_archived(&index).await?;
        // An erasure that began later finds these rows.
        if self.is_erased(rows, &index).await? && !planted(Bug::ErasedIsArchived) {
            return Err(ArchiveError::Moved(row.segment.clone()));
        }
        let size = bytes.len() as u64;
        if planted(Bug::SegmentOverwritten) {
            self.objects.delete(&row.segment).await?;
        }
        let is_new = self.objects.create(&row.segment, bytes).await?;
        match self.content(row).await {
            _ if planted(Bug::ArchiveNotReadBack) => {}
            Err(ArchiveError::Damaged { .. }) if !is_new && copy < COPIES_MAX => return Ok(None),
            content if *content.as_ref().map_err(Clone::clone)? != *segment.content() => {
                return Err(ArchiveError::damaged(&row.segment, "is another than was written"));
            }
            _ => {}
        }
        if rows.prove_archived(&index).await? < index.len() as i64 {
            return Err(ArchiveError::Moved(row.segment.clone()));
        }
        Ok(Some(if is_new { size } else { 0 }))
    }

    /// Whether something of these rows was erased by now.
    async fn is_erased(&self, rows: &impl ArchiveRows, index: &[Archived]) -> Result<bool> {
        let Some(log) = index.first().map(|row| row.log) else { return Ok(false) };
        let mut ids: Vec<DocumentId> = index.iter().map(|row| row.id.clone()).collect();
        ids.dedup();
        let erased = rows.erased(log, &ids).await?;
        Ok(index.iter().any(|row| erased.get(&row.id).is_some_and(|through| row.from <= *through)))
    }

    /// The content of the segment of a row, proven by its checksum.
    async fn content(&self, row: &Archived) -> Result<Vec<u8>> {
        match self.objects.read(&row.segment).await? {
            Some(kept) if kept == MOVED => Err(ArchiveError::Moved(row.segment.clone())),
            Some(kept) => segment::content(row, &kept),
            None if self.manifest().await?.is_none() => Err(ArchiveError::Away(format!(
                "there is neither a manifest nor the segment `{}`; is it mounted?",
                row.segment
            ))),
            None => Err(ArchiveError::damaged(&row.segment, "is missing")),
        }
    }

    /// The events of one row of the index, ascending.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] when its segment is not what was written, [`ArchiveError::Away`] when it cannot be read.
    pub async fn events(&self, row: &Archived) -> Result<Vec<RawDocumentBuf>> {
        segment::events(row, &self.content(row).await?)
    }

    /// The same for whoever reads many ranges one after the other, most of them out of one segment.
    ///
    /// # Errors
    /// As [`Archive::events`].
    pub async fn events_with(
        &self,
        row: &Archived,
        last: &LastRead,
    ) -> Result<Vec<RawDocumentBuf>> {
        let mut last = last.0.lock().await;
        if let Some((segment, hash, content)) = &*last
            && (segment, hash) == (&row.segment, &row.hash)
        {
            return segment::events(row, content);
        }
        let content = self.content(row).await?;
        let events = segment::events(row, &content);
        *last = Some((row.segment.clone(), row.hash, content));
        events
    }

    /// Deletes what writers have left in the archive that were killed, if it is so old; how many there were.
    ///
    /// # Errors
    /// [`ArchiveError::Away`] when it cannot be looked at.
    pub async fn sweep(&self, age: Duration) -> Result<u64> {
        self.objects.sweep(age).await
    }

    /// Reads a segment back and compares it with what its rows say.
    ///
    /// # Errors
    /// As [`Archive::events`].
    pub async fn check(&self, rows: &[Archived]) -> Result<()> {
        let Some(first) = rows.first() else { return Ok(()) };
        let content = self.content(first).await?;
        for row in rows {
            if row.hash != first.hash {
                let problem = "has two checksums in the index";
                return Err(ArchiveError::damaged(&row.segment, problem));
            }
            segment::events(row, &content)?;
        }
        Ok(())
    }
}

/// A manifest as it is kept.
fn written(manifest: &Value) -> Vec<u8> {
    format!("{manifest:#}\n").into_bytes()
}

/// The row that holds a version, if one does; that which reaches furthest.
pub fn holding(rows: &[Archived], log: LogId, version: i64) -> Option<&Archived> {
    let counts = |row: &Archived| row.is_proven || planted(Bug::UnprovenReliedOn);
    let holds =
        |row: &&Archived| counts(row) && row.log == log && (row.from..=row.to).contains(&version);
    rows.iter().filter(holds).max_by_key(|row| row.to)
}
