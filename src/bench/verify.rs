//! How fast every document is compared with its log, and how fast all rows are made again: jobs, beside a bare scan of the
//! same log.

use bson::{Document, doc};

use super::{
    COLLECTION,
    backlog::{self, Shape},
    bare,
    daemon::Tuning,
    error::{BenchError, Result},
    jobs::Jobs,
    report::{Row, Target, Unit},
    server::Server,
};
use crate::model::job::Outcome;

/// Verifies a log of this shape, once for each repetition.
///
/// # Errors
/// When a measurement cannot be finished, or a document differs.
pub(super) async fn run(
    server: &mut Server,
    shape: Shape,
    work: &str,
    repeat: usize,
) -> Result<Vec<Row>> {
    measure(server, ("verify", Target::RatioAtLeast(0.8)), (shape, work), repeat).await
}

/// Has every row made again that a log of this shape has, all of which are wrong, once for each repetition.
///
/// # Errors
/// When a measurement cannot be finished, or a row is left.
pub(super) async fn run_rebuild(
    server: &mut Server,
    shape: Shape,
    work: &str,
    repeat: usize,
) -> Result<Vec<Row>> {
    measure(server, ("rebuild", Target::RatioAtLeast(0.6)), (shape, work), repeat).await
}

async fn measure(
    server: &mut Server,
    (kind, target): (&str, Target),
    (shape, work): (Shape, &str),
    repeat: usize,
) -> Result<Vec<Row>> {
    let mut row = Row::new(work, Unit::EventsPerSecond, "bare scan", target);
    for _ in 0..repeat {
        let fresh = server.fresh().await?;
        let expected = backlog::append(&fresh.database, shape).await?;
        let events = expected.events as f64;
        row.bare.push(events / bare::scan(&fresh.database).await?);
        let mut daemon = server.daemon(&fresh.database, &Tuning::default())?;
        daemon.until_visible(&fresh.database, &expected).await?;
        if kind == "rebuild" {
            let wrong = doc! { "$set": { "state.wrong": true } };
            let rows = fresh.database.collection::<Document>(COLLECTION);
            rows.update_many(doc! {}, wrong).await?;
        }
        let cpu = (daemon.cpu()?, server.cpu()?);
        let jobs = Jobs { database: &fresh.database };
        let id = jobs.ask(kind).await?;
        let is_done =
            |job: &Document| job.get_str("state").is_ok_and(|state| state == Outcome::Done.name());
        let job = jobs.until(&id, is_done).await?;
        row.ours.push(events / seconds(&job)?);
        row.daemon_cpu.push((daemon.cpu()? - cpu.0) / events * 1e6);
        row.server_cpu.push((server.cpu()? - cpu.1) / events * 1e6);
        row.peak_mib.push(daemon.peak_mib()?);
        let result = job.get_document("result")?;
        let left = result.get_i64("differences")? - result.get_i64("repaired").unwrap_or_default();
        if left > 0 {
            return Err(BenchError::Job(job.to_string()));
        }
        daemon.stop().await?;
    }
    Ok(vec![row])
}

/// From the beginning of a job to its end, by the server's clock: how soon it is begun is not measured here.
fn seconds(job: &Document) -> Result<f64> {
    let (begun, ended) = (job.get_datetime("started_at")?, job.get_datetime("finished_at")?);
    Ok(ended.saturating_duration_since(*begun).as_secs_f64().max(1e-3))
}
