//! `alluvium restore` puts back what compaction has taken out; `alluvium archive check` reads back what was archived.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{CommandResult, Globals, follow, output};
use crate::{
    api::jobs::view,
    model::{
        id::DocumentId,
        job::{Kind, Order},
    },
};

#[derive(Args, Debug)]
pub(super) struct Restore {
    /// The collection
    collection: String,
    /// The document's id, as for `get`; without it, every document of the collection
    #[arg(value_parser = DocumentId::from_text)]
    id: Option<DocumentId>,
}

#[derive(Args, Debug)]
pub(super) struct Archive {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Read everything back that was archived of a collection
    Check {
        /// The collection
        collection: String,
    },
}

/// Segments are not what was written. What there is to say has been printed.
#[derive(Debug, thiserror::Error)]
#[error("{0} segments of the archive are damaged or missing; nothing was deleted because of it")]
pub(super) struct Bad(i64);

/// Documents were not restored. What there is to say has been printed.
#[derive(Debug, thiserror::Error)]
#[error("{0} documents could not be restored")]
pub(super) struct NotRestored(i64);

impl Restore {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let connected = globals.connect().await?;
        let order = Order { document: self.id, ..Order::new(Kind::Restore, &self.collection) };
        let row = follow::follow(&connected.database, &order).await?;
        let result = follow::result(&row)?;
        let count = |field| follow::count(&result, field);
        let (erased, differences) = (count("erased"), count("differences"));
        if globals.json {
            output::json(&view(&row))?;
        } else {
            let (events, documents) = (count("events"), count("documents"));
            output::line(format!("{events} events put back, {documents} documents whole again"))?;
            if erased > 0 {
                output::line(format!("{erased} were erased, which cannot be undone"))?;
            }
            if differences > 0 {
                output::line(format!("{differences} documents could not be restored:"))?;
                follow::print_findings(&row)?;
            }
        }
        match differences {
            0 => Ok(()),
            left => Err(NotRestored(left).into()),
        }
    }
}

impl Archive {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let Command::Check { collection } = self.command;
        let connected = globals.connect().await?;
        let order = Order::new(Kind::ArchiveCheck, &collection);
        let row = follow::follow(&connected.database, &order).await?;
        let result = follow::result(&row)?;
        let count = |field| follow::count(&result, field);
        let (segments, events, bad) = (count("segments"), count("events"), count("bad"));
        let job = view(&row);
        if globals.json {
            output::json(&job)?;
        } else {
            output::line(format!(
                "{segments} segments of {events} events read back, {bad} are bad"
            ))?;
            let swept = count("swept");
            if swept > 0 {
                output::line(format!("{swept} files removed that killed writers had left"))?;
            }
            let named = job.pointer("/result/named").and_then(Value::as_array);
            for named in named.into_iter().flatten() {
                output::line(named.get("problem").map(output::plain).unwrap_or_default())?;
            }
        }
        match bad {
            0 => Ok(()),
            bad => Err(Bad(bad).into()),
        }
    }
}
