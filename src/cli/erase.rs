//! `alluvium erase`: removes the content of a document for good, after it was asked once more.

use std::io::{BufRead, IsTerminal};

use clap::Args;

use super::{CommandResult, Globals, follow, output};
use crate::{
    api::jobs::view,
    model::{
        id::DocumentId,
        job::{Kind, Order},
    },
};

/// Where the content may still be, which no daemon reaches.
const LEFT: &str = "\
what remains: its id, its version and clock, who wrote how many events, and marks of its size
where copies may still be: MongoDB's oplog until it has moved on, backups of the database and of the archive, earlier \
versions of objects where a bucket keeps them, replicas that had read it, the collection that it was imported from, and \
your own logs";

#[derive(Args, Debug)]
pub(super) struct Erase {
    /// The collection
    collection: String,
    /// The document's id, as for `get`
    #[arg(value_parser = DocumentId::from_text)]
    id: DocumentId,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Nobody has said that it is meant.
#[derive(Debug, thiserror::Error)]
#[error(
    "nothing was erased: an erasure cannot be undone, so say that it is meant, with --yes or at a terminal"
)]
pub(super) struct Unconfirmed;

impl Erase {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let Self { collection, id, yes } = self;
        if !yes && !confirmed(&collection, &id)? {
            return Err(Unconfirmed.into());
        }
        let connected = globals.connect().await?;
        let by = Some(who());
        let order = Order { document: Some(id), by, ..Order::new(Kind::Erase, &collection) };
        let row = follow::follow(&connected.database, &order).await?;
        if globals.json {
            return Ok(output::json(&view(&row))?);
        }
        let result = follow::result(&row)?;
        let count = |field| follow::count(&result, field);
        output::line(format!(
            "erased up to version {}: {} events, {} snapshots and {} records are gone, {} skips and {} jobs tell no more \
             of it, {} segments of the archive were written anew",
            count("version"),
            count("events"),
            count("snapshots"),
            count("records"),
            count("skips"),
            count("jobs"),
            count("segments")
        ))?;
        Ok(output::line(LEFT)?)
    }
}

/// Asks at the terminal, if there is one.
fn confirmed(collection: &str, id: &DocumentId) -> std::io::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    output::note(format!(
        "the content of document {id} of `{collection}` goes for good, with its whole history; nothing brings it back. \
         Write its id to go on:"
    ));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim_end_matches(['\r', '\n']) == id.to_string())
}

/// `cli:user@host`, as far as the environment tells.
fn who() -> String {
    let told = |names: [&str; 2]| names.iter().find_map(|name| std::env::var(name).ok());
    let host = std::fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned());
    let host = told(["HOSTNAME", "COMPUTERNAME"]).or(host);
    let name = |name: Option<String>| name.filter(|name| !name.is_empty()).unwrap_or("?".into());
    format!("cli:{}@{}", name(told(["USER", "USERNAME"])), name(host))
}
