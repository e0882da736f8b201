//! Keeping in the archive what compaction would take out of the log, before it takes anything.

use bson::{RawDocumentBuf, Timestamp};

use super::{Compactor, Look, Pacing, Work};
use crate::{
    archive::{Archive, ArchiveError, Kept, LastRead, SEGMENT_BYTES, holding},
    database::Result,
    log::{EventLog, LogSource},
    model::{
        event::{EventKey, is_base},
        id::DocumentId,
    },
    planted::{Bug, planted},
    store::{Archived, Bases, Documents, Over, QuarantineRows, SkipRows},
    upkeep::fold::READ_EVENTS_MAX,
};

/// What keeping has come to.
#[derive(Clone, Debug, Default)]
pub(super) struct Keeping {
    /// The bytes that were written.
    pub(super) bytes: u64,
    /// Why the archive cannot be written, and what to do.
    pub(super) stands: Option<String>,
}

impl<S: LogSource, D, P: Pacing> Compactor<'_, S, D, P>
where
    D: Documents + SkipRows + QuarantineRows + Bases,
{
    /// Keeps what these looks would take out. When the archive cannot take it nothing is left to do about any of them.
    pub(super) async fn keep(&self, looks: &mut [Look]) -> Result<Keeping> {
        let Some(archive) = self.archive else { return Ok(Keeping::default()) };
        match self.keep_in(archive, looks).await {
            Ok(bytes) => Ok(Keeping { bytes, stands: None }),
            Err(ArchiveError::Database(error)) => Err(error),
            Err(error) => {
                for look in looks {
                    look.work = Work::None;
                }
                // One that was erased meanwhile is another one in the next pass.
                let passes = matches!(error, ArchiveError::Moved(_));
                Ok(Keeping { bytes: 0, stands: (!passes).then(|| error.to_string()) })
            }
        }
    }

    async fn keep_in(
        &self,
        archive: &Archive,
        looks: &mut [Look],
    ) -> std::result::Result<u64, ArchiveError> {
        let log = self.log.id();
        let ids: Vec<DocumentId> =
            looks.iter().filter(|look| going(&look.work).is_some()).map(|l| l.id.clone()).collect();
        if ids.is_empty() {
            return Ok(0);
        }
        archive.claim(self.store, log).await?;
        let at_least = self.source.now().await?;
        let rows = self.store.archived(&ids).await?;
        let last = LastRead::default();
        let (mut kept, mut size, mut bytes) = (Vec::new(), 0, 0);
        for look in looks {
            let Some((from, to)) = going(&look.work) else { continue };
            let is_own = |row: &&Archived| row.id == look.id && row.log == log;
            let of: Vec<_> = rows.iter().filter(is_own).cloned().collect();
            let (mut reached, bad) = self.read_back((archive, &last), of, (from, to)).await?;
            // What went before is in no other segment: that it is bad has to be found later too.
            let mut bad: Vec<_> = bad.into_iter().filter(|row| row.from >= from).collect();
            if reached >= to {
                // Others hold the same.
                if !bad.is_empty() {
                    self.store.doubt_archived(&bad).await?;
                }
                continue;
            }
            let skips = self.store.load_skips_of(&look.id, Some(at_least)).await?;
            while reached < to {
                let Some(events) = self.dense(&look.id, (reached, to), at_least).await? else {
                    // It is another one by now, or something is missing: a later look tells.
                    look.work = Work::None;
                    break;
                };
                // Before they are written anew, which may be under the same name.
                self.store.doubt_archived(&std::mem::take(&mut bad)).await?;
                size += events.iter().map(|event| event.as_bytes().len()).sum::<usize>();
                let (id, from, skips) = (look.id.clone(), reached + 1, skips.clone());
                reached += events.len() as i64;
                kept.push(Kept { id, from, events, skips });
                if size >= SEGMENT_BYTES {
                    bytes += archive.keep(self.store, log, &kept).await?;
                    (kept, size) = (Vec::new(), 0);
                }
            }
        }
        bytes += archive.keep(self.store, log, &kept).await?;
        Ok(bytes)
    }

    /// Up to which version a document's events, from one on, are in the archive as they were written: each segment is read.
    /// And the rows whose segments are not, wherever they stand: what is written anew must not be looked for in them.
    async fn read_back(
        &self,
        (archive, last): (&Archive, &LastRead),
        of: Vec<Archived>,
        (from, to): (i64, i64),
    ) -> std::result::Result<(i64, Vec<Archived>), ArchiveError> {
        let by_index = planted(Bug::UnprovenReliedOn);
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for row in of {
            let read = match row.is_proven && row.to >= from && !by_index {
                true => archive.events_with(&row, last).await.map(drop),
                false => Ok(()),
            };
            match read {
                Ok(()) => good.push(row),
                Err(ArchiveError::Damaged { .. }) => bad.push(row),
                Err(error) => return Err(error),
            }
        }
        let mut reached = from - 1;
        while reached < to
            && let Some(row) = holding(&good, self.log.id(), reached + 1)
        {
            reached = row.to;
        }
        Ok((reached, bad))
    }

    /// The next events above `after`, up to `to`; `None` when they do not follow each other.
    async fn dense(
        &self,
        id: &DocumentId,
        (after, to): (i64, i64),
        at_least: Timestamp,
    ) -> Result<Option<Vec<RawDocumentBuf>>> {
        let limit = u32::try_from(to - after).unwrap_or(u32::MAX).min(READ_EVENTS_MAX);
        let page = self.log.read(id, after, limit, Some(at_least)).await?;
        let mut events = Vec::new();
        for event in page.documents()? {
            let event = event?;
            let key = EventKey::from_event(event).ok();
            let expected = after + 1 + events.len() as i64;
            if is_base(event) || key.is_none_or(|key| key.version != expected) {
                return Ok(None);
            }
            events.push(event.to_owned());
        }
        Ok(Some(events).filter(|events| !events.is_empty()))
    }
}

/// The first and the last version that would go and were not erased.
fn going(work: &Work) -> Option<(i64, i64)> {
    let (base, from) = match work {
        Work::None => return None,
        Work::Prune(base) => (base, base.pruned + 1),
        Work::Write { base, over: Over::Create } => (base, 1),
        Work::Write { base, over: Over::Base(which) } => (base, which.pruned + 1),
    };
    Some((from.max(base.erased_through + 1), base.version - 1))
}
