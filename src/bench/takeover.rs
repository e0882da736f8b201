//! How long nobody projects when the leader goes: from its death, or from the wish that it stop, until the
//! first event that was appended after it had gone is visible through the standby.

use std::time::{Duration, Instant};

use bson::{DateTime, RawDocumentBuf};
use mongodb::{Collection, options::WriteConcern};

use super::{
    backlog::{self, Expected},
    daemon::{COLLECTION, Daemon, Tuning},
    error::Result,
    report::{Row, Target, Unit},
    server::{Fresh, Server},
};
use crate::{config::DaemonConfig, log::events_collection};

/// How much longer than the lease a takeover may take.
const SECONDS_BEYOND_LEASE: f64 = 2.0;
/// How long it may take after a clean stop.
const SECONDS_AFTER_STOP: f64 = 1.0;

/// How a leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Stopped,
}

/// Measures both ends of a leader.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run(server: &mut Server, repeat: usize) -> Result<Vec<Row>> {
    let lease = DaemonConfig::default().lease_time;
    let target = |end| match end {
        End::Killed => Target::AtMost(lease.as_secs_f64() + SECONDS_BEYOND_LEASE),
        End::Stopped => Target::AtMost(SECONDS_AFTER_STOP),
    };
    let mut rows = Vec::new();
    for (end, signal) in [(End::Killed, "SIGKILL"), (End::Stopped, "SIGTERM")] {
        let work = format!("takeover after {signal}, lease time {} s", lease.as_secs());
        let mut row = Row::new(work, Unit::Seconds, "", target(end));
        for _ in 0..repeat {
            row.ours.push(take_over(server, end).await?.as_secs_f64());
        }
        rows.push(row);
    }
    Ok(rows)
}

async fn take_over(server: &mut Server, end: End) -> Result<Duration> {
    let fresh = server.fresh().await?;
    let mut leader = server.daemon(&fresh.database, &Tuning::default())?;
    leader.until_visible(&fresh.database, &append(&fresh, 1).await?).await?;
    let mut standby = server.daemon(&fresh.database, &Tuning::default())?;
    standby.until_it_stands_by().await?;
    leader.until_visible(&fresh.database, &append(&fresh, 2).await?).await?;
    let begun = Instant::now();
    go(leader, end).await?;
    standby.until_visible(&fresh.database, &append(&fresh, 3).await?).await?;
    let took = begun.elapsed();
    standby.stop().await?;
    Ok(took)
}

/// Lets the leader go; when this returns it has gone.
async fn go(leader: Daemon, end: End) -> Result<()> {
    match end {
        End::Killed => leader.kill().await,
        End::Stopped => leader.stop().await,
    }
}

/// Appends one event, at majority.
async fn append(fresh: &Fresh, version: i64) -> Result<Expected> {
    let log: Collection<RawDocumentBuf> = fresh.database.collection(&events_collection(COLLECTION));
    let event = backlog::event(0, version, 1, DateTime::now());
    log.insert_one(event).write_concern(WriteConcern::majority()).await?;
    Ok(Expected { events: version, last: vec![(backlog::id(0), version)] })
}
