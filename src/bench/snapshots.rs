//! What snapshots by number of events cost the projection: the same backlog is tailed with and without them, in
//! turn. And how long a job takes that snapshots a whole collection.

use std::time::{Duration, Instant};

use bson::Document;
use mongodb::Database;
use tracing::info;

use super::{
    backlog::{self, Shape},
    catch_up::project_beforehand,
    daemon::{COLLECTION, Tuning},
    error::Result,
    jobs::{Jobs, done},
    report::{Row, Target, Unit},
    server::{self, Server, Way},
    tail::Drained,
};
use crate::{
    model::job::Outcome,
    store::snapshots_collection,
    time::{SystemTime, Time},
};

/// After so many events of a document a snapshot is due.
const EVERY_EVENTS: i64 = 100;
/// Once all events are visible, and no snapshot has come for so long, there are no more on their way.
const LAST_SNAPSHOT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Tails documents of some hundred events each through the stream, in which they pass one multiple after the other.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run(
    server: &mut Server,
    (documents, each): (usize, i64),
    repeat: usize,
) -> Result<Vec<Row>> {
    let work = format!("tail {documents} x {each}, a snapshot every {EVERY_EVENTS} events");
    let target = Target::RatioAtLeast(0.9);
    let mut row = Row::new(work, Unit::EventsPerSecond, "ours, no snapshots", target);
    // A flush that carries a document over several multiples at once has one snapshot taken.
    let most = documents as f64 * (each / EVERY_EVENTS) as f64;
    let work = "snapshots taken meanwhile";
    let mut taken = Row::new(work, Unit::Snapshots, "one per 100 events", Target::None);
    let shape = Shape::Interleaved { documents, each, before: 0 };
    for repetition in 0..repeat {
        for with in [repetition % 2 == 1, repetition % 2 == 0] {
            let fresh = server.fresh().await?;
            let before = server::end_of_log(&fresh.database).await?;
            let expected = backlog::append(&fresh.database, shape).await?;
            server::save_checkpoint(&fresh.database, before, Way::StreamAlone).await?;
            let every_events = if with { EVERY_EVENTS } else { 0 };
            let tuning = Tuning { every_events, ..Tuning::default() };
            let mut daemon = server.daemon(&fresh.database, &tuning)?;
            let server_cpu = server.cpu()?;
            let usage = daemon.until_visible(&fresh.database, &expected).await?;
            let server_cpu = server.cpu()? - server_cpu;
            let drained = Drained { events: expected.events, usage, server_cpu };
            if with {
                drained.note(&mut row);
                taken.ours.push(last_snapshots(&fresh.database).await?);
                taken.bare.push(most);
            } else {
                row.bare.push(drained.events as f64 / drained.usage.seconds);
            }
            daemon.stop().await?;
        }
    }
    Ok(vec![row, taken])
}

/// How many snapshots there are once no more of them come.
async fn last_snapshots(database: &Database) -> Result<f64> {
    let snapshots = database.collection::<Document>(&snapshots_collection(COLLECTION));
    let (mut count, mut since) = (0, Instant::now());
    while since.elapsed() < LAST_SNAPSHOT {
        let now = snapshots.estimated_document_count().await?;
        if now != count {
            (count, since) = (now, Instant::now());
        }
        SystemTime::new().sleep(LOOK).await;
    }
    Ok(count as f64)
}

/// Has every document of a projected collection snapshotted by a job, and cancels a second one half-way.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run_job(server: &mut Server, documents: usize) -> Result<Vec<Row>> {
    let unit = Unit::DocumentsPerSecond;
    let work = |what| format!("{what} of {documents} documents");
    let mut row = Row::new(work("a snapshot job"), unit, "", Target::None);
    let mut cancel =
        Row::new("from cancelling it until the next job begins", Unit::Seconds, "", Target::None);
    let fresh = server.fresh().await?;
    let expected = project_beforehand(&fresh, documents).await?;
    let mut daemon = server.daemon(&fresh.database, &Tuning::default())?;
    daemon.until_visible(&fresh.database, &expected).await?;
    let jobs = Jobs { database: &fresh.database };

    let cancelled = jobs.ask("snapshot").await?;
    jobs.until(&cancelled, |job| done(job) > 0).await?;
    jobs.cancel(&cancelled).await?;
    let begun = Instant::now();
    let whole = jobs.ask("snapshot").await?;
    jobs.until(&whole, |job| job.get_str("state").is_ok()).await?;
    cancel.ours.push(begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let mut steps = Vec::new();
    let ended = jobs
        .until(&whole, |job| {
            steps.push(done(job));
            job.get_str("state").is_ok_and(|state| state == Outcome::Done.name())
        })
        .await?;
    row.ours.push(documents as f64 / begun.elapsed().as_secs_f64());
    steps.dedup();
    info!(seen = steps.len(), job = %ended, "the progress of the job was seen at so many places");
    daemon.stop().await?;
    Ok(vec![row, cancel])
}
