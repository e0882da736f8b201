//! Events of one batch that are folded together: those of the projection's part, up to a number and a size after which it
//! is looked whether a flush is due.

use bson::RawDocument;

use crate::{
    model::{event::EventKey, id::DocumentId, part::Part},
    observe::Observer,
    projector::documents::memory::Arrival,
};

/// How many bytes of events are folded before it is looked whether a flush is due.
const BYTES_MAX: usize = 1 << 20;

/// Picks out the events of one part.
#[derive(Clone, Debug)]
pub(in crate::projector) struct Chunks {
    pub(in crate::projector) part: Part,
    pub(in crate::projector) events_max: usize,
    pub(in crate::projector) observer: Observer,
}

/// See the module.
pub(in crate::projector) struct Chunk<'a> {
    arrivals: Vec<Arrival<'a>>,
    bytes: usize,
    of: &'a Chunks,
    /// The document that was last looked at, and whether the part holds it: a scan brings one after the other,
    /// and finding out takes longer than reading an event.
    looked_at: Option<(DocumentId, bool)>,
}

impl Chunks {
    /// An empty chunk.
    pub(in crate::projector) fn chunk(&self) -> Chunk<'_> {
        Chunk { arrivals: Vec::new(), bytes: 0, of: self, looked_at: None }
    }
}

impl<'a> Chunk<'a> {
    /// Takes an event, if its document is of the part. One that names no document can only be reported.
    pub(in crate::projector) fn push(&mut self, event: &'a RawDocument, is_news: bool) {
        let near = self.arrivals.last().map(|arrival| &arrival.key.document);
        match EventKey::from_event_near(event, near) {
            Ok(key) if self.holds(&key.document) => {
                self.bytes += event.as_bytes().len();
                self.arrivals.push(Arrival { key, event, is_news });
            }
            Ok(_) => {}
            Err(error) => self.of.observer.homeless_event(&error.to_string()),
        }
    }

    fn holds(&mut self, document: &DocumentId) -> bool {
        match &self.looked_at {
            _ if self.of.part == Part::WHOLE => true,
            Some((known, held)) if known == document => *held,
            _ => {
                let held = self.of.part.holds(document);
                self.looked_at = Some((document.clone(), held));
                held
            }
        }
    }

    /// Whether it is time to fold it.
    pub(in crate::projector) fn is_full(&self) -> bool {
        self.arrivals.len() >= self.of.events_max || self.bytes >= BYTES_MAX
    }

    /// Its events; it is empty afterwards.
    pub(in crate::projector) fn take(&mut self) -> Vec<Arrival<'a>> {
        self.bytes = 0;
        let room = self.arrivals.len();
        std::mem::replace(&mut self.arrivals, Vec::with_capacity(room))
    }
}
