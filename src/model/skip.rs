//! Events that an operator has skipped, on record. They are an input of every fold: a skipped event counts in
//! the clock and leaves the state as it was, also where it could be applied, so that two folds of the same events
//! under the same record give the same bytes.

use std::collections::HashMap;

use bson::{DateTime, RawDocument};

use super::{
    clock::{Clock, is_client_name},
    event::EventKey,
    id::DocumentId,
    quarantine::Class,
};

/// How a skipped event without a usable client counts.
pub const NAMELESS: &str = "?";

/// The client of the events that fill gaps. The name is reserved: whoever meets one of its events, or a document whose
/// clock counts one, reads again which events of the document are skipped.
pub const FILLER_CLIENT: &str = "alluvium";

/// What there is to say to a writer who takes it, after the name.
pub const FILLER_RULE: &str =
    "is reserved for events that fill gaps, and for bases: choose another name for this client";

/// How many skipped events a record or an answer names; they are the newest.
pub const TOLD_MAX: usize = 1_000;

/// The versions of one document that are skipped: ranges, ascending, that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedVersions(Vec<(i64, i64)>);

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

/// What a client has to know of a skipped event: whoever has applied it takes the document's state anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedEvent {
    /// The document's version after it.
    pub version: i64,
    /// The client under which it counts.
    pub client: String,
    /// Its rank among the events of that client in the document.
    pub seq: i64,
}

/// A skip as it goes on record: of one event, or of everything from a gap up to the newest event.
#[derive(Clone, Debug, PartialEq)]
pub struct Skip {
    /// The place of the event, or of the first of several.
    pub key: EventKey,
    /// The version of the last event that is skipped.
    pub through: i64,
    /// The newest of the events, ascending: all of them, or [`TOLD_MAX`].
    pub told: Vec<SkippedEvent>,
    /// Why the event could not be applied; [`Class::Gap`] where several are skipped.
    pub class: Class,
    /// The same, in words.
    pub reason: String,
    /// When it is skipped, by the daemon's wall clock.
    pub skipped_at: DateTime,
}

impl SkippedVersions {
    /// Adds the versions from `first` to `last`, both included.
    pub fn insert(&mut self, first: i64, last: i64) {
        let (mut first, mut last) = (first, last.max(first));
        let begin = self.0.partition_point(|(_, end)| end.saturating_add(1) < first);
        let end = self.0.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        if let Some(merged) = self.0.get(begin..end).filter(|merged| !merged.is_empty()) {
            first = merged.iter().fold(first, |least, (begin, _)| least.min(*begin));
            last = merged.iter().fold(last, |most, (_, end)| most.max(*end));
        }
        self.0.splice(begin..end.max(begin), [(first, last)]);
    }

    /// Whether a version is skipped.
    pub fn contains(&self, version: i64) -> bool {
        self.range_of(version).is_some()
    }

    /// The first and the last version of the range that holds a version, if that is skipped.
    pub fn range_of(&self, version: i64) -> Option<(i64, i64)> {
        let at = self.0.partition_point(|(_, end)| *end < version);
        self.0.get(at).copied().filter(|(begin, _)| *begin <= version)
    }

    /// The ranges, ascending: the first and the last version of each.
    pub fn ranges(&self) -> &[(i64, i64)] {
        &self.0
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are.
    pub fn count(&self) -> i64 {
        self.0.iter().map(|(begin, end)| end - begin + 1).sum()
    }
}

impl FromIterator<(i64, i64)> for SkippedVersions {
    fn from_iter<I: IntoIterator<Item = (i64, i64)>>(ranges: I) -> Self {
        let mut versions = Self::default();
        ranges.into_iter().for_each(|(first, last)| versions.insert(first, last));
        versions
    }
}

impl Skips {
    /// Adds the versions from `first` to `last` of a document.
    pub fn insert(&mut self, document: DocumentId, (first, last): (i64, i64)) {
        self.0.entry(document).or_default().insert(first, last);
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

/// Whether an event fills a gap.
pub fn is_filler(event: &RawDocument) -> bool {
    event.get_str("client").ok() == Some(FILLER_CLIENT)
}

/// The same of a row, or of a base.
pub fn counts_fillers(row: &RawDocument) -> bool {
    row.get_document("clock")
        .is_ok_and(|clock| clock.get(FILLER_CLIENT).is_ok_and(|count| count.is_some()))
}

/// Whether gaps of a document with this clock were filled.
pub fn has_fillers(clock: &Clock) -> bool {
    clock.get(FILLER_CLIENT) > 0
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
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeSet;

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
        skips.insert(a.clone(), (3, 3));
        skips.insert(a.clone(), (5, 9));
        assert_eq!(skips.of(&a), Some(&[(3, 3), (5, 9)].into_iter().collect()));
        assert_eq!(skips.of(&b), None);
        skips.replace(&a, SkippedVersions::default());
        assert_eq!(skips, Skips::default());
    }

    proptest! {
        #[test]
        fn ranges_hold_what_was_put_into_them(ranges in vec((1_i64..40, 0_i64..6), 0..12)) {
            let ranges = ranges.into_iter().map(|(first, more)| (first, first + more));
            let ranges: Vec<(i64, i64)> = ranges.collect();
            let versions: SkippedVersions = ranges.iter().copied().collect();
            let held: BTreeSet<i64> = ranges.iter().flat_map(|(first, last)| *first..=*last).collect();
            for version in 0..50 {
                prop_assert_eq!(versions.contains(version), held.contains(&version));
            }
            prop_assert_eq!(versions.count(), held.len() as i64);
            // As few ranges as can be.
            prop_assert!(versions.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
