//! `alluvium bench`: the daemon's speed beside the server's own, on a throwaway MongoDB server.

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
}

impl Bench {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let Self { scenario, scale, repeat } = self;
        let scenarios = if scenario.is_empty() { Scenario::ALL.to_vec() } else { scenario };
        let options = BenchOptions { scenarios, scale, repeat };
        let report = run(&options, |scenario| tracing::info!(%scenario, "measuring")).await?;
        if globals.json {
            output::json(&serde_json::to_value(&report)?)?;
        } else {
            output::line(report.to_string())?;
        }
        Ok(())
    }
}
