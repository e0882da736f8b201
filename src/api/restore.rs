//! `POST /v1/collections/C/restore`, `POST …/documents/ID/restore` and `POST /v1/collections/C/archive/check`: 202 with a
//! job.

use std::sync::Arc;

use axum::{extract::State, response::Response};

use super::{
    ApiState,
    admission::Caller,
    extract::{Collection, NoBody, NoParams, Params, Target},
    jobs,
    problem::Problem,
};
use crate::model::job::{Kind, Order};

pub(super) async fn collection(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    Collection(served): Collection,
    Params(NoParams {}): Params<NoParams>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    jobs::ask(&state, &caller, Order::new(Kind::Restore, served.reader.collection())).await
}

pub(super) async fn document(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    target: Target,
    Params(NoParams {}): Params<NoParams>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    let order = Order::new(Kind::Restore, target.served.reader.collection());
    jobs::ask(&state, &caller, Order { document: Some(target.id), ..order }).await
}

pub(super) async fn check(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    Collection(served): Collection,
    Params(NoParams {}): Params<NoParams>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    jobs::ask(&state, &caller, Order::new(Kind::ArchiveCheck, served.reader.collection())).await
}
