//! Filling a hole: events that change nothing, by a client of our own, under every version that is missing. A late
//! original then finds its place taken, as if another writer had been quicker, and its writer decides again.

use bson::{DateTime, RawDocument, RawDocumentBuf, Timestamp, raw::cstr, rawdoc};

use super::{OperateError, READ_EVENTS_MAX, Result};
use crate::{
    log::{EventLog, LogSource, Mend},
    model::{
        event::EventKey,
        id::DocumentId,
        new_event::{NewChange, NewEvent},
        skip::SkippedVersions,
    },
    store::Store,
    time::Time,
};

/// The client of events that fill holes.
const CLIENT: &str = "alluvium";

/// The most versions that are filled at once.
const VERSIONS_MAX: i64 = 10_000;

/// What is known of a document while its events are gone through.
struct Walk<'a> {
    id: &'a DocumentId,
    /// The version that comes next.
    next: i64,
    /// Whether it lives before that.
    lives: bool,
    /// The time of the last event.
    at: Option<DateTime>,
    now: DateTime,
    fillers: Vec<RawDocumentBuf>,
}

/// Fills everything that is missing of a document from version `from` on, below its newest event; how many events
/// that took.
///
/// # Errors
/// [`OperateError`]. After one that came from the database, try again.
pub async fn fill<S: LogSource>(
    source: &S,
    log: &S::Log,
    store: &impl Store,
    time: &impl Time,
    (id, from): (&DocumentId, i64),
) -> Result<i64>
where
    S::Log: Mend,
{
    let at_least = source.now().await?;
    let skips = store.load_skips_of(id).await?;
    let (lives, at) = before(log, (id, from), &skips, at_least).await?;
    let mut walk = Walk { id, next: from, lives, at, now: time.wall(), fillers: Vec::new() };
    loop {
        let batch = log.read(id, walk.next - 1, READ_EVENTS_MAX, Some(at_least)).await?;
        let begins = walk.next;
        for event in batch.documents()? {
            walk.meet(event?, &skips)?;
        }
        if walk.next == begins {
            break;
        }
    }
    log.insert(&walk.fillers).await?;
    Ok(i64::try_from(walk.fillers.len()).unwrap_or(i64::MAX))
}

impl Walk<'_> {
    fn meet(&mut self, event: &RawDocument, skips: &SkippedVersions) -> Result<()> {
        let Ok(EventKey { version, .. }) = EventKey::from_event(event) else { return Ok(()) };
        let missing = version - self.next + self.fillers.len() as i64;
        if missing > VERSIONS_MAX {
            return Err(OperateError::TooWide { id: self.id.clone(), missing, max: VERSIONS_MAX });
        }
        let at = event.get_datetime("at").ok();
        while self.next < version {
            // Between its neighbours in time as well, so that reads at a time are not cut off here.
            let filler = self.filler(self.at.or(at).unwrap_or(self.now));
            self.fillers.push(filler);
            (self.next, self.lives) = (self.next + 1, true);
        }
        if !skips.contains(&version) {
            self.lives = leaves_life(event);
        }
        (self.next, self.at) = (version + 1, at.or(self.at));
        Ok(())
    }

    fn filler(&self, at: DateTime) -> RawDocumentBuf {
        let change = match self.lives {
            true => NewChange::Patch { patch: RawDocumentBuf::new(), array_filters: None },
            // There is nothing that a patch could leave as it is.
            false => NewChange::Create { state: RawDocumentBuf::new() },
        };
        let mut event = NewEvent::new(CLIENT, change, at);
        event.event_type = Some("gap-fill".into());
        let mut meta = rawdoc! {};
        meta.append(cstr!("filled_at"), self.now);
        event.meta = Some(meta);
        event.encode(&EventKey { document: self.id.clone(), version: self.next })
    }
}

/// Whether the document lives after an event that was applied.
fn leaves_life(event: &RawDocument) -> bool {
    event.get_str("op").ok() != Some("delete")
}

/// Whether the document lives before version `from`, and the time of its last event before that.
async fn before(
    log: &impl EventLog,
    (id, from): (&DocumentId, i64),
    skips: &SkippedVersions,
    at_least: Timestamp,
) -> Result<(bool, Option<DateTime>)> {
    let mut at = None;
    for version in (1..from).rev() {
        let batch = log.read(id, version - 1, 1, Some(at_least)).await?;
        let Some(event) = batch.documents()?.next().transpose()? else { break };
        at = at.or(event.get_datetime("at").ok());
        if !skips.contains(&version) {
            return Ok((leaves_life(event), at));
        }
    }
    Ok((false, at))
}
