//! What folding one event into a document costs, and whether the editable tree is worth having:
//! the same events are folded by keeping the tree, by reading and writing the raw bytes around every
//! event, and next to what only decoding and encoding the document with the `bson` crate costs. All
//! times are CPU time, which other work on the machine hardly changes.

use std::fs;
use std::hint::black_box;
use std::time::Duration;

use alluvium::model::patch::apply;
use alluvium::model::state::{Limits, State};
use bson::{Bson, DateTime, Document, RawDocumentBuf, doc, oid::ObjectId};
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};

const AT: DateTime = DateTime::from_millis(1_700_000_000_000);

type Group<'a> = BenchmarkGroup<'a, CpuTime>;

/// How long this thread has been running on a core, as Linux counts it.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        // The kernel brings its count up to date when the thread gives way.
        std::thread::yield_now();
        let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("this needs Linux");
        let nanos = stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        Duration::from_nanos(nanos.expect("the first number is the time in nanoseconds"))
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, left: &Duration, right: &Duration) -> Duration {
        *left + *right
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
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

/// Folds events one after the other, over and over.
fn measure(group: &mut Group<'_>, name: &str, before: &RawDocumentBuf, patches: &[RawDocumentBuf]) {
    let limits = Limits::default();
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("{name}/tree"), |bencher| {
        let mut state = State::from_raw(before).unwrap();
        let mut next = patches.iter().cycle();
        bencher.iter(|| apply(&mut state, next.next().unwrap(), None, AT, &limits).unwrap());
    });
    group.bench_function(format!("{name}/raw every time"), |bencher| {
        let mut bytes = before.clone();
        let mut next = patches.iter().cycle();
        bencher.iter(|| {
            let mut state = State::from_raw(&bytes).unwrap();
            apply(&mut state, next.next().unwrap(), None, AT, &limits).unwrap();
            bytes = state.to_raw();
        });
    });
    group.bench_function(format!("{name}/bson decode and encode only"), |bencher| {
        bencher.iter(|| raw(&Document::try_from(black_box(&**before)).unwrap()));
    });
}

fn single_events(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("event");
    let patch = doc! {"$inc": {"gold": 50, "experience": 100}, "$set": {"last_updated": AT}};
    measure(&mut group, "small $inc and $set, 300 bytes", &small(), &[raw(&patch)]);
    // Slicing keeps the array at a thousand elements, however often the event is folded.
    let patch = doc! {"$push": {"entries": {"$each": [7], "$slice": -1000}}};
    measure(&mut group, "$push on 1,000 elements", &array(1_000), &[raw(&patch)]);
    let patch = doc! {"$set": {"house.r5.s5.i5.count": 7}};
    measure(&mut group, "deep $set, 50 KB", &large(), &[raw(&patch)]);
    group.finish();
}

/// A thousand events of one document, from reading it in to writing it out once.
fn whole_documents(criterion: &mut Criterion<CpuTime>) {
    let patches: Vec<_> = (0..1_000)
        .map(|at: i32| match at % 10 {
            0 => doc! {"$push": {"tags": {"$each": [format!("tag {at}")], "$slice": -20}}},
            1 => doc! {"$set": {"position": {"x": f64::from(at), "y": 0.5, "map": "harbour"}}},
            2 => doc! {"$set": {"position.x": f64::from(at)}, "$unset": {"note": ""}},
            3 => doc! {"$max": {"score": at}, "$set": {"note": "a note of some length"}},
            _ => doc! {"$inc": {"gold": 1}, "$set": {"last_updated": DateTime::from_millis(i64::from(at))}},
        })
        .map(|patch| raw(&patch))
        .collect();
    let (before, limits) = (small(), Limits::default());
    let mut group = criterion.benchmark_group("document");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1,000 events folded, encoded once", |bencher| {
        bencher.iter(|| {
            let mut state = State::from_raw(&before).unwrap();
            for patch in &patches {
                apply(&mut state, patch, None, AT, &limits).unwrap();
            }
            state.to_raw()
        });
    });
    group.bench_function("1,000 events folded, encoded every time", |bencher| {
        bencher.iter(|| {
            let mut bytes = before.clone();
            for patch in &patches {
                let mut state = State::from_raw(&bytes).unwrap();
                apply(&mut state, patch, None, AT, &limits).unwrap();
                bytes = state.to_raw();
            }
            bytes
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = single_events, whole_documents
}
criterion_main!(benches);
