//! What orchestrators and Prometheus ask: alive, ready, and the numbers.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus::TextEncoder;
use serde_json::{Value, json};

use super::{
    ApiState,
    problem::{Kind, Problem},
};
use crate::{
    database::Error,
    health::{Heartbeats, Pulse},
    metrics::Metrics,
    status::{CollectionStatus, LastError, Phase, Role},
    time::Time,
};

/// How much of an error stands in a reason, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// `GET /healthz`: 200 while every loop turns within its limit, else 503; the body says which does not.
pub(super) async fn healthz(State(state): State<Arc<ApiState>>) -> Response {
    liveness(&state.heartbeats, state.time.now())
}

/// Whether all loops turn.
pub(super) fn liveness(heartbeats: &Heartbeats, now: Duration) -> Response {
    let pulses = heartbeats.pulses(now);
    let reasons: Vec<String> = pulses.iter().filter_map(Pulse::complaint).collect();
    let loops: Vec<Value> = pulses
        .iter()
        .map(|pulse| {
            json!({
                "name": pulse.name,
                "alive": pulse.is_alive(),
                "silent_seconds": pulse.silent.as_secs_f64(),
                "limit_seconds": pulse.limit.as_secs_f64(),
            })
        })
        .collect();
    let alive = reasons.is_empty();
    answer(alive, json!({ "alive": alive, "reasons": reasons, "loops": loops }))
}

/// `GET /readyz`: 200 when every collection is caught up, but for `lag_max`, or stands by, else 503; the body
/// says why not. One that stops is not ready, whatever it still flushes.
pub(super) async fn readyz(State(state): State<Arc<ApiState>>) -> Response {
    if state.stop.is_cancelled() {
        return readiness(vec!["the daemon is stopping".into()]);
    }
    let reasons = state
        .collections
        .values()
        .filter_map(|served| not_ready(&served.status.borrow(), state.limits.ready_lag_max));
    readiness(reasons.collect())
}

/// Ready when there is no reason against it.
pub(super) fn readiness(reasons: Vec<String>) -> Response {
    let ready = reasons.is_empty();
    answer(ready, json!({ "ready": ready, "reasons": reasons }))
}

/// Whether the server refuses every write to the collection.
fn is_unwritable(status: &CollectionStatus) -> bool {
    status.last_error.as_ref().is_some_and(|error| error.class == Error::UNWRITABLE)
}

/// Why a collection is not ready. A paused one is: an operator wants it so, and restarting does not help.
fn not_ready(status: &CollectionStatus, lag_max: Duration) -> Option<String> {
    let name = &status.name;
    let why = match (status.role, status.phase, status.lag_seconds) {
        (_, Phase::Refused, _) => {
            let why = status.last_error.as_ref().map_or("see /v1/status", |error| &error.message);
            return Some(format!("`{name}` is refused: {why}"));
        }
        (None, ..) => format!("who leads `{name}` is not known: the leases could not be read"),
        (Some(Role::Standby), ..) | (_, Phase::Paused, _) => return None,
        _ if is_unwritable(status) => format!("nothing can be written to `{name}`"),
        (_, Phase::Tailing, Some(lag)) if lag <= lag_max.as_secs_f64() => return None,
        (_, Phase::Tailing, Some(lag)) => {
            format!("`{name}` is {lag:.0} s behind, more than {} s", lag_max.as_secs())
        }
        (_, Phase::Starting | Phase::StandingBy, _) => format!("`{name}` is starting"),
        (_, Phase::Scanning, _) => format!("`{name}` is catching up with its log"),
        (_, Phase::Tailing, None) => format!("the lag of `{name}` is not known"),
    };
    // It stays until its cause has gone, so its time belongs to it.
    let last = status.last_error.as_ref().map_or_else(
        String::new,
        |LastError { at, message, advice, .. }| {
            let at = at.try_to_rfc3339_string().unwrap_or_default();
            let message: String = message.chars().take(ERROR_CHARS_MAX).collect();
            format!("; the last error, at {at}: {message}; {advice}")
        },
    );
    Some(why + &last)
}

fn answer(good: bool, body: Value) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// `GET /metrics`: the Prometheus text format.
pub(super) async fn metrics(State(state): State<Arc<ApiState>>) -> Result<Response, Problem> {
    exposition(&state.metrics)
}

/// All metrics as they are now.
pub(super) fn exposition(metrics: &Metrics) -> Result<Response, Problem> {
    let text = TextEncoder::new()
        .encode_to_string(&metrics.registry().gather())
        .map_err(|error| Problem::new(Kind::Internal, format!("the metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG_MAX: Duration = Duration::from_secs(30);

    #[test]
    fn ready_means_caught_up_or_standing_by() {
        let ready = |role, phase, lag_seconds| {
            let role = Some(role);
            let status = CollectionStatus::new("games");
            not_ready(&CollectionStatus { role, phase, lag_seconds, ..status }, LAG_MAX).is_none()
        };
        let lags = [None, Some(0.0), Some(30.0), Some(31.0)];
        for lag in lags {
            assert!(!ready(Role::Leader, Phase::Starting, lag));
            assert!(!ready(Role::Leader, Phase::Scanning, lag));
            let caught_up = lag.is_some_and(|lag| lag <= 30.0);
            assert_eq!(ready(Role::Leader, Phase::Tailing, lag), caught_up);
            assert!(ready(Role::Leader, Phase::Paused, lag));
            assert!(ready(Role::Standby, Phase::Starting, lag));
            for role in [Role::Leader, Role::Standby] {
                assert!(!ready(role, Phase::Refused, lag));
            }
        }
        let unknown = CollectionStatus { role: None, ..CollectionStatus::new("games") };
        assert!(not_ready(&unknown, LAG_MAX).is_some());
    }

    #[test]
    fn a_collection_that_is_behind_says_how_far_and_what_went_wrong_last() {
        let last_error = LastError {
            part: crate::model::part::Part::WHOLE,
            at: bson::DateTime::from_millis(0),
            class: "unavailable",
            message: "not the primary".into(),
            advice: "wait for an election".into(),
        };
        let behind = CollectionStatus {
            role: Some(Role::Leader),
            phase: Phase::Tailing,
            lag_seconds: Some(95.4),
            last_error: Some(last_error),
            ..CollectionStatus::new("games")
        };
        assert_eq!(
            not_ready(&behind, LAG_MAX).unwrap(),
            "`games` is 95 s behind, more than 30 s; \
             the last error, at 1970-01-01T00:00:00Z: not the primary; wait for an election"
        );
    }
}
