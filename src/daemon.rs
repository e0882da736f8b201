//! The composition root: makes every part, owns every task, and knows the order of stopping. The
//! only place that spawns. A loop of ours that returns before it was told to is an error.

mod parts;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use mongodb::Database;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    api::{self, ApiLimits, ApiState},
    config::Config,
    database::{self, create::NewerFormat},
    headroom,
    health::{Heart, Heartbeats},
    lease::{Keeper, LeaseSettings},
    log::mongo::MongoSource,
    metrics::Metrics,
    projector::distributor::Distributor,
    retry::Backoff,
    status::CollectionStatus,
    store::mongo::{MongoJobs, MongoLayouts, MongoLeases, MongoPauses, Transactions},
    time::{SystemTime, Time},
    upkeep::{
        desk::Desk,
        layout::{LayoutWatch, Watched},
        pause::PauseWatch,
    },
};
use parts::Parts;

/// What a service says that was told to stop.
const STOPPED: &str = "stopped";

/// Whom to tell whether a collection is paused, by its name.
type Pauses = BTreeMap<String, watch::Sender<Option<bool>>>;

/// A running daemon.
pub struct Daemon {
    /// End first: they flush and save.
    projectors: JoinSet<&'static str>,
    /// What the projectors rest on. End last.
    services: JoinSet<&'static str>,
    stop: CancellationToken,
    goodbye: CancellationToken,
    shutdown_timeout: Duration,
    statuses: Vec<watch::Receiver<CollectionStatus>>,
    /// Told before the keeper of the leases ends for this reason.
    newer: oneshot::Receiver<NewerFormat>,
    metrics: Metrics,
    http: SocketAddr,
}

/// Why a daemon cannot start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The metrics contradict each other.
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The HTTP server cannot listen.
    #[error("cannot listen on {address}: {reason}; choose another `http.listen`")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why not.
        reason: std::io::Error,
    },
    /// The sessions that rows are written in cannot be opened.
    #[error("no session can be had from MongoDB's driver: {0}")]
    Sessions(#[from] database::Error),
    /// A later version of this program has taken the data over.
    #[error("stopping: {0}")]
    Newer(NewerFormat),
    /// A task ended although nobody had asked it to.
    #[error("the {0} ended unexpectedly; the log above says why. Please report this")]
    Ended(String),
}

impl Daemon {
    /// Starts projecting and serving every configured collection of `database`.
    ///
    /// # Errors
    /// When a part cannot be made. An unreachable database is none: the parts back off.
    pub async fn start(database: &Database, config: &Config) -> Result<Self, DaemonError> {
        let (listener, http) = listen(config.http.listen)?;
        let time = SystemTime::new();
        let heartbeats = Heartbeats::default();
        let (stop, goodbye) = (CancellationToken::new(), CancellationToken::new());
        let settings = lease_settings(config);
        let heart = |name| heartbeats.register(name, config.daemon.liveness_limit, time.now());
        let transactions = Transactions::open(database).await?;
        let leases = MongoLeases::new(database).with_transactions(&transactions);
        let mut parts =
            Parts::new((database, transactions), config, time, &heartbeats, Metrics::new()?);
        for collection in &config.collections {
            parts.add(collection, &stop)?;
        }
        let observers = parts.observers.0.clone();
        let mut services = JoinSet::new();
        let source = MongoSource::new(database.clone());
        let distributor =
            Distributor::new(source, time, Backoff::default(), parts.requests, parts.observers);
        let (distributor, intake) = (distributor.with_heart(heart("change stream")), stop.clone());
        services.spawn(until(intake, "change stream", distributor.run()));
        let watching = headroom::watch(database.clone(), observers, time, heart("oplog headroom"));
        services.spawn(until(goodbye.clone(), "oplog headroom", watching));
        let instance = settings.instance.clone();
        let keeper = Keeper::new(leases, time, settings, parts.leaderships);
        let (keeper, end) = (keeper.with_heart(heart("leases")), goodbye.clone());
        let (tell, newer) = oneshot::channel();
        services.spawn(keep(keeper, end, tell));
        let (jobs, pauses) = (MongoJobs::new(database), MongoPauses::new(database));
        let desk = Desk {
            jobs: jobs.clone(),
            instance: instance.clone(),
            time,
            backoff: Backoff::default(),
            wards: parts.wards,
            heart: heart("unknown jobs"),
        };
        services.spawn(until(stop.clone(), "jobs", desk.run()));
        let watches = (parts.pauses, parts.layouts);
        watch_operators(&mut services, database, watches, (time, &heart), &stop);
        for policy in parts.policies {
            services.spawn(until(stop.clone(), "snapshots", policy.run()));
        }
        let state = ApiState {
            jobs,
            pauses,
            instance,
            collections: parts.served,
            metrics: parts.metrics.clone(),
            heartbeats: heartbeats.clone(),
            time,
            limits: api_limits(config),
        };
        services.spawn(serve(listener, state, goodbye.clone()));
        info!(address = %http, "serving HTTP");
        let shutdown_timeout = config.daemon.shutdown_timeout;
        let Parts { projectors, statuses, metrics, .. } = parts;
        Ok(Self {
            projectors,
            services,
            stop,
            goodbye,
            shutdown_timeout,
            statuses,
            newer,
            metrics,
            http,
        })
    }

    /// The metrics of this daemon.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where the HTTP server listens.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// What is known of each collection, in the order of the configuration.
    pub fn statuses(&self) -> &[watch::Receiver<CollectionStatus>] {
        &self.statuses
    }

    /// Runs until `asked`, then stops: no more events are taken in, what has been folded is flushed, the
    /// checkpoints are saved. After the configured time whatever still runs is ended, which is always
    /// safe: the next start repeats it.
    ///
    /// # Errors
    /// When a task ended without being asked to, or the data is in a newer format. Nothing is flushed then.
    pub async fn run_until(mut self, asked: impl Future<Output = ()>) -> Result<(), DaemonError> {
        let ended = tokio::select! {
            () = asked => None,
            Some(ended) = self.projectors.join_next() => Some(ended),
            Some(ended) = self.services.join_next() => Some(ended),
        };
        match ended {
            None => self.stop().await,
            Some(ended) => {
                if let Ok(newer) = self.newer.try_recv() {
                    return Err(DaemonError::Newer(newer));
                }
                let name = ended.map_or_else(|error| error.to_string(), str::to_owned);
                return Err(DaemonError::Ended(name));
            }
        }
        Ok(())
    }

    async fn stop(mut self) {
        info!("stopping: flushing what has been folded and saving the checkpoints");
        self.stop.cancel();
        let drained = async {
            while self.projectors.join_next().await.is_some() {}
            // Only now may another instance take over at once: everything of ours is written.
            self.goodbye.cancel();
            while self.services.join_next().await.is_some() {}
        };
        match tokio::time::timeout(self.shutdown_timeout, drained).await {
            Ok(()) => info!("stopped"),
            Err(_) => warn!(
                shutdown_timeout_seconds = self.shutdown_timeout.as_secs(),
                "not everything could be flushed in time; nothing is lost, the next start repeats it"
            ),
        }
    }
}

/// Keeps the leases until `end`, and tells if the data is in a newer format.
async fn keep(
    keeper: Keeper<MongoLeases, SystemTime>,
    end: CancellationToken,
    tell: oneshot::Sender<NewerFormat>,
) -> &'static str {
    match keeper.run(end).await {
        Ok(()) => STOPPED,
        Err(found) => {
            // Nobody listens who is stopping anyway.
            drop(tell.send(found));
            "leases"
        }
    }
}

/// Keeps an eye on what operators have decided about collections.
fn watch_operators(
    services: &mut JoinSet<&'static str>,
    database: &Database,
    (pauses, layouts): (Pauses, BTreeMap<String, Watched>),
    (time, heart): (SystemTime, &dyn Fn(&'static str) -> Heart),
    stop: &CancellationToken,
) {
    let watching = PauseWatch {
        pauses: MongoPauses::new(database),
        time,
        collections: pauses,
        heart: heart("pauses"),
    };
    services.spawn(until(stop.clone(), "pauses", watching.run()));
    let watching = LayoutWatch {
        layouts: MongoLayouts::new(database),
        time,
        collections: layouts,
        heart: heart("layouts"),
    };
    services.spawn(until(stop.clone(), "layouts", watching.run()));
}

/// Serves HTTP until `end`.
async fn serve(listener: TcpListener, state: ApiState, end: CancellationToken) -> &'static str {
    match api::serve(listener, api::router(state), end.cancelled_owned()).await {
        Ok(()) => STOPPED,
        Err(_) => "HTTP server",
    }
}

/// Runs a loop that has no end of its own until `stop`.
async fn until(
    stop: CancellationToken,
    name: &'static str,
    work: impl Future<Output = ()>,
) -> &'static str {
    match stop.run_until_cancelled(work).await {
        Some(()) => name,
        None => STOPPED,
    }
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), DaemonError> {
    let listener = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, address))
    });
    listener.map_err(|reason| DaemonError::Listen { address, reason })
}

fn api_limits(config: &Config) -> ApiLimits {
    ApiLimits { ready_lag_max: config.daemon.max_ready_lag, ..ApiLimits::default() }
}

fn lease_settings(config: &Config) -> LeaseSettings {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "alluvium".into());
    let instance = format!("{host}-{}-{:08x}", std::process::id(), fastrand::u32(..));
    LeaseSettings { instance, lease_time: config.daemon.lease_time }
}
