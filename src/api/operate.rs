//! Documents that wait, over HTTP: those that are parked and those behind gaps, and what an operator has done about
//! them. Whatever changes anything is a job of the collection's leader; it mostly takes a moment, and the answer waits
//! for it for a while.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bson::Bson;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiState,
    admission::Caller,
    documents::limit,
    extract::{Named, NoBody, NoParams, Params, Target},
    jobs::{insert, view},
    problem::{Kind, Problem},
    value::{Notation, time},
};
use crate::{
    model::{
        document::Class,
        id::DocumentId,
        job::{self, Order, Outcome, is_final},
    },
    store::{
        Jobs, QuarantineRow, QuarantineRows,
        mongo::{WaitingQuery, waiting},
    },
    time::Time,
};

/// How many documents a list gives unless told, and at most.
const LIST_LIMIT: u32 = 100;
/// How long an answer waits for its job.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionParams {
    version: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FillParams {
    version: Option<i64>,
    #[serde(default)]
    skip_above: bool,
}

/// `GET /v1/collections/C/quarantine`
pub(super) async fn quarantine(
    named: Named,
    Params(params): Params<ListParams>,
) -> Result<Json<Value>, Problem> {
    list(&named, params, false).await
}

/// `GET /v1/collections/C/gaps`
pub(super) async fn gaps(
    named: Named,
    Params(params): Params<ListParams>,
) -> Result<Json<Value>, Problem> {
    list(&named, params, true).await
}

async fn list(
    Named(served): &Named,
    params: ListParams,
    behind_gaps: bool,
) -> Result<Json<Value>, Problem> {
    let limit = limit(params.limit, LIST_LIMIT, Kind::MalformedQuery)?.min(LIST_LIMIT);
    let after = params.after.as_deref().map(|id| {
        DocumentId::from_text(id).map_err(|error| {
            Problem::new(Kind::MalformedQuery, format!("`after` is `{id}`: {error}"))
        })
    });
    // One more tells whether there are more.
    let query = WaitingQuery { behind_gaps, after: after.transpose()?, limit: limit + 1 };
    let rows = waiting(served.reader.database(), served.reader.collection(), &query).await?;
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let shown: Vec<Value> = rows.iter().take(size).map(row).collect();
    let last = rows.get(size - 1).filter(|_| rows.len() > size);
    let next = last.map(|row| row.document.to_string());
    let name = if behind_gaps { "gaps" } else { "quarantine" };
    Ok(Json(json!({ name: shown, "next": next })))
}

/// Writes what waits: `{document, class, version, reason, since}`.
pub(crate) fn row(row: &QuarantineRow) -> Value {
    json!({
        "document": Notation::default().value(row.document.to_bson()),
        "class": row.mark.class.name(),
        "version": row.mark.version,
        "reason": row.mark.reason,
        "since": time(row.since),
    })
}

/// `POST /v1/collections/C/quarantine/ID/retry`
pub(super) async fn retry(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    target: Target,
    Params(NoParams {}): Params<NoParams>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    perform((&state, &caller), target, (job::Kind::Retry, None, false)).await
}

/// `POST /v1/collections/C/quarantine/ID/skip`
pub(super) async fn skip(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    target: Target,
    Params(VersionParams { version }): Params<VersionParams>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    perform((&state, &caller), target, (job::Kind::Skip, version, false)).await
}

/// `POST /v1/collections/C/gaps/ID/fill`
pub(super) async fn fill(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    target: Target,
    Params(FillParams { version, skip_above }): Params<FillParams>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    perform((&state, &caller), target, (job::Kind::GapFill, version, skip_above)).await
}

/// Has the leader do it: 200 with the job if that is done in time, else 202 with the job as it is.
async fn perform(
    (state, caller): (&ApiState, &Caller),
    Target { served, id }: Target,
    (kind, version, skip_above): (job::Kind, Option<i64>, bool),
) -> Result<Response, Problem> {
    if version.is_some_and(|version| version < 1) {
        let detail = "`version` is the one that the document waits for, from 1 on; or leave it out";
        return Err(Problem::new(Kind::MalformedQuery, detail));
    }
    let collection = served.reader.collection().to_owned();
    let version = version.or(waits_for(&served.snapshotter.store, &collection, &id, kind).await?);
    let order = Order { document: Some(id), version, skip_above, ..Order::new(kind, &collection) };
    let row = insert(state, caller, order).await?;
    let key: Bson =
        row.get("_id").ok().flatten().map_or(Bson::Null, |id| id.try_into().unwrap_or(Bson::Null));
    let deadline = state.time.now() + WAIT_MAX;
    loop {
        let row = state.jobs.job(&key).await?.unwrap_or_else(|| row.clone());
        let job = view(&row);
        let ended = row.get_str("state").ok().filter(|state| is_final(state));
        let shown = job.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        match ended {
            Some(state) if state == Outcome::Done.name() => return Ok(Json(job).into_response()),
            Some(state) => {
                let error = job.get("error").and_then(Value::as_str);
                let detail = error.map_or_else(|| format!("the job is {state}"), str::to_owned);
                return Err(Problem::new(Kind::ActionRefused, detail).with("job", shown));
            }
            None if state.time.now() >= deadline => {
                let location = [(header::LOCATION, format!("/v1/jobs/{shown}"))];
                return Ok((StatusCode::ACCEPTED, location, Json(job)).into_response());
            }
            None => state.time.sleep(LOOK_INTERVAL).await,
        }
    }
}

/// The version that the document waits for at this moment, which the job is bound to; none for a retry.
async fn waits_for(
    store: &impl QuarantineRows,
    collection: &str,
    id: &DocumentId,
    kind: job::Kind,
) -> Result<Option<i64>, Problem> {
    let closes_gaps = kind == job::Kind::GapFill;
    let record = store.load_quarantine_of(id).await?.map(|record| record.mark);
    match record {
        Some(_) if kind == job::Kind::Retry => Ok(None),
        Some(mark) if (mark.class == Class::Gap) == closes_gaps => Ok(Some(mark.version)),
        Some(mark) => {
            let detail = format!(
                "{id} of `{collection}` waits for version {} as `{}`, which this is no answer to: a parked document is \
                 retried or skipped, a gap is filled",
                mark.version,
                mark.class.name()
            );
            Err(Problem::new(Kind::ActionRefused, detail))
        }
        None => {
            let detail = format!(
                "{id} of `{collection}` waits for nothing; /v1/collections/{collection}/quarantine and .../gaps list \
                 what does"
            );
            Err(Problem::new(Kind::NotWaiting, detail))
        }
    }
}
