//! Reading on: folding what the log holds above a document in memory, and finding out what looks like a gap.

use std::slice;

use bson::RawDocument;

use super::{
    Documents, READS_AT_ONCE,
    memory::{Arrival, SkipsAre},
};
use crate::{
    database::{Error, Result},
    log::{Batch, EventLog},
    model::{
        document::{Class, Quarantine},
        event::{EventKey, is_base},
        id::{DocumentId, INTEGER_MAX},
    },
    planted::{Bug, planted},
    store::Store,
    time::Time,
};

impl<L: EventLog, D: Store, T: Time> Documents<L, D, T> {
    /// Folds what the log holds above the versions that documents have come to.
    pub(super) async fn read_all_on(&mut self, behind: &[(DocumentId, i64)]) -> Result<()> {
        for behind in behind.chunks(READS_AT_ONCE) {
            let pages = self.ask.read_many(behind).await?;
            for ((id, _), page) in behind.iter().zip(pages) {
                self.read_on(id, page).await?;
            }
        }
        Ok(())
    }

    /// Folds what the log holds above the document's version, of which this is the first page, up to the end or a gap,
    /// which goes on record.
    pub(super) async fn read_on(&mut self, id: &DocumentId, mut page: Batch) -> Result<()> {
        loop {
            // Skips are read after the events, so that nothing is applied that was skipped before it was read.
            if page.documents()?.next().is_some() {
                self.look_up_skips(id).await?;
            }
            let met = self.offer_page(id, &page, INTEGER_MAX)?;
            let Some(version) = self.unparked(id) else { return Ok(()) };
            match met {
                Some(met) if met > version => match self.take_base(id).await? {
                    Some(above) => page = above,
                    None if self.unparked(id).is_none() => return Ok(()),
                    None => {
                        self.memory.record_gap(id, version + 1);
                        return Ok(());
                    }
                },
                Some(_) => page = self.ask.read(id, version).await?,
                None => {
                    self.memory.heal(id, version);
                    return Ok(());
                }
            }
        }
    }

    /// The version of a document in memory that is not parked.
    pub(super) fn unparked(&mut self, id: &DocumentId) -> Option<i64> {
        let document = self.memory.cache.edit(id).map(|slot| &slot.document);
        document.filter(|document| document.quarantine.is_none()).map(|document| document.version)
    }

    /// What looks like a gap may have been pruned: then the log begins with a base that is above the document, which
    /// goes on from there. The page that follows; it begins with the event of the base, which is never pruned.
    pub(super) async fn take_base(&mut self, id: &DocumentId) -> Result<Option<Batch>> {
        let first = self.ask.first(id).await?;
        let is_base = |first: &&RawDocument| is_base(first) && !planted(Bug::GapWithoutBase);
        let Some(base) = first.documents()?.next().transpose()?.filter(is_base) else {
            return Ok(None);
        };
        let before = self.unparked(id);
        let key = EventKey { document: id.clone(), version: 1 };
        self.memory.offer(id, &[Arrival { key, event: base, is_news: false }], SkipsAre::Fresh);
        let Some(version) = self.unparked(id).filter(|version| Some(*version) > before) else {
            return Ok(None);
        };
        let page = self.ask.read(id, version - 1).await?;
        let event = page.documents()?.next().transpose()?;
        match event.and_then(|event| EventKey::from_event(event).ok()) {
            Some(key) if key.version == version => Ok(Some(page)),
            _ => self.without_its_event(id, base, version).await,
        }
    }

    /// The event of a base that was taken is missing: that parks the document, unless the base was replaced by a newer one,
    /// and its event pruned, since it was read. Then what follows the document's row.
    async fn without_its_event(
        &mut self,
        id: &DocumentId,
        base: &RawDocument,
        version: i64,
    ) -> Result<Option<Batch>> {
        self.memory.cache.evict(id);
        self.load(slice::from_ref(id)).await?;
        let Some(loaded) = self.unparked(id) else { return Ok(None) };
        let first = self.ask.first(id).await?;
        if first.documents()?.next().transpose()? != Some(base) {
            return self.ask.read(id, loaded).await.map(Some);
        }
        let reason = format!(
            "the event of the base, at version {version}, is missing: put it back, then retry"
        );
        self.memory.park(id, Quarantine { class: Class::BadBase, version: loaded + 1, reason });
        Ok(None)
    }

    pub(super) async fn look_up_skips(&mut self, id: &DocumentId) -> Result<()> {
        if !planted(Bug::SkipsNotReadAgain) {
            let skips = self.ask.skips_of(id).await?;
            self.memory.skips.replace(id, skips);
        }
        Ok(())
    }

    /// Offers events that were just read from the log, up to version `until`; the version of the last one.
    pub(super) fn offer_page(
        &mut self,
        id: &DocumentId,
        page: &Batch,
        until: i64,
    ) -> Result<Option<i64>> {
        let mut met = None;
        for event in page.documents()? {
            let event = event?;
            let key =
                EventKey::from_event(event).map_err(|error| Error::damaged(error.to_string()))?;
            if key.version > until {
                break;
            }
            met = Some(key.version);
            self.memory.offer(id, &[Arrival { key, event, is_news: false }], SkipsAre::Fresh);
        }
        Ok(met)
    }
}
