//! `alluvium snapshot`: the snapshot of one document, or of every document of a collection.

use clap::Args;

use super::{CommandResult, Globals, follow, output};
use crate::{
    api::jobs::view,
    model::{
        id::DocumentId,
        job::{Kind, Order},
    },
};

#[derive(Args, Debug)]
pub(super) struct Snapshot {
    /// The collection
    collection: String,
    /// The document's id, as for `get`; without it, every document of the collection
    #[arg(value_parser = DocumentId::from_text)]
    id: Option<DocumentId>,
}

impl Snapshot {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let connected = globals.connect().await?;
        let Self { collection, id } = self;
        let order = Order { document: id, ..Order::new(Kind::Snapshot, &collection) };
        let row = follow::follow(&connected.database, &order).await?;
        if globals.json {
            return Ok(output::json(&view(&row))?);
        }
        let result = follow::result(&row)?;
        let count = |field| follow::count(&result, field);
        let (taken, existed) = (count("taken"), count("existed"));
        match &order.document {
            Some(id) => {
                let version = count("version");
                let was = if taken > 0 { "taken" } else { "was there already" };
                output::line(format!("snapshot of {id} at version {version}: {was}"))?;
            }
            None => {
                output::line(format!("{taken} snapshots taken, {existed} were there already"))?;
            }
        }
        let differences = count("differences");
        if differences > 0 {
            output::line(format!(
                "{differences} documents were left out, because they are not what their log makes of them:"
            ))?;
            follow::print_findings(&row)?;
        }
        Ok(())
    }
}
