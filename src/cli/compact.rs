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

/// How many documents are named that keep events.
const PINS_SHOWN: usize = 10;

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
    for line in kept(&view(row)) {
        output::line(line)?;
    }
    if count("differences") > 0 {
        output::line(format!("{} documents were left as they are:", count("differences")))?;
        follow::print_findings(row)?;
    }
    Ok(())
}

/// What keeps what stays: in all, and of the largest documents.
fn kept(job: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let pinned = job.pointer("/result/pinned").and_then(Value::as_object);
    for (rule, events) in pinned.into_iter().flatten() {
        lines.push(format!("{events} events stay: {rule}"));
    }
    let pins = job.pointer("/result/pins").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for pin in pins.iter().take(PINS_SHOWN) {
        let field = |name: &str| pin.get(name).map(output::plain).unwrap_or_default();
        let (document, events, rule) = (output::document(pin), field("events"), field("rule"));
        let mut line = format!("{document}  {events} events stay: {rule}");
        if pin.get("client").is_some() {
            line += &format!(" {}", field("client"));
        }
        if pin.get("problem").is_some() {
            line += &format!(" ({})", field("problem"));
        }
        lines.push(line);
    }
    if pins.len() > PINS_SHOWN {
        let more = pins.len() - PINS_SHOWN;
        lines.push(format!("and {more} more, with --json (which names the largest alone)"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stays_is_told_in_all_and_of_some() {
        let pin = json!({ "document": "a", "rule": "client", "client": "phone", "events": 5, "problem": "unreadable" });
        let pins = vec![pin; 12];
        let job = json!({ "result": { "pinned": { "client": 60, "size": 1 }, "pins": pins } });
        let lines = kept(&job);
        assert_eq!(lines.len(), 2 + PINS_SHOWN + 1);
        assert_eq!(lines[..2], ["60 events stay: client", "1 events stay: size"]);
        assert_eq!(lines[2], "a  5 events stay: client phone (unreadable)");
        assert!(lines.last().unwrap().starts_with("and 2 more"));
        assert_eq!(kept(&json!({})), Vec::<String>::new());
    }
}
