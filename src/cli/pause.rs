//! `alluvium pause` and `alluvium resume`: stop and continue the projection of a collection, on every instance.

use clap::Args;
use serde_json::json;

use super::{CommandResult, Globals, follow, output, who::who};
use crate::store::{Pauses, mongo::MongoPauses, pauses::compaction_of};

#[derive(Args, Debug)]
pub(super) struct Pause {
    /// The collection
    collection: String,
    /// Only its compaction: the projection goes on
    #[arg(long)]
    compaction: bool,
}

impl Pause {
    /// Pauses it, or has it go on.
    pub(super) async fn run(self, globals: &Globals, paused: bool) -> CommandResult {
        let connected = globals.connect().await?;
        let Self { collection, compaction } = self;
        follow::known(&connected.database, &collection).await?;
        let name = if compaction { compaction_of(&collection) } else { collection.clone() };
        let changed =
            MongoPauses::new(&connected.database).set_paused(&name, paused, &who()).await?;
        if globals.json {
            let report = json!({ "name": collection, "paused": paused, "changed": changed });
            return Ok(output::json(&report)?);
        }
        let now = if paused { "paused" } else { "not paused" };
        let was = if changed { "is now" } else { "was already" };
        let what = if compaction { "the compaction of " } else { "" };
        Ok(output::line(format!("{what}`{collection}` {was} {now}"))?)
    }
}
