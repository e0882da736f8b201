//! `POST /v1/collections/C/pause` and `/resume`: durable, for every instance. The projector stops in order: what it
//! has folded is flushed, its place is saved.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiState,
    extract::{Named, Params},
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
    named: Named,
    params: Params<PauseParams>,
) -> Result<Json<Value>, Problem> {
    set(state, named, params, true).await
}

pub(super) async fn resume(
    state: State<Arc<ApiState>>,
    named: Named,
    params: Params<PauseParams>,
) -> Result<Json<Value>, Problem> {
    set(state, named, params, false).await
}

async fn set(
    State(state): State<Arc<ApiState>>,
    Named(served): Named,
    Params(params): Params<PauseParams>,
    paused: bool,
) -> Result<Json<Value>, Problem> {
    let name = served.reader.collection();
    let what = if params.compaction { compaction_of(name) } else { name.to_owned() };
    let changed = state.pauses.set_paused(&what, paused).await?;
    Ok(Json(json!({ "name": name, "paused": paused, "changed": changed })))
}
