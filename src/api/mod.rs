//! The HTTP API: JSON over the reads of every configured collection, the daemon's status, health and
//! metrics. What it answers comes from [`crate::read`], what it starts is a job, and every error is a
//! problem of a closed list (README.md beside this file). A route is a row of `views` or
//! `probes`.

mod admission;
mod aside;
mod budget;
mod compact;
mod documents;
mod erase;
mod extract;
mod guard;
mod health;
pub(crate) mod jobs;
mod missing;
pub(crate) mod operate;
mod pause;
pub mod problem;
mod restore;
mod snapshot;
mod status;
pub(crate) mod value;
pub(crate) mod written;
mod starting;

use std::{any::Any, collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    http::{StatusCode, Uri},
    middleware::{from_fn, from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tower_http::{
    catch_panic::CatchPanicLayer, limit::RequestBodyLimitLayer, timeout::TimeoutLayer,
};

use crate::{
    access::Access,
    health::Heartbeats,
    log::mongo::MongoSource,
    metrics::{CollectionMetrics, Metrics},
    read::Reader,
    status::CollectionStatus,
    store::mongo::{MongoJobs, MongoPauses, MongoStore},
    time::SystemTime,
    upkeep::snapshot::Snapshotter,
};
use budget::Budget;
pub use guard::{HEADERS_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX, too_busy};
use problem::{Kind, Problem};
pub use starting::{Starting, starting};

/// What a body may have for everything but a clock, in bytes.
const BODY_BYTES_LEAST: usize = 1 << 20;

/// What one client of a clock may take in a body, in bytes: a name of 128 characters that are all escaped, a count,
/// and what stands around them.
const CLIENT_BYTES_MAX: usize = 300;

/// What the API serves.
#[derive(Clone, Debug)]
pub struct ApiState {
    /// The name of this instance.
    pub instance: String,
    /// The configured collections, by name.
    pub collections: BTreeMap<String, Served>,
    /// What the leaders are asked to do.
    pub jobs: MongoJobs,
    /// Which collections are paused.
    pub pauses: MongoPauses,
    /// All metrics of the process.
    pub metrics: Metrics,
    /// The loops whose turning means that the process lives.
    pub heartbeats: Heartbeats,
    /// The clock that the loops beat by.
    pub time: SystemTime,
    /// Who may ask.
    pub access: Access,
    /// The bounds of a request.
    pub limits: ApiLimits,
    /// Cancelled once the daemon is told to stop.
    pub stop: CancellationToken,
}

/// One collection, as the API serves it.
#[derive(Clone, Debug)]
pub struct Served {
    /// Reads it.
    pub reader: Reader,
    /// Takes its snapshots.
    pub snapshotter: Snapshotter<MongoSource, MongoStore>,
    /// How its projection is doing.
    pub status: watch::Receiver<CollectionStatus>,
    /// Counts its requests.
    pub metrics: CollectionMetrics,
}

/// The bounds of a request.
#[derive(Clone, Copy, Debug)]
pub struct ApiLimits {
    /// The largest body, in bytes.
    pub body_bytes_max: usize,
    /// The longest that a request may take, waits included.
    pub request_max: Duration,
    /// The longest `wait`. Below `request_max`, so that a wait ends with its own answer.
    pub wait_max: Duration,
    /// A leader that is further behind is not ready.
    pub ready_lag_max: Duration,
    /// How many requests may be answered at once, those to the probes apart.
    pub requests_max: usize,
    /// The metrics need a token too.
    pub metrics_token: bool,
}

/// The address that a request came to, as an extension of it.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// It is on loopback: a request that names another host is refused.
    pub local_only: bool,
    /// It serves health and metrics alone.
    pub probes_only: bool,
}

impl Default for Door {
    fn default() -> Self {
        Self { local_only: true, probes_only: false }
    }
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: BODY_BYTES_LEAST,
            request_max: Duration::from_secs(60),
            wait_max: Duration::from_secs(30),
            ready_lag_max: Duration::from_secs(30),
            requests_max: 256,
            metrics_token: false,
        }
    }
}

/// The largest body, in bytes, where a clock may have so many clients.
pub fn body_bytes_for(clients_max: u32) -> usize {
    let clock = CLIENT_BYTES_MAX.saturating_mul(clients_max as usize);
    clock.saturating_add(BODY_BYTES_LEAST)
}

/// Whether a path is one of those that orchestrators ask, for which there is always room.
pub fn is_probe(path: &str) -> bool {
    ["/healthz", "/readyz", "/metrics"].contains(&path)
}

/// The whole API.
pub fn router(state: ApiState) -> Router {
    let limits = state.limits;
    let turns = Arc::new(Semaphore::new(limits.requests_max));
    let views = views().layer(Extension(Budget::new(limits.requests_max)));
    let views = views.layer(from_fn_with_state(turns, guard::in_turn));
    let views = views.layer(from_fn_with_state(state.access.clone(), admission::admit));
    let metrics = Router::new().route("/metrics", get(health::metrics));
    let metrics = guarded(metrics, &state.access, limits);
    let routes = Router::new().merge(probes()).merge(metrics).merge(views).fallback(nothing_here);
    bounded(routes.with_state(Arc::new(state)), limits)
}

/// Lets only whoever has a token see the metrics, where that is wished.
fn guarded<S: Clone + Send + Sync + 'static>(
    metrics: Router<S>,
    access: &Access,
    limits: ApiLimits,
) -> Router<S> {
    if limits.metrics_token {
        metrics.layer(from_fn_with_state(access.clone(), admission::known))
    } else {
        metrics
    }
}

/// Puts the bounds of a request around `routes`, so that whatever ends one is a problem too.
fn bounded(routes: Router, limits: ApiLimits) -> Router {
    routes
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.body_bytes_max))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, limits.request_max))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(guard::guard))
        .layer(map_response(problem::from_the_framework))
}

/// What orchestrators ask.
fn probes() -> Router<Arc<ApiState>> {
    Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz))
}

/// What backends ask.
fn views() -> Router<Arc<ApiState>> {
    const COLLECTION: &str = "/v1/collections/{collection}";
    const DOCUMENT: &str = "/v1/collections/{collection}/documents/{id}";
    Router::new()
        .route("/v1/status", get(status::status))
        .route(DOCUMENT, get(documents::document))
        .route(&format!("{DOCUMENT}/events"), get(documents::events))
        .route(&format!("{DOCUMENT}/missing"), get(missing::get).post(missing::post))
        .route(&format!("{DOCUMENT}/snapshot"), post(snapshot::post))
        .route(&format!("{COLLECTION}/snapshot"), post(jobs::snapshot))
        .route(&format!("{COLLECTION}/restore"), post(restore::collection))
        .route(&format!("{DOCUMENT}/restore"), post(restore::document))
        .route(&format!("{COLLECTION}/archive/check"), post(restore::check))
        .route(&format!("{COLLECTION}/compact"), post(compact::collection))
        .route(&format!("{DOCUMENT}/compact"), post(compact::document))
        .route(&format!("{DOCUMENT}/erase"), post(erase::post))
        .route(&format!("{COLLECTION}/verify"), post(jobs::verify))
        .route(&format!("{COLLECTION}/rebuild"), post(jobs::rebuild))
        .route(&format!("{COLLECTION}/pause"), post(pause::pause))
        .route(&format!("{COLLECTION}/resume"), post(pause::resume))
        .merge(waiting())
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/{id}", get(jobs::get).delete(jobs::cancel))
}

/// What operators ask about documents that wait.
fn waiting() -> Router<Arc<ApiState>> {
    const QUARANTINE: &str = "/v1/collections/{collection}/quarantine";
    const GAPS: &str = "/v1/collections/{collection}/gaps";
    Router::new()
        .route(QUARANTINE, get(operate::quarantine))
        .route(&format!("{QUARANTINE}/{{id}}/retry"), post(operate::retry))
        .route(&format!("{QUARANTINE}/{{id}}/skip"), post(operate::skip))
        .route(GAPS, get(operate::gaps))
        .route(&format!("{GAPS}/{{id}}/fill"), post(operate::fill))
}

async fn nothing_here(uri: Uri) -> Problem {
    let detail = format!(
        "`{}` is no path of this API; documents are at /v1/collections/<collection>/documents/<id>, with a slash in an id written as %2F",
        uri.path()
    );
    Problem::new(Kind::NotFound, detail)
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    Problem::new(
        Kind::Internal,
        "the request failed for a fault of this program; its log says more",
    )
    .into_response()
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_of_ours_is_an_answer_too() {
        async fn faulty() {
            panic!("a fault");
        }
        let routes = bounded(Router::new().route("/faulty", get(faulty)), ApiLimits::default());
        let request = axum::extract::Request::get("/faulty").body(axum::body::Body::empty());
        let answer = routes.oneshot(request.unwrap()).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains(r#""type":"urn:alluvium:problem:internal""#), "{text}");
    }
}
