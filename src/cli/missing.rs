//! `alluvium missing`: what a client with a given vector clock has not seen of a document.

use bson::DateTime;
use clap::Args;

use super::{CommandResult, Globals, output, target::Target};
use crate::{
    api::{
        value::{self, Notation},
        written::{Answer, Event, State, tree},
    },
    model::clock::Clock,
    read::{self, MissingQuery, Reader},
};

#[derive(Args, Debug)]
pub(super) struct Missing {
    #[command(flatten)]
    target: Target,
    /// What the client has seen, such as {"game-server":1}; {} is nothing
    #[arg(long, value_name = "JSON", value_parser = parse_clock, required_unless_present = "reset")]
    clock: Option<Clock>,
    /// Take the state anew, whatever the client has seen: it has applied an event that is skipped, say
    #[arg(long)]
    reset: bool,
    /// Show every event, also through the archive, and no base in their place
    #[arg(long)]
    archive: bool,
    /// The most events
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

fn parse_clock(text: &str) -> Result<Clock, String> {
    serde_json::from_str(text).map_err(|error| format!("not a clock such as {{\"a\":1}}: {error}"))
}

impl Missing {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let reader = self.target.reader_through(globals, self.archive).await?;
        match self.read(&reader, globals).await {
            Err(failure) => Err(self.target.explained(failure, &reader).await),
            read => read,
        }
    }

    async fn read(&self, reader: &Reader, globals: &Globals) -> CommandResult {
        let clock = self.clock.clone().unwrap_or_default();
        let &Self { limit, reset, archive, .. } = self;
        let query = MissingQuery { clock, limit, log: None, reset, archive };
        let answer = reader.missing(&self.target.id, &query).await?;
        let answer = answer.ok_or_else(|| self.target.unknown())?;
        if globals.json {
            let answer = tree(&Answer {
                notation: Notation::default(),
                answer: &answer,
                now: DateTime::now(),
            });
            return Ok(output::json(&answer)?);
        }
        Ok(print(&answer, self.reset)?)
    }
}

fn print(answer: &read::Missing, reset: bool) -> std::io::Result<()> {
    let (version, clock) = (answer.version, value::clock(&answer.clock));
    output::line(format!("the document is at version {version}, with the clock {clock}"))?;
    if let Some(document) = &answer.snapshot {
        let snapshot = tree(&State::of(Notation::default(), document));
        let why = match (reset, answer.erased) {
            (_, true) => "the content of the document was erased, so keep nothing of it",
            (true, false) => "as asked for",
            (false, false) => "the log no longer reaches back so far",
        };
        output::line(format!("{why}: start from the state {snapshot}"))?;
    }
    for event in &answer.events {
        output::event(&tree(&Event::missing(Notation::default(), event)))?;
    }
    if answer.events.is_empty() && answer.snapshot.is_none() {
        output::line("nothing is missing")?;
    }
    if let Some(mark) = &answer.waits {
        output::waits(mark)?;
    }
    if answer.skips_total > 0 {
        let told = answer.skips.iter();
        let told: Vec<String> =
            told.map(|skip| format!("{} ({} {})", skip.version, skip.client, skip.seq)).collect();
        let (total, told) = (answer.skips_total, told.join(", "));
        output::line(format!(
            "{total} skipped in all, by version (client and count): {told}; whoever has applied one takes the state \
             anew: --reset"
        ))?;
    }
    if answer.more {
        let next = value::clock(&answer.next_clock);
        output::line(format!("there are more: --clock '{next}'"))?;
    }
    Ok(())
}
