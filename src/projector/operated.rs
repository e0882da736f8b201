//! What operators have done about a document's events, as the projector asks for it where it reads a log again.

use super::work::{Work, drive};
use crate::{
    database::{Error, Result},
    log::EventLog,
    model::{event::EventKey, id::DocumentId},
    store::Store,
    time::Time,
};

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// Looks up which of a document's events are skipped. All were looked up in the beginning.
    pub(super) async fn load_skips_of(&mut self, id: &DocumentId) -> Result<()> {
        let (store, time, observer) = (&self.store, &self.time, &self.observer);
        let report = |error: &Error, _| observer.tried(error, time);
        let load = self.settings.backoff.retry(time, report, || store.load_skips_of(id));
        let skips = drive(&mut self.flush, &mut self.flushed, load).await?;
        self.skips.replace(id, skips);
        Ok(())
    }

    /// Whether the event that was seen at this version was taken out of the log since.
    pub(super) async fn is_discarded(&mut self, id: &DocumentId, version: i64) -> Result<bool> {
        let key = EventKey { document: id.clone(), version };
        let (store, time, observer) = (&self.store, &self.time, &self.observer);
        let report = |error: &Error, _| observer.tried(error, time);
        let look = self.settings.backoff.retry(time, report, || store.is_discarded(&key));
        drive(&mut self.flush, &mut self.flushed, look).await
    }
}
