//! The composition root: makes every part, owns every task, and knows the order of stopping. The
//! only place that spawns. A loop of ours that returns before it was told to is an error.

mod connections;
mod front;
mod http;
mod parts;
mod report;
mod supervisor;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use mongodb::Database;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    access::FileError,
    api::{self, ApiState},
    config::Config,
    database::{self, create::NewerFormat},
    headroom,
    health::Heart,
    lease::{Keeper, LeaseSettings},
    log::mongo::MongoSource,
    metrics::Metrics,
    retry::Backoff,
    status::CollectionStatus,
    store::mongo::{MongoJobs, MongoLayouts, MongoLeases, MongoPauses, MongoStore, Transactions},
    stream::Distributor,
    time::{SystemTime, Time},
    upkeep::{
        compact::policy::LogPolicy,
        desk::Desk,
        layout::{LayoutWatch, Watched},
        pause::PauseWatch,
        policy::Policy,
    },
};
pub use front::Front;
pub use http::{HttpLimits, HttpServer};
use parts::Parts;

/// What a service says that was told to stop.
const STOPPED: &str = "stopped";

/// Whom to tell whether a collection is paused, by its name.
type Pauses = BTreeMap<String, watch::Sender<Option<bool>>>;

/// A running daemon.
pub struct Daemon {
    tasks: Tasks,
    stop: CancellationToken,
    goodbye: CancellationToken,
    shutdown_timeout: Duration,
    statuses: Vec<watch::Receiver<CollectionStatus>>,
    /// Told before the keeper of the leases ends for this reason.
    newer: oneshot::Receiver<NewerFormat>,
    metrics: Metrics,
    http: SocketAddr,
}

/// What runs.
struct Tasks {
    /// End first: they flush and save.
    projectors: JoinSet<&'static str>,
    /// What the projectors rest on. End last.
    services: JoinSet<&'static str>,
    /// What answers HTTP. Ends with the services.
    server: JoinSet<&'static str>,
}

/// Why a daemon cannot start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The metrics contradict each other.
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The HTTP server cannot listen.
    #[error("cannot listen on {address}: {reason}; choose another `{key}`")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// The configured address.
        address: SocketAddr,
        /// Why not.
        reason: std::io::Error,
    },
    /// The tokens or the certificate cannot be used.
    #[error(transparent)]
    Access(#[from] FileError),
    /// The sessions that rows are written in cannot be opened.
    #[error("the MongoDB driver gives no session: {0}")]
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
        Self::start_behind(Front::open(config)?, database, config).await
    }

    /// The same behind a front that is open already.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub async fn start_behind(
        front: Front,
        database: &Database,
        config: &Config,
    ) -> Result<Self, DaemonError> {
        let (time, heartbeats) = (front.time.clone(), front.heartbeats.clone());
        let (stop, goodbye) = (front.stop.clone(), front.goodbye.clone());
        let (instance, lease_time) = (front.instance.clone(), config.daemon.lease_time);
        let settings = LeaseSettings { instance: instance.clone(), lease_time };
        let heart = |name| heartbeats.register(name, config.daemon.liveness_limit, time.now());
        let transactions = Transactions::open(database).await?;
        let leases = MongoLeases::new(database).with_transactions(&transactions);
        let metrics = front.metrics.clone();
        let mut parts = Parts::new((database, transactions), config, &time, &heartbeats, metrics);
        for collection in &config.collections {
            parts.add(collection, &stop)?;
        }
        let leases = leases.with_report(report::report(&parts.statuses));
        let observers = parts.observers.0.clone();
        let mut services = JoinSet::new();
        let source = MongoSource::new(database.clone());
        let distributor = Distributor::new(
            source,
            time.clone(),
            Backoff::default(),
            parts.requests,
            parts.observers,
        );
        let (distributor, intake) = (distributor.with_heart(heart("change stream")), stop.clone());
        services.spawn(until(intake, "change stream", distributor.run()));
        let watching =
            headroom::watch(database.clone(), observers, time.clone(), heart("oplog headroom"));
        services.spawn(until(goodbye.clone(), "oplog headroom", watching));
        let keeper = Keeper::new(leases, time.clone(), settings, parts.leaderships);
        let (keeper, end) = (keeper.with_heart(heart("leases")), goodbye.clone());
        let newer = keep_leases(&mut services, keeper, end);
        let (jobs, pauses) = (MongoJobs::new(database), MongoPauses::new(database));
        let desk = Desk {
            jobs: jobs.clone(),
            instance: instance.clone(),
            time: time.clone(),
            backoff: Backoff::default(),
            wards: parts.wards,
            heart: heart("unknown jobs"),
        };
        services.spawn(until(stop.clone(), "jobs", desk.run()));
        let watches = (parts.pauses, parts.layouts);
        watch_operators(&mut services, database, watches, (&time, &heart), &stop);
        keep_small(&mut services, parts.policies, parts.log_policies, &stop);
        let Parts { projectors, statuses, metrics, served, .. } = parts;
        let state = ApiState {
            access: front.access.clone(),
            jobs,
            pauses,
            instance,
            collections: served,
            metrics: metrics.clone(),
            heartbeats: heartbeats.clone(),
            time: time.clone(),
            limits: front.limits,
            stop: stop.clone(),
        };
        let http = front.http;
        let server = front.opens(api::router(state), statuses.clone());
        let shutdown_timeout = config.daemon.shutdown_timeout;
        let tasks = Tasks { projectors, services, server };
        Ok(Self { tasks, stop, goodbye, shutdown_timeout, statuses, newer, metrics, http })
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
            Some(ended) = self.tasks.projectors.join_next() => Some(ended),
            Some(ended) = self.tasks.services.join_next() => Some(ended),
            Some(ended) = self.tasks.server.join_next() => Some(ended),
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
        supervisor::stopping();
        info!("stopping: flushing what has been folded and saving the checkpoints");
        self.stop.cancel();
        let drained = async {
            while self.tasks.projectors.join_next().await.is_some() {}
            // Only now may another instance take over at once: everything of ours is written.
            self.goodbye.cancel();
            while self.tasks.services.join_next().await.is_some() {}
            while self.tasks.server.join_next().await.is_some() {}
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

/// Takes snapshots and compacts logs by policy.
fn keep_small(
    services: &mut JoinSet<&'static str>,
    snapshots: Vec<Policy<MongoSource, MongoStore, SystemTime>>,
    logs: Vec<LogPolicy<MongoSource, MongoStore, SystemTime>>,
    stop: &CancellationToken,
) {
    for policy in snapshots {
        services.spawn(until(stop.clone(), "snapshots", policy.run()));
    }
    for policy in logs {
        services.spawn(until(stop.clone(), "compaction", policy.run()));
    }
}

/// Keeps an eye on what operators have decided about collections.
fn watch_operators(
    services: &mut JoinSet<&'static str>,
    database: &Database,
    (pauses, layouts): (Pauses, BTreeMap<String, Watched>),
    (time, heart): (&SystemTime, &dyn Fn(&'static str) -> Heart),
    stop: &CancellationToken,
) {
    let watching = PauseWatch {
        pauses: MongoPauses::new(database),
        time: time.clone(),
        collections: pauses,
        heart: heart("pauses"),
    };
    services.spawn(until(stop.clone(), "pauses", watching.run()));
    let watching = LayoutWatch {
        layouts: MongoLayouts::new(database),
        time: time.clone(),
        collections: layouts,
        heart: heart("layouts"),
    };
    services.spawn(until(stop.clone(), "layouts", watching.run()));
}

/// Keeps the leases until `end`. What comes back tells of data that is newer than this version.
fn keep_leases(
    services: &mut JoinSet<&'static str>,
    keeper: Keeper<MongoLeases, SystemTime>,
    end: CancellationToken,
) -> oneshot::Receiver<NewerFormat> {
    let (tell, newer) = oneshot::channel();
    services.spawn(async move {
        match keeper.run(end).await {
            Ok(()) => STOPPED,
            Err(found) => {
                // Nobody listens who is stopping anyway.
                drop(tell.send(found));
                "leases"
            }
        }
    });
    newer
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
