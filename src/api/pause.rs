//! `POST /v1/collections/C/pause` and `/resume`: durable, for every instance. The projector stops in order: what it
//! has folded is flushed, its place is saved.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{ApiState, extract::Named, problem::Problem};
use crate::store::Pauses;

pub(super) async fn pause(
    state: State<Arc<ApiState>>,
    named: Named,
) -> Result<Json<Value>, Problem> {
    set(state, named, true).await
}

pub(super) async fn resume(
    state: State<Arc<ApiState>>,
    named: Named,
) -> Result<Json<Value>, Problem> {
    set(state, named, false).await
}

async fn set(
    State(state): State<Arc<ApiState>>,
    Named(served): Named,
    paused: bool,
) -> Result<Json<Value>, Problem> {
    let name = served.reader.collection();
    let changed = state.pauses.set_paused(name, paused).await?;
    Ok(Json(json!({ "name": name, "paused": paused, "changed": changed })))
}
