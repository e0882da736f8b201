//! Taking erased content out of an archive. Whoever writes a segment puts its rows on record first and looks after that
//! whether something of it was erased; an erasure has its base first and looks for rows after that. So one of them sees
//! the other, and the name of a segment that is taken out is taken for good: nobody who is late makes it again.

use std::time::Duration;

use super::{
    Archive,
    error::{ArchiveError, Result},
    segment::{self, Segment},
};
use crate::{
    model::{id::DocumentId, position::LogId},
    planted::{Bug, planted},
    store::archive::{ArchiveRows, Archived},
};

/// What stands in the place of a segment that held something erased.
pub(super) const MOVED: &[u8] =
    b"alluvium: this segment was written anew without what was erased\n";

/// What an erasure has come to in an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// How many segments were written anew, or are gone.
    pub segments: i64,
    /// How many events of the document they held.
    pub events: i64,
}

/// An archive that what was erased is to be taken out of, and where it is on record what stands in which segment.
#[derive(Clone, Copy, Debug)]
pub struct Shredder<'a, R> {
    archive: &'a Archive,
    rows: &'a R,
    log: LogId,
}

impl<'a, R: ArchiveRows> Shredder<'a, R> {
    /// In the archive of this log.
    pub fn new(archive: &'a Archive, rows: &'a R, log: LogId) -> Self {
        Self { archive, rows, log }
    }

    /// Takes what was erased of a document out of one segment that holds some of it: `None` when none does. The segment is
    /// written anew without that and without whatever else was erased, under a new name, read back, put in its place in
    /// the index, and its content goes. May be interrupted anywhere and begun again. What was erased is what the base of
    /// the document says. With the last of them goes what killed writers have left.
    ///
    /// # Errors
    /// [`ArchiveError::Moved`] when others erase or write there: try again. Otherwise when a segment cannot be read or
    /// written: it stays on record, and the same goes on from there.
    pub async fn next(&self, id: &DocumentId) -> Result<Option<Erased>> {
        let Self { rows, log, .. } = *self;
        let only = std::slice::from_ref(id);
        let through = rows.erased(log, only).await?.get(id).copied().unwrap_or_default();
        let archived = rows.archived(only).await?;
        let Some(found) = archived.iter().find(|row| row.log == log && row.from <= through) else {
            self.archive.objects.sweep(Duration::ZERO).await?;
            return Ok(None);
        };
        let all = rows.rows_of_segment(&found.segment).await?;
        let was_there = self.write_anew(found, &all).await?;
        let (own, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|row| row.id == *id);
        // While one of its own is on record this goes on after a crash.
        rows.forget_archived(&others).await?;
        self.bury(&found.segment).await?;
        rows.forget_archived(&own).await?;
        let gone = |row: &Archived| (row.to.min(through) - row.from + 1).max(0);
        let events = own.iter().map(gone).sum();
        Ok(Some(match was_there {
            true => Erased { segments: 1, events },
            false => Erased::default(),
        }))
    }

    /// Keeps what is left of a segment in a new one; whether there was something of it.
    async fn write_anew(&self, found: &Archived, all: &[Archived]) -> Result<bool> {
        let Self { archive, rows, .. } = *self;
        let is_proven = all.iter().any(|row| row.is_proven);
        // Whoever was to make it finds its name taken, and takes nothing out of a log.
        if !is_proven && archive.objects.create(&found.segment, MOVED.to_vec()).await? {
            return Ok(false);
        }
        let content = match archive.content(found).await {
            Ok(content) => content,
            Err(ArchiveError::Moved(_)) => return Ok(false),
            // Nobody relies on it, and nobody can prove it as it is.
            Err(ArchiveError::Damaged { .. }) if !is_proven => return Ok(true),
            Err(error) => return Err(error),
        };
        let mut ids: Vec<DocumentId> = all.iter().map(|row| row.id.clone()).collect();
        ids.dedup();
        let erased = rows.erased(found.log, &ids).await?;
        let mut left = archive.segment(found.log);
        for row in all {
            let through = erased.get(&row.id).copied().unwrap_or_default();
            leave(&mut left, row, &content, through)?;
        }
        if !left.is_empty() {
            archive.write(rows, &left).await?;
        }
        Ok(true)
    }

    /// Takes the content of a segment away, and its name.
    async fn bury(&self, name: &str) -> Result<()> {
        let objects = &self.archive.objects;
        loop {
            objects.delete(name).await?;
            if planted(Bug::SegmentNameLeftFree) || objects.create(name, MOVED.to_vec()).await? {
                return Ok(());
            }
        }
    }
}

/// Takes over what of a range lies above `through`.
fn leave(left: &mut Segment, row: &Archived, content: &[u8], through: i64) -> Result<()> {
    if row.from > through {
        left.copy(row, segment::range(row, content)?);
    } else if row.to > through {
        let mut events = segment::events(row, content)?;
        let gone = usize::try_from(through + 1 - row.from).unwrap_or_default();
        let events = events.split_off(gone.min(events.len()));
        left.add((&row.id, through + 1), &events, &segment::skips(row, content)?);
    }
    Ok(())
}
