//! What operators have done about a document's events, as the projector asks for it where it reads a log again.

use std::{collections::BTreeSet, fmt::Display};

use super::{
    run::Run,
    work::{Work, drive},
};
use crate::{
    database::{Error, Result},
    log::{EventLog, LogSource},
    model::{document::Quarantine, event::EventKey, id::DocumentId},
    store::{Healed, Store},
    time::Time,
};

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// Forgets a document that is thought to be parked when an event above its mark comes, so that its row is read
    /// again. An operator may have had it skipped or retried under another instance, whose record is gone by then; and on
    /// a record that is gone no checkpoint may pass the event.
    pub(super) fn doubt_parked(&mut self, key: &EventKey) {
        let is_above = |mark: &Quarantine| key.version > mark.version;
        if !self.waiting.park(&key.document).is_some_and(is_above) {
            return;
        }
        if self.cache.is_unchanged(&key.document) {
            self.cache.evict(&key.document);
        } else {
            // What a flush under way has written of it may be passed already: it is looked at behind that flush.
            self.doubtful.insert(key.document.clone());
        }
    }

    /// Looks at the parked documents of which events have come while they were being written.
    pub(super) async fn look_at_doubtful(&mut self) -> Result<()> {
        if self.doubtful.is_empty() {
            return Ok(());
        }
        let doubtful: Vec<DocumentId> = std::mem::take(&mut self.doubtful).into_iter().collect();
        self.look_at_parked(&doubtful).await
    }

    /// Looks up all skips and discarded events again: another instance may have had one done.
    pub(super) async fn load_skips(&mut self) -> Result<()> {
        let (store, time, observer) = (&self.store, &self.time, &self.observer);
        let report = |error: &Error, _| observer.tried(error, time);
        let load = self.settings.backoff.retry(time, report, || store.load_skips());
        self.skips = drive(&mut self.flush, &mut self.flushed, load).await?;
        self.load_discarded().await
    }

    /// Looks up what was discarded, if something was read and something was discarded since: an event is kept and counted
    /// before it leaves the log, and so before another can take its place.
    pub(super) async fn ask_for_discards(&mut self) -> Result<()> {
        match std::mem::take(&mut self.has_read) {
            true => self.load_discarded().await,
            false => Ok(()),
        }
    }

    /// Looks up all discarded events, unless there are no more than are known.
    async fn load_discarded(&mut self) -> Result<()> {
        let (store, time, observer) = (&self.store, &self.time, &self.observer);
        let report = |error: &Error, _| observer.tried(error, time);
        let look = self.settings.backoff.retry(time, report, || store.discards());
        let discards = drive(&mut self.flush, &mut self.flushed, look).await?;
        if discards != self.discards {
            let load = self.settings.backoff.retry(time, report, || store.load_discarded());
            self.discarded = drive(&mut self.flush, &mut self.flushed, load).await?;
            self.discards = discards;
        }
        Ok(())
    }

    /// Looks at every document that is on record as waiting behind a hole, and at those of which events were discarded:
    /// there the record goes once somebody has found nothing above the hole, and something may have come by then that
    /// another instance has passed on the record.
    pub(super) async fn look_behind_holes(&mut self) -> Result<()> {
        let mut documents: BTreeSet<DocumentId> = self.waiting.holes().into_iter().collect();
        documents.extend(self.discarded.iter().map(|key| key.document.clone()));
        for document in documents {
            self.read_on(&document, 0).await?;
        }
        Ok(())
    }

    /// Looks up which of a document's events are skipped. All were looked up in the beginning.
    pub(super) async fn load_skips_of(&mut self, id: &DocumentId) -> Result<()> {
        let (store, time, observer) = (&self.store, &self.time, &self.observer);
        let report = |error: &Error, _| observer.tried(error, time);
        let load = self.settings.backoff.retry(time, report, || store.load_skips_of(id));
        let skips = drive(&mut self.flush, &mut self.flushed, load).await?;
        self.skips.replace(id, skips);
        Ok(())
    }

    /// Where a document's hole ends that nothing stands above any more: at `version` as before, since a log that has
    /// another name for a moment reads as empty; or behind what is missing, if what stood above it was discarded.
    pub(super) async fn healed_at(&mut self, id: &DocumentId, version: i64) -> Result<Healed> {
        match self.waiting.hole(id) {
            Some(hole) if hole > version => {
                let discarded = self.discarded_of(id).await?;
                let is_closed = discarded.last().is_some_and(|last| *last > hole);
                Ok(if is_closed { Healed::Closed(hole) } else { Healed::Reached(version) })
            }
            _ => Ok(Healed::Reached(version)),
        }
    }

    /// Whether the event that was seen at this version was taken out of the log since.
    pub(super) async fn is_discarded(&mut self, id: &DocumentId, version: i64) -> Result<bool> {
        Ok(self.discarded_of(id).await?.contains(&version))
    }

    /// Folds what the log has of an event that was brought without its body; or that it may have lost since, because
    /// it was received before an operator discarded it, or comes again after a restart: another may have its place by now.
    pub(super) async fn ask_log(&mut self, key: &EventKey) -> Result<()> {
        self.doubt_parked(key);
        self.read_on(&key.document, key.version).await
    }

    pub(super) async fn discarded_of(&mut self, id: &DocumentId) -> Result<BTreeSet<i64>> {
        let (store, time, observer) = (&self.store, &self.time, &self.observer);
        let report = |error: &Error, _| observer.tried(error, time);
        let look = self.settings.backoff.retry(time, report, || store.discarded_of(id));
        let found = drive(&mut self.flush, &mut self.flushed, look).await?;
        let place = |version: &i64| EventKey { document: id.clone(), version: *version };
        self.discarded.extend(found.iter().map(place));
        Ok(found)
    }
}

impl<S: LogSource, D: Store, T: Time> Run<S, D, T> {
    /// The stream left out the body of a large event, or it may be discarded: the log has it, or not.
    pub(super) async fn fetch<E: Display>(
        &mut self,
        key: std::result::Result<EventKey, E>,
    ) -> Result<()> {
        match key {
            Ok(key) if self.work.part.holds(&key.document) => self.work.ask_log(&key).await,
            Ok(_) => Ok(()),
            Err(error) => {
                self.work.observer.homeless_event(&error.to_string());
                Ok(())
            }
        }
    }
}
