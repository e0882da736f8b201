//! `alluvium quarantine`: documents that are parked by an event that cannot be applied, and what may be done about it.

use bson::RawDocument;
use clap::{Args, Subcommand};

use super::{
    CommandResult, Globals, follow, output,
    waiting::{self, List},
};
use crate::{
    api::jobs::view,
    model::{
        id::DocumentId,
        job::{Kind, Order},
    },
};

#[derive(Subcommand, Debug)]
pub(super) enum Quarantine {
    /// List the parked documents, each with the event that cannot be applied and why
    List(Listed),
    /// Look at a parked document again, from its next event on; without an id, at all of them in order
    Retry(Retry),
    /// Skip the event at which a document is parked, on record and for ever: it counts, and changes nothing
    Skip(Skip),
}

#[derive(Args, Debug)]
pub(super) struct Listed {
    #[command(flatten)]
    list: List,
    /// List events that came after their place was pruned, instead
    #[arg(long)]
    late: bool,
}

#[derive(Args, Debug)]
pub(super) struct Retry {
    /// The collection
    collection: String,
    /// The document's id, as for `get`
    #[arg(value_parser = DocumentId::from_text)]
    id: Option<DocumentId>,
}

#[derive(Args, Debug)]
pub(super) struct Skip {
    #[command(flatten)]
    one: waiting::One,
}

impl Quarantine {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        match self {
            Self::List(Listed { list, late: true }) => list.run_late(globals).await,
            Self::List(Listed { list, late: false }) => list.run(globals, false).await,
            Self::Retry(retry) => retry.run(globals).await,
            Self::Skip(Skip { one }) => {
                let row = one.have(globals, (Kind::Skip, false)).await?;
                if globals.json {
                    return Ok(output::json(&view(&row))?);
                }
                let result = follow::result(&row)?;
                let (id, version) = (one.id(), follow::count(&result, "skipped"));
                let was = match result.get_str("client") {
                    Ok(client) => format!("skipped, and counts as an event of `{client}`"),
                    Err(_) => "was skipped before".into(),
                };
                output::line(format!("the event at version {version} of {id}: {was}"))?;
                Ok(outcome(one.id(), &row)?)
            }
        }
    }
}

impl Retry {
    async fn run(self, globals: &Globals) -> CommandResult {
        let Self { collection, id } = self;
        let connected = globals.connect().await?;
        let order = Order { document: id, ..Order::new(Kind::Retry, &collection) };
        let row = follow::follow(&connected.database, &order).await?;
        if globals.json {
            return Ok(output::json(&view(&row))?);
        }
        if let Some(id) = &order.document {
            return Ok(outcome(id, &row)?);
        }
        let result = follow::result(&row)?;
        let (documents, healed) =
            (follow::count(&result, "documents"), follow::count(&result, "healed"));
        Ok(output::line(format!(
            "{documents} documents looked at again, {healed} are parked no more"
        ))?)
    }
}

/// Says where a document is after its job, and what it waits for.
pub(super) fn outcome(id: &DocumentId, row: &RawDocument) -> std::io::Result<()> {
    let job = view(row);
    let at = |path: &str| job.pointer(path).filter(|value| !value.is_null()).map(output::plain);
    let version = at("/result/version").unwrap_or_default();
    output::line(match at("/result/waits/version") {
        None => format!("{id} is at version {version}, and waits for nothing"),
        Some(waits) => format!(
            "{id} is at version {version}, and waits for version {waits}: {}: {}",
            at("/result/waits/class").unwrap_or_default(),
            at("/result/waits/reason").unwrap_or_default()
        ),
    })
}
