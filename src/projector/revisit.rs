//! Looking at a document again because something was done about it: an operator has it retried, has skipped its
//! next event, or has filled the gap that it waited behind. It is folded again from what is stored.

use std::{collections::BTreeMap, sync::PoisonError};

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::{
    lease::Standing,
    model::{document::Document, id::DocumentId, part::Part},
};

/// How many wishes may wait for a projector.
const WISHES_MAX: usize = 256;

/// How a document is looked at again.
#[derive(Debug)]
pub enum How {
    /// On top of its row: what it waits for may have come, and what parked it is offered again.
    OnItsRow,
    /// From its log alone, whatever its row says, which is written over where it is another one. Somebody may have folded
    /// it to some version already.
    FromItsLog(Option<Box<Document>>),
}

/// A wish that a document be looked at again.
#[derive(Debug)]
pub struct Revisit {
    /// The document.
    pub document: DocumentId,
    /// How.
    pub how: How,
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
