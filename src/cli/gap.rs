//! `alluvium gap`: documents that wait behind a missing event, and how an operator closes the gap.

use clap::Subcommand;

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
    Fill(One),
}

impl Gap {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let one = match self {
            Self::List(list) => return list.run(globals, true).await,
            Self::Fill(one) => one,
        };
        let row = one.have(globals, Kind::GapFill).await?;
        if globals.json {
            return Ok(output::json(&view(&row))?);
        }
        let filled = follow::count(&follow::result(&row)?, "filled");
        output::line(format!("{filled} missing versions filled"))?;
        Ok(quarantine::outcome(one.id(), &row)?)
    }
}
