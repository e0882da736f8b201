//! The composition root: makes every part, owns every task, and knows the order of stopping. The
//! only place that spawns. A loop of ours that returns before it was told to is an error.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use mongodb::Database;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::{CollectionConfig, Config},
    lease::{Keeper, LeaseSettings},
    log::mongo::MongoSource,
    metrics::{Metrics, RestartReason},
    model::{document::FoldLimits, part::Part, state::Limits},
    projector::{
        Projector, Settings,
        distributor::{Distributor, Restarts},
        observe::Observer,
    },
    retry::Backoff,
    status::CollectionStatus,
    store::{
        LeaseName,
        mongo::{MongoLeases, MongoStore},
    },
    time::SystemTime,
};

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
    metrics: Metrics,
    statuses: Vec<watch::Receiver<CollectionStatus>>,
}

/// Why a daemon cannot start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The metrics contradict each other.
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A task ended although nobody had asked it to.
    #[error("the {0} ended unexpectedly; the log above says why. Please report this")]
    Ended(String),
}

impl Daemon {
    /// Starts projecting every configured collection of `database`.
    ///
    /// # Errors
    /// When a part cannot be made. An unreachable database is none: the parts back off.
    pub fn start(database: &Database, config: &Config) -> Result<Self, DaemonError> {
        let metrics = Metrics::new()?;
        let stop = CancellationToken::new();
        let time = SystemTime::new();
        let source = MongoSource::new(database.clone());
        let (subscribe, requests) = mpsc::channel(REQUESTS_MAX);
        let mut projectors = JoinSet::new();
        let mut observers = Observers::default();
        let mut statuses = Vec::new();
        let mut leaderships = BTreeMap::new();
        for collection in &config.collections {
            let (sender, receiver) = watch::channel(CollectionStatus::new(&collection.name));
            let counters = metrics.collection(&collection.name, receiver.clone())?;
            let observer = Observer::new(Arc::new(sender), counters, time);
            observers.0.insert(collection.name.clone(), observer.clone());
            statuses.push(receiver);
            let part = Part::WHOLE;
            let projector = Projector {
                collection: collection.name.clone(),
                part,
                source: source.clone(),
                store: MongoStore::new(database, &collection.name, part),
                time,
                settings: settings(config, collection),
                observer,
                subscribe: subscribe.clone(),
            };
            let (leadership, led) = watch::channel(None);
            leaderships.insert(LeaseName { collection: collection.name.clone(), part }, leadership);
            let stop = stop.clone();
            projectors.spawn(async move {
                projector.lead(led, stop).await;
                "projector"
            });
        }
        let mut services = JoinSet::new();
        let distributor = Distributor::new(source, time, Backoff::default(), requests, observers);
        let intake = stop.clone();
        services.spawn(async move {
            match intake.run_until_cancelled(distributor.run()).await {
                Some(()) => "change stream",
                None => STOPPED,
            }
        });
        let goodbye = CancellationToken::new();
        let keeper =
            Keeper::new(MongoLeases::new(database), time, lease_settings(config), leaderships);
        let until = goodbye.clone();
        services.spawn(async move {
            keeper.run(until).await;
            STOPPED
        });
        let shutdown_timeout = config.daemon.shutdown_timeout;
        Ok(Self { projectors, services, stop, goodbye, shutdown_timeout, metrics, statuses })
    }

    /// What is known of each collection, in the order of the configuration.
    pub fn statuses(&self) -> &[watch::Receiver<CollectionStatus>] {
        &self.statuses
    }

    /// The metrics of this daemon.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
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

fn lease_settings(config: &Config) -> LeaseSettings {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "alluvium".into());
    let instance = format!("{host}-{}-{:08x}", std::process::id(), fastrand::u32(..));
    LeaseSettings { instance, lease_time: config.daemon.lease_time }
}

fn settings(config: &Config, collection: &CollectionConfig) -> Settings {
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let state = Limits { state_bytes_max: bytes(collection.max_state_bytes), ..Limits::default() };
    let clients_max = usize::try_from(collection.max_clients).unwrap_or(usize::MAX);
    Settings {
        flush_interval: collection.flush_interval,
        checkpoint_interval: config.daemon.checkpoint_interval,
        gap_grace: collection.gap_grace,
        cache_bytes: bytes(collection.cache_bytes),
        event_bytes_max: bytes(collection.max_event_bytes),
        limits: FoldLimits { state, clients_max },
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
}
