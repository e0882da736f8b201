//! What operators have done about a document's events, as the projector asks for it where it reads a log again.

use std::{collections::BTreeSet, fmt::Display};

use bson::RawDocument;

use super::{
    run::Run,
    work::{Work, drive},
};
use crate::{
    database::{Error, Result},
    log::{EventLog, LogSource},
    model::{document::Quarantine, event::EventKey, id::DocumentId, skip::is_filler},
    planted::{Bug, planted},
    store::Store,
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

    /// Looks up all skips again: another instance may have had one done.
    pub(super) async fn load_skips(&mut self) -> Result<()> {
        let (store, time, observer) = (&self.store, &self.time, &self.observer);
        let report = |error: &Error, _| observer.tried(error, time);
        let load = self.settings.backoff.retry(time, report, || store.load_skips());
        self.skips = drive(&mut self.flush, &mut self.flushed, load).await?;
        Ok(())
    }

    /// Looks at every document that is on record as waiting behind a gap.
    pub(super) async fn look_behind_holes(&mut self) -> Result<()> {
        for document in self.waiting.holes() {
            self.read_on(&document, 0).await?;
        }
        Ok(())
    }

    /// Looks up again what is skipped of the documents of which events fill gaps, before any of them is folded. Together
    /// with such an event everything above it may have been skipped.
    pub(super) async fn renew_skips<'e>(
        &mut self,
        events: impl Iterator<Item = &'e RawDocument>,
    ) -> Result<()> {
        let filled = events.filter(|event| is_filler(event) && !planted(Bug::SkipsNotReadAgain));
        let filled = filled.filter_map(|event| EventKey::from_event(event).ok());
        let filled: BTreeSet<DocumentId> = filled.map(|key| key.document).collect();
        for document in filled {
            self.load_skips_of(&document).await?;
        }
        Ok(())
    }

    /// Looks up which of a document's events are skipped, as of the last thing that was received. All were looked up in
    /// the beginning.
    pub(super) async fn load_skips_of(&mut self, id: &DocumentId) -> Result<()> {
        let (store, time, observer) = (&self.store, &self.time, &self.observer);
        let report = |error: &Error, _| observer.tried(error, time);
        let load =
            self.settings.backoff.retry(time, report, || store.load_skips_of(id, Some(self.seen)));
        let skips = drive(&mut self.flush, &mut self.flushed, load).await?;
        self.skips.replace(id, skips);
        Ok(())
    }

    /// Folds what the log has of an event that was brought without its body.
    pub(super) async fn ask_log(&mut self, key: &EventKey) -> Result<()> {
        self.doubt_parked(key);
        self.read_on(&key.document, key.version).await
    }
}

impl<S: LogSource, D: Store, T: Time> Run<S, D, T> {
    /// The stream left out the body of a large event: the log has it.
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
