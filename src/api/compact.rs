//! `POST /v1/collections/C/compact` and `POST …/documents/ID/compact`: 202 with a job. With `{"dry_run": true}` the job only
//! tells what could go, and the answer is what it found: 200.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiState,
    admission::Caller,
    extract::{Collection, OptionalBody, Target},
    jobs,
    problem::{Kind, Problem},
};
use crate::{
    model::job::{self, Order, Outcome, is_final},
    store::Jobs,
    time::Time,
};

/// How long an answer waits for a dry run; after that it is the job, as of any other.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn collection(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    Collection(served): Collection,
    OptionalBody(asked): OptionalBody<Asked>,
) -> Result<Response, Problem> {
    ask((&state, &caller), Order::new(job::Kind::Compact, served.reader.collection()), asked).await
}

pub(super) async fn document(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    target: Target,
    OptionalBody(asked): OptionalBody<Asked>,
) -> Result<Response, Problem> {
    let order = Order::new(job::Kind::Compact, target.served.reader.collection());
    ask((&state, &caller), Order { document: Some(target.id), ..order }, asked).await
}

async fn ask(
    (state, caller): (&ApiState, &Caller),
    order: Order,
    asked: Asked,
) -> Result<Response, Problem> {
    if !asked.dry_run {
        return jobs::ask(state, caller, order).await;
    }
    let row = jobs::insert(state, caller, Order { dry_run: true, ..order }).await?;
    let id = row.get("_id").ok().flatten().and_then(|id| id.try_into().ok());
    let id: bson::Bson = id.unwrap_or_default();
    let begun = state.time.now();
    loop {
        let row = state.jobs.job(&id).await?;
        let row =
            row.ok_or_else(|| Problem::new(Kind::UnknownJob, "the job was deleted".to_owned()))?;
        let name = row.get_str("state").unwrap_or(job::QUEUED);
        if name == Outcome::Done.name() {
            return Ok(Json(found(&jobs::view(&row))).into_response());
        }
        if is_final(name) || state.time.now().saturating_sub(begun) > WAIT_MAX {
            return Ok(jobs::accepted(&row));
        }
        state.time.sleep(LOOK_INTERVAL).await;
    }
}

/// `{events, bytes, documents, pins}` of the result of a job.
fn found(job: &Value) -> Value {
    let field = |name: &str| job.pointer(&format!("/result/{name}")).cloned();
    let number = |name| field(name).unwrap_or_else(|| 0.into());
    json!({
        "events": number("events"), "bytes": number("bytes"), "documents": number("documents"),
        "pins": field("pins").unwrap_or_else(|| json!([])),
    })
}
