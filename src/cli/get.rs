//! `alluvium get`: one document, now or as it was.

use bson::DateTime;
use clap::Args;

use super::{CommandResult, Globals, output, target::Target};
use crate::{
    api::{
        value::{self, Notation},
        written::{Projected, State, tree},
    },
    model::document::{Document, Quarantine},
    read::{Current, Reader},
};

#[derive(Args, Debug)]
pub(super) struct Get {
    #[command(flatten)]
    target: Target,
    /// The document as it was at this version
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(1..))]
    at_version: Option<i64>,
    /// The document as it was at this time, by its writers' clocks (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "at_version", value_parser = parse_time)]
    at_time: Option<DateTime>,
}

fn parse_time(text: &str) -> Result<DateTime, String> {
    DateTime::parse_rfc3339_str(text)
        .map_err(|_| "give an RFC 3339 time such as 2026-01-31T12:00:00Z".to_owned())
}

impl Get {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let reader = self.target.reader(globals).await?;
        match self.read(&reader, globals).await {
            Err(failure) => Err(self.target.explained(failure, &reader).await),
            read => read,
        }
    }

    async fn read(&self, reader: &Reader, globals: &Globals) -> CommandResult {
        let id = &self.target.id;
        let as_it_was = |document| (document, 0, None);
        let found = match (self.at_version, self.at_time) {
            (Some(version), _) => reader.at_version(id, version).await?.map(as_it_was),
            (None, Some(time)) => reader.at_time(id, time).await?.map(as_it_was),
            (None, None) => {
                let current = reader.current(id).await?;
                current.map(|Current { document, pending, waits, .. }| (document, pending, waits))
            }
        };
        let (document, pending, waits) = found.ok_or_else(|| self.target.unknown())?;
        if globals.json {
            return Ok(output::json(&tree(&Projected {
                notation: Notation::default(),
                document: &document,
                waits: waits.as_ref(),
            }))?);
        }
        Ok(print(&document, pending, waits.as_ref())?)
    }
}

fn print(document: &Document, pending: i64, waits: Option<&Quarantine>) -> std::io::Result<()> {
    let state = tree(&State::of(Notation::default(), document));
    output::line(format!("version  {}", document.version))?;
    output::line(format!("clock    {}", value::clock(&document.clock)))?;
    if let Some(at) = document.updated_at {
        output::line(format!("updated  {}", output::plain(&value::time(at))))?;
    }
    if pending > 0 {
        output::line(format!("         ({pending} of its events are not projected yet)"))?;
    }
    if let Some(mark) = waits {
        output::waits(mark)?;
    }
    match document.is_deleted() {
        true => output::line("deleted"),
        false => output::line(format!("state    {state:#}")),
    }
}
