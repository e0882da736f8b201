//! Starting a job and following it to its end: what all commands do that have work done by a daemon. An
//! interrupted command leaves its job running; the daemon does not need anybody to watch.

use std::{io::IsTerminal, time::Duration};

use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use indicatif::{ProgressBar, ProgressStyle};
use mongodb::Database;
use serde_json::Value;

use super::{output, who::who};
use crate::{
    api::jobs::view,
    database::{Error, Result},
    model::job::{Order, Outcome, QUEUED, is_final},
    retry::Backoff,
    store::{Jobs, mongo::MongoJobs},
    time::{SystemTime, Time},
};

/// How often the job is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// A job that waits for longer is worth a word.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A failure that is told as it stands.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Refuses a collection that no daemon has ever led: what is asked about it would be answered as if all were well, and
/// what is asked of it would wait for ever.
///
/// # Errors
/// When it is refused, or the database is away.
pub(super) async fn known(
    database: &Database,
    collection: &str,
) -> std::result::Result<(), Failure> {
    if MongoJobs::new(database).is_led(collection).await? {
        return Ok(());
    }
    Err(format!(
        "no daemon has ever led `{collection}` in this database; check the name and --database"
    )
    .into())
}

/// Asks for a job and waits until it is done; its row, as it was then.
///
/// # Errors
/// Nobody could ever do it; or why the job failed, or that it was cancelled.
pub(super) async fn follow(
    database: &Database,
    order: &Order,
) -> std::result::Result<RawDocumentBuf, Failure> {
    known(database, &order.collection).await?;
    let jobs = MongoJobs::new(database);
    let row = jobs.insert_job(&Order { by: Some(who()), ..order.clone() }).await?;
    let id: Bson = row.get("_id")?.ok_or("the new job has no id")?.try_into()?;
    let shown = shown_id(&row);
    let bar = bar(order);
    let ended = watch(&jobs, &id, &shown, &bar).await;
    bar.finish_and_clear();
    let row = ended?;
    let text = |field: &str| row.get_str(field).unwrap_or_default().to_owned();
    match row.get_str("state") {
        Ok(state) if state == Outcome::Done.name() => Ok(row),
        Ok(state) if state == Outcome::Cancelled.name() => {
            Err(format!("the job {shown} was cancelled; what it had done stays").into())
        }
        _ => Err(format!("the job {shown} failed: {}", text("error")).into()),
    }
}

async fn watch(
    jobs: &MongoJobs,
    id: &Bson,
    shown: &str,
    bar: &ProgressBar,
) -> std::result::Result<RawDocumentBuf, Failure> {
    let (time, backoff) = (SystemTime::new(), Backoff::default());
    let mut is_told = false;
    loop {
        let report = |error: &Error, _| bar.set_message(format!("{error}; trying again"));
        let row = backoff.retry(&time, report, || jobs.job(id)).await?;
        let row =
            row.ok_or_else(|| format!("the job {shown} is gone: somebody deleted its row"))?;
        let state = row.get_str("state").unwrap_or(QUEUED).to_owned();
        if is_final(&state) {
            return Ok(row);
        }
        show(bar, &row, &state);
        if state == QUEUED && time.now() > WAIT_MAX && !is_told {
            is_told = true;
            output::note(format!(
                "no daemon has taken the job {shown} yet: one that leads the collection does, within about a \
                 second, unless it is busy with another job; the job waits, also without this command"
            ));
        }
        time.sleep(LOOK_INTERVAL).await;
    }
}

/// A bar on standard error, if somebody is there to see it.
fn bar(order: &Order) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_prefix(order.kind.name());
    bar.enable_steady_tick(LOOK_INTERVAL);
    bar
}

/// How a bar looks that counts documents.
pub(super) fn of_documents() -> ProgressStyle {
    let style = "{prefix} {wide_bar} {human_pos}/{human_len} documents, {eta} left {msg}";
    ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn show(bar: &ProgressBar, row: &RawDocument, state: &str) {
    let progress = row.get_document("progress").ok();
    let number = |name: &str| {
        let number = progress?.get(name).ok().flatten().and_then(crate::model::id::integral)?;
        u64::try_from(number).ok()
    };
    if let Some(total) = number("total") {
        if bar.length().is_none() {
            bar.set_style(of_documents());
        }
        bar.set_length(total);
    }
    bar.set_position(number("done").unwrap_or_default());
    bar.set_message(if state == QUEUED { "waiting for the leader" } else { "" });
}

/// The id of a job as the API and `alluvium jobs` write it.
pub(super) fn shown_id(row: &RawDocument) -> String {
    view(row).get("id").map(output::plain).unwrap_or_default()
}

/// The result of a job that is done.
pub(super) fn result(row: &RawDocument) -> Result<Document> {
    let result = row.get_document("result").map_err(|_| Error::damaged("the job has no result"))?;
    Ok(Document::try_from(result.to_owned())?)
}

/// A count in a result.
pub(super) fn count(result: &Document, field: &str) -> i64 {
    match result.get(field) {
        Some(Bson::Int64(count)) => *count,
        Some(Bson::Int32(count)) => i64::from(*count),
        _ => 0,
    }
}

/// Prints what a job found wrong, a line for each document.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn print_findings(row: &RawDocument) -> std::io::Result<()> {
    let job = view(row);
    let findings = job.pointer("/result/findings").and_then(Value::as_array);
    for finding in findings.into_iter().flatten() {
        let field = |name: &str| finding.get(name).map(output::plain).unwrap_or_default();
        let (document, version, problem) =
            (output::document(finding), field("version"), field("problem"));
        let is_repaired = finding.get("repaired").is_some();
        let made_again = if is_repaired { "; it was made again" } else { "" };
        match finding.get("document") {
            Some(Value::Null) => output::line(problem)?,
            _ => output::line(format!("{document}  version {version}  {problem}{made_again}"))?,
        }
    }
    Ok(())
}
