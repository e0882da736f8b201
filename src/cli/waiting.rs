//! What the commands about documents that wait share: the list, and having a job done for one of them.

use bson::RawDocumentBuf;
use clap::Args;
use serde_json::{Value, json};

use super::{CommandResult, Globals, follow, output};
use crate::{
    api::{
        operate::row,
        value::{self, Notation},
        written::{Whole, tree},
    },
    model::part::Part,
    model::{
        id::DocumentId,
        job::{Kind, Order},
    },
    store::{
        QuarantineRows,
        mongo::{MongoStore, WaitingQuery, late, waiting},
    },
};

/// How many documents one query lists.
const PAGE: u32 = 1_000;

#[derive(Args, Debug)]
pub(super) struct List {
    /// The collection
    collection: String,
}

#[derive(Args, Debug)]
pub(super) struct One {
    /// The collection
    collection: String,
    /// The document's id, as for `get`
    #[arg(value_parser = DocumentId::from_text)]
    id: DocumentId,
    /// Only if the document waits for this version; without it, for the one that it waits for now
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    if_version: Option<i64>,
}

impl List {
    pub(super) async fn run(self, globals: &Globals, behind_gaps: bool) -> CommandResult {
        let connected = globals.connect().await?;
        follow::known(&connected.database, &self.collection).await?;
        let mut query = WaitingQuery { behind_gaps, after: None, limit: PAGE };
        let mut all: Vec<Value> = Vec::new();
        let mut count = 0;
        loop {
            let rows = waiting(&connected.database, &self.collection, &query).await?;
            let Some(last) = rows.last() else { break };
            query.after = Some(last.document.clone());
            count += rows.len();
            for waits in rows.iter().map(row) {
                match globals.json {
                    true => all.push(waits),
                    false => line(&waits)?,
                }
            }
        }
        let name = if behind_gaps { "gaps" } else { "quarantine" };
        match (globals.json, count) {
            (true, _) => Ok(output::json(&json!({ name: all, "next": null }))?),
            (false, 0) => Ok(output::line("none")?),
            (false, _) => Ok(()),
        }
    }
}

impl List {
    /// Lists events that came after their places were pruned.
    pub(super) async fn run_late(self, globals: &Globals) -> CommandResult {
        let connected = globals.connect().await?;
        follow::known(&connected.database, &self.collection).await?;
        let mut last: Option<RawDocumentBuf> = None;
        let mut all: Vec<Value> = Vec::new();
        let mut count = 0;
        loop {
            let rows = late(&connected.database, &self.collection, last.as_ref(), PAGE).await?;
            let Some(newest) = rows.last() else { break };
            last = Some(newest.clone());
            count += rows.len();
            for row in &rows {
                let since = row.get_datetime("since").ok();
                let event = row.get_document("event").ok();
                let event = event.map(|event| tree(&Whole(Notation::default(), event)));
                let told = json!({ "event": event, "since": since.map(value::time) });
                match globals.json {
                    true => all.push(told),
                    false => output::line(told.to_string())?,
                }
            }
        }
        match (globals.json, count) {
            (true, _) => Ok(output::json(&json!({ "late": all, "next": null }))?),
            (false, 0) => Ok(output::line("none")?),
            (false, _) => Ok(()),
        }
    }
}

/// One document in one line: id, version, since when, why.
fn line(waits: &Value) -> std::io::Result<()> {
    let field = |name: &str| waits.get(name).map(output::plain).unwrap_or_default();
    let (document, version, since) = (output::document(waits), field("version"), field("since"));
    let (class, reason) = (field("class"), field("reason"));
    output::line(format!("{document}  version {version}  since {since}  {class}: {reason}"))
}

impl One {
    pub(super) fn id(&self) -> &DocumentId {
        &self.id
    }

    /// Has the job done, bound to the version that the document waits for; its row when it is done.
    pub(super) async fn have(
        &self,
        globals: &Globals,
        (kind, skip_above): (Kind, bool),
    ) -> Result<RawDocumentBuf, Box<dyn std::error::Error + Send + Sync>> {
        let database = globals.connect().await?.database;
        let Self { collection, id, .. } = self;
        follow::known(&database, collection).await?;
        let store = MongoStore::new(&database, collection, Part::WHOLE);
        let version = match self.if_version {
            Some(version) => Some(version),
            None => store.load_quarantine_of(id).await?.map(|record| record.mark.version),
        };
        let (collection, document) = (collection.clone(), Some(id.clone()));
        let order = Order { document, version, skip_above, ..Order::new(kind, &collection) };
        follow::follow(&database, &order).await
    }
}
