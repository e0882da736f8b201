//! The daemon under measurement: a process of its own, started as an operator would, so that its CPU
//! time and memory are told apart from the benchmark's.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use bson::doc;
use futures::TryStreamExt;
use mongodb::Database;
use tokio::process::{Child, Command};

use super::{
    backlog::Expected,
    error::{BenchError, Result},
    process,
};
use crate::time::{SystemTime, Time};

pub(super) use super::COLLECTION;

/// How long anything may take before the benchmark gives up.
pub(super) const LIMIT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(10);
/// How the daemon's log says that it has begun to read: these phases follow the first, in the spelling of this version or of an earlier one.
const READING: [&str; 4] =
    [r#""to":"tailing""#, r#""to":"scanning""#, r#""to":"Tailing""#, r#""to":"Scanning""#];
/// How it says that another one leads.
const STANDING_BY: &str = r#""standing":"Standby""#;

/// How the daemon is configured where it differs from the defaults.
#[derive(Clone, Debug, Default)]
pub(super) struct Tuning {
    /// `cache_bytes`, in MiB.
    pub(super) cache_mib: Option<u64>,
    /// `snapshots.every_events`; 0 is never.
    pub(super) every_events: i64,
    /// `compaction.min_age`.
    pub(super) min_age: Option<&'static str>,
    /// `compaction.archive`: a directory.
    pub(super) archive: Option<std::path::PathBuf>,
}

/// A running daemon. Dropping it kills it.
pub(super) struct Daemon {
    process: Child,
    started: Instant,
    _folder: tempfile::TempDir,
    log: std::path::PathBuf,
}

/// What a daemon took for its work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// From the start of the process until it read.
    pub(super) start_seconds: f64,
    /// From then until everything was visible.
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) peak_mib: f64,
}

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) at: bson::DateTime,
}

impl Moment {
    /// The present one.
    pub(super) fn now() -> Self {
        Self { instant: Instant::now(), at: bson::DateTime::now() }
    }
}

impl Daemon {
    /// Starts `run` of this program on this database.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(super) fn start(
        program: &Path,
        uri: &str,
        database: &str,
        tuning: &Tuning,
    ) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(BenchError::io("make a temporary folder"))?;
        let config = folder.path().join("alluvium.toml");
        let log = folder.path().join("log");
        fs::write(&config, configuration(uri, database, tuning))
            .map_err(BenchError::io("write the daemon's configuration"))?;
        let output = fs::File::create(&log).map_err(BenchError::io("make the daemon's log"))?;
        let errors = output.try_clone().map_err(BenchError::io("make the daemon's log"))?;
        let started = Instant::now();
        let process = Command::new(program)
            .arg("run")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(BenchError::io("start the daemon"))?;
        Ok(Self { process, started, _folder: folder, log })
    }

    /// Waits until every reader of the projected documents finds `expected`, and tells what that took
    /// from when the daemon began to read until the last row was written.
    ///
    /// # Errors
    /// When the daemon ends, or is not done within ten minutes.
    pub(super) async fn until_visible(
        &mut self,
        database: &Database,
        expected: &Expected,
    ) -> Result<Usage> {
        let reading = self.until_it_reads().await?;
        let start_seconds = self.age().as_secs_f64();
        let (seconds, cpu_seconds) = self.until_projected(database, expected, reading).await?;
        let peak_mib = self.peak_mib()?;
        Ok(Usage { start_seconds, seconds, cpu_seconds, peak_mib })
    }

    /// Waits until it has begun to read; that moment.
    ///
    /// # Errors
    /// When the daemon ends.
    pub(super) async fn until_it_reads(&mut self) -> Result<Moment> {
        while !self.says(&READING)? {
            self.check_alive()?;
            if self.age() > LIMIT {
                return Err(BenchError::NotReading(LIMIT.as_secs()));
            }
            SystemTime::new().sleep(Duration::from_millis(1)).await;
        }
        Ok(Moment::now())
    }

    /// How long ago it was started.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until `expected` is projected: the seconds from `since` until the last row was written, and the CPU
    /// time that the daemon has used by then.
    ///
    /// # Errors
    /// When the daemon ends, or is not done within ten minutes.
    pub(super) async fn until_projected(
        &mut self,
        database: &Database,
        expected: &Expected,
        since: Moment,
    ) -> Result<(f64, f64)> {
        loop {
            self.check_alive()?;
            // The moment before the look that finds everything: the look itself is not the daemon's work.
            let (seconds, cpu_seconds) = (since.instant.elapsed().as_secs_f64(), self.cpu()?);
            if is_near(database, expected).await? {
                let found = sum_of_versions(database).await?;
                if found >= expected.events {
                    let last = last_written(database).await?;
                    let until_last = last.map(|last| last.saturating_duration_since(since.at));
                    let until_last = until_last.map(|last| last.as_secs_f64().min(seconds));
                    return Ok((until_last.unwrap_or(seconds), cpu_seconds));
                }
            }
            if since.instant.elapsed() > LIMIT {
                let found = sum_of_versions(database).await?;
                let (seconds, expected) = (LIMIT.as_secs(), expected.events);
                return Err(BenchError::NotVisible { seconds, found, expected });
            }
            SystemTime::new().sleep(POLL).await;
        }
    }

    /// The CPU time that it has used, in seconds.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn cpu(&self) -> Result<f64> {
        process::cpu_seconds(self.process.id().unwrap_or_default())
    }

    /// The most memory that it has had at once.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn peak_mib(&self) -> Result<f64> {
        process::peak_mib(self.process.id().unwrap_or_default())
    }

    /// Waits until it knows that another daemon leads.
    ///
    /// # Errors
    /// When the daemon ends, or does not stand by.
    pub(super) async fn until_it_stands_by(&mut self) -> Result<()> {
        while !self.says(&[STANDING_BY])? {
            self.check_alive()?;
            if self.started.elapsed() > LIMIT {
                return Err(BenchError::NotStandby(LIMIT.as_secs()));
            }
            SystemTime::new().sleep(POLL).await;
        }
        Ok(())
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) async fn kill(mut self) -> Result<()> {
        self.process.kill().await.map_err(BenchError::io("kill the daemon"))
    }

    /// Whether its log has one of these words.
    fn says(&self, words: &[&str]) -> Result<bool> {
        let log = fs::read_to_string(&self.log).map_err(BenchError::io("read the daemon's log"))?;
        Ok(words.iter().any(|word| log.contains(word)))
    }

    fn check_alive(&mut self) -> Result<()> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(5).collect();
                let words = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
                Err(BenchError::DaemonEnded { status: status.to_string(), words })
            }
            Err(error) => Err(BenchError::io("look after the daemon")(error)),
        }
    }

    /// Asks it to stop and waits for its end. A killed one would be safe too, but would keep the next one
    /// waiting for its lease.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) async fn stop(mut self) -> Result<()> {
        let pid = self.process.id().unwrap_or_default().to_string();
        let ended = async {
            Command::new("/bin/kill").args(["-s", "TERM", &pid]).status().await?;
            self.process.wait().await
        };
        ended.await.map(drop).map_err(BenchError::io("end the daemon"))
    }
}

fn configuration(uri: &str, database: &str, tuning: &Tuning) -> String {
    let mut text = format!(
        "[mongodb]\nuri = \"{uri}\"\ndatabase = \"{database}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n[[collections]]\nname = \"{COLLECTION}\"\n"
    );
    if let Some(mib) = tuning.cache_mib {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "cache_bytes = \"{mib}MiB\"");
    }
    if tuning.every_events > 0 {
        let every = tuning.every_events;
        let _infallible = writeln!(text, "[collections.snapshots]\nevery_events = {every}");
    }
    if let Some(min_age) = tuning.min_age {
        let _infallible = writeln!(text, "[collections.compaction]\nmin_age = \"{min_age}\"");
        if let Some(archive) = &tuning.archive {
            let _infallible = writeln!(text, "archive = \"file://{}\"", archive.display());
        }
    }
    text
}

/// Whether the documents of the last events are there: a look that costs the server next to nothing.
async fn is_near(database: &Database, expected: &Expected) -> Result<bool> {
    let ids: Vec<&str> = expected.last.iter().map(|(id, _)| id.as_str()).collect();
    let rows: Vec<bson::Document> = database
        .collection::<bson::Document>(COLLECTION)
        .find(doc! { "_id": { "$in": ids } })
        .projection(doc! { "version": 1 })
        .await?
        .try_collect()
        .await?;
    let reached = |(id, version): &(String, i64)| {
        rows.iter().any(|row| {
            row.get_str("_id").is_ok_and(|found| found == id)
                && row.get_i64("version").unwrap_or_default() >= *version
        })
    };
    Ok(expected.last.iter().all(reached))
}

/// When the last row was written, by the server's clock, which is this machine's. A look at the rows takes up to
/// a tenth of a second, and nobody knows how long before it they were complete.
async fn last_written(database: &Database) -> Result<Option<bson::DateTime>> {
    let oplog = database.client().database("local").collection::<bson::Document>("oplog.rs");
    let name = format!("{}.{COLLECTION}", database.name());
    // Rows that were written in a transaction are one entry of all of them.
    let rows = doc! { "$or": [{ "ns": &name }, { "o.applyOps.ns": &name }] };
    let last = oplog.find_one(rows).sort(doc! { "$natural": -1 }).await?;
    Ok(last.and_then(|entry| entry.get_datetime("wall").ok().copied()))
}

/// How many events all projected documents hold.
pub(super) async fn sum_of_versions(database: &Database) -> Result<i64> {
    let sum = doc! { "$group": { "_id": null, "events": { "$sum": "$version" } } };
    let mut found = database.collection::<bson::Document>(COLLECTION).aggregate(vec![sum]).await?;
    let row = found.try_next().await?;
    Ok(row.and_then(|row| row.get_i64("events").ok()).unwrap_or_default())
}
