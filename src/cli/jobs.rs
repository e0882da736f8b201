//! `alluvium jobs`: what the daemons are asked to do, and how far they are.

use bson::{Bson, RawDocument};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CommandResult, Globals, follow, output};
use crate::{
    api::jobs::view,
    model::id::DocumentId,
    store::{
        Jobs as _,
        jobs::{Cancelled, JobsQuery},
        mongo::MongoJobs,
    },
};

#[derive(Subcommand, Debug)]
pub(super) enum Jobs {
    /// List the newest jobs
    List(List),
    /// Show one job
    Show(Which),
    /// Cancel a job that has not ended; what it has done stays
    Cancel(Which),
}

#[derive(Args, Debug)]
pub(super) struct List {
    /// Only those of this collection
    #[arg(long, value_name = "NAME")]
    collection: Option<String>,
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = ["queued", "running", "done", "failed", "cancelled"])]
    state: Option<String>,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Args, Debug)]
pub(super) struct Which {
    /// The job's id, as it is listed
    #[arg(value_parser = DocumentId::from_text)]
    id: DocumentId,
}

impl Jobs {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let connected = globals.connect().await?;
        let jobs = MongoJobs::new(&connected.database);
        match self {
            Self::List(List { collection, state, limit }) => {
                if let Some(collection) = &collection {
                    follow::known(&connected.database, collection).await?;
                }
                let query = JobsQuery {
                    collections: collection.map(|name| vec![name]),
                    state,
                    before: None,
                    limit,
                };
                let rows = jobs.jobs(&query).await?;
                if globals.json {
                    let jobs: Vec<Value> = rows.iter().map(|row| view(row)).collect();
                    return Ok(output::json(&json!({ "jobs": jobs }))?);
                }
                rows.iter().try_for_each(|row| line(row))?;
                Ok(())
            }
            Self::Show(Which { id }) => {
                let row = jobs.job(&id.to_bson()).await?.ok_or_else(|| unknown(&id))?;
                Ok(output::json(&view(&row))?)
            }
            Self::Cancel(Which { id }) => {
                let key: Bson = id.to_bson();
                match jobs.cancel_job(&key).await? {
                    Cancelled::Yes(row) if globals.json => Ok(output::json(&view(&row))?),
                    Cancelled::Yes(_) => Ok(output::line(format!("cancelled {id}"))?),
                    Cancelled::TooLate(row) => {
                        let state = row.get_str("state").unwrap_or_default();
                        Err(format!("the job {id} is {state} and cannot be cancelled any more")
                            .into())
                    }
                    Cancelled::Unknown => Err(unknown(&id).into()),
                }
            }
        }
    }
}

fn unknown(id: &DocumentId) -> String {
    format!(
        "there is no job {id}: `alluvium jobs list` shows those that there are, a week after their end at most"
    )
}

/// One job in one line: id, state, kind, what it is about, how far it is, who asked for it.
fn line(row: &RawDocument) -> std::io::Result<()> {
    let job = view(row);
    let at = |path: &str| match job.pointer(path) {
        None | Some(Value::Null) => String::new(),
        Some(value) => output::plain(value),
    };
    let about = format!("{} {}", at("/collection"), output::document(&job));
    let total = match at("/progress/total") {
        total if total.is_empty() => "?".to_owned(),
        total => total,
    };
    let (id, state, kind, done) = (at("/id"), at("/state"), at("/kind"), at("/progress/done"));
    let by = at("/by");
    let text =
        format!("{id}  {state:<9}  {kind:<8}  {about:<24}  {done}/{total}  {by}  {}", at("/error"));
    output::line(text.trim_end())
}
