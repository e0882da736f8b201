//! What compaction saves and what it costs: the size of a log before and after, how fast what bases stand for is pruned
//! beside a bare deletion of the same ranges, and what a client waits for that asks for the last events.

use std::{ops::Range, time::Instant};

use bson::{DateTime, Document, doc};
use mongodb::{Database, options::WriteConcern};

use super::{
    backlog::{self, Expected, Shape, id},
    daemon::{COLLECTION, Tuning},
    error::{BenchError, Result},
    jobs::{self, Jobs},
    report::{Row, Target, Unit},
    server::Server,
    tail::load,
    visible::percentile,
};
use crate::{
    log::events_collection,
    model::{clock::Clock, id::DocumentId, job::Outcome},
    read::{MissingQuery, ReadLimits, Reader},
    store::{CHECKPOINTS_COLLECTION, MARKS_COLLECTION, META_COLLECTION, format::FORMAT},
};

/// How many of the newest events of each document stay: the default.
const KEPT: i64 = 100;
/// What a client lacks.
const MISSING: i64 = 10;
/// How many questions it asks, one after the other.
const QUESTIONS: usize = 2_000;
/// What is kept by age, so that what bases stand for is not pruned before it is time to measure that.
pub(super) const TUNING: Tuning =
    Tuning { cache_mib: None, every_events: 0, min_age: Some("1h"), archive: None };

/// Compacts logs of so many documents of so many events.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run(
    server: &mut Server,
    (documents, each): (usize, i64),
    repeat: usize,
) -> Result<Vec<Row>> {
    let name = |what: &str| format!("compact {documents} x {each}, {what}");
    let mut size = Row::new(name("size of the log"), Unit::Mebibytes, "before", Target::None);
    if each >= 1_000 {
        size.target = Target::RatioAtMost(0.12);
    }
    let (write, half) = (Target::None, Target::RatioAtLeast(0.6));
    let mut bases = Row::new(name("bases"), Unit::EventsPerSecond, "", write);
    let mut prune = Row::new(name("prune"), Unit::EventsPerSecond, "bare deleteMany", half);
    let within = Target::RatioAtMost(1.2);
    let mut missing = Row::new(name("missing p99"), Unit::Milliseconds, "before", within);
    let mut again = Row::new(
        name("catching up with what is left"),
        Unit::EventsPerSecond,
        "never compacted",
        Target::RatioAtLeast(1.0),
    );
    let mut behind = Row::new(
        name("the same right behind the pruning"),
        Unit::EventsPerSecond,
        "the same",
        Target::None,
    );
    for _ in 0..repeat {
        let shape = Shape::Interleaved { documents, each, before: 0 };
        let bare = server.fresh().await?;
        backlog::append(&bare.database, shape).await?;
        let pruned = documents as f64 * (each - KEPT - 2) as f64;
        prune.bare.push(pruned / delete(&bare.database, (documents, each)).await?);
        let fresh = server.fresh().await?;
        let database = &fresh.database;
        let expected = backlog::append(database, shape).await?;
        let mut daemon = server.daemon(database, &TUNING)?;
        daemon.until_visible(database, &expected).await?;
        let query = asked(documents, each);
        missing.bare.push(ask(database, &query).await?);
        size.bare.push(mebibytes(database).await?);
        grow_old(database, 0..documents, each).await?;
        let (seconds, _) = compact(database).await?;
        bases.ours.push(expected.events as f64 / seconds);
        base_grows_old(database, 0..documents).await?;
        let cpu = (daemon.cpu()?, server.cpu()?);
        let (seconds, events) = compact(database).await?;
        prune.ours.push(events / seconds);
        prune.daemon_cpu.push((daemon.cpu()? - cpu.0) / events * 1e6);
        prune.server_cpu.push((server.cpu()? - cpu.1) / events * 1e6);
        prune.peak_mib.push(daemon.peak_mib()?);
        size.ours.push(mebibytes(database).await?);
        missing.ours.push(ask(database, &query).await?);
        daemon.stop().await?;
        let rows = [&mut behind.ours, &mut again.ours];
        catch_up_twice(server, (database, &expected), rows).await?;
        let (fresh, short) =
            load(server, Shape::Interleaved { each: KEPT + 2, documents, before: 0 }).await?;
        let rows = [&mut behind.bare, &mut again.bare];
        catch_up_twice(server, (&fresh.database, &short), rows).await?;
    }
    Ok(vec![size, bases, prune, missing, again, behind])
}

/// Has all rows made again at once, and once more after the server began anew.
async fn catch_up_twice(
    server: &mut Server,
    (database, expected): (&Database, &Expected),
    [at_once, anew]: [&mut Vec<f64>; 2],
) -> Result<()> {
    at_once.push(catch_up(server, database, expected).await?);
    server.restart().await?;
    anew.push(catch_up(server, database, expected).await?);
    Ok(())
}

/// Has all rows made again from what is left of the log; how many of its events a second.
async fn catch_up(server: &mut Server, database: &Database, expected: &Expected) -> Result<f64> {
    for name in [COLLECTION, CHECKPOINTS_COLLECTION] {
        database.collection::<Document>(name).delete_many(doc! {}).await?;
    }
    backlog::settle(database).await?;
    let left = database.collection::<Document>(&events_collection(COLLECTION));
    let left = left.estimated_document_count().await?;
    let mut daemon = server.daemon(database, &TUNING)?;
    let usage = daemon.until_visible(database, expected).await?;
    daemon.stop().await?;
    Ok(left as f64 / usage.seconds)
}

/// Deletes the same ranges, document by document, and gives the seconds.
async fn delete(database: &Database, (documents, each): (usize, i64)) -> Result<f64> {
    let events = database.collection::<Document>(&events_collection(COLLECTION));
    let begun = Instant::now();
    for document in 0..documents {
        let key = |version: i64| doc! { "d": id(document), "s": version };
        let range = doc! { "_id": { "$gte": key(2), "$lte": key(each - KEPT - 1) } };
        events.delete_many(range).write_concern(WriteConcern::majority()).await?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Marks of long ago, and the format of data that has bases, which a daemon has waited for.
pub(super) async fn grow_old(
    database: &Database,
    documents: Range<usize>,
    each: i64,
) -> Result<()> {
    let log = database.list_collections().filter(doc! { "name": events_collection(COLLECTION) });
    let log = futures::TryStreamExt::try_next(&mut log.await?).await?;
    let log = log.and_then(|log| log.info.uuid).ok_or_else(|| BenchError::Job("no log".into()))?;
    let at = long_ago();
    let marks = documents.map(|document| {
        doc! {
            "_id": { "c": COLLECTION, "d": id(document) }, "log": log.clone(),
            "marks": [{ "version": each, "at": at }],
        }
    });
    let marks: Vec<Document> = marks.collect();
    let collection = database.collection::<Document>(MARKS_COLLECTION);
    collection.delete_many(doc! {}).await?;
    collection.insert_many(marks).await?;
    let format = doc! { "$set": { "version": FORMAT } };
    let meta = database.collection::<Document>(META_COLLECTION);
    meta.update_one(doc! { "_id": "format" }, format).upsert(true).await?;
    Ok(())
}

/// What the bases of these documents stand for may go.
pub(super) async fn base_grows_old(database: &Database, documents: Range<usize>) -> Result<()> {
    let events = database.collection::<Document>(&events_collection(COLLECTION));
    // By their keys: to look for bases would be to read the whole log.
    let keys: Vec<Document> =
        documents.map(|document| doc! { "d": id(document), "s": 1_i64 }).collect();
    let bases = doc! { "_id": { "$in": keys }, "op": "base" };
    events.update_many(bases, doc! { "$set": { "based_at": long_ago() } }).await?;
    Ok(())
}

fn long_ago() -> DateTime {
    DateTime::from_millis(DateTime::now().timestamp_millis() - 7_200_000)
}

/// Has the collection compacted; the seconds by the server's clock, and how many events went.
pub(super) async fn compact(database: &Database) -> Result<(f64, f64)> {
    run_job(database, "compact").await
}

/// Has a job about the whole collection done; the same of it.
pub(super) async fn run_job(database: &Database, kind: &str) -> Result<(f64, f64)> {
    let jobs = Jobs { database };
    let id = jobs.ask(kind).await?;
    let is_done =
        |job: &Document| job.get_str("state").is_ok_and(|state| state == Outcome::Done.name());
    let job = jobs.until(&id, is_done).await?;
    let events = job.get_document("result")?.get_i64("events")?;
    Ok((jobs::seconds(&job)?, events as f64))
}

pub(super) async fn mebibytes(database: &Database) -> Result<f64> {
    let stats = database.run_command(doc! { "collStats": events_collection(COLLECTION) }).await?;
    let bytes = stats.get_i32("size").map(f64::from).or_else(|_| {
        stats.get_i64("size").map(|size| size as f64).or_else(|_| stats.get_f64("size"))
    });
    Ok(bytes? / f64::from(1 << 20))
}

/// Clients that lack the last events of each document.
pub(super) fn asked(documents: usize, each: i64) -> Vec<(DocumentId, MissingQuery)> {
    let of = |document: usize| {
        let mut clock = Clock::new();
        (1..=each - MISSING).for_each(|version| {
            clock.increment(&backlog::client(document, version, 4));
        });
        let query = MissingQuery { clock, limit: 1_000, ..MissingQuery::default() };
        (DocumentId::String(id(document).into()), query)
    };
    (0..documents).map(of).collect()
}

/// The 99th of a hundred answers, in milliseconds.
async fn ask(database: &Database, query: &[(DocumentId, MissingQuery)]) -> Result<f64> {
    let reader = Reader::new(database, COLLECTION, ReadLimits::default());
    let mut seconds = Vec::with_capacity(QUESTIONS);
    for (id, query) in query.iter().cycle().take(QUESTIONS) {
        let begun = Instant::now();
        reader.missing(id, query).await?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    Ok(1e3 * percentile(&mut seconds, 0.99))
}
