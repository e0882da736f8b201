//! Measuring ourselves: a private server, and each kind of work beside the bare baseline of the same
//! machine in the same minute, because absolute numbers of a shared machine mean little.

mod append;
mod archive;
mod backlog;
mod bare;
mod catch_up;
mod compact;
mod compact_live;
mod daemon;
mod error;
mod growth;
mod import;
mod jobs;
mod live;
mod missing;
mod process;
mod report;
mod server;
mod snapshots;
mod tail;
mod takeover;
mod verify;
mod visible;
mod writers;

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use backlog::Shape;
pub use error::BenchError;
use error::Result;
pub use report::{Report, Row, Target, Unit, median};
use server::Server;

/// The name of the collection that every benchmark projects.
const COLLECTION: &str = "games";

/// A kind of work that can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Tail 2,000 documents × 100 events, interleaved.
    TailDense,
    /// Tail 20,000 × 10.
    TailMiddle,
    /// Tail 200,000 × 1, all new, and again, all updates.
    TailSparse,
    /// Tail Zipf-distributed documents.
    Zipf,
    /// Catch up from the log, 2,000 × 100.
    CatchUpDense,
    /// Catch up from the log, 200,000 × 1.
    CatchUpSparse,
    /// A start on a log of 20,000 × 10 that is appended to at a steady rate.
    CatchUpLive,
    /// Writers at full speed, then silence.
    Overload,
    /// The highest rate of appends that the daemon follows.
    Live,
    /// The resume token is lost.
    Recovery,
    /// From append to visible.
    Visible,
    /// Appending through the typed writer.
    Append,
    /// What a client is missing.
    Missing,
    /// A cache too small for the working set.
    SmallCache,
    /// Ever more documents, and ever more clients of a document.
    Growth,
    /// Tailing with snapshots by number of events, and without.
    Snapshots,
    /// A job that snapshots a whole collection, and one that is cancelled.
    SnapshotJob,
    /// From the end of a leader until another one goes on.
    Takeover,
    /// Every document compared with its log, 2,000 × 100.
    Verify,
    /// Every row made again, 1,000 × 1,000.
    Rebuild,
    /// Bases and pruning, 1,000 × 1,000 and 300 × 300.
    Compact,
    /// A collection that existed before becomes events.
    Import,
    /// Compaction with an archive beside the same without one, 1,000 × 1,000, and what is put back and read from it.
    Archive,
}

impl Scenario {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 23] = [
        Self::TailDense,
        Self::TailMiddle,
        Self::TailSparse,
        Self::Zipf,
        Self::CatchUpDense,
        Self::CatchUpSparse,
        Self::CatchUpLive,
        Self::Overload,
        Self::Live,
        Self::Recovery,
        Self::Visible,
        Self::Append,
        Self::Missing,
        Self::SmallCache,
        Self::Growth,
        Self::Snapshots,
        Self::SnapshotJob,
        Self::Takeover,
        Self::Verify,
        Self::Rebuild,
        Self::Compact,
        Self::Import,
        Self::Archive,
    ];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::TailDense => "tail-dense",
            Self::TailMiddle => "tail-middle",
            Self::TailSparse => "tail-sparse",
            Self::Zipf => "zipf",
            Self::CatchUpDense => "catch-up-dense",
            Self::CatchUpSparse => "catch-up-sparse",
            Self::CatchUpLive => "catch-up-live",
            Self::Overload => "overload",
            Self::Live => "live",
            Self::Recovery => "recovery",
            Self::Visible => "visible",
            Self::Append => "append",
            Self::Missing => "missing",
            Self::SmallCache => "small-cache",
            Self::Growth => "growth",
            Self::Snapshots => "snapshots",
            Self::SnapshotJob => "snapshot-job",
            Self::Takeover => "takeover",
            Self::Verify => "verify",
            Self::Rebuild => "rebuild",
            Self::Compact => "compact",
            Self::Import => "import",
            Self::Archive => "archive",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no scenario; there are {names}")
        })
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Which kinds of work.
    pub scenarios: Vec<Scenario>,
    /// Factor on the number of documents: 1 is what the targets speak of.
    pub scale: f64,
    /// How often each is measured, at least once.
    pub repeat: usize,
    /// How long the writers of [`Scenario::Overload`] go on.
    pub overload: Duration,
    /// The program whose `run` is measured, instead of this one.
    pub daemon: Option<PathBuf>,
}

/// Measures, on a private server that is started for it. `progress` is told of every scenario that begins.
///
/// # Errors
/// When a measurement cannot be finished.
pub async fn run(options: &BenchOptions, mut progress: impl FnMut(Scenario)) -> Result<Report> {
    let mut server = Server::start(options.daemon.as_deref()).await?;
    let mut report = Report::default();
    for scenario in &options.scenarios {
        progress(*scenario);
        report.rows.extend(measure(&mut server, *scenario, options).await?);
    }
    server.stop().await?;
    Ok(report)
}

#[allow(clippy::cast_sign_loss, reason = "at least 1 by the line before")]
async fn measure(
    server: &mut Server,
    scenario: Scenario,
    options: &BenchOptions,
) -> Result<Vec<Row>> {
    let scaled = |documents: f64| (documents * options.scale).max(1.0) as usize;
    let repeat = options.repeat.max(1);
    let interleaved =
        |documents, each| Shape::Interleaved { documents: scaled(documents), each, before: 0 };
    match scenario {
        Scenario::TailDense => {
            tail::run(server, "tail 2000 x 100", interleaved(2e3, 100), 0.95, repeat).await
        }
        Scenario::TailMiddle => {
            tail::run(server, "tail 20000 x 10", interleaved(2e4, 10), 0.75, repeat).await
        }
        Scenario::TailSparse => tail::run_new_and_again(server, scaled(2e5), repeat).await,
        Scenario::Zipf => {
            let shape = Shape::Zipf { documents: scaled(1e5), events: scaled(1e6) };
            tail::run(server, "tail Zipf, 1,000,000 events of 100,000", shape, 0.85, 1).await
        }
        Scenario::CatchUpDense => {
            catch_up::run_dense(server, interleaved(2e3, 100), "catch up 2000 x 100", repeat).await
        }
        Scenario::CatchUpSparse => catch_up::run_sparse(server, scaled(2e5), repeat).await,
        Scenario::CatchUpLive => live::run_catch_up(server, scaled(2e4), repeat).await,
        Scenario::Overload => {
            live::run_overload(server, scaled(2e4), options.overload, repeat).await
        }
        Scenario::Live => live::run_live(server, scaled(2e4), repeat).await,
        Scenario::Recovery => catch_up::run_recovery(server, scaled(1e6), 1_000).await,
        Scenario::Visible => visible::run(server, scaled(5e3).max(1_000), repeat).await,
        Scenario::Append => append::run(server, scaled(1e4).max(1_000), repeat).await,
        Scenario::Missing => missing::run(server, 4, scaled(1.6e4)).await,
        Scenario::SmallCache => {
            let shape = Shape::Zipf { documents: scaled(1e5), events: scaled(3e5) };
            tail::run_small_cache(server, shape, repeat).await
        }
        Scenario::Growth => growth::run(server, |documents| scaled(documents as f64)).await,
        Scenario::Snapshots => snapshots::run(server, (scaled(1e3), 500), repeat).await,
        Scenario::SnapshotJob => snapshots::run_job(server, scaled(1e5)).await,
        Scenario::Verify => {
            verify::run(server, interleaved(2e3, 100), "verify 2000 x 100", repeat).await
        }
        Scenario::Rebuild => {
            verify::run_rebuild(server, interleaved(1e3, 1_000), "rebuild 1000 x 1000", repeat)
                .await
        }
        Scenario::Compact => {
            let mut rows = compact::run(server, (scaled(1e3), 1_000), repeat).await?;
            rows.extend(compact::run(server, (scaled(300.0), 300), repeat).await?);
            rows.extend(compact_live::run(server, (scaled(1e3), 1_000), repeat).await?);
            Ok(rows)
        }
        Scenario::Import => import::run(server, scaled(2e4), repeat).await,
        Scenario::Archive => archive::run(server, (scaled(1e3), 1_000), repeat).await,
        Scenario::Takeover => takeover::run(server, repeat).await,
    }
}
