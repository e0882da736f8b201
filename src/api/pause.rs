//! `POST /v1/collections/C/pause` and `/resume`: durable, for every instance. The projector stops in order: what it
//! has folded is flushed, its place is saved.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiState,
    admission::Caller,
    extract::{Named, NoBody, Params},
    problem::Problem,
};
use crate::store::{Pauses, pauses::compaction_of};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseParams {
    /// Only the compaction: the projection goes on.
    #[serde(default)]
    compaction: bool,
}

pub(super) async fn pause(
    state: State<Arc<ApiState>>,
    caller: Caller,
    named: Named,
    params: Params<PauseParams>,
    NoBody: NoBody,
) -> Result<Json<Value>, Problem> {
    set((state, caller), named, params, true).await
}

pub(super) async fn resume(
    state: State<Arc<ApiState>>,
    caller: Caller,
    named: Named,
    params: Params<PauseParams>,
    NoBody: NoBody,
) -> Result<Json<Value>, Problem> {
    set((state, caller), named, params, false).await
}

async fn set(
    (State(state), caller): (State<Arc<ApiState>>, Caller),
    Named(served): Named,
    Params(params): Params<PauseParams>,
    paused: bool,
) -> Result<Json<Value>, Problem> {
    let name = served.reader.collection();
    let what = if params.compaction { compaction_of(name) } else { name.to_owned() };
    let changed = state.pauses.set_paused(&what, paused, caller.name()).await?;
    Ok(Json(json!({ "name": name, "paused": paused, "changed": changed })))
}
