//! Catching up from the log instead of the change stream: at a first start, and when the resume token
//! is lost.

use bson::{DateTime, RawArrayBuf, RawDocumentBuf};

use super::{
    backlog::{self, Expected, Shape},
    bare,
    daemon::{COLLECTION, Tuning},
    error::{BenchError, Result},
    report::{Row, Target, Unit},
    server::{Fresh, Server},
    tail::{load, project},
};
use crate::model::{
    document::{Document, FoldLimits, Outcome},
    event::Event,
};

/// The numbers of connections that the bare bulk writes are tried on.
const CONNECTIONS: [usize; 3] = [1, 2, 4];

/// Catches up with many events of few documents.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run_dense(
    server: &mut Server,
    shape: Shape,
    work: &str,
    repeat: usize,
) -> Result<Vec<Row>> {
    let unit = Unit::EventsPerSecond;
    let mut row = Row::new(work, unit, "bare drain", Target::RatioAtLeast(8.0));
    let mut scan = Row::new(format!("{work} (of a bare scan)"), unit, "bare scan", Target::None);
    for _ in 0..repeat {
        let (fresh, expected) = load(server, shape).await?;
        let events = expected.events as f64;
        row.bare.push(events / bare::drain(&fresh.database, fresh.start, expected.events).await?);
        scan.bare.push(events / bare::scan(&fresh.database).await?);
        let drained =
            project(server, &fresh, &expected, expected.events, &Tuning::default()).await?;
        drained.note(&mut row);
        drained.note(&mut scan);
    }
    Ok(vec![row, scan])
}

/// Catches up with one event of each of many documents: bulk writes are what it takes.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run_sparse(
    server: &mut Server,
    documents: usize,
    repeat: usize,
) -> Result<Vec<Row>> {
    let work = format!("catch up {documents} x 1, all new");
    let target = Target::RatioAtLeast(0.85);
    let mut row = Row::new(work, Unit::DocumentsPerSecond, "bare bulk inserts", target);
    let work = format!("bare bulk replacements, {documents}");
    let mut replace = Row::new(work, Unit::DocumentsPerSecond, "bare bulk inserts", Target::None);
    for _ in 0..repeat {
        let shape = Shape::Interleaved { documents, each: 1, before: 0 };
        let (fresh, expected) = load(server, shape).await?;
        project(server, &fresh, &expected, expected.events, &Tuning::default())
            .await?
            .note(&mut row);
        let rows = bare::rows(&fresh.database).await?;
        let mut best: (f64, f64) = (0.0, 0.0);
        for connections in CONNECTIONS {
            let database = &fresh.database;
            let name = format!("bare{connections}");
            backlog::settle(database).await?;
            let inserted = bare::insert_rows(database, &name, &rows, connections).await?;
            backlog::settle(database).await?;
            let replaced = bare::replace_rows(database, &name, &rows, connections).await?;
            best.0 = best.0.max(rows.len() as f64 / inserted);
            best.1 = best.1.max(rows.len() as f64 / replaced);
            database.collection::<RawDocumentBuf>(&name).drop().await?;
        }
        row.bare.push(best.0);
        replace.bare.push(best.0);
        replace.ours.push(best.1);
    }
    Ok(vec![row, replace])
}

/// The resume token is lost, all documents are projected, and a few of them are behind.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run_recovery(
    server: &mut Server,
    documents: usize,
    behind: usize,
) -> Result<Vec<Row>> {
    let work = format!("lost token, {documents} documents, {behind} behind");
    let mut row = Row::new(work, Unit::Seconds, "bare scan", Target::AtMost(20.0));
    let fresh = server.fresh().await?;
    let mut expected = project_beforehand(&fresh, documents).await?;
    let late = backlog::append(
        &fresh.database,
        Shape::Spread { documents, every: (documents / behind.max(1)).max(1) },
    )
    .await?;
    expected.events += late.events;
    expected.last = late.last;
    row.bare.push(bare::scan(&fresh.database).await?);
    let drained = project(server, &fresh, &expected, expected.events, &Tuning::default()).await?;
    drained.note(&mut row);
    row.ours = vec![drained.usage.seconds];
    Ok(vec![row])
}

/// Makes a log of one event per document, and its projection, without a daemon.
pub(super) async fn project_beforehand(fresh: &Fresh, documents: usize) -> Result<Expected> {
    let shape = Shape::Interleaved { documents, each: 1, before: 0 };
    let expected = backlog::append(&fresh.database, shape).await?;
    let at = DateTime::now();
    let numbers: Vec<usize> = (0..documents).collect();
    for numbers in numbers.chunks(10_000) {
        let mut rows = RawArrayBuf::new();
        for number in numbers {
            rows.push(first_row(&backlog::event(*number, 1, 4, at))?);
        }
        backlog::insert(&fresh.database, COLLECTION, rows).await?;
    }
    backlog::settle(&fresh.database).await?;
    Ok(expected)
}

fn first_row(event: &bson::RawDocument) -> Result<RawDocumentBuf> {
    let event =
        Event::decode(event).map_err(|error| crate::database::Error::damaged(error.to_string()))?;
    let mut document = Document::new(event.key.document.clone());
    match document.apply(&event, &FoldLimits::default()) {
        Outcome::Applied(_) => Ok(document.to_raw()),
        outcome => Err(BenchError::Fold(outcome)),
    }
}
