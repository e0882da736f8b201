//! Jobs over HTTP: asking the leader of a collection for one, watching it and cancelling it. A job is a
//! row of `alluvium.jobs`, whoever inserted it, so everything here also works from mongosh.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bson::{Bson, RawDocument, RawDocumentBuf};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiState,
    admission::Caller,
    documents::limit,
    extract::{Collection, NoBody, NoParams, OptionalBody, Params, configured},
    problem::{Kind, Problem},
    value::{self, Notation},
};
use crate::{
    model::{
        id::DocumentId,
        job::{self, Order, Outcome, QUEUED, RUNNING},
    },
    store::{
        Jobs,
        jobs::{Cancelled, JobsQuery},
    },
};

/// How many jobs a list gives unless told, and at most.
const LIST_LIMIT: u32 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    collection: Option<String>,
    state: Option<String>,
    before: Option<String>,
    limit: Option<u32>,
}

/// `POST /v1/collections/C/snapshot`
pub(super) async fn snapshot(
    state: State<Arc<ApiState>>,
    caller: Caller,
    collection: Collection,
    Params(NoParams {}): Params<NoParams>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    let Collection(served) = collection;
    ask(&state, &caller, Order::new(job::Kind::Snapshot, served.reader.collection())).await
}

/// What a verify may be asked for. An empty body asks for nothing.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct VerifyBody {
    repair: bool,
    deep: bool,
}

/// `POST /v1/collections/C/verify`
pub(super) async fn verify(
    state: State<Arc<ApiState>>,
    caller: Caller,
    collection: Collection,
    OptionalBody(VerifyBody { repair, deep }): OptionalBody<VerifyBody>,
) -> Result<Response, Problem> {
    let Collection(served) = collection;
    let order = Order::new(job::Kind::Verify, served.reader.collection());
    ask(&state, &caller, Order { repair, deep, ..order }).await
}

/// `POST /v1/collections/C/rebuild`
pub(super) async fn rebuild(
    state: State<Arc<ApiState>>,
    caller: Caller,
    collection: Collection,
    Params(NoParams {}): Params<NoParams>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    let Collection(served) = collection;
    ask(&state, &caller, Order::new(job::Kind::Rebuild, served.reader.collection())).await
}

/// Asks for a job: 202 with it.
pub(super) async fn ask(
    state: &ApiState,
    caller: &Caller,
    order: Order,
) -> Result<Response, Problem> {
    Ok(accepted(&insert(state, caller, order).await?))
}

/// Inserts a job, with who asks for it.
pub(super) async fn insert(
    state: &ApiState,
    caller: &Caller,
    order: Order,
) -> Result<RawDocumentBuf, Problem> {
    let by = Some(caller.name().to_owned());
    Ok(state.jobs.insert_job(&Order { by, ..order }).await?)
}

/// 202 with a job, and where it is.
pub(super) fn accepted(row: &RawDocument) -> Response {
    let job = view(row);
    let id = job.get("id").and_then(Value::as_str).unwrap_or_default();
    let location = [(header::LOCATION, format!("/v1/jobs/{id}"))];
    (StatusCode::ACCEPTED, location, Json(job)).into_response()
}

/// `GET /v1/jobs`
pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Value>, Problem> {
    let limit = limit(params.limit, LIST_LIMIT, Kind::MalformedQuery)?.min(LIST_LIMIT);
    let states = [QUEUED, RUNNING].into_iter().chain(Outcome::ALL.map(Outcome::name));
    if let Some(wanted) = &params.state
        && !states.clone().any(|state| state == wanted)
    {
        let known: Vec<&str> = states.collect();
        let detail = format!("`state` is `{wanted}`, but must be one of {}", known.join(", "));
        return Err(Problem::new(Kind::MalformedQuery, detail));
    }
    let before = params.before.as_deref().map(|id| {
        DocumentId::from_text(id).map_err(|error| {
            Problem::new(Kind::MalformedQuery, format!("`before` is `{id}`: {error}"))
        })
    });
    let collections = match params.collection {
        Some(collection) => {
            caller.enter(&collection)?;
            configured(&state, &collection)?;
            Some(vec![collection])
        }
        None => caller.collections().map(<[String]>::to_vec),
    };
    let query = JobsQuery {
        collections,
        state: params.state,
        before: before.transpose()?.map(|id| id.to_bson()),
        // One more tells whether there are more.
        limit: limit + 1,
    };
    let rows = state.jobs.jobs(&query).await?;
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let jobs: Vec<Value> = rows.iter().take(size).map(|row| view(row)).collect();
    let last = jobs.last().filter(|_| rows.len() > size).and_then(|job| job.get("id"));
    let next = last.cloned().unwrap_or(Value::Null);
    Ok(Json(json!({ "jobs": jobs, "next": next })))
}

/// `GET /v1/jobs/ID`
pub(super) async fn get(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    Path(id): Path<String>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Json<Value>, Problem> {
    let row = state.jobs.job(&read(&id)?).await?.ok_or_else(|| unknown(&id))?;
    caller.enter(row.get_str("collection").unwrap_or_default())?;
    Ok(Json(view(&row)))
}

/// `DELETE /v1/jobs/ID`
pub(super) async fn cancel(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    Path(id): Path<String>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Json<Value>, Problem> {
    if caller.collections().is_some() {
        let row = state.jobs.job(&read(&id)?).await?.ok_or_else(|| unknown(&id))?;
        caller.enter(row.get_str("collection").unwrap_or_default())?;
    }
    match state.jobs.cancel_job(&read(&id)?).await? {
        Cancelled::Yes(row) => Ok(Json(view(&row))),
        Cancelled::Unknown => Err(unknown(&id)),
        Cancelled::TooLate(row) => {
            let ended = row.get_str("state").unwrap_or_default().to_owned();
            let detail = format!(
                "the job `{id}` is {ended} and cannot be cancelled any more; its row goes by itself after a week"
            );
            Err(Problem::new(Kind::JobFinished, detail).with("state", ended))
        }
    }
}

fn read(id: &str) -> Result<Bson, Problem> {
    let id = DocumentId::from_text(id).map_err(|error| {
        Problem::new(Kind::MalformedId, format!("the id `{id}` of the path: {error}"))
    });
    Ok(id?.to_bson())
}

fn unknown(id: &str) -> Problem {
    let detail = format!(
        "there is no job `{id}`: jobs are deleted a week after they have ended; /v1/jobs lists those that there are"
    );
    Problem::new(Kind::UnknownJob, detail)
}

/// Writes a job: `{id, kind, collection, document, by, state, progress: {done, total}, result, error, started_at,
/// finished_at}`. A row that was inserted wrongly is written as it stands.
pub(crate) fn view(row: &RawDocument) -> Value {
    let notation = Notation::default();
    let field = |name: &str| row.get(name).ok().flatten();
    let shown = |name: &str| match field(name).map(Bson::try_from) {
        Some(Ok(value)) => notation.value(value),
        _ => Value::Null,
    };
    let time = |name: &str| row.get_datetime(name).map_or(Value::Null, value::time);
    let state = match shown("state") {
        Value::Null => QUEUED.into(),
        state => state,
    };
    let progress = match shown("progress") {
        progress @ Value::Object(_) => progress,
        _ => json!({ "done": 0, "total": null }),
    };
    let id = field("_id").and_then(|id| DocumentId::from_raw(id).ok());
    json!({
        "id": id.map_or_else(|| shown("_id"), |id| id.to_string().into()),
        "kind": shown("kind"),
        "collection": shown("collection"),
        "document": shown("document"),
        "by": shown("by"),
        "state": state,
        "progress": progress,
        // Times in it are the program's own, and ids of documents are the same in either notation.
        "result": field("result").and_then(|result| result.try_into().ok()).map_or(Value::Null, |result| value::told(&result)),
        "error": shown("error"),
        "started_at": time("started_at"),
        "finished_at": time("finished_at"),
    })
}

#[cfg(test)]
mod tests {
    use bson::{DateTime, rawdoc};

    use super::*;

    #[test]
    fn times_in_a_result_are_those_of_the_api() {
        let at = DateTime::from_millis(1_000);
        let row =
            rawdoc! { "_id": 1, "result": { "pins": [{ "document": 5_i64, "seen_at": at }] } };
        let pin = &view(&row)["result"]["pins"][0];
        assert_eq!(*pin, json!({ "document": 5, "seen_at": "1970-01-01T00:00:01Z" }));
        assert_eq!(view(&rawdoc! { "_id": 1 })["result"], Value::Null);
    }
}
