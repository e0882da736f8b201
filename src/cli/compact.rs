//! `alluvium compact`: writes bases, and prunes what they stand for; or tells what could go, and what keeps the rest.

use bson::{Document, RawDocument};
use clap::Args;
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
pub(super) struct Compact {
    /// The collection
    collection: String,
    /// The document's id, as for `get`; without it, every document of the collection
    #[arg(value_parser = DocumentId::from_text)]
    id: Option<DocumentId>,
    /// Only tell what could go, and what keeps the rest
    #[arg(long)]
    dry_run: bool,
}

/// Documents were left as they are, since something is wrong with them. What there is to say has been printed.
#[derive(Debug, thiserror::Error)]
#[error("{0} documents were left as they are")]
pub(super) struct LeftAlone(i64);

impl Compact {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let connected = globals.connect().await?;
        let Self { collection, id, dry_run } = self;
        let order = Order { document: id, dry_run, ..Order::new(Kind::Compact, &collection) };
        let row = follow::follow(&connected.database, &order).await?;
        let result = follow::result(&row)?;
        match globals.json {
            true => output::json(&view(&row))?,
            false => print(&order, &row, &result)?,
        }
        match follow::count(&result, "differences") {
            0 => Ok(()),
            left => Err(LeftAlone(left).into()),
        }
    }
}

/// Prints what was done, or could be.
fn print(order: &Order, row: &RawDocument, result: &Document) -> CommandResult {
    let count = |field| follow::count(result, field);
    let (events, documents, bytes) = (count("events"), count("documents"), count("bytes"));
    output::line(match order.dry_run {
        true => format!(
            "{events} events of {documents} documents could go, {bytes} bytes of them in new bases"
        ),
        false => format!(
            "{} bases written for {bytes} bytes of events, {events} events pruned, of {documents} documents",
            count("bases")
        ),
    })?;
    let late = count("late");
    if late > 0 {
        output::line(format!(
            "{late} events had come late and are on record: alluvium quarantine list {} --late",
            order.collection
        ))?;
    }
    print_pins(&view(row))?;
    if count("differences") > 0 {
        output::line(format!("{} documents were left as they are:", count("differences")))?;
        follow::print_findings(row)?;
    }
    Ok(())
}

/// Prints what keeps the largest of what stays, a line for each document.
fn print_pins(job: &Value) -> std::io::Result<()> {
    let pins = job.pointer("/result/pins").and_then(Value::as_array);
    for pin in pins.into_iter().flatten() {
        let field = |name: &str| pin.get(name).map(output::plain).unwrap_or_default();
        let (document, events, rule) = (field("document"), field("events"), field("rule"));
        let who = match pin.get("client").is_some() {
            true => format!(" {}", field("client")),
            false => String::new(),
        };
        output::line(format!("{document}  {events} events stay: {rule}{who}"))?;
    }
    Ok(())
}
