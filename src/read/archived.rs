//! Reading what compaction has taken out of the log, from the archive.

use std::collections::VecDeque;

use bson::RawDocumentBuf;

use super::{
    Reader, below,
    error::{ReadError, Result},
    fold::{Stop, Until, step},
    moment::{Moment, Pick},
    suffix::MissingEvent,
};
use crate::{
    archive::holding,
    log,
    model::{
        base::Base, clock::Clock, document::Document, event::EventKey, id::DocumentId,
        missing::Missing as Walk, part::Part, position::LogId, skip::client_of,
    },
    store::{ArchiveRows, Archived, mongo::MongoStore},
};

/// Events that a client lacks, oldest first.
#[derive(Default)]
pub(super) struct Page {
    pub(super) events: VecDeque<MissingEvent>,
    /// Their size.
    pub(super) bytes: usize,
    /// Whether there are more that have no room.
    pub(super) is_full: bool,
}

impl Reader {
    /// Archived events of a document above `after` and below its base, ascending: at least one.
    pub(super) async fn archived(
        &self,
        log: LogId,
        base: &Base,
        after: i64,
    ) -> Result<Vec<RawDocumentBuf>> {
        let below = || ReadError::BelowFloor { floor: base.version };
        let archive =
            self.archive.as_ref().filter(|_| after >= base.erased_through).ok_or_else(below)?;
        let rows = self.archived_rows(&base.id).await?;
        let row = holding(&rows, log, after + 1).ok_or_else(below)?;
        let mut events = archive.events(row).await.map_err(ReadError::of_archive)?;
        // A segment may hold what is in the log as well, of a document that was put back.
        let size = |count: i64| usize::try_from(count).unwrap_or_default();
        events.truncate(size(base.version - row.from));
        Ok(events.split_off(size(after + 1 - row.from).min(events.len())))
    }

    /// A document as it was below its base, folded from its first event.
    pub(super) async fn fold_archived(
        &self,
        moment: &mut Moment<'_>,
        base: &Base,
        until: Until,
    ) -> Result<Option<Document>> {
        let (skips, log) = (moment.skips(&base.id).await?, moment.log());
        let mut document = log::history::start(&base.id);
        'fold: while document.version + 1 < base.version {
            let reached = document.version;
            for event in self.archived(log, base, reached).await? {
                if until == Until::Version(document.version) {
                    break 'fold;
                }
                let version = EventKey::from_event(&event).map_or(0, |key| key.version);
                let is_skipped = skips.contains(version);
                match step(&mut document, &event, is_skipped, until, &self.limits.fold) {
                    None => {}
                    Some(Stop::Reached) => break 'fold,
                    Some(stop) => return Err(below(stop, base.version)),
                }
            }
            if document.version == reached {
                return Err(ReadError::BelowFloor { floor: base.version });
            }
        }
        Ok((document.version > 0).then_some(document))
    }

    async fn archived_rows(&self, id: &DocumentId) -> Result<Vec<Archived>> {
        let store = MongoStore::new(&self.database, self.collection(), Part::WHOLE);
        Ok(store.archived(std::slice::from_ref(id)).await?)
    }

    /// The events up to the base that a client lacks: the oldest `limit` of them, to which it is walked from the base
    /// backwards. `None` where the archive does not reach back that far.
    pub(super) async fn missing_below(
        &self,
        moment: &mut Moment<'_>,
        (base, client): (&Base, &Clock),
        limit: u32,
    ) -> Result<Option<Page>> {
        let Some(archive) = self.archive.as_ref().filter(|_| !base.is_erased()) else {
            return Ok(None);
        };
        let mut has = Clock::new();
        base.clock.iter().for_each(|(name, count)| has.set(name, client.get(name).min(count)));
        let mut walk = Walk::new(&base.clock, &has)?;
        let mut page = Page::default();
        let mut version = base.version;
        let rows = self.archived_rows(&base.id).await?;
        // The event of the base itself is in the log.
        let mut own = moment.events(&base.id, version..=version, Pick::Events, 1).await?;
        let mut events: Vec<_> = own.next().await?.map(ToOwned::to_owned).into_iter().collect();
        loop {
            for raw in events.into_iter().rev() {
                if walk.remaining() == 0 {
                    break;
                }
                let client = client_of(&raw);
                if let Some(seq) = walk.step(client) {
                    let client = client.to_owned();
                    let event = MissingEvent { version, client, seq, is_skipped: false, raw };
                    page.add_older(event, (limit, self.limits.bytes_max));
                }
                version -= 1;
            }
            if walk.remaining() == 0 {
                return Ok(Some(page));
            }
            let Some(row) = holding(&rows, moment.log(), version) else { return Ok(None) };
            events = archive.events(row).await.map_err(ReadError::of_archive)?;
            events.truncate(usize::try_from(version - row.from + 1).unwrap_or_default());
        }
    }
}

impl Page {
    /// Adds an event that is older than all others, whatever falls out for it.
    fn add_older(&mut self, event: MissingEvent, (limit, bytes_max): (u32, usize)) {
        self.bytes += event.raw.as_bytes().len();
        self.events.push_front(event);
        while self.events.len() > 1
            && (self.events.len() > limit as usize || self.bytes > bytes_max)
            && let Some(newest) = self.events.pop_back()
        {
            self.bytes -= newest.raw.as_bytes().len();
            self.is_full = true;
        }
    }
}
