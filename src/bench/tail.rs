//! Tailing a backlog: how much of what a bare consumer drains from the same change stream the daemon
//! projects, once as it chooses to catch up, and once through that stream alone. Each side gets a backlog of its own
//! with nothing behind it, and they take turns in going first.

use super::{
    backlog::{self, Expected, Shape},
    bare,
    daemon::{Tuning, Usage},
    error::Result,
    report::{Row, Target, Unit},
    server::{self, Fresh, Server, Way},
};

/// Holds about a tenth of 100,000 documents of the backlog.
const SMALL_CACHE_MIB: u64 = 8;

/// What the daemon took for a backlog.
pub(super) struct Drained {
    pub(super) events: i64,
    pub(super) usage: Usage,
    pub(super) server_cpu: f64,
}

impl Drained {
    /// Notes it in a row of events per second.
    pub(super) fn note(&self, row: &mut Row) {
        let events = self.events as f64;
        row.ours.push(events / self.usage.seconds);
        row.daemon_cpu.push(self.usage.cpu_seconds / events * 1e6);
        row.server_cpu.push(self.server_cpu / events * 1e6);
        row.peak_mib.push(self.usage.peak_mib);
        row.start_seconds.push(self.usage.start_seconds);
    }
}

/// What the bare consumer took for the same.
struct BareDrain {
    events_per_second: f64,
    server_cpu: f64,
}

impl BareDrain {
    fn note(&self, row: &mut Row) {
        row.bare.push(self.events_per_second);
        row.bare_server_cpu.push(self.server_cpu);
    }
}

/// Who takes part; each repetition begins with another.
const SIDES: [Option<Way>; 3] = [None, Some(Way::Chosen), Some(Way::StreamAlone)];

/// A row for each way of the daemon, in the order of [`Way`].
fn rows(work: &str, least: f64) -> [Row; 2] {
    [work.to_owned(), format!("{work}, stream alone")].map(|work| {
        Row::new(work, Unit::EventsPerSecond, "bare drain", Target::RatioAtLeast(least))
    })
}

/// Tails a backlog of this shape, once for each side and repetition.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run(
    server: &mut Server,
    work: &str,
    shape: Shape,
    least: f64,
    repeat: usize,
) -> Result<Vec<Row>> {
    let mut rows = rows(work, least);
    let mut sides = SIDES;
    for _ in 0..repeat {
        for side in sides {
            if let Some(way) = side {
                tail(server, shape, &Tuning::default(), way).await?.note(&mut rows[way as usize]);
            } else {
                let (fresh, expected) = load(server, shape).await?;
                let drained = drain(server, &fresh, fresh.start, expected.events).await?;
                rows.iter_mut().for_each(|row| drained.note(row));
            }
        }
        sides.rotate_left(1);
    }
    Ok(rows.into())
}

/// Drains what a fresh database holds from `start` on.
async fn drain(
    server: &Server,
    fresh: &Fresh,
    start: bson::Timestamp,
    events: i64,
) -> Result<BareDrain> {
    let cpu = server.cpu()?;
    let seconds = bare::drain(&fresh.database, start, events).await?;
    let server_cpu = (server.cpu()? - cpu) / events as f64 * 1e6;
    Ok(BareDrain { events_per_second: events as f64 / seconds, server_cpu })
}

/// A fresh database with a backlog of this shape.
pub(super) async fn load(server: &mut Server, shape: Shape) -> Result<(Fresh, Expected)> {
    let fresh = server.fresh().await?;
    let expected = backlog::append(&fresh.database, shape).await?;
    Ok((fresh, expected))
}

/// Lets a daemon tail a backlog of this shape from a checkpoint right before it.
///
/// # Errors
/// When the measurement cannot be finished.
pub(super) async fn tail(
    server: &mut Server,
    shape: Shape,
    tuning: &Tuning,
    way: Way,
) -> Result<Drained> {
    let fresh = server.fresh().await?;
    let before = server::end_of_log(&fresh.database).await?;
    let expected = backlog::append(&fresh.database, shape).await?;
    server::save_checkpoint(&fresh.database, before, way).await?;
    project(server, &fresh, &expected, expected.events, tuning).await
}

/// Lets a daemon project what is there.
pub(super) async fn project(
    server: &Server,
    fresh: &Fresh,
    expected: &Expected,
    events: i64,
    tuning: &Tuning,
) -> Result<Drained> {
    let server_cpu = server.cpu()?;
    let mut daemon = server.daemon(&fresh.database, tuning)?;
    let usage = daemon.until_visible(&fresh.database, expected).await?;
    let server_cpu = server.cpu()? - server_cpu;
    daemon.stop().await?;
    Ok(Drained { events, usage, server_cpu })
}

/// Tails new documents, one event each, and then one more event of each of them: inserts only, then
/// updates only.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run_new_and_again(
    server: &mut Server,
    documents: usize,
    repeat: usize,
) -> Result<Vec<Row>> {
    let work = |which| format!("tail {documents} x 1, {which}");
    let (mut new, mut again) = (rows(&work("all new"), 0.60), rows(&work("all updates"), 0.50));
    let mut sides = SIDES;
    for _ in 0..repeat {
        for side in sides {
            let fresh = server.fresh().await?;
            for (before, rows) in [(0, &mut new), (1, &mut again)] {
                let place = server::end_of_log(&fresh.database).await?;
                let shape = Shape::Interleaved { documents, each: 1, before };
                let expected = backlog::append(&fresh.database, shape).await?;
                let events = documents as i64;
                if let Some(way) = side {
                    server::save_checkpoint(&fresh.database, place, way).await?;
                    let tuning = Tuning::default();
                    let drained = project(server, &fresh, &expected, events, &tuning).await?;
                    drained.note(&mut rows[way as usize]);
                } else {
                    let start = place.position.cluster_time;
                    let drained = drain(server, &fresh, start, events).await?;
                    rows.iter_mut().for_each(|row| drained.note(row));
                }
            }
        }
        sides.rotate_left(1);
    }
    Ok(new.into_iter().chain(again).collect())
}

/// Tails Zipf-distributed documents with a cache that holds a tenth of them, beside the same with all
/// of them in memory: through the stream, since a scan needs each document once.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run_small_cache(
    server: &mut Server,
    shape: Shape,
    repeat: usize,
) -> Result<Vec<Row>> {
    let target = Target::RatioAtLeast(0.5);
    let work = "tail Zipf, cache for a tenth";
    let mut row = Row::new(work, Unit::EventsPerSecond, "ours, all cached", target);
    let small = Tuning { cache_mib: Some(SMALL_CACHE_MIB), ..Tuning::default() };
    for _ in 0..repeat {
        let large = Tuning { cache_mib: Some(512), ..Tuning::default() };
        let all = tail(server, shape, &large, Way::StreamAlone).await?;
        row.bare.push(all.events as f64 / all.usage.seconds);
        tail(server, shape, &small, Way::StreamAlone).await?.note(&mut row);
    }
    Ok(vec![row])
}
