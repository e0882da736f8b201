//! Documents and their history: `GET …/documents/{id}` now, at a version, at a time, or once a version
//! has been applied; `GET …/documents/{id}/events`.

use std::{sync::Arc, time::Duration};

use axum::{Extension, extract::State, http::StatusCode, response::Response};
use bson::DateTime;
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    ApiState,
    budget::Budget,
    extract::{Params, Target},
    problem::{Kind, Problem},
    value::Notation,
    written,
};
use crate::{model::document::Document, read::Projected, status::Role};

/// How long a wait goes without looking at the row. It is woken by flushes of this instance, but
/// another instance may write the row.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a wait looks at the row where another instance leads.
const STANDBY_LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How many events a history gives unless told.
const HISTORY_LIMIT: u32 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentParams {
    at_version: Option<i64>,
    at_time: Option<String>,
    min_version: Option<i64>,
    wait: Option<String>,
    #[serde(default)]
    ejson: Notation,
}

/// Which document is asked for.
enum Asked {
    Now,
    AtVersion(i64),
    AtTime(DateTime),
    Applied { version: i64, wait: Duration },
}

pub(super) async fn document(
    State(state): State<Arc<ApiState>>,
    Extension(budget): Extension<Budget>,
    target: Target,
    Params(params): Params<DocumentParams>,
) -> Result<Response, Problem> {
    let reader = &target.served.reader;
    let asked = asked(&params, state.limits.wait_max)?;
    if let Asked::Applied { version, wait } = asked {
        come_to(&target, &budget, version, wait).await?;
    }
    let reading = budget.read().await?;
    let found = match asked {
        Asked::Now | Asked::Applied { .. } => reader.projected(&target.id).await?,
        Asked::AtVersion(version) => reader.at_version(&target.id, version).await?.map(as_it_was),
        Asked::AtTime(time) => reader.at_time(&target.id, time).await?.map(as_it_was),
    };
    let Projected { document, waits } = found.ok_or_else(|| unknown(&target, &params))?;
    let (bytes, ejson) = (document.heap_bytes(), params.ejson);
    let written = move || {
        let (document, waits) = (&document, waits.as_ref());
        serde_json::to_vec(&written::Projected { notation: ejson, document, waits })
    };
    budget.answer(reading, StatusCode::OK, bytes, written).await
}

/// An earlier document waited for nothing.
fn as_it_was(document: Document) -> Projected {
    Projected { document, waits: None }
}

fn asked(params: &DocumentParams, wait_max: Duration) -> Result<Asked, Problem> {
    let malformed = |detail: String| Err(Problem::new(Kind::MalformedQuery, detail));
    let positive = |name: &str, version: i64| match version {
        1.. => Ok(version),
        _ => Err(Problem::new(
            Kind::MalformedQuery,
            format!("`{name}` is {version}, but versions begin at 1"),
        )),
    };
    match (params.at_version, &params.at_time, params.min_version, &params.wait) {
        (None, None, None, None) => Ok(Asked::Now),
        (Some(version), None, None, None) => Ok(Asked::AtVersion(positive("at_version", version)?)),
        (None, Some(time), None, None) => Ok(Asked::AtTime(parse_time(time)?)),
        (None, None, Some(version), wait) => {
            let version = positive("min_version", version)?;
            let wait =
                wait.as_deref().map_or(Ok(Duration::ZERO), |wait| parse_wait(wait, wait_max))?;
            Ok(Asked::Applied { version, wait })
        }
        (None, None, None, Some(_)) => malformed("`wait` goes with `min_version`".into()),
        _ => malformed("give one of `at_version`, `at_time` and `min_version`".into()),
    }
}

fn parse_time(text: &str) -> Result<DateTime, Problem> {
    // A `+` that was not percent-encoded arrives as a space.
    DateTime::parse_rfc3339_str(text.replace(' ', "+")).map_err(|_| {
        let detail =
            format!("`at_time` is `{text}`, not an RFC 3339 time such as 2026-01-31T12:00:00Z");
        Problem::new(Kind::MalformedQuery, detail)
    })
}

fn parse_wait(text: &str, wait_max: Duration) -> Result<Duration, Problem> {
    let wait = humantime::parse_duration(text).ok().filter(|wait| *wait <= wait_max);
    wait.ok_or_else(|| {
        let most = humantime::format_duration(wait_max);
        let detail =
            format!("`wait` is `{text}`, not a duration such as 500ms or 2s, at most {most}");
        Problem::new(Kind::MalformedQuery, detail)
    })
}

/// Waits until the document has come to `version`.
async fn come_to(
    target: &Target,
    budget: &Budget,
    version: i64,
    wait: Duration,
) -> Result<(), Problem> {
    let deadline = Instant::now() + wait;
    let mut status = target.served.status.clone();
    let mut waiting = None;
    loop {
        // This comes before the read, so that a flush after the read is not missed below.
        status.mark_unchanged();
        let reading = budget.read().await?;
        let reached = target.served.reader.projected(&target.id).await?;
        let reached = reached.map_or(0, |found| found.document.version);
        drop(reading);
        if reached >= version {
            return Ok(());
        } else if Instant::now() >= deadline {
            return Err(expired(target, version, reached));
        }
        if waiting.is_none() {
            waiting = Some(budget.wait()?);
        }
        let (flushes, role) = {
            let status = status.borrow();
            (status.flushes, status.role)
        };
        let pause = match role {
            Some(Role::Leader) => LOOK_INTERVAL,
            _ => STANDBY_LOOK_INTERVAL,
        };
        let news = timeout(pause, status.wait_for(|status| status.flushes != flushes));
        if timeout_at(deadline, news).await.is_ok_and(|news| news.is_ok_and(|news| news.is_err())) {
            // Nobody flushes any more.
            return Err(expired(target, version, reached));
        }
    }
}

fn expired(target: &Target, version: i64, reached: i64) -> Problem {
    let detail = format!(
        "{} has been applied up to version {reached}, not yet {version}; ask again, or see /v1/status for the lag",
        target.id
    );
    Problem::new(Kind::WaitExpired, detail).with("version", reached)
}

fn unknown(target: &Target, params: &DocumentParams) -> Problem {
    let (id, collection) = (&target.id, target.served.reader.collection());
    let detail = match &params.at_time {
        Some(time) => format!("{id} of `{collection}` had no event yet at {time}"),
        None => format!(
            "{id} of `{collection}` was never written, or is not projected yet; \
             to wait for a fresh document ask with min_version=1&wait=2s"
        ),
    };
    Problem::new(Kind::UnknownDocument, detail)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsParams {
    after_version: Option<i64>,
    limit: Option<u32>,
    #[serde(default)]
    archive: bool,
    #[serde(default)]
    ejson: Notation,
}

pub(super) async fn events(
    Extension(budget): Extension<Budget>,
    target: Target,
    Params(params): Params<EventsParams>,
) -> Result<Response, Problem> {
    let limit = limit(params.limit, HISTORY_LIMIT, Kind::MalformedQuery)?;
    if let Some(after) = params.after_version.filter(|after| *after < 0) {
        let detail = format!("`after_version` is {after}, but counts from 0");
        return Err(Problem::new(Kind::MalformedQuery, detail));
    }
    let reader = target.reader(params.archive)?;
    let reading = budget.read().await?;
    let page = match params.archive {
        true => reader.whole_history(&target.id, params.after_version, limit).await?,
        false => reader.history(&target.id, params.after_version, limit).await?,
    };
    if page.events.is_empty() && reader.document(&target.id).await?.is_none() {
        let (id, collection) = (&target.id, reader.collection());
        let detail = format!(
            "{id} of `{collection}` has no event above {}",
            params.after_version.unwrap_or_default()
        );
        return Err(Problem::new(Kind::UnknownDocument, detail));
    }
    let bytes = page.events.iter().map(|event| event.raw.as_bytes().len()).sum();
    let written =
        move || serde_json::to_vec(&written::Page { notation: params.ejson, page: &page });
    budget.answer(reading, StatusCode::OK, bytes, written).await
}

/// The limit of a list, at least 1. The reader has a limit of its own, and the cursor says when there
/// is more.
pub(super) fn limit(given: Option<u32>, default: u32, kind: Kind) -> Result<u32, Problem> {
    match given {
        Some(0) => Err(Problem::new(kind, "`limit` is 0, but an answer has room for at least 1")),
        given => Ok(given.unwrap_or(default)),
    }
}
