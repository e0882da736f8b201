//! The HTTP API in this process, on a port of its own, and requests to it.

use std::{collections::BTreeMap, time::Duration};

use alluvium::{
    access::Access,
    api::{ApiLimits, ApiState, Door, Served, router},
    daemon::{HttpLimits, HttpServer},
    health::Heartbeats,
    log::mongo::MongoSource,
    metrics::Metrics,
    model::part::Part,
    read::{ReadLimits, Reader},
    status::{CollectionStatus, Phase, Role},
    store::mongo::{MongoJobs, MongoPauses, MongoStore},
    time::SystemTime,
    upkeep::snapshot::Snapshotter,
};
use mongodb::Database;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running API over the collection `games`, without a daemon.
#[derive(Debug)]
pub struct Api {
    base: String,
    /// The status of `games`, which a projector would write.
    pub status: watch::Sender<CollectionStatus>,
    /// The loops that liveness watches.
    pub heartbeats: Heartbeats,
    /// The metrics.
    pub metrics: Metrics,
    /// Ends the API when it is dropped.
    _stop: DropGuard,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: ureq::http::HeaderMap,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Api {
    /// Serves `games` of `db`, caught up.
    pub async fn start(db: &Database, limits: ApiLimits) -> Self {
        let mut games = CollectionStatus::new("games");
        games.role = Some(Role::Leader);
        games.phase = Phase::Tailing;
        games.lag_seconds = Some(0.0);
        let (status, receiver) = watch::channel(games);
        let (metrics, heartbeats) = (Metrics::new().unwrap(), Heartbeats::default());
        let counted = metrics.collection("games", receiver.clone()).unwrap();
        let served = Served {
            reader: Reader::new(db, "games", ReadLimits::default()),
            snapshotter: Snapshotter {
                collection: "games".into(),
                source: MongoSource::new(db.clone()),
                store: MongoStore::new(db, "games", Part::WHOLE),
                metrics: counted.clone(),
                keep: 3,
            },
            metrics: counted,
            status: receiver,
        };
        let state = ApiState {
            access: Access::default(),
            instance: "test".into(),
            collections: BTreeMap::from([("games".to_owned(), served)]),
            jobs: MongoJobs::new(db),
            pauses: MongoPauses::new(db),
            metrics: metrics.clone(),
            heartbeats: heartbeats.clone(),
            time: SystemTime::new(),
            limits,
            stop: CancellationToken::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (routes, stop) = (watch::channel(router(state)).1, CancellationToken::new());
        let limits = HttpLimits { connections_max: 64, head_timeout: Duration::from_secs(30) };
        let server = HttpServer::new(limits, Access::default(), stop.clone());
        tokio::spawn(server.serve(listener, Door::default(), routes));
        Self { base, status, heartbeats, metrics, _stop: stop.drop_guard() }
    }

    /// Sends a request with headers and perhaps a body.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        let mut request = ureq::http::Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.uri(format!("{}{path}", self.base));
        let request = request.body(body.unwrap_or_default().to_owned()).unwrap();
        let answer = tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent =
                ureq::Agent::config_builder().http_status_as_error(false).build().into();
            agent.run(request).unwrap()
        });
        let mut answer = answer.await.unwrap();
        Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            text: answer.body_mut().read_to_string().unwrap(),
        }
    }

    /// Sends a GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None).await
    }

    /// Sends a POST.
    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[("content-type", "application/json")], Some(body)).await
    }
}
