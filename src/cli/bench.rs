//! `alluvium bench`: the daemon's speed beside the server's own, on a throwaway MongoDB server.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{CommandResult, Globals, output};
use crate::bench::{BenchOptions, Scenario, run};

#[derive(Args, Debug)]
pub(super) struct Bench {
    /// What to measure; several with commas [default: everything]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Factor on the number of documents; the targets are meant at 1
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,
    /// How often each is measured
    #[arg(long, value_name = "TIMES", default_value_t = 3)]
    repeat: usize,
    /// How long the writers of `overload` go on at full speed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    overload_seconds: u64,
    /// The program whose `run` is measured, instead of this one: an older build, say
    #[arg(long, value_name = "PATH", hide = true)]
    daemon: Option<PathBuf>,
}

impl Bench {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let Self { scenario, scale, repeat, overload_seconds, daemon } = self;
        let scenarios = if scenario.is_empty() { Scenario::ALL.to_vec() } else { scenario };
        let overload = Duration::from_secs(overload_seconds);
        let options = BenchOptions { scenarios, scale, repeat, overload, daemon };
        let report = run(&options, |scenario| tracing::info!(%scenario, "measuring")).await?;
        if globals.json {
            output::json(&serde_json::to_value(&report)?)?;
        } else {
            output::line(report.to_string())?;
        }
        Ok(())
    }
}
