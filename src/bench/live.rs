//! A daemon beside writers that go on: how long it takes to be level with them when it starts on a log that
//! lives, how long after an overload, and how much it keeps up with.

use std::time::{Duration, Instant};

use tracing::info;

use super::{
    backlog::Shape,
    bare,
    daemon::{Daemon, LIMIT, Moment, Tuning},
    error::{BenchError, Result},
    report::{Row, Target, Unit},
    server::{Fresh, Server},
    tail::{load, project},
    writers::{Lag, Pace, Writers},
};
use crate::time::{SystemTime, Time};

/// How often the projected documents are looked at. Each look costs the server some milliseconds.
const LOOK: Duration = Duration::from_millis(100);
/// A daemon that is behind by less than this is level with the writers.
const LEVEL: Duration = Duration::from_secs(1);
/// What a daemon may be behind that keeps up.
const KEEPS_UP: Duration = Duration::from_secs(2);
/// The writers beside a scan.
const BESIDE_SCAN: Pace = Pace::PerSecond(5_000.0);
/// How many events a command of paced writers carries, and one of writers who shall be too fast for the daemon.
pub(super) const FEW: usize = 50;
const MANY: usize = 1_000;
/// How long each rate is tried, of which the first part is not judged.
pub(super) const TRIAL: Duration = Duration::from_secs(8);
const WARM_UP: Duration = Duration::from_secs(2);
/// How many rates are tried: the answer is exact to the 32nd part of what the writers reach.
const TRIALS: u32 = 5;
/// Writers that reach less than this share of their pace did not keep it.
const KEPT_PACE: f64 = 0.95;

/// Starts the daemon on a log of `documents` × 10 while writers append to the same documents, beside the
/// same start without writers.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run_catch_up(
    server: &mut Server,
    documents: usize,
    repeat: usize,
) -> Result<Vec<Row>> {
    const EACH: i64 = 10;
    let work = format!("catch up {documents} x {EACH} beside 5000 appends/s");
    let target = Target::AtMostTimes { times: 4.0, and: 2.0 };
    let mut row = Row::new(work, Unit::Seconds, "ours, no writers", target);
    let shape = Shape::Interleaved { documents, each: EACH, before: 0 };
    for _ in 0..repeat {
        let (fresh, expected) = load(server, shape).await?;
        let alone = project(server, &fresh, &expected, expected.events, &Tuning::default()).await?;
        row.bare.push(alone.usage.seconds);
        let (fresh, _) = load(server, shape).await?;
        let writers = Writers::new(&fresh.database, documents, EACH, FEW);
        let ((), daemon) = futures::try_join!(writers.write(BESIDE_SCAN, None), async {
            let daemon = until_level(server, &fresh, &writers, &mut row).await;
            writers.stop();
            daemon
        })?;
        daemon.stop().await?;
    }
    Ok(vec![row])
}

/// Starts a daemon, notes when it is level with the writers, and gives it.
async fn until_level(
    server: &Server,
    fresh: &Fresh,
    writers: &Writers<'_>,
    row: &mut Row,
) -> Result<Daemon> {
    let mut lag = Lag::new(writers);
    let cpu = server.cpu()?;
    let mut daemon = server.daemon(&fresh.database, &Tuning::default())?;
    let reading = daemon.until_it_reads().await?;
    row.start_seconds.push(daemon.age().as_secs_f64());
    loop {
        let looked = Instant::now();
        if lag.look().await?.is_some_and(|lag| lag < LEVEL) {
            let events = writers.expected().events as f64;
            row.ours.push(looked.saturating_duration_since(reading.instant).as_secs_f64());
            row.daemon_cpu.push(daemon.cpu()? / events * 1e6);
            row.server_cpu.push((server.cpu()? - cpu) / events * 1e6);
            row.peak_mib.push(daemon.peak_mib()?);
            return Ok(daemon);
        }
        if reading.instant.elapsed() > LIMIT {
            return Err(BenchError::NotLevel(LIMIT.as_secs()));
        }
        SystemTime::new().sleep(LOOK).await;
    }
}

/// Lets writers go on at full speed for so long beside a daemon that was level, and measures from their end until
/// it is level again.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run_overload(
    server: &mut Server,
    documents: usize,
    length: Duration,
    repeat: usize,
) -> Result<Vec<Row>> {
    let name = |what: &str| {
        format!("{} s of writers at full speed, {documents} documents, {what}", length.as_secs())
    };
    let target = Target::AtMostTimes { times: 2.0, and: 2.0 };
    let mut level = Row::new(name("level after"), Unit::Seconds, "bare scan", target);
    let mut rate = Row::new(name("their rate"), Unit::EventsPerSecond, "", Target::None);
    for _ in 0..repeat {
        let (fresh, mut daemon) = start_level(server, documents).await?;
        let cpu = (daemon.cpu()?, server.cpu()?);
        let writers = Writers::new(&fresh.database, documents, 1, MANY);
        let begun = Instant::now();
        writers.write(Pace::FullSpeed, Some(length)).await?;
        let (end, wrote) = (Moment::now(), begun.elapsed());
        let expected = writers.expected();
        let (seconds, daemon_cpu) = daemon.until_projected(&fresh.database, &expected, end).await?;
        let events = writers.appended() as f64;
        rate.ours.push(events / wrote.as_secs_f64());
        level.ours.push(seconds);
        level.daemon_cpu.push((daemon_cpu - cpu.0) / events * 1e6);
        level.server_cpu.push((server.cpu()? - cpu.1) / events * 1e6);
        level.peak_mib.push(daemon.peak_mib()?);
        daemon.stop().await?;
        level.bare.push(bare::scan(&fresh.database).await?);
    }
    Ok(vec![level, rate])
}

/// Looks for the highest rate of appends that a daemon follows with less than two seconds of lag, beside what the
/// writers reach without a daemon.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run_live(
    server: &mut Server,
    documents: usize,
    repeat: usize,
) -> Result<Vec<Row>> {
    let work = format!("live, {documents} documents, lag below {} s", KEEPS_UP.as_secs());
    let mut row = Row::new(work, Unit::EventsPerSecond, "writers alone", Target::None);
    for _ in 0..repeat {
        let alone = write_alone(server, documents).await?;
        let (mut kept, mut refused) = (0.0, alone);
        for _ in 0..TRIALS {
            let rate = f64::midpoint(kept, refused);
            match try_rate(server, documents, rate).await? {
                true => kept = rate,
                false => refused = rate,
            }
        }
        row.bare.push(alone);
        row.ours.push(kept);
    }
    Ok(vec![row])
}

/// What writers reach when nobody projects.
async fn write_alone(server: &mut Server, documents: usize) -> Result<f64> {
    let (fresh, _) = load(server, once(documents)).await?;
    let writers = Writers::new(&fresh.database, documents, 1, FEW);
    let begun = Instant::now();
    writers.write(Pace::FullSpeed, Some(TRIAL)).await?;
    Ok(writers.appended() as f64 / begun.elapsed().as_secs_f64())
}

/// Whether writers keep this rate beside a daemon that follows.
async fn try_rate(server: &mut Server, documents: usize, rate: f64) -> Result<bool> {
    let (fresh, daemon) = start_level(server, documents).await?;
    let writers = Writers::new(&fresh.database, documents, 1, FEW);
    let begun = Instant::now();
    let looks = async {
        let (mut lag, mut worst) = (Lag::new(&writers), Duration::ZERO);
        while begun.elapsed() < TRIAL && worst < KEEPS_UP {
            SystemTime::new().sleep(LOOK).await;
            let found = lag.look().await?.unwrap_or(TRIAL);
            if begun.elapsed() > WARM_UP {
                worst = worst.max(found);
            }
        }
        writers.stop();
        Ok(worst)
    };
    let paced = writers.write(Pace::PerSecond(rate), Some(TRIAL));
    let ((), worst) = futures::try_join!(paced, looks)?;
    let reached = writers.appended() as f64 / begun.elapsed().as_secs_f64();
    info!(rate, reached, lag_seconds = worst.as_secs_f64(), "tried a rate");
    // Killed in the middle of a transaction it would hold up the end of its database for a minute.
    daemon.stop().await?;
    Ok(worst < KEEPS_UP && reached >= KEPT_PACE * rate)
}

/// A daemon that has projected one event of each document.
async fn start_level(server: &mut Server, documents: usize) -> Result<(Fresh, Daemon)> {
    let (fresh, expected) = load(server, once(documents)).await?;
    let mut daemon = server.daemon(&fresh.database, &Tuning::default())?;
    daemon.until_visible(&fresh.database, &expected).await?;
    Ok((fresh, daemon))
}

fn once(documents: usize) -> Shape {
    Shape::Interleaved { documents, each: 1, before: 0 }
}
