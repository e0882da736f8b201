//! `alluvium verify`: folds the whole log of a collection anew and compares every projected document with
//! it. Ends with 3 when one differs.

use clap::Args;

use super::{CommandResult, Globals, follow, output};
use crate::{
    api::jobs::view,
    model::job::{Kind, Order},
};

#[derive(Args, Debug)]
pub(super) struct Verify {
    /// The collection
    collection: String,
}

/// Documents differ from their log. What there is to say has been printed.
#[derive(Debug, thiserror::Error)]
#[error("{0} documents differ from what their log makes of them")]
pub(super) struct Differs(i64);

impl Verify {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let connected = globals.connect().await?;
        let Self { collection } = self;
        let order = Order::new(Kind::Verify, &collection);
        let row = follow::follow(&connected.database, &order).await?;
        let result = follow::result(&row)?;
        let count = |field| follow::count(&result, field);
        let differences = count("differences");
        if globals.json {
            output::json(&view(&row))?;
        } else {
            let (documents, events) = (count("documents"), count("events"));
            output::line(format!(
                "{documents} documents of {events} events compared, {differences} differ"
            ))?;
            follow::print_findings(&row)?;
        }
        match differences {
            0 => Ok(()),
            differences => Err(Differs(differences).into()),
        }
    }
}
