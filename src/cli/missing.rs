//! `alluvium missing`: what a client with a given vector clock has not seen of a document.

use bson::DateTime;
use clap::Args;

use super::{CommandResult, Globals, output, target::Target};
use crate::{
    api::value::{self, Notation},
    model::clock::Clock,
    read::{self, MissingQuery},
};

#[derive(Args, Debug)]
pub(super) struct Missing {
    #[command(flatten)]
    target: Target,
    /// What the client has seen, such as {"game-server":1}; {} is nothing
    #[arg(long, value_name = "JSON", value_parser = parse_clock)]
    clock: Clock,
    /// The most events
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

fn parse_clock(text: &str) -> Result<Clock, String> {
    serde_json::from_str(text).map_err(|error| format!("not a clock such as {{\"a\":1}}: {error}"))
}

impl Missing {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let reader = self.target.reader(globals).await?;
        let query = MissingQuery { clock: self.clock, limit: self.limit, log: None };
        let answer = reader.missing(&self.target.id, &query).await?;
        let answer = answer.ok_or_else(|| self.target.unknown())?;
        if globals.json {
            let answer = Notation::default().answer(&answer, DateTime::now());
            return Ok(output::json(&answer)?);
        }
        Ok(print(&answer)?)
    }
}

fn print(answer: &read::Missing) -> std::io::Result<()> {
    let (version, clock) = (answer.version, value::clock(&answer.clock));
    output::line(format!("the document is at version {version}, with the clock {clock}"))?;
    if let Some(document) = &answer.snapshot {
        let snapshot = Notation::default().document(document);
        output::line(format!("the log no longer reaches back so far; start from {snapshot}"))?;
    }
    for event in &answer.events {
        output::event(&Notation::default().missing(event))?;
    }
    if answer.events.is_empty() && answer.snapshot.is_none() {
        output::line("nothing is missing")?;
    }
    if answer.more {
        let next = value::clock(&answer.next_clock);
        output::line(format!("there are more: --clock '{next}'"))?;
    }
    Ok(())
}
