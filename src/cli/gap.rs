//! `alluvium gap`: documents that wait behind a missing event, and how an operator closes the gap.

use clap::{Args, Subcommand};

use super::{
    CommandResult, Globals, follow, output, quarantine,
    waiting::{List, One},
};
use crate::{api::jobs::view, model::job::Kind};

#[derive(Subcommand, Debug)]
pub(super) enum Gap {
    /// List the documents that wait behind a missing event
    List(List),
    /// Fill what is missing of a document with events that change nothing, so that it goes on
    Fill(Fill),
}

#[derive(Args, Debug)]
pub(super) struct Fill {
    #[command(flatten)]
    one: One,
    /// Skip everything above the gap, for ever: it counts, and the state stays what it is below the gap
    #[arg(long)]
    skip_above: bool,
}

impl Gap {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let Fill { one, skip_above } = match self {
            Self::List(list) => return list.run(globals, true).await,
            Self::Fill(fill) => fill,
        };
        let row = one.have(globals, (Kind::GapFill, skip_above)).await?;
        if globals.json {
            return Ok(output::json(&view(&row))?);
        }
        let result = follow::result(&row)?;
        let count = |name| follow::count(&result, name);
        output::line(format!("{} missing versions filled", count("filled")))?;
        if skip_above {
            let (from, through) = (count("gap"), count("through"));
            output::line(format!("everything from version {from} to {through} is skipped"))?;
        }
        Ok(quarantine::outcome(one.id(), &row)?)
    }
}
