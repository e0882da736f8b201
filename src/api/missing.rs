//! What a client is missing: `POST …/documents/{id}/missing` with the clock in the body, or `GET` with
//! the clock in the query and an ETag, so that asking again costs nothing while nothing has happened.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bson::{DateTime, Uuid};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    ApiState, Served,
    budget::{Budget, Text},
    documents::limit,
    extract::{JsonBody, Params, Target, json_param},
    problem::{Kind, Problem},
    value::Notation,
    written::Answer,
};
use crate::{
    metrics::AnswerKind,
    model::{clock::Clock, document::Document, position::LogId},
    read::{Missing, MissingQuery, ReadError},
    time::Time,
};

/// How many events an answer has unless told.
const LIMIT: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MissingBody {
    clock: Option<Clock>,
    limit: Option<u32>,
    log: Option<String>,
    #[serde(default)]
    reset: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MissingParams {
    clock: Option<String>,
    limit: Option<u32>,
    log: Option<String>,
    #[serde(default)]
    reset: bool,
    #[serde(default)]
    archive: bool,
    #[serde(default)]
    ejson: Notation,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PostParams {
    #[serde(default)]
    archive: bool,
    #[serde(default)]
    ejson: Notation,
}

pub(super) async fn post(
    State(state): State<Arc<ApiState>>,
    Extension(budget): Extension<Budget>,
    target: Target,
    Params(params): Params<PostParams>,
    JsonBody(body): JsonBody<MissingBody>,
) -> Result<Response, Problem> {
    let query = MissingQuery { archive: params.archive, ..query(body, Kind::MalformedBody)? };
    let reading = budget.read().await?;
    let answer = ask(&target, &query).await?;
    let (bytes, now) = (size(&answer), state.time.wall());
    budget.answer(reading, StatusCode::OK, bytes, move || written(params.ejson, &answer, now)).await
}

pub(super) async fn get(
    State(state): State<Arc<ApiState>>,
    Extension(budget): Extension<Budget>,
    target: Target,
    Params(params): Params<MissingParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let clock = match params.clock {
        Some(clock) => Some(json_param("clock", clock).await?),
        None => None,
    };
    let MissingParams { limit, log, reset, archive, .. } = params;
    let body = MissingBody { clock, limit, log, reset };
    let query = MissingQuery { archive, ..query(body, Kind::MalformedQuery)? };
    let reading = budget.read().await?;
    let answer = ask(&target, &query).await?;
    let tag = tag(&query, params.ejson, &answer);
    let head = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    let (bytes, now) = (size(&answer), state.time.wall());
    let answer =
        budget.answer(reading, StatusCode::OK, bytes, move || written(params.ejson, &answer, now));
    Ok((head, answer.await?).into_response())
}

fn written(notation: Notation, answer: &Missing, now: DateTime) -> Text {
    serde_json::to_vec(&Answer { notation, answer, now })
}

/// How much there is to write, in bytes.
fn size(answer: &Missing) -> usize {
    let events: usize = answer.events.iter().map(|event| event.raw.as_bytes().len()).sum();
    let clocks = answer.clock.heap_bytes() + answer.next_clock.heap_bytes();
    events + clocks + answer.snapshot.as_ref().map_or(0, Document::heap_bytes)
}

fn query(body: MissingBody, kind: Kind) -> Result<MissingQuery, Problem> {
    let limit = limit(body.limit, LIMIT, kind)?;
    let log = body.log.map(|log| match Uuid::parse_str(&log) {
        Ok(uuid) => Ok(LogId(uuid)),
        Err(_) => {
            let detail = format!("`log` is `{log}`, not the UUID that an earlier answer gave");
            Err(Problem::new(kind, detail))
        }
    });
    let clock = match body.clock {
        Some(clock) => clock,
        None if body.reset => Clock::new(),
        None => {
            let detail = "`clock` is missing: what the client has seen, such as {\"game-server\": 1}; {} is nothing, and \
                          `reset` makes it unnecessary";
            return Err(Problem::new(kind, detail));
        }
    };
    let (log, reset) = (log.transpose()?, body.reset);
    Ok(MissingQuery { clock, limit, log, reset, archive: false })
}

async fn ask(target: &Target, query: &MissingQuery) -> Result<Missing, Problem> {
    let Served { metrics, .. } = &target.served;
    let reader = target.reader(query.archive)?;
    let start = Instant::now();
    let answer = reader.missing(&target.id, query).await;
    metrics.missing_seconds.observe(start.elapsed().as_secs_f64());
    let kind = match &answer {
        Ok(Some(answer)) if answer.snapshot.is_some() => Some(AnswerKind::Snapshot),
        Ok(Some(answer)) if answer.events.is_empty() => Some(AnswerKind::None),
        Ok(Some(_)) => Some(AnswerKind::Events),
        Err(ReadError::ClockAhead(_)) => Some(AnswerKind::Ahead),
        Ok(None) | Err(_) => None,
    };
    if let Some(kind) = kind {
        metrics.answered(kind).inc();
    }
    answer?.ok_or_else(|| {
        let detail = format!("{} of `{}` was never written", target.id, reader.collection());
        Problem::new(Kind::UnknownDocument, detail)
    })
}

/// A hash of the question and of everything in the answer but the time of a snapshot, which is the time of asking: so
/// whatever an answer depends on changes its tag.
fn tag(query: &MissingQuery, notation: Notation, answer: &Missing) -> String {
    let Missing { log, version, clock, snapshot, events, next_clock, more, .. } = answer;
    let told = (&answer.skips, answer.skips_total, &answer.waits);
    let mut hash = Sha256::new();
    hash.update(format!(
        "{query:?} {notation:?} {log} {version} {clock:?} {next_clock:?} {more} {told:?}"
    ));
    if let Some(document) = snapshot {
        hash.update(document.to_raw().as_bytes());
    }
    for event in events {
        hash.update(event.raw.as_bytes());
        hash.update([u8::from(event.is_skipped)]);
    }
    let hex: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

fn known(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags =
        values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    tags.any(|known| matches!(known.trim(), "*") || known.trim().trim_start_matches("W/") == tag)
}
