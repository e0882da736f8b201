//! `alluvium import`: a collection that existed before becomes events. Ends with 1 when something could not be taken over,
//! after naming it.

use std::io::IsTerminal;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{CommandResult, Globals, follow, output};
use crate::{
    config::Expect,
    import::{Import, Options, Pass, Report},
};

#[derive(Args, Debug)]
pub(super) struct ImportCommand {
    /// The collection that gets the documents, which `init` has made (without `.events`)
    collection: String,
    /// The collection that they come from, of this database or of another; it is only read
    #[arg(long, value_name = "[DB.]COLLECTION")]
    from: String,
    /// The client that the events are written by: a name that no other writer uses
    #[arg(long, value_name = "NAME")]
    client: String,
    /// The field of each document with its version, which becomes the document's version here
    #[arg(long, value_name = "FIELD")]
    version_field: Option<String>,
    /// Append a delete for each document that was imported before and has gone from the source
    #[arg(long)]
    deletes: bool,
}

/// Something is not as it is in the source. What it is has been printed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAll {
    #[error(
        "{0} documents could not be taken over; mend them in the source, or leave them, and run the import again: \
         what has been taken over is passed by"
    )]
    Refused(u64),
    #[error(
        "{0} documents changed in the source meanwhile; run the import again, which appends what changed"
    )]
    Changed(u64),
}

impl ImportCommand {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let config = globals.load(Expect::Connection)?;
        let limits = config.fold_limits(&self.collection);
        let connected = globals.open_known(&config.mongodb).await?;
        let Self { collection, from, client, version_field, deletes } = self;
        let settled = config.daemon.lease_time;
        let options = Options { collection, from, client, version_field, deletes, limits, settled };
        let import = Import::open(&connected.database, options).await?;
        let bar = bar(import.estimate().await?);
        let ended = import
            .run(&mut |pass, seen| {
                bar.set_prefix(match pass {
                    Pass::Importing => "import",
                    Pass::Verifying => "verify",
                });
                bar.set_position(seen);
            })
            .await;
        bar.finish_and_clear();
        let report = ended?;
        tell(globals, &import.source(), &report)?;
        match (report.refused_total, report.changed) {
            (0, 0) => Ok(()),
            (0, changed) => Err(NotAll::Changed(changed).into()),
            (refused, _) => Err(NotAll::Refused(refused).into()),
        }
    }
}

fn tell(globals: &Globals, source: &str, report: &Report) -> std::io::Result<()> {
    let Report {
        documents,
        created,
        updated,
        same,
        gone,
        deleted,
        changed,
        refused_total,
        refused,
    } = report;
    if globals.json {
        let refused: Vec<Value> =
            refused.iter().map(|(id, reason)| json!({ "id": id, "reason": reason })).collect();
        return output::json(&json!({
            "source": source, "documents": documents, "created": created, "updated": updated, "same": same,
            "gone": gone, "deleted": deleted, "changed": changed, "refused_total": refused_total, "refused": refused,
        }));
    }
    output::line(format!(
        "{documents} documents of `{source}`: {created} created, {updated} updated, {same} were the same, \
         {refused_total} could not be taken over"
    ))?;
    if gone > deleted {
        let left = gone - deleted;
        output::line(format!(
            "{left} documents that were imported before have gone from the source; --deletes appends a delete for each \
             (if they came from another source, give each source a --client of its own)"
        ))?;
    }
    if *deleted > 0 {
        output::line(format!("{deleted} that have gone from the source were deleted"))?;
    }
    for (id, reason) in refused {
        output::line(format!("{id}  {reason}"))?;
    }
    let named = refused.len() as u64;
    if named < *refused_total {
        output::line(format!("and {} more", refused_total - named))?;
    }
    Ok(())
}

/// A bar on standard error, if somebody is there to see it.
fn bar(documents: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    ProgressBar::new(documents).with_style(follow::of_documents())
}
