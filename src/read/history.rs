//! The log of one document, page by page, exactly as it stands: also beyond a gap. What a base stands for is not shown.

use bson::{RawDocument, RawDocumentBuf};

use super::{
    Reader,
    error::{ReadError, Result},
    moment::{Moment, Pick},
};
use crate::{
    log,
    model::{
        event::{Event, EventError, EventKey},
        id::DocumentId,
        skip::SkippedVersions,
    },
};

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    /// The document's version after it. That of a base is the one that it stands for.
    pub version: i64,
    /// Whether an operator has skipped it: it counts, and changes nothing.
    pub is_skipped: bool,
    /// Its bytes.
    pub raw: RawDocumentBuf,
}

/// One page of a document's log.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// The events, ascending.
    pub events: Vec<StoredEvent>,
    /// The `after` of the next page, or `None` at the end of the log.
    pub next: Option<i64>,
}

impl StoredEvent {
    /// The event as the fold reads it.
    ///
    /// # Errors
    /// [`EventError`] naming the field at fault: such an event parks its document. A base is no event.
    pub fn decode(&self) -> Result<Event<'_>, EventError> {
        Event::decode(&self.raw)
    }

    fn read(raw: &RawDocument, skips: &SkippedVersions) -> Option<Self> {
        let key = EventKey::from_event(raw).ok()?;
        let is_skipped = skips.contains(key.version);
        Some(Self { version: key.version, is_skipped, raw: raw.to_owned() })
    }
}

impl Reader {
    /// The events of a document above version `after`, ascending: at most `limit`, and fewer when the
    /// page would become too large. Without `after` from the beginning, which may be a base. Empty for a document
    /// without events.
    ///
    /// # Errors
    /// [`ReadError::BelowFloor`] when `after` is below the base of the log, or the database refuses.
    pub async fn history(
        &self,
        id: &DocumentId,
        after: impl Into<Option<i64>>,
        limit: u32,
    ) -> Result<History> {
        self.check_format().await?;
        let (after, limit) = (after.into(), limit.clamp(1, self.limits.events_max));
        self.at_one_moment(|| self.page(id, after, limit)).await
    }

    /// The same from the very first event on, which is read from the archive where the log no longer holds it. No base is
    /// shown.
    ///
    /// # Errors
    /// [`ReadError::BelowFloor`] when an event is in neither, [`ReadError::Archive`] when the archive cannot be read, or the
    /// database refuses.
    pub async fn whole_history(
        &self,
        id: &DocumentId,
        after: impl Into<Option<i64>>,
        limit: u32,
    ) -> Result<History> {
        self.check_format().await?;
        let (after, limit) = (after.into(), limit.clamp(1, self.limits.events_max));
        self.at_one_moment(|| self.whole_page(id, after.unwrap_or(0), limit)).await
    }

    async fn whole_page(&self, id: &DocumentId, after: i64, limit: u32) -> Result<History> {
        let mut moment = Moment::open(self).await?;
        let base = moment.base(id).await?;
        let skips = moment.skips(id).await?;
        if let Some(base) = base.filter(|base| after + 1 < base.version) {
            let raw = self.archived(moment.log(), &base, after).await?;
            let mut bytes = 0;
            let raw = raw.iter().take(limit as usize).take_while(|event| {
                let is_first = bytes == 0;
                bytes += event.as_bytes().len();
                is_first || bytes <= self.limits.bytes_max
            });
            let events: Vec<_> = raw.filter_map(|raw| StoredEvent::read(raw, &skips)).collect();
            let next = events.last().map(|event| event.version);
            return Ok(History { events, next });
        }
        self.rest(&mut moment, id, (None, after), (&skips, limit)).await
    }

    async fn page(&self, id: &DocumentId, after: Option<i64>, limit: u32) -> Result<History> {
        let mut moment = Moment::open(self).await?;
        let base = moment.base(id).await?;
        let floor = base.as_ref().map_or(0, |base| base.version);
        if after.is_some_and(|after| after < floor) {
            return Err(ReadError::BelowFloor { floor });
        }
        let first = base.filter(|_| after.is_none()).map(|base| StoredEvent {
            version: base.version,
            is_skipped: false,
            raw: base.to_raw(),
        });
        let skips = moment.skips(id).await?;
        self.rest(&mut moment, id, (first, after.unwrap_or(floor)), (&skips, limit)).await
    }

    /// What stands in the log above `after`, behind `first`.
    async fn rest(
        &self,
        moment: &mut Moment<'_>,
        id: &DocumentId,
        (first, after): (Option<StoredEvent>, i64),
        (skips, limit): (&SkippedVersions, u32),
    ) -> Result<History> {
        let range = log::history::above(after);
        let mut stored = moment.events(id, range, Pick::Events, i64::from(limit)).await?;
        let mut bytes = first.as_ref().map_or(0, |base| base.raw.as_bytes().len());
        let mut events: Vec<StoredEvent> = first.into_iter().collect();
        while let Some(raw) = stored.next().await? {
            bytes += raw.as_bytes().len();
            let full = events.len() == limit as usize || bytes > self.limits.bytes_max;
            if let (true, Some(last)) = (full, events.last()) {
                let next = Some(last.version);
                return Ok(History { events, next });
            }
            events.extend(StoredEvent::read(raw, skips));
        }
        Ok(History { events, next: None })
    }
}
