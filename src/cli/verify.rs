//! `alluvium verify` and `alluvium rebuild`: the log is folded anew and every row compared with it. `--repair` and `rebuild`
//! have the rows made again that differ. Ends with 3 when one differs, or could not be made again.

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
pub(super) struct Verify {
    /// The collection
    collection: String,
    /// The document's id, as for `get`; without it, every document of the collection
    #[arg(value_parser = DocumentId::from_text)]
    id: Option<DocumentId>,
    /// Have rows that differ made again from the log
    #[arg(long)]
    repair: bool,
    /// Fold every document from its very first event, also through the archive, and prove by it what bases say
    #[arg(long)]
    deep: bool,
}

#[derive(Args, Debug)]
pub(super) struct Rebuild {
    /// The collection
    collection: String,
}

/// Documents differ from their log. What there is to say has been printed.
#[derive(Debug, thiserror::Error)]
#[error("{0} documents differ from what their log makes of them")]
pub(super) struct Differs(i64);

impl Verify {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let Self { collection, id, repair, deep } = self;
        let order = Order::new(Kind::Verify, &collection);
        have(globals, Order { document: id, repair, deep, ..order }).await
    }
}

impl Rebuild {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        have(globals, Order::new(Kind::Rebuild, &self.collection)).await
    }
}

/// Has it done, and tells what was found.
async fn have(globals: &Globals, order: Order) -> CommandResult {
    let connected = globals.connect().await?;
    let row = follow::follow(&connected.database, &order).await?;
    let result = follow::result(&row)?;
    let count = |field| follow::count(&result, field);
    let (differences, repaired) = (count("differences"), count("repaired"));
    if globals.json {
        output::json(&view(&row))?;
    } else {
        let (documents, events) = (count("documents"), count("events"));
        let made_again = match order.repair {
            true => format!(", {repaired} were made again"),
            false => String::new(),
        };
        output::line(format!(
            "{documents} documents of {events} events compared, {differences} differ{made_again}"
        ))?;
        let (proven, unproven) = (count("proven"), count("unproven"));
        if proven + unproven > 0 {
            output::line(format!(
                "{proven} bases proven through the archive, {unproven} stand for events that were pruned without one"
            ))?;
        }
        follow::print_findings(&row)?;
    }
    match differences - repaired {
        0 => Ok(()),
        left => Err(Differs(left).into()),
    }
}
