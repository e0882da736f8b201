//! `alluvium gap`: documents that wait behind a missing event, and how an operator closes the hole.

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
    /// Take what stands above a document's hole out of its log; it is kept in alluvium.quarantine
    Discard(One),
}

impl Gap {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let (one, kind) = match self {
            Self::List(list) => return list.run(globals, true).await,
            Self::Fill(one) => (one, Kind::GapFill),
            Self::Discard(one) => (one, Kind::GapDiscard),
        };
        let row = one.have(globals, kind).await?;
        if globals.json {
            return Ok(output::json(&view(&row))?);
        }
        let result = follow::result(&row)?;
        output::line(match kind {
            Kind::GapFill => {
                format!("{} missing versions filled", follow::count(&result, "filled"))
            }
            _ => format!(
                "{} events discarded; they are kept in `alluvium.quarantine`",
                follow::count(&result, "discarded")
            ),
        })?;
        Ok(quarantine::outcome(one.id(), &row)?)
    }
}
