//! The composition root: makes every part, owns every task, and knows the order of stopping. The
//! only place that spawns. A loop of ours that returns before it was told to is an error.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use mongodb::Database;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    api::{self, ApiLimits, ApiState, Served},
    config::{CollectionConfig, Config},
    database, headroom,
    health::Heartbeats,
    lease::{Keeper, Leadership, LeaseSettings, Standing},
    log::{LogSource, mongo::MongoSource},
    metrics::{Metrics, RestartReason},
    model::part::Part,
    projector::{
        Projector, Settings,
        distributor::{Distributor, Restarts},
        feed::Subscribe,
        observe::Observer,
    },
    read::{ReadLimits, Reader},
    retry::Backoff,
    status::CollectionStatus,
    store::{
        LeaseName,
        mongo::{MongoJobs, MongoLeases, MongoStore},
    },
    time::{SystemTime, Time},
    upkeep::{
        desk::{Desk, Ward},
        snapshot::Snapshotter,
    },
};

/// How long a loop may be silent: longer than its longest attempt at anything.
const LOOP_LIMIT: Duration = Duration::from_secs(90);

/// What a service says that was told to stop.
const STOPPED: &str = "stopped";

/// How many projectors may ask for the stream at once before one waits.
const REQUESTS_MAX: usize = 16;

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
    /// A task ended although nobody had asked it to.
    #[error("the {0} ended unexpectedly; the log above says why. Please report this")]
    Ended(String),
}

impl Daemon {
    /// Starts projecting and serving every configured collection of `database`.
    ///
    /// # Errors
    /// When a part cannot be made. An unreachable database is none: the parts back off.
    pub fn start(database: &Database, config: &Config) -> Result<Self, DaemonError> {
        let listener = listen(config.http.listen)?;
        let http = listener
            .local_addr()
            .map_err(|reason| DaemonError::Listen { address: config.http.listen, reason })?;
        let time = SystemTime::new();
        let heartbeats = Heartbeats::default();
        let (stop, goodbye) = (CancellationToken::new(), CancellationToken::new());
        let settings = lease_settings(config);
        let mut parts = Parts::new(database, config, time, &heartbeats, Metrics::new()?);
        for collection in &config.collections {
            parts.add(collection, &stop)?;
        }
        let Parts {
            projectors,
            observers,
            statuses,
            served,
            leaderships,
            wards,
            requests,
            metrics,
            ..
        } = parts;
        let observers_by_name = observers.0.clone();
        let mut services = JoinSet::new();
        let heart = heartbeats.register("change stream", LOOP_LIMIT, time.now());
        let source = MongoSource::new(database.clone());
        let distributor = Distributor::new(source, time, Backoff::default(), requests, observers);
        let (distributor, intake) = (distributor.with_heart(heart), stop.clone());
        services.spawn(async move {
            match intake.run_until_cancelled(distributor.run()).await {
                Some(()) => "change stream",
                None => STOPPED,
            }
        });
        let heart = heartbeats.register("oplog headroom", LOOP_LIMIT, time.now());
        let (watching, until) =
            (headroom::watch(database.clone(), observers_by_name, time, heart), goodbye.clone());
        services.spawn(async move {
            match until.run_until_cancelled(watching).await {
                Some(()) => "oplog headroom",
                None => STOPPED,
            }
        });
        let heart = heartbeats.register("leases", LOOP_LIMIT, time.now());
        let instance = settings.instance.clone();
        let keeper = Keeper::new(MongoLeases::new(database), time, settings, leaderships);
        let (keeper, until) = (keeper.with_heart(heart), goodbye.clone());
        services.spawn(async move {
            keeper.run(until).await;
            STOPPED
        });
        let jobs = MongoJobs::new(database);
        let desk = Desk {
            jobs: jobs.clone(),
            instance: instance.clone(),
            time,
            backoff: Backoff::default(),
            wards,
        };
        let intake = stop.clone();
        services.spawn(async move {
            match intake.run_until_cancelled(desk.run()).await {
                Some(()) => "jobs",
                None => STOPPED,
            }
        });
        let limits = ApiLimits::default();
        let state = ApiState {
            jobs,
            instance,
            collections: served,
            metrics: metrics.clone(),
            heartbeats,
            time,
            limits,
        };
        let until = goodbye.clone().cancelled_owned();
        services.spawn(async move {
            match api::serve(listener, api::router(state), until).await {
                Ok(()) => STOPPED,
                Err(_) => "HTTP server",
            }
        });
        info!(address = %http, "serving HTTP");
        let shutdown_timeout = config.daemon.shutdown_timeout;
        Ok(Self { projectors, services, stop, goodbye, shutdown_timeout, statuses, metrics, http })
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
    /// When a task ended without being asked to.
    pub async fn run_until(mut self, asked: impl Future<Output = ()>) -> Result<(), DaemonError> {
        let ended = tokio::select! {
            () = asked => None,
            Some(ended) = self.projectors.join_next() => Some(ended),
            Some(ended) = self.services.join_next() => Some(ended),
        };
        match ended {
            None => self.stop().await,
            Some(ended) => {
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

/// What is made for every collection.
struct Parts<'a> {
    database: &'a Database,
    config: &'a Config,
    time: SystemTime,
    heartbeats: &'a Heartbeats,
    metrics: Metrics,
    projectors: JoinSet<&'static str>,
    observers: Observers,
    statuses: Vec<watch::Receiver<CollectionStatus>>,
    served: BTreeMap<String, Served>,
    leaderships: BTreeMap<LeaseName, Leadership>,
    wards: Vec<Ward<MongoSource, MongoStore>>,
    subscribe: mpsc::Sender<Subscribe>,
    requests: mpsc::Receiver<Subscribe>,
}

impl<'a> Parts<'a> {
    fn new(
        database: &'a Database,
        config: &'a Config,
        time: SystemTime,
        heartbeats: &'a Heartbeats,
        metrics: Metrics,
    ) -> Self {
        let (subscribe, requests) = mpsc::channel(REQUESTS_MAX);
        Self {
            database,
            config,
            time,
            heartbeats,
            metrics,
            projectors: JoinSet::new(),
            observers: Observers::default(),
            statuses: Vec::new(),
            served: BTreeMap::new(),
            leaderships: BTreeMap::new(),
            wards: Vec::new(),
            subscribe,
            requests,
        }
    }

    fn add(
        &mut self,
        collection: &CollectionConfig,
        stop: &CancellationToken,
    ) -> Result<(), DaemonError> {
        let name = &collection.name;
        let (sender, status) = watch::channel(CollectionStatus::new(name));
        let metrics = self.metrics.collection(name, status.clone())?;
        let heart =
            self.heartbeats.register(format!("projector of {name}"), LOOP_LIMIT, self.time.now());
        let observer =
            Observer::new(Arc::new(sender), metrics.clone(), self.time).with_heart(heart);
        self.observers.0.insert(name.clone(), observer.clone());
        self.statuses.push(status.clone());
        let settings = settings(self.config, collection);
        let limits = ReadLimits { fold: settings.limits, ..ReadLimits::default() };
        let reader = Reader::new(self.database, name, limits);
        let part = Part::WHOLE;
        let source = MongoSource::new(self.database.clone());
        let store = MongoStore::new(self.database, name, part);
        let snapshotter = Snapshotter {
            log: source.log(name),
            source: source.clone(),
            store: store.clone(),
            metrics: metrics.clone(),
        };
        let served = Served { reader, snapshotter: snapshotter.clone(), status, metrics };
        self.served.insert(name.clone(), served);
        let projector = Projector {
            collection: name.clone(),
            part,
            source,
            store,
            time: self.time,
            settings,
            observer,
            subscribe: self.subscribe.clone(),
        };
        let (leadership, led) = watch::channel(Standing::Unknown);
        self.leaderships.insert(LeaseName { collection: name.clone(), part }, leadership);
        let heart =
            self.heartbeats.register(format!("jobs of {name}"), LOOP_LIMIT, self.time.now());
        let collection = name.clone();
        self.wards.push(Ward { collection, snapshotter, led: led.clone(), heart });
        let stop = stop.clone();
        self.projectors.spawn(async move {
            projector.lead(led, stop).await;
            "projector"
        });
        Ok(())
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    let listener = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    listener.map_err(|reason| DaemonError::Listen { address, reason })
}

fn lease_settings(config: &Config) -> LeaseSettings {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "alluvium".into());
    let instance = format!("{host}-{}-{:08x}", std::process::id(), fastrand::u32(..));
    LeaseSettings { instance, lease_time: config.daemon.lease_time }
}

fn settings(config: &Config, collection: &CollectionConfig) -> Settings {
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Settings {
        flush_interval: collection.flush_interval,
        checkpoint_interval: config.daemon.checkpoint_interval,
        gap_grace: collection.gap_grace,
        cache_bytes: bytes(collection.cache_bytes),
        event_bytes_max: bytes(collection.max_event_bytes),
        limits: collection.fold_limits(),
        ..Settings::default()
    }
}

/// Tells each collection's observer of a restarted stream.
#[derive(Default)]
struct Observers(HashMap<String, Observer>);

impl Restarts for Observers {
    fn restarted(&self, collections: &[String], reason: RestartReason) {
        for observer in collections.iter().filter_map(|name| self.0.get(name)) {
            observer.restarted(reason);
        }
    }

    fn failed(&self, collections: &[String], error: &database::Error) {
        for observer in collections.iter().filter_map(|name| self.0.get(name)) {
            observer.error(error);
        }
    }
}
