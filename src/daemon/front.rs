//! What the daemon shows of itself, from before it has a database until its end: the address that it listens
//! on and what is served there. A process that waits for its database is alive and not ready, and says so.

use std::net::SocketAddr;

use axum::Router;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    DaemonError,
    http::{HttpLimits, HttpServer},
    supervisor::{Statuses, Supervisor},
};
use crate::{
    access::Access,
    api::{self, ApiLimits, Door, Starting},
    config::Config,
    health::{Heart, Heartbeats},
    metrics::Metrics,
    model::part::Part,
    status::LastError,
    time::{SystemTime, Time},
};

/// The listening side of a daemon, before there is one and afterwards.
#[derive(Debug)]
pub struct Front {
    pub(super) http: SocketAddr,
    pub(super) metrics: Metrics,
    pub(super) heartbeats: Heartbeats,
    pub(super) time: SystemTime,
    pub(super) limits: ApiLimits,
    pub(super) access: Access,
    pub(super) instance: String,
    /// Cancelled once it is told to stop.
    pub(super) stop: CancellationToken,
    /// Cancelled once everything is flushed.
    pub(super) goodbye: CancellationToken,
    routes: watch::Sender<Router>,
    cause: watch::Sender<Option<LastError>>,
    statuses: watch::Sender<Statuses>,
    server: JoinSet<&'static str>,
    waiting: Heart,
}

impl Front {
    /// Listens, and serves what can be told without a database.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn open(config: &Config) -> Result<Self, DaemonError> {
        Self::open_by(SystemTime::new(), config)
    }

    /// The same, by these clocks.
    ///
    /// # Errors
    /// As [`Front::open`].
    pub fn open_by(time: SystemTime, config: &Config) -> Result<Self, DaemonError> {
        let (access, watching) = Access::open(&config.http)?;
        access.warnings(&config.collections).iter().for_each(|warning| warn!("{warning}"));
        let (listener, http) = listen("http.listen", config.http.listen)?;
        let probes = config.http.health_listen.map(|address| listen("http.health_listen", address));
        let probes = probes.transpose()?;
        let (metrics, heartbeats) = (Metrics::new()?, Heartbeats::default());
        metrics.watch_loops(heartbeats.clone(), time.clone())?;
        let waiting = heartbeats.register("start", config.daemon.liveness_limit, time.now());
        let (instance, limits) = (instance_name(config), api_limits(config));
        let (cause, told) = watch::channel(None);
        let collections = config.collections.iter().map(|collection| collection.name.clone());
        let shown = Starting {
            instance: instance.clone(),
            collections: collections.collect(),
            metrics: metrics.clone(),
            heartbeats: heartbeats.clone(),
            time: time.clone(),
            access: access.clone(),
            cause: told.clone(),
        };
        let (routes, served) = watch::channel(api::starting(shown, limits));
        let http_limits = HttpLimits {
            connections_max: config.http.connections_max as usize,
            head_timeout: config.http.head_timeout,
        };
        let goodbye = CancellationToken::new();
        let serving =
            HttpServer::new(http_limits.within_open_files(), access.clone(), goodbye.clone());
        let mut server = JoinSet::new();
        let doors = [(Some((listener, http)), false), (probes, true)];
        for (listener, probes_only) in doors {
            let Some((listener, address)) = listener else { continue };
            let door = Door { local_only: address.ip().is_loopback(), probes_only };
            server.spawn(finished(serving.clone().serve(listener, door, served.clone())));
            info!(%address, instance, probes_only, "serving HTTP");
        }
        let (statuses, seen) = watch::channel(Statuses::new());
        let supervisor = Supervisor {
            heartbeats: heartbeats.clone(),
            time: time.clone(),
            cause: told,
            statuses: seen,
            watchdog: sd_notify::watchdog_enabled(),
            send: sd_notify::notify,
        };
        server.spawn(super::until(goodbye.clone(), "service manager", supervisor.run()));
        let (end, watching) = (goodbye.clone(), watching.run(time.clone()));
        server.spawn(super::until(end, "files of tokens and TLS", watching));
        Ok(Self {
            http,
            metrics,
            heartbeats,
            time,
            limits,
            access,
            instance,
            stop: CancellationToken::new(),
            goodbye,
            routes,
            cause,
            statuses,
            server,
            waiting,
        })
    }

    /// Where it listens.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Says why there is no daemon yet, and that the process lives.
    pub fn waits(&self, class: &'static str, message: String, advice: &str) {
        self.turned();
        let at = self.time.wall();
        let part = Part::WHOLE;
        let cause = LastError { part, at, class, message, advice: advice.to_owned() };
        self.cause.send_replace(Some(cause));
    }

    /// Says that the process lives.
    pub fn turned(&self) {
        self.waiting.beat(self.time.now());
    }

    /// Serves the whole API from now on, and tells of these collections. Gives the task of the server.
    pub(super) fn opens(self, routes: Router, statuses: Statuses) -> JoinSet<&'static str> {
        self.heartbeats.forget(&self.waiting);
        drop(self.statuses.send_replace(statuses));
        drop(self.routes.send_replace(routes));
        self.server
    }
}

async fn finished(serving: impl Future<Output = ()>) -> &'static str {
    serving.await;
    super::STOPPED
}

fn listen(
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), DaemonError> {
    let listener = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, address))
    });
    listener.map_err(|reason| DaemonError::Listen { key, address, reason })
}

fn api_limits(config: &Config) -> ApiLimits {
    let clients = config.collections.iter().map(|collection| collection.max_clients).max();
    ApiLimits {
        ready_lag_max: config.daemon.max_ready_lag,
        body_bytes_max: api::body_bytes_for(clients.unwrap_or_default()),
        metrics_token: config.http.metrics_token,
        ..ApiLimits::default()
    }
}

/// A name unlike any other's, also unlike that of an earlier run.
fn instance_name(config: &Config) -> String {
    let name = config.daemon.instance.clone().unwrap_or_else(host_name);
    format!("{name}-{:06x}", fastrand::u32(..1 << 24))
}

/// What the machine or the pod is called.
fn host_name() -> String {
    let node = rustix::system::uname();
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| node.nodename().to_string_lossy().into_owned());
    if name.is_empty() { "alluvium".into() } else { name }
}
