//! What folding one event into a document costs, and whether the editable tree is worth having:
//! the same events are folded by keeping the tree, by reading and writing the raw bytes around every
//! event, and next to what only decoding and encoding the document with the `bson` crate costs.

use std::hint::black_box;

use alluvium::model::event::Event;
use alluvium::model::patch::apply;
use alluvium::model::sound;
use alluvium::model::state::{Limits, State};
use bson::{Bson, DateTime, Document, RawDocumentBuf, doc, oid::ObjectId};
use divan::{Bencher, counter::ItemsCount};

const AT: DateTime = DateTime::from_millis(1_700_000_000_000);

/// How many events the document of [`whole_document`] has.
const EVENTS: usize = 1_000;

fn main() {
    divan::main();
}

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

/// A state of about 300 bytes, as of a small game.
fn small() -> RawDocumentBuf {
    raw(&doc! {
        "name": "The Silent Expedition", "owner": ObjectId::from_bytes([7; 12]), "gold": 100,
        "level": 3, "experience": 1200_i64, "region": "north", "created": AT, "last_updated": AT,
        "position": {"x": 12.5, "y": -3.25, "map": "harbour"}, "tags": ["new", "daily", "guild"],
        "open": true, "score": 98.5, "note": Bson::Null,
    })
}

/// A state of about 50 KB: four levels, of which the patch needs one path.
fn large() -> RawDocumentBuf {
    let leaf = |at: usize| doc! {"title": format!("item {at}"), "count": at as i32, "weight": 1.5};
    let shelf =
        |_| (0..10).map(|at| (format!("i{at}"), Bson::from(leaf(at)))).collect::<Document>();
    let room =
        |_at| (0..10).map(|at| (format!("s{at}"), Bson::from(shelf(at)))).collect::<Document>();
    let house: Document = (0..8).map(|at| (format!("r{at}"), Bson::from(room(at)))).collect();
    raw(&doc! {"house": house, "version": 1})
}

fn array(length: i32) -> RawDocumentBuf {
    raw(&doc! {"name": "log", "entries": (0..length).collect::<Vec<_>>()})
}

/// One document and the patch that is folded into it, over and over.
#[derive(Clone, Copy, Debug)]
enum Case {
    SmallIncAndSet,
    PushOnThousand,
    DeepSetIn50KB,
}

impl Case {
    const ALL: [Self; 3] = [Self::SmallIncAndSet, Self::PushOnThousand, Self::DeepSetIn50KB];

    fn before(self) -> RawDocumentBuf {
        match self {
            Self::SmallIncAndSet => small(),
            Self::PushOnThousand => array(1_000),
            Self::DeepSetIn50KB => large(),
        }
    }

    fn patch(self) -> RawDocumentBuf {
        raw(&match self {
            Self::SmallIncAndSet => {
                doc! {"$inc": {"gold": 50, "experience": 100}, "$set": {"last_updated": AT}}
            }
            // Slicing keeps the array at a thousand elements, however often the event is folded.
            Self::PushOnThousand => doc! {"$push": {"entries": {"$each": [7], "$slice": -1000}}},
            Self::DeepSetIn50KB => doc! {"$set": {"house.r5.s5.i5.count": 7}},
        })
    }
}

fn fold(state: &mut State, patch: &RawDocumentBuf) {
    apply(state, patch, None, AT, &Limits::default()).unwrap();
}

#[divan::bench(args = Case::ALL)]
fn event_into_the_tree(bencher: Bencher, case: Case) {
    let (mut state, patch) = (State::from_raw(&case.before()).unwrap(), case.patch());
    bencher.bench_local(|| fold(&mut state, &patch));
}

/// The event that brings the patch.
fn event(case: Case) -> RawDocumentBuf {
    let patch = Document::try_from(&*case.patch()).unwrap();
    raw(&doc! {
        "_id": {"d": "the-silent-expedition", "s": 2_i64}, "client": "game-server-17", "op": "update",
        "patch": patch, "at": AT, "id": ObjectId::from_bytes([3; 12]), "type": "looted",
        "seen": {"game-server-17": 1_i64},
    })
}

/// Reading and judging an event, without applying it.
#[divan::bench(args = Case::ALL)]
fn event_decoded(bencher: Bencher, case: Case) {
    let event = event(case);
    bencher.bench_local(|| Event::decode(black_box(&event)).is_ok());
}

/// The part of that which looks at every name and text.
#[divan::bench(args = Case::ALL)]
fn event_checked(bencher: Bencher, case: Case) {
    let event = event(case);
    bencher.bench_local(|| sound::check(black_box(&event)).is_ok());
}

/// The same for a state, as a create brings it and as a row is read.
#[divan::bench(args = Case::ALL)]
fn state_checked(bencher: Bencher, case: Case) {
    let state = case.before();
    bencher.bench_local(|| sound::check(black_box(&state)).is_ok());
}

#[divan::bench(args = Case::ALL)]
fn event_into_the_bytes(bencher: Bencher, case: Case) {
    let (mut bytes, patch) = (case.before(), case.patch());
    bencher.bench_local(|| {
        let mut state = State::from_raw(&bytes).unwrap();
        fold(&mut state, &patch);
        bytes = state.to_raw();
    });
}

#[divan::bench(args = Case::ALL)]
fn decode_and_encode_with_bson(bencher: Bencher, case: Case) {
    let before = case.before();
    bencher.bench_local(|| raw(&Document::try_from(black_box(&*before)).unwrap()));
}

fn patches() -> Vec<RawDocumentBuf> {
    let patch = |at: i32| match at % 10 {
        0 => doc! {"$push": {"tags": {"$each": [format!("tag {at}")], "$slice": -20}}},
        1 => doc! {"$set": {"position": {"x": f64::from(at), "y": 0.5, "map": "harbour"}}},
        2 => doc! {"$set": {"position.x": f64::from(at)}, "$unset": {"note": ""}},
        3 => doc! {"$max": {"score": at}, "$set": {"note": "a note of some length"}},
        _ => {
            doc! {"$inc": {"gold": 1}, "$set": {"last_updated": DateTime::from_millis(i64::from(at))}}
        }
    };
    (0..).take(EVENTS).map(|at| raw(&patch(at))).collect()
}

/// A thousand events of one document, from reading it in to writing it out once, or after each.
#[divan::bench(args = [false, true])]
fn whole_document(bencher: Bencher, encoded_every_time: bool) {
    let (before, patches) = (small(), patches());
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let mut state = State::from_raw(&before).unwrap();
        for patch in &patches {
            fold(&mut state, patch);
            if encoded_every_time {
                state = State::from_raw(&state.to_raw()).unwrap();
            }
        }
        state.to_raw()
    });
}
