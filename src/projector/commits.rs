//! How far everything is written, and when more is: starts flushes and checkpoints, takes in what became of them, and tells
//! whoever waits for it.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{
    Settings,
    documents::Documents,
    due::Facts,
    flush::{CheckpointOutcome, Flushed},
    intake::{
        Coming,
        begin::{Resume, fenced},
    },
    progress::Progress,
};
use crate::{
    database::Result,
    log::{EventLog, TailBatch},
    model::position::{Checkpoint, Position},
    planted::{Bug, planted},
    store::Store,
    time::Time,
};

/// See the module.
pub(super) struct Commits {
    pub(super) progress: Progress,
    epoch: i64,
    settings: Settings,
    /// Who is told when the flush under way has returned.
    askers: Vec<oneshot::Sender<()>>,
}

impl Commits {
    /// Those of a projection that begins there, behind about so many events, under this epoch.
    pub(super) fn new(
        (resume, passed_events): (Option<Resume>, Option<u64>),
        epoch: i64,
        settings: Settings,
    ) -> Self {
        let (place, is_saved) = resume.map_or((None, false), Resume::place);
        let progress = Progress::new((place, is_saved), passed_events);
        Self { progress, epoch, settings, askers: Vec::new() }
    }

    /// A batch of the stream has been folded, with so many events of the log.
    pub(super) fn folded(&mut self, batch: &TailBatch, events: u64, now: Duration) {
        self.progress.folded(batch, events, now);
    }

    /// Starts a flush if one is due and none is under way.
    pub(super) fn flush_if_due<L: EventLog, D: Store, T: Time>(
        &mut self,
        documents: &mut Documents<L, D, T>,
        coming: Coming,
    ) {
        if !documents.ask.flushing.is_idle() {
            return;
        }
        let (now, changed_at) = (documents.ask.time.now(), documents.memory.changed_at());
        let interval = match changed_at {
            None => self.settings.idle_checkpoint_interval,
            Some(_) => self.settings.checkpoint_interval,
        };
        let checkpoint = self.unsaved(documents, coming, (now, interval));
        let facts = Facts {
            is_full: documents.memory.cache.is_full() || self.has_left(documents, coming, 1),
            waited: changed_at.map(|since| now.saturating_sub(since)),
            has_more: coming.is_scanning || coming.has_more || self.progress.is_backlogged(),
            has_checkpoint: checkpoint.is_some(),
            interval: self.settings.flush_interval,
            lag_seconds: self.lag_seconds(coming, now),
        };
        if facts.is_due() || changed_at.is_none() {
            self.start(documents, checkpoint);
        }
    }

    /// Writes what is left, if no flush is under way; whether there is nothing more to write.
    pub(super) fn flush_rest<L: EventLog, D: Store, T: Time>(
        &mut self,
        documents: &mut Documents<L, D, T>,
        coming: Coming,
    ) -> bool {
        let is_last = documents.memory.changed_at().is_none();
        let unsaved = self.unsaved(documents, coming, (Duration::MAX, Duration::ZERO));
        !self.start(documents, unsaved) && is_last
    }

    /// Starts a flush; whether there was anything to write. What has been folded without a change was replays, or other
    /// collections' events.
    fn start<L: EventLog, D: Store, T: Time>(
        &mut self,
        documents: &mut Documents<L, D, T>,
        checkpoint: Option<Position>,
    ) -> bool {
        let checkpoint = checkpoint.map(|position| Checkpoint {
            position: Some(position),
            log: documents.ask.log.id(),
            rows: None,
            epoch: self.epoch,
            passed_events: self.progress.passed_events(),
        });
        // What was seen and is not folded is not written either.
        if !documents.memory.rechecks.are_urgent() {
            self.progress.flushing();
        }
        self.askers.append(&mut documents.askers);
        let has_begun = documents.start_flush(checkpoint);
        if !has_begun {
            self.progress.flushed(true);
            self.tell();
        }
        has_begun
    }

    /// Takes in what became of the flush.
    ///
    /// # Errors
    /// When this instance leads no more, or the database refuses.
    pub(super) async fn settle<L: EventLog, D: Store, T: Time>(
        &mut self,
        documents: &mut Documents<L, D, T>,
        flushed: Flushed,
    ) -> Result<()> {
        self.progress.flushed(flushed.all_written());
        match documents.settle(flushed).await? {
            CheckpointOutcome::Saved(Some(position)) => {
                self.progress.saved(position, documents.ask.time.now());
            }
            CheckpointOutcome::Saved(None) | CheckpointOutcome::NotSaved => {}
            CheckpointOutcome::Fenced => return Err(fenced()),
        }
        self.tell();
        documents.recheck_urgent().await
    }

    fn tell(&mut self) {
        for asker in self.askers.drain(..) {
            // Whoever asked may not wait any more.
            let _unheard = asker.send(());
        }
    }

    /// The place to save, if the last one was saved so long ago. While a scan lasts none is: the walk begins anew if the
    /// projection does.
    fn unsaved<L: EventLog, D: Store, T: Time>(
        &self,
        documents: &Documents<L, D, T>,
        coming: Coming,
        (now, interval): (Duration, Duration),
    ) -> Option<Position> {
        let is_scanned = !coming.is_scanning || planted(Bug::CheckpointDuringScan);
        let is_folded = !documents.memory.rechecks.are_urgent();
        self.progress.due(now, interval).filter(|_| is_scanned && is_folded)
    }

    /// Whether a scan has left so many times the documents behind that are written at once. It does not come back to
    /// them, so nothing is won by waiting.
    fn has_left<L: EventLog, D: Store, T: Time>(
        &self,
        documents: &Documents<L, D, T>,
        coming: Coming,
        times: usize,
    ) -> bool {
        let max = self.settings.scanned_documents_max.saturating_mul(times);
        coming.is_scanning && documents.memory.cache.working() >= max
    }

    /// Whether nothing more is folded until what is being written is written.
    pub(super) fn is_full<L: EventLog, D: Store, T: Time>(
        &self,
        documents: &Documents<L, D, T>,
        coming: Coming,
    ) -> bool {
        let is_flushing = !documents.ask.flushing.is_idle();
        documents.memory.cache.is_full() || (is_flushing && self.has_left(documents, coming, 2))
    }

    /// How late the projection is; `None` while that is not known.
    pub(super) fn lag_seconds(&self, coming: Coming, now: Duration) -> Option<f64> {
        match coming.is_scanning {
            true => None,
            false => self.progress.lag_seconds(now),
        }
    }

    /// Whether everything that there is is written.
    pub(super) fn is_level(&self, coming: Coming, now: Duration) -> bool {
        let lag = self.lag_seconds(coming, now);
        lag == Some(0.0) && self.progress.is_flushed() && !coming.has_more
    }
}
