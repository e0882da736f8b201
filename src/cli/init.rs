//! `alluvium init`: makes what a daemon needs, so that the daemon itself needs fewer rights; and
//! brings an existing log's validator up to this version and configuration.

use clap::Args;
use serde_json::json;

use super::{CommandResult, Globals, output, roles};
use crate::{config::Expect, database::create::Report, log::create::Differing, setup::prepare};

#[derive(Args, Debug)]
pub(super) struct Init {
    /// Make nothing: print the least roles that the daemon, writers, operators and readers need, to be pasted into mongosh
    #[arg(long)]
    roles: bool,
}

impl Init {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let config = globals.load(Expect::Collections)?;
        if self.roles {
            return Ok(roles::print(&config, globals.json)?);
        }
        let connected = globals.open(&config.mongodb).await?;
        let report = prepare(&connected.database, &config.collections, Differing::Replace).await?;
        let Report { created, updated, warnings } = report;
        if globals.json {
            let report = json!({ "created": created, "updated": updated, "warnings": warnings });
            return Ok(output::json(&report)?);
        }
        for name in &created {
            output::line(format!("created {name}"))?;
        }
        for name in &updated {
            output::line(format!("updated the validator of {name}"))?;
        }
        for warning in &warnings {
            output::line(format!("warning: {warning}"))?;
        }
        if created.is_empty() && updated.is_empty() {
            output::line("everything was there already")?;
        }
        Ok(())
    }
}
