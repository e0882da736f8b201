//! Looking at a document again because something was done about it: an operator has it retried, has skipped its
//! next event, or has closed the hole that it waited behind. It is folded again from what is stored.

use std::{collections::BTreeMap, slice, sync::PoisonError};

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::{run::Run, work::Work};
use crate::{
    database::Result,
    lease::Standing,
    log::{EventLog, LogSource},
    model::{id::DocumentId, part::Part},
    store::Store,
    time::Time,
};

/// How many wishes may wait for a projector.
const WISHES_MAX: usize = 16;

/// A wish that a document be looked at again.
#[derive(Debug)]
pub struct Revisit {
    /// The document.
    pub document: DocumentId,
    /// Is told when what became of it is written.
    pub done: oneshot::Sender<()>,
}

/// Where a projector takes such wishes from.
pub type Revisits = std::sync::Arc<Mutex<mpsc::Receiver<Revisit>>>;

/// A channel for one projector's wishes.
pub fn channel() -> (mpsc::Sender<Revisit>, Revisits) {
    let (sender, receiver) = mpsc::channel(WISHES_MAX);
    (sender, std::sync::Arc::new(Mutex::new(receiver)))
}

/// The projector of a part, as whoever has something done beside it sees it.
#[derive(Clone, Debug)]
pub struct Led {
    /// Where this instance stands with the part.
    pub standing: watch::Receiver<Standing>,
    /// Takes wishes.
    pub wishes: mpsc::Sender<Revisit>,
}

/// The projectors that run for a collection at present. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Parts(std::sync::Arc<std::sync::Mutex<BTreeMap<Part, Led>>>);

impl Parts {
    /// The projector of a part runs from now on.
    pub fn put(&self, part: Part, led: Led) {
        self.parts().insert(part, led);
    }

    /// It has ended.
    pub fn remove(&self, part: Part) {
        self.parts().remove(&part);
    }

    /// The projector of the part that holds a document; of the first part, where it is about the whole collection.
    pub fn of(&self, document: Option<&DocumentId>) -> Option<Led> {
        let parts = self.parts();
        let mut parts = parts.iter();
        let found = parts.find(|(part, _)| match document {
            Some(document) => part.holds(document),
            None => part.index == 0,
        });
        found.map(|(_, led)| led.clone())
    }

    /// The parts that this instance leads, each with its epoch.
    pub fn leads(&self) -> Vec<(Part, i64)> {
        let parts = self.parts();
        let leads = parts.iter().filter_map(|(part, led)| match *led.standing.borrow() {
            Standing::Leader(epoch) => Some((*part, epoch)),
            Standing::Unknown | Standing::Standby => None,
        });
        leads.collect()
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, BTreeMap<Part, Led>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom to tell, once what became of their documents is written.
#[derive(Debug, Default)]
pub(super) struct Askers {
    /// With the next flush.
    folded: Vec<oneshot::Sender<()>>,
    /// With the flush under way.
    flushing: Vec<oneshot::Sender<()>>,
}

impl Askers {
    /// A flush begins of everything that has been folded.
    pub(super) fn flushing(&mut self) {
        self.flushing.append(&mut self.folded);
    }

    /// It has returned.
    pub(super) fn flushed(&mut self) {
        tell(self.flushing.drain(..));
    }

    /// There is nothing to be written.
    pub(super) fn idle(&mut self) {
        tell(self.folded.drain(..));
    }
}

fn tell(askers: impl Iterator<Item = oneshot::Sender<()>>) {
    for asker in askers {
        // Whoever asked may not wait any more.
        let _unheard = asker.send(());
    }
}

impl<S: LogSource, D: Store, T: Time> Run<S, D, T> {
    pub(super) async fn revisit(&mut self, Revisit { document, done }: Revisit) -> Result<()> {
        // What a flush under way makes of the document must not be taken for what becomes of it here.
        if let Some(flush) = self.work.flush.take() {
            self.settle(flush.await?).await?;
        } else if let Some(flushed) = self.work.flushed.take() {
            self.settle(flushed?).await?;
        }
        if self.work.part.holds(&document) {
            self.work.revisit(&document).await?;
        }
        self.askers.folded(done);
        Ok(())
    }
}

impl Askers {
    fn folded(&mut self, asker: oneshot::Sender<()>) {
        self.folded.push(asker);
    }
}

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// Folds a document again from its stored row and its log, whether it is parked or not. If nothing has
    /// changed, it waits again as before.
    async fn revisit(&mut self, id: &DocumentId) -> Result<()> {
        self.cache.evict(id);
        self.load(slice::from_ref(id)).await?;
        if let Some(slot) = self.cache.edit(id) {
            slot.document.quarantine = None;
        }
        self.note_change();
        self.read_on(id, 0).await
    }
}
