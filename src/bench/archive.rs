//! What an archive costs compaction, how large it is, and how fast events come back out of it.

use std::{fs, path::Path, time::Instant};

use super::{
    backlog::{self, Shape},
    compact::{TUNING, asked, base_grows_old, compact, grow_old, mebibytes, run_job},
    daemon::{COLLECTION, Tuning},
    error::{BenchError, Result},
    report::{Row, Target, Unit},
    server::Server,
    visible::percentile,
};
use crate::{
    archive::{Archive, Place},
    read::{ReadLimits, Reader},
};

/// How many pages of history are read, and how many events each has.
const PAGES: usize = 500;
const PAGE_EVENTS: u32 = 100;

/// Compacts logs of so many documents of so many events, with an archive and without.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run(
    server: &mut Server,
    (documents, each): (usize, i64),
    repeat: usize,
) -> Result<Vec<Row>> {
    let name = |what: &str| format!("archive {documents} x {each}, {what}");
    let rate = Unit::EventsPerSecond;
    let row = |what, unit, bare, target| Row::new(name(what), unit, bare, target);
    let half = Target::RatioAtLeast(0.5);
    let mut compacting = row("compaction", rate, "without an archive", half);
    let quarter = Target::RatioAtMost(0.25);
    let mut size = row("size", Unit::Mebibytes, "the events as BSON", quarter);
    let mut restoring = row("restore", rate, "bare inserts", Target::RatioAtLeast(0.3));
    let page = Target::AtMost(50.0);
    let mut history = row("a page of history p99", Unit::Milliseconds, "", page);
    for _ in 0..repeat {
        let shape = Shape::Interleaved { documents, each, before: 0 };
        let fresh = server.fresh().await?;
        let begun = Instant::now();
        let expected = backlog::append(&fresh.database, shape).await?;
        restoring.bare.push(expected.events as f64 / begun.elapsed().as_secs_f64());
        for is_archived in [false, true] {
            let fresh = server.fresh().await?;
            let database = &fresh.database;
            let expected = backlog::append(database, shape).await?;
            let folder = tempfile::tempdir().map_err(BenchError::io("make a temporary folder"))?;
            let archive = is_archived.then(|| folder.path().join("archive"));
            let tuning = Tuning { archive: archive.clone(), ..TUNING };
            let mut daemon = server.daemon(database, &tuning)?;
            daemon.until_visible(database, &expected).await?;
            let before = mebibytes(database).await?;
            grow_old(database, 0..documents, each).await?;
            let (bases, _) = compact(database).await?;
            base_grows_old(database, 0..documents).await?;
            let (pruning, events) = compact(database).await?;
            let Some(archive) = archive else {
                compacting.bare.push(events / (bases + pruning));
                daemon.stop().await?;
                continue;
            };
            compacting.ours.push(events / (bases + pruning));
            size.bare.push(before - mebibytes(database).await?);
            size.ours.push(bytes(&archive.join("segments"))? as f64 / f64::from(1 << 20));
            let place = Place::Directory(archive);
            let archive = Archive::at(&place, database.name(), COLLECTION);
            let reader = Reader::new(database, COLLECTION, ReadLimits::default());
            let reader = reader.with_archive(Some(archive));
            let mut seconds = Vec::with_capacity(PAGES);
            for (id, _) in asked(documents, each).iter().cycle().take(PAGES) {
                let begun = Instant::now();
                reader.whole_history(id, each / 3, PAGE_EVENTS).await?;
                seconds.push(begun.elapsed().as_secs_f64());
            }
            history.ours.push(1e3 * percentile(&mut seconds, 0.99));
            let (seconds, events) = run_job(database, "restore").await?;
            restoring.ours.push(events / seconds);
            restoring.peak_mib.push(daemon.peak_mib()?);
            daemon.stop().await?;
        }
    }
    Ok(vec![compacting, size, restoring, history])
}

/// How large the files of a directory are together.
fn bytes(directory: &Path) -> Result<u64> {
    let read = || {
        let entries = fs::read_dir(directory)?;
        entries.map(|entry| Ok(entry?.metadata()?.len())).sum::<std::io::Result<u64>>()
    };
    read().map_err(BenchError::io("look at the archive"))
}
