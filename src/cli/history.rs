//! `alluvium history`: the events of one document, as they stand in the log.

use clap::Args;
use serde_json::json;

use super::{CommandResult, Globals, output, target::Target};
use crate::{
    api::{
        value::Notation,
        written::{Event, tree},
    },
    read::Reader,
};

#[derive(Args, Debug)]
pub(super) struct History {
    #[command(flatten)]
    target: Target,
    /// Begin after this version
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
    after_version: Option<i64>,
    /// Read from the very first event on, through the archive
    #[arg(long)]
    archive: bool,
    /// The most events
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl History {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let reader = self.target.reader_through(globals, self.archive).await?;
        match self.read(&reader, globals).await {
            Err(failure) => Err(self.target.explained(failure, &reader).await),
            read => read,
        }
    }

    async fn read(&self, reader: &Reader, globals: &Globals) -> CommandResult {
        let (id, after) = (&self.target.id, self.after_version);
        let page = match self.archive {
            true => reader.whole_history(id, after, self.limit).await?,
            false => reader.history(id, after, self.limit).await?,
        };
        if page.events.is_empty() && reader.current(&self.target.id).await?.is_none() {
            return Err(self.target.unknown().into());
        }
        let events =
            page.events.iter().map(|event| tree(&Event::stored(Notation::default(), event)));
        if globals.json {
            let events: Vec<_> = events.collect();
            return Ok(output::json(&json!({ "events": events, "next": page.next }))?);
        }
        for event in events {
            output::event(&event)?;
        }
        if let Some(next) = page.next {
            output::line(format!("there are more: --after-version {next}"))?;
        }
        Ok(())
    }
}
