//! `POST …/documents/{id}/snapshot`: the snapshot of one document, taken before the answer: 201, or 200 when it was
//! there already. Any instance can take it, since a snapshot is only ever added.

use axum::{Extension, http::StatusCode, response::Response};
use serde::Deserialize;

use super::{
    budget::Budget,
    extract::{NoBody, Params, Target},
    problem::{Kind, Problem},
    value::Notation,
    written::Taken,
};
use crate::{model::snapshot::Reason, upkeep::snapshot::TakeError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotParams {
    #[serde(default)]
    ejson: Notation,
}

pub(super) async fn post(
    Extension(budget): Extension<Budget>,
    target: Target,
    Params(params): Params<SnapshotParams>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    let reading = budget.read().await?;
    let taken = target.served.snapshotter.take(&target.id, Reason::Request).await?;
    let status = if taken.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let bytes = taken.snapshot.state.as_ref().map_or(0, |state| state.as_bytes().len());
    budget
        .answer(reading, status, bytes, move || {
            serde_json::to_vec(&Taken::stored(params.ejson, &taken.snapshot))
        })
        .await
}

impl From<TakeError> for Problem {
    fn from(error: TakeError) -> Self {
        let said = error.to_string();
        match error {
            TakeError::Unknown(_) => Self::new(Kind::UnknownDocument, said),
            TakeError::Differs { .. } => Self::new(
                Kind::DamagedData,
                format!("{said}; `alluvium verify` tells which others are not"),
            ),
            TakeError::Conflict { .. } => Self::new(Kind::DamagedData, said),
            TakeError::Database(error) => error.into(),
        }
    }
}
