//! What the daemon makes for each collection, before anything of it but the projectors runs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use mongodb::Database;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::DaemonError;
use crate::{
    api::Served,
    config::{CollectionConfig, Config},
    database,
    health::{Heart, Heartbeats},
    lease::{Leadership, Standing},
    log::{LogSource, mongo::MongoSource},
    metrics::{Metrics, RestartReason},
    model::part::Part,
    projector::{
        Projector, Settings, distributor::Restarts, feed::Subscribe, observe::Observer, revisit,
    },
    read::{ReadLimits, Reader},
    retry::Backoff,
    status::CollectionStatus,
    store::{LeaseName, mongo::MongoStore},
    time::{SystemTime, Time},
    upkeep::{
        desk::Ward,
        policy::{self, Policy},
        snapshot::Snapshotter,
    },
};

/// How many projectors may ask for the stream at once before one waits.
const REQUESTS_MAX: usize = 16;

/// What is made for every collection.
pub(super) struct Parts<'a> {
    database: &'a Database,
    config: &'a Config,
    time: SystemTime,
    heartbeats: &'a Heartbeats,
    pub(super) metrics: Metrics,
    pub(super) projectors: JoinSet<&'static str>,
    pub(super) observers: Observers,
    pub(super) statuses: Vec<watch::Receiver<CollectionStatus>>,
    pub(super) served: BTreeMap<String, Served>,
    pub(super) leaderships: BTreeMap<LeaseName, Leadership>,
    pub(super) wards: Vec<Ward<MongoSource, MongoStore>>,
    pub(super) policies: Vec<Policy<MongoSource, MongoStore, SystemTime>>,
    subscribe: mpsc::Sender<Subscribe>,
    pub(super) pauses: BTreeMap<String, watch::Sender<Option<bool>>>,
    pub(super) requests: mpsc::Receiver<Subscribe>,
}

impl<'a> Parts<'a> {
    /// Nothing yet.
    pub(super) fn new(
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
            policies: Vec::new(),
            pauses: BTreeMap::new(),
            subscribe,
            requests,
        }
    }

    /// What `collection` needs. Its projector runs from now on.
    pub(super) fn add(
        &mut self,
        collection: &CollectionConfig,
        stop: &CancellationToken,
    ) -> Result<(), DaemonError> {
        let name = &collection.name;
        let (sender, status) = watch::channel(CollectionStatus::new(name));
        let metrics = self.metrics.collection(name, status.clone())?;
        let (due, snapshots_due) = mpsc::channel(policy::DUE_MAX);
        let observer = Observer::new(Arc::new(sender), metrics.clone(), self.time)
            .with_heart(self.heart("projector", name))
            .with_snapshots(due);
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
            keep: collection.snapshots.keep,
        };
        let served = Served { reader, snapshotter: snapshotter.clone(), status, metrics };
        self.served.insert(name.clone(), served);
        let (revisits, revisited) = revisit::channel();
        let projector = Projector {
            collection: name.clone(),
            part,
            source,
            store,
            time: self.time,
            settings,
            observer,
            subscribe: self.subscribe.clone(),
            revisits: revisited,
        };
        let (leadership, led) = watch::channel(Standing::Unknown);
        self.leaderships.insert(LeaseName { collection: name.clone(), part }, leadership);
        self.wards.push(Ward {
            collection: name.clone(),
            snapshotter: snapshotter.clone(),
            revisits,
            gap_grace: collection.gap_grace,
            led: led.clone(),
            heart: self.heart("jobs", name),
        });
        self.policies.push(Policy {
            collection: name.clone(),
            snapshotter,
            due: snapshots_due,
            every: Some(collection.snapshots.every).filter(|every| !every.is_zero()),
            led: led.clone(),
            time: self.time,
            backoff: Backoff::default(),
            heart: self.heart("snapshots", name),
        });
        let (pause, paused) = watch::channel(None);
        self.pauses.insert(name.clone(), pause);
        let stop = stop.clone();
        self.projectors.spawn(async move {
            projector.lead(led, paused, stop).await;
            "projector"
        });
        Ok(())
    }

    /// The heart of one of the loops of a collection.
    fn heart(&self, what: &str, collection: &str) -> Heart {
        let name = format!("{what} of {collection}");
        self.heartbeats.register(name, self.config.daemon.liveness_limit, self.time.now())
    }
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
        snapshot_events: collection.snapshots.every_events,
        ..Settings::default()
    }
}

/// Tells each collection's observer of a restarted stream.
#[derive(Default)]
pub(super) struct Observers(pub(super) HashMap<String, Observer>);

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
