//! What orchestrators and Prometheus ask: alive, ready, and the numbers.

use std::sync::Arc;

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
    status::{CollectionStatus, Phase, Role},
    time::Time,
};

/// `GET /healthz`: 200 while every loop turns within its limit, else 503; the body says which.
pub(super) async fn healthz(State(state): State<Arc<ApiState>>) -> Response {
    let pulses = state.heartbeats.pulses(state.time.now());
    let alive = pulses.iter().all(|pulse| pulse.is_alive());
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
    answer(alive, json!({ "alive": alive, "loops": loops }))
}

/// `GET /readyz`: 200 when every collection is caught up or stands by, else 503; the body says why not.
pub(super) async fn readyz(State(state): State<Arc<ApiState>>) -> Response {
    let reasons: Vec<Value> = state
        .collections
        .values()
        .filter_map(|served| not_ready(&served.status.borrow()))
        .map(Value::from)
        .collect();
    let ready = reasons.is_empty();
    answer(ready, json!({ "ready": ready, "reasons": reasons }))
}

/// Why a collection is not ready. A paused one is: an operator wants it so, and restarting does not help.
fn not_ready(status: &CollectionStatus) -> Option<String> {
    let name = &status.name;
    let error = status.last_error.as_ref();
    match (status.role, status.phase, status.lag_seconds) {
        (_, Phase::Refused, _) => {
            let why = error.map_or("see /v1/status", |error| &error.message);
            Some(format!("`{name}` is refused: {why}"))
        }
        (None, ..) => {
            Some(format!("who leads `{name}` is not known: the leases could not be read"))
        }
        (Some(Role::Standby), ..) | (_, Phase::Paused, _) | (_, Phase::Tailing, Some(_)) => None,
        (_, Phase::Starting, _) => Some(format!("`{name}` is starting")),
        (_, Phase::Scanning, _) => Some(format!("`{name}` is catching up with its log")),
        (_, Phase::Tailing, None) => Some(format!("the lag of `{name}` is not known")),
    }
}

fn answer(good: bool, body: Value) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// `GET /metrics`: the Prometheus text format.
pub(super) async fn metrics(State(state): State<Arc<ApiState>>) -> Result<Response, Problem> {
    let text = TextEncoder::new()
        .encode_to_string(&state.metrics.registry().gather())
        .map_err(|error| Problem::new(Kind::Internal, format!("the metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_caught_up_or_standing_by() {
        let ready = |role, phase, lag_seconds| {
            let role = Some(role);
            let status = CollectionStatus::new("games");
            not_ready(&CollectionStatus { role, phase, lag_seconds, ..status }).is_none()
        };
        let lags = [None, Some(0.0)];
        for lag in lags {
            assert!(!ready(Role::Leader, Phase::Starting, lag));
            assert!(!ready(Role::Leader, Phase::Scanning, lag));
            assert_eq!(ready(Role::Leader, Phase::Tailing, lag), lag.is_some());
            assert!(ready(Role::Leader, Phase::Paused, lag));
            assert!(ready(Role::Standby, Phase::Starting, lag));
            for role in [Role::Leader, Role::Standby] {
                assert!(!ready(role, Phase::Refused, lag));
            }
        }
        let unknown = CollectionStatus { role: None, ..CollectionStatus::new("games") };
        assert!(not_ready(&unknown).is_some());
    }
}
