//! What a client is missing: the exact answer of one moment, beside a bare find of the same range of
//! events that knows what it wants.

use std::time::Instant;

use bson::doc;
use futures::{StreamExt, TryStreamExt, stream};
use mongodb::Database;

use super::{
    backlog::{self, Expected, Shape, id},
    daemon::{COLLECTION, Tuning},
    error::Result,
    report::{Row, Target, Unit},
    server::Server,
    tail::{load, project},
    visible::percentile,
};
use crate::{
    database::Error,
    log::{Batch, events_collection},
    model::{clock::Clock, id::DocumentId},
    read::{MissingQuery, ReadLimits, Reader},
};

const DOCUMENTS: usize = 500;
const EVENTS_EACH: i64 = 300;
const MISSING: i64 = 100;
const CALLERS: usize = 32;
const ROUNDS: usize = 8;

/// Measures answers and finds in turn.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run(server: &mut Server, clients: usize, questions: usize) -> Result<Vec<Row>> {
    let shape = Shape::Clients { documents: DOCUMENTS, each: EVENTS_EACH, clients };
    let (fresh, expected) = load(server, shape).await?;
    let Expected { events, .. } = expected;
    project(server, &fresh, &expected, events, &Tuning::default()).await?;
    let known: Vec<MissingQuery> = (0..DOCUMENTS).map(|n| known(n, clients)).collect();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.extend(ask_all(questions / ROUNDS, |n| find(&fresh.database, n)).await?);
        let reader = Reader::new(&fresh.database, COLLECTION, ReadLimits::default());
        ours.extend(
            ask_all(questions / ROUNDS, |n| answer(&reader, n, &known[n % DOCUMENTS])).await?,
        );
    }
    let name = |which| {
        format!("missing answer, {MISSING} events, {clients} clients, {CALLERS} callers, {which}")
    };
    let row = |which, share, target| {
        let mut row = Row::new(name(which), Unit::Milliseconds, "bare find", target);
        (row.ours, row.bare) = (
            vec![1e3 * percentile(&mut ours.clone(), share)],
            vec![1e3 * percentile(&mut bare.clone(), share)],
        );
        row
    };
    Ok(vec![row("p50", 0.5, Target::None), row("p99", 0.99, Target::RatioAtMost(2.0))])
}

/// Asks so many questions with so many callers at once, and gives the seconds that each took.
async fn ask_all<F: Future<Output = Result<()>>>(
    questions: usize,
    ask: impl Fn(usize) -> F,
) -> Result<Vec<f64>> {
    let timed = |n| {
        let asked = ask(n);
        async move {
            let begun = Instant::now();
            asked.await.map(|()| begun.elapsed().as_secs_f64())
        }
    };
    stream::iter(0..questions).map(timed).buffer_unordered(CALLERS).try_collect().await
}

async fn find(database: &Database, question: usize) -> Result<()> {
    let d = id(question % DOCUMENTS);
    let (after, to) =
        (doc! { "d": &d, "s": EVENTS_EACH - MISSING }, doc! { "d": &d, "s": EVENTS_EACH });
    let mut found = database
        .collection::<bson::Document>(&events_collection(COLLECTION))
        .find(doc! { "_id": { "$gt": after, "$lte": to } })
        .sort(doc! { "_id": 1 })
        .batch_size(1_000)
        .batch()
        .await?;
    let mut events = 0;
    while let Some(batch) = found.next().await {
        events += Batch::from(batch?).documents()?.count();
    }
    enough(events)
}

/// What somebody asks who has seen all but the last events.
fn known(document: usize, clients: usize) -> MissingQuery {
    let mut clock = Clock::new();
    for version in 1..=EVENTS_EACH - MISSING {
        clock.increment(&backlog::client(document, version, clients));
    }
    MissingQuery { clock, limit: 1_000, ..MissingQuery::default() }
}

async fn answer(reader: &Reader, question: usize, query: &MissingQuery) -> Result<()> {
    let id = DocumentId::String(id(question % DOCUMENTS).into());
    let answer = reader.missing(&id, query).await?;
    enough(answer.map_or(0, |answer| answer.events.len()))
}

fn enough(events: usize) -> Result<()> {
    match i64::try_from(events) {
        Ok(MISSING) => Ok(()),
        _ => Err(Error::damaged(format!("found {events} events instead of {MISSING}")).into()),
    }
}
