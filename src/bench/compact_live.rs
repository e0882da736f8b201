//! What compaction costs whoever appends meanwhile: how long an event takes until it is visible, at a steady rate, and how
//! many events a second writers and daemon come to at full speed; each alone, and beside the compaction of half of the log.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use futures::future::try_join;

use super::{
    backlog::{self, Expected, Shape},
    compact::{TUNING, base_grows_old, compact, grow_old},
    daemon::{Daemon, Moment},
    error::{BenchError, Result},
    live::{FEW, TRIAL},
    report::{Row, Target, Unit},
    server::{Fresh, Server},
    visible::{DOCUMENTS, EVENTS_PER_SECOND, append_and_look, percentile},
    writers::{Pace, Writers},
};

/// How many events are appended at the steady rate before it is looked whether compaction goes on.
const ROUND: usize = 1_000;
/// How many documents the writers at full speed append to.
const WRITTEN: usize = 2_000;

/// A daemon over a log that can be compacted, and writers that append to other documents of it.
struct Scene {
    fresh: Fresh,
    daemon: Daemon,
    /// How many events each document has that can be compacted.
    each: i64,
    /// The first document that nobody has written to.
    next: usize,
    /// How many events there are.
    events: i64,
}

/// Measures both beside logs of so many documents of so many events.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run(
    server: &mut Server,
    (documents, each): (usize, i64),
    repeat: usize,
) -> Result<Vec<Row>> {
    let name = |what: &str| format!("while {documents} x {each} are compacted, {what}");
    let visible = name(&format!("append to visible, {EVENTS_PER_SECOND} events/s, p99"));
    let (twice, most) = (Target::RatioAtMost(2.0), Target::RatioAtLeast(0.8));
    let mut visible = Row::new(visible, Unit::Milliseconds, "alone", twice);
    let mut rate = Row::new(name("full speed"), Unit::EventsPerSecond, "alone", most);
    for _ in 0..repeat {
        let fresh = server.fresh().await?;
        let shape = Shape::Interleaved { documents, each, before: 0 };
        let expected = backlog::append(&fresh.database, shape).await?;
        let mut daemon = server.daemon(&fresh.database, &TUNING)?;
        daemon.until_visible(&fresh.database, &expected).await?;
        let events = expected.events;
        let mut scene = Scene { fresh, daemon, each, next: documents, events };
        let half = documents / 2;
        visible.bare.push(scene.until_seen(None).await?);
        visible.ours.push(scene.until_seen(Some(0..half)).await?);
        rate.bare.push(scene.full_speed(None).await?);
        rate.ours.push(scene.full_speed(Some(half..documents)).await?);
        scene.daemon.stop().await?;
    }
    Ok(vec![visible, rate])
}

impl Scene {
    /// Has some documents compacted, from the first base to the last deletion.
    async fn compact(&self, documents: Range<usize>) -> Result<()> {
        let database = &self.fresh.database;
        grow_old(database, documents.clone(), self.each).await?;
        compact(database).await?;
        base_grows_old(database, documents).await?;
        compact(database).await.map(drop)
    }

    /// The 99th of a hundred times from append to visible, in milliseconds.
    async fn until_seen(&mut self, compacted: Option<Range<usize>>) -> Result<f64> {
        let (is_over, first) = (AtomicBool::new(compacted.is_none()), self.next);
        let work = async {
            if let Some(compacted) = compacted {
                self.compact(compacted).await?;
            }
            is_over.store(true, Ordering::Relaxed);
            Ok::<(), BenchError>(())
        };
        let looks = async {
            let (mut next, mut seconds) = (first, Vec::new());
            loop {
                let documents = (next, ROUND);
                seconds.extend(append_and_look(&self.fresh.database, documents).await?);
                next += DOCUMENTS;
                if is_over.load(Ordering::Relaxed) {
                    return Ok((next, seconds));
                }
            }
        };
        let ((), (next, mut seconds)) = try_join(work, looks).await?;
        let rounds = (next - first) / DOCUMENTS;
        self.events += (rounds * ROUND) as i64;
        self.next = next;
        Ok(1e3 * percentile(&mut seconds, 0.99))
    }

    /// How many events a second writers append and the daemon projects.
    async fn full_speed(&mut self, compacted: Option<Range<usize>>) -> Result<f64> {
        let database = &self.fresh.database;
        let writers = Writers::new(database, WRITTEN, 0, FEW).from(self.next);
        let since = Moment::now();
        let begun = Instant::now();
        let write = async {
            writers.write(Pace::FullSpeed, Some(TRIAL)).await?;
            Ok(begun.elapsed().as_secs_f64())
        };
        // The writers do not wait for the compaction, which stands while the projection is late.
        let written = match compacted {
            None => write.await?,
            Some(compacted) => try_join(self.compact(compacted), write).await?.1,
        };
        let appended = writers.appended();
        let expected = Expected { events: self.events + appended, last: Vec::new() };
        let (seconds, _) = self.daemon.until_projected(database, &expected, since).await?;
        self.events += appended;
        self.next += WRITTEN;
        Ok(appended as f64 / seconds.max(written))
    }
}
