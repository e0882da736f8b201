//! `POST /v1/collections/C/documents/ID/erase`: 202 with a job; 409 while the document waits, 404 if it never was.

use std::sync::Arc;

use axum::{extract::State, response::Response};

use super::{
    ApiState,
    admission::Caller,
    extract::{NoBody, NoParams, Params, Target},
    jobs,
    problem::{Kind, Problem},
};
use crate::{
    model::job::{self, Order},
    store::{Documents, QuarantineRows},
    upkeep::snapshot::version_of,
};

pub(super) async fn post(
    State(state): State<Arc<ApiState>>,
    caller: Caller,
    Target { served, id }: Target,
    Params(NoParams {}): Params<NoParams>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    let (store, collection) = (&served.snapshotter.store, served.reader.collection());
    let row = store.load(std::slice::from_ref(&id)).await?.pop();
    let version = row.as_deref().map_or(0, version_of);
    let record = store.load_quarantine_of(&id).await?.map(|record| record.mark);
    // A record comes before its row, and goes a little later than that goes on.
    if let Some(mark) = record.filter(|mark| mark.version > version) {
        let detail = format!(
            "{id} of `{collection}` waits for version {} as `{}`: retry it, skip that event or fill the gap, and erase it then",
            mark.version,
            mark.class.name()
        );
        return Err(Problem::new(Kind::ActionRefused, detail));
    }
    if row.is_none() {
        let detail = format!("`{collection}` has no document {id}");
        return Err(Problem::new(Kind::UnknownDocument, detail));
    }
    let order = Order { document: Some(id), ..Order::new(job::Kind::Erase, collection) };
    jobs::ask(&state, &caller, order).await
}
