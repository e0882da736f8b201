//! What is served before there is a database: that the process lives, that it is not ready, and why.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::Value;
use tokio::sync::watch;

use super::{
    ApiLimits,
    admission::{self, Caller},
    bounded, guarded, health,
    problem::{Kind, Problem},
    status,
};
use crate::{
    access::Access,
    health::Heartbeats,
    metrics::Metrics,
    status::{CollectionStatus, LastError},
    time::{SystemTime, Time},
};

/// What is known before there is a database.
#[derive(Clone, Debug)]
pub struct Starting {
    /// The name of this instance.
    pub instance: String,
    /// The configured collections.
    pub collections: Vec<String>,
    /// All metrics of the process.
    pub metrics: Metrics,
    /// The loops whose turning means that the process lives.
    pub heartbeats: Heartbeats,
    /// The clock that the loops beat by.
    pub time: SystemTime,
    /// Who may ask.
    pub access: Access,
    /// Why there is none, once that is known.
    pub cause: watch::Receiver<Option<LastError>>,
}

impl Starting {
    fn reason(&self) -> String {
        let cause = self.cause.borrow();
        let why = cause.as_ref().map_or("connecting", |cause| &cause.message);
        format!("waiting for MongoDB: {why}")
    }
}

/// The API of a process that waits for its database.
pub fn starting(starting: Starting, limits: ApiLimits) -> Router {
    let metrics = Router::new().route("/metrics", get(metrics));
    let status = Router::new().route("/v1/status", get(shown));
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .merge(guarded(metrics, &starting.access, limits))
        .merge(status.layer(from_fn_with_state(starting.access.clone(), admission::admit)))
        .fallback(not_yet);
    bounded(routes.with_state(Arc::new(starting)), limits)
}

async fn healthz(State(starting): State<Arc<Starting>>) -> Response {
    health::liveness(&starting.heartbeats, starting.time.now())
}

async fn readyz(State(starting): State<Arc<Starting>>) -> Response {
    health::readiness(vec![starting.reason()])
}

async fn metrics(State(starting): State<Arc<Starting>>) -> Result<Response, Problem> {
    health::exposition(&starting.metrics)
}

async fn shown(State(starting): State<Arc<Starting>>, caller: Caller) -> Json<Value> {
    let collection = |name: &String| {
        let last_error = starting.cause.borrow().clone();
        status::collection(&CollectionStatus { last_error, ..CollectionStatus::new(name) })
    };
    let names = starting.collections.iter().filter(|name| caller.opens(name));
    Json(status::whole(&starting.instance, names.map(collection).collect(), &starting.access))
}

async fn not_yet(State(starting): State<Arc<Starting>>) -> Response {
    Problem::new(Kind::DatabaseAway, starting.reason()).into_response()
}
