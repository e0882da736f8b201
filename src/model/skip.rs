//! Events that an operator has skipped, on record. They are an input of every fold: a skipped event counts in
//! the clock and leaves the state as it was, also where it could be applied, so that two folds of the same events
//! under the same record give the same bytes.

use std::collections::{BTreeSet, HashMap};

use bson::{DateTime, RawDocument};

use super::{clock::is_client_name, event::EventKey, id::DocumentId, quarantine::Class};

/// How a skipped event without a usable client counts.
pub const NAMELESS: &str = "?";

/// The versions of one document that are skipped.
pub type SkippedVersions = BTreeSet<i64>;

/// The places of a collection that are skipped. Mostly there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skips(HashMap<DocumentId, SkippedVersions>);

/// What counts of an event that is skipped, however damaged it is otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remains<'a> {
    /// The client under which it counts.
    pub client: &'a str,
    /// The writer's time, if it is readable.
    pub at: Option<DateTime>,
}

/// A skip as it goes on record.
#[derive(Clone, Debug, PartialEq)]
pub struct Skip {
    /// The place of the event.
    pub key: EventKey,
    /// The client under which it counts.
    pub client: String,
    /// Why the event could not be applied.
    pub class: Class,
    /// The same, in words.
    pub reason: String,
    /// When it is skipped, by the daemon's wall clock.
    pub skipped_at: DateTime,
}

impl Skips {
    /// Adds a place.
    pub fn insert(&mut self, document: DocumentId, version: i64) {
        self.0.entry(document).or_default().insert(version);
    }

    /// What is known of one document from now on.
    pub fn replace(&mut self, document: &DocumentId, versions: SkippedVersions) {
        if versions.is_empty() {
            self.0.remove(document);
        } else {
            self.0.insert(document.clone(), versions);
        }
    }

    /// The skipped versions of a document, if it has any.
    pub fn of(&self, document: &DocumentId) -> Option<&SkippedVersions> {
        if self.0.is_empty() { None } else { self.0.get(document) }
    }
}

impl<'a> Remains<'a> {
    /// Reads them.
    pub fn of(event: &'a RawDocument) -> Self {
        Self { client: client_of(event), at: event.get_datetime("at").ok() }
    }
}

/// The client under which an event counts in its document's clock.
pub fn client_of(event: &RawDocument) -> &str {
    event.get_str("client").ok().filter(|name| is_client_name(name)).unwrap_or(NAMELESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        document::{Document, FoldLimits, Outcome},
        event::{Event, Op},
    };
    use bson::rawdoc;

    #[test]
    fn what_counts_of_a_skipped_event_is_read_from_whatever_it_is() {
        let at = DateTime::from_millis(7);
        let remains = |event: &RawDocument| {
            let Remains { client, at } = Remains::of(event);
            (client.to_owned(), at)
        };
        assert_eq!(remains(&rawdoc! { "client": "x", "at": at }), ("x".to_owned(), Some(at)));
        for damaged in
            [rawdoc! {}, rawdoc! { "client": 5, "at": "now" }, rawdoc! { "client": "a.b" }]
        {
            assert_eq!(remains(&damaged), ("?".to_owned(), None), "{damaged:?}");
        }
    }

    #[test]
    fn a_skipped_event_counts_and_leaves_the_state_as_it_was() {
        let mut document = Document::new(DocumentId::Integer(1));
        let remains = |client, at| Remains { client, at };
        let at = DateTime::from_millis(7);
        assert_eq!(document.skip(2, remains("x", None)), Outcome::Gap { expected: 1 });
        assert_eq!(document.skip(1, remains("x", None)), Outcome::Skipped);
        assert_eq!((document.is_deleted(), document.updated_at), (true, None));
        assert_eq!(document.skip(1, remains("x", None)), Outcome::Replay);
        let create = rawdoc! {
            "_id": { "d": 1, "s": 2 }, "client": "y", "op": "create", "state": { "n": 1 }, "at": at,
        };
        let create = Event::decode(&create).unwrap();
        assert_eq!(document.apply(&create, &FoldLimits::default()), Outcome::Applied(Op::Create));
        let state = document.state().unwrap().to_raw();
        let later = DateTime::from_millis(5);
        assert_eq!(document.skip(3, remains("?", Some(later))), Outcome::Skipped);
        assert_eq!(document.skip(4, remains("y", None)), Outcome::Skipped);
        assert_eq!(document.state().unwrap().to_raw(), state);
        assert_eq!((document.version, document.updated_at), (4, Some(later)));
        assert_eq!(document.clock, [("?", 1), ("x", 1), ("y", 2)].into_iter().collect());
        assert_eq!(document.youngest.unwrap().at, at);
        let row = document.to_raw();
        assert_eq!(Document::from_raw(&row).unwrap().to_raw(), row);
    }

    #[test]
    fn the_versions_of_a_document_are_found_by_its_id() {
        let (a, b) = (DocumentId::Integer(1), DocumentId::Integer(2));
        let mut skips = Skips::default();
        assert_eq!(skips.of(&a), None);
        skips.insert(a.clone(), 3);
        skips.insert(a.clone(), 5);
        assert_eq!(skips.of(&a), Some(&BTreeSet::from([3, 5])));
        assert_eq!(skips.of(&b), None);
        skips.replace(&a, BTreeSet::new());
        assert_eq!(skips, Skips::default());
    }
}
