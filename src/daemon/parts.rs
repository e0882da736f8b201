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
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::error;

use super::DaemonError;
use crate::{
    api::Served,
    archive::Archive,
    config::{CollectionConfig, Config},
    database,
    health::{Heart, Heartbeats},
    lease::{Leaderships, Standing},
    log::mongo::MongoSource,
    metrics::{Metrics, RestartReason},
    model::{compaction::Notice, part::Part},
    observe::Observer,
    projector::{
        Projector, Settings,
        division::Division,
        revisit::{self, Led},
    },
    read::{ReadLimits, Reader},
    retry::Backoff,
    status::CollectionStatus,
    store::{
        mongo::{MongoStore, Transactions},
        pauses::compaction_of,
    },
    stream::{Restarts, Subscribe},
    time::{SystemTime, Time},
    upkeep::{
        compact::{
            Compaction, Liveliness,
            policy::{LogPolicy, NOTICES_MAX, growth},
        },
        layout::Watched,
        policy::{self, Policy},
        snapshot::Snapshotter,
        ward::Ward,
    },
};

/// How many projectors may ask for the stream at once before one waits.
const REQUESTS_MAX: usize = 16;

/// What is made for every collection.
pub(super) struct Parts<'a> {
    database: &'a Database,
    transactions: Transactions,
    config: &'a Config,
    time: &'a SystemTime,
    heartbeats: &'a Heartbeats,
    pub(super) metrics: Metrics,
    pub(super) projectors: JoinSet<&'static str>,
    pub(super) observers: Observers,
    pub(super) statuses: Vec<watch::Receiver<CollectionStatus>>,
    pub(super) served: BTreeMap<String, Served>,
    pub(super) leaderships: Leaderships,
    pub(super) wards: Vec<Ward<MongoSource, MongoStore>>,
    pub(super) policies: Vec<Policy<MongoSource, MongoStore, SystemTime>>,
    pub(super) log_policies: Vec<LogPolicy<MongoSource, MongoStore, SystemTime>>,
    subscribe: mpsc::Sender<Subscribe>,
    pub(super) pauses: BTreeMap<String, watch::Sender<Option<bool>>>,
    pub(super) layouts: BTreeMap<String, Watched>,
    pub(super) requests: mpsc::Receiver<Subscribe>,
}

impl<'a> Parts<'a> {
    /// Nothing yet.
    pub(super) fn new(
        (database, transactions): (&'a Database, Transactions),
        config: &'a Config,
        time: &'a SystemTime,
        heartbeats: &'a Heartbeats,
        metrics: Metrics,
    ) -> Self {
        let (subscribe, requests) = mpsc::channel(REQUESTS_MAX);
        Self {
            database,
            transactions,
            config,
            time,
            heartbeats,
            metrics,
            projectors: JoinSet::new(),
            observers: Observers::default(),
            statuses: Vec::new(),
            served: BTreeMap::new(),
            leaderships: Leaderships::default(),
            wards: Vec::new(),
            policies: Vec::new(),
            log_policies: Vec::new(),
            pauses: BTreeMap::new(),
            layouts: BTreeMap::new(),
            subscribe,
            requests,
        }
    }

    /// What `collection` needs. Its projectors run from when it is known into how many parts it is divided.
    pub(super) fn add(
        &mut self,
        collection: &CollectionConfig,
        stop: &CancellationToken,
    ) -> Result<(), DaemonError> {
        let name = &collection.name;
        let (sender, status) = watch::channel(CollectionStatus::new(name));
        let metrics = self.metrics.collection(name, status.clone())?;
        let (due, snapshots_due) = mpsc::channel(policy::DUE_MAX);
        let (notice, notices) = mpsc::channel(NOTICES_MAX);
        let observer = Observer::new(Arc::new(sender), metrics.clone(), self.time.clone())
            .with_snapshots(due)
            .with_notices(notice);
        self.observers.0.insert(name.clone(), observer.clone());
        self.statuses.push(status.clone());
        let limits = ReadLimits { fold: collection.fold_limits(), ..ReadLimits::default() };
        let place = collection.compaction.archive.as_ref();
        let archive = place.map(|place| Archive::at(place, self.database.name(), name));
        let reader = Reader::new(self.database, name, limits).with_archive(archive.clone());
        let source = MongoSource::new(self.database.clone());
        let snapshotter = Snapshotter {
            collection: name.clone(),
            source,
            store: MongoStore::new(self.database, name, Part::WHOLE)
                .with_transactions(self.transactions.clone()),
            metrics: metrics.clone(),
            keep: collection.snapshots.keep,
        };
        let served = Served { reader, snapshotter: snapshotter.clone(), status, metrics };
        // Who leads the first part does what is done once for the whole collection.
        let (first, led) = watch::channel(Standing::Unknown);
        let parts = revisit::Parts::default();
        let (pause, paused) = watch::channel(None);
        self.pauses.insert(compaction_of(name), pause);
        let compaction = Compaction {
            retention: collection.compaction.retention(),
            archive,
            // Whoever does not know of bases looks at the format with each beat of its lease, and stops.
            settled: self.config.daemon.lease_time,
            observer: observer.clone(),
            liveliness: Liveliness::default(),
            paused,
        };
        self.wards.push(Ward {
            collection: name.clone(),
            snapshotter: snapshotter.clone(),
            parts: parts.clone(),
            gap_grace: collection.gap_grace,
            compaction: compaction.clone(),
            heart: self.heart("jobs", name),
        });
        self.served.insert(name.clone(), served);
        self.policies.push(Policy {
            collection: name.clone(),
            snapshotter,
            due: snapshots_due,
            every: Some(collection.snapshots.every).filter(|every| !every.is_zero()),
            led: led.clone(),
            time: self.time.clone(),
            backoff: Backoff::default(),
            heart: self.heart("snapshots", name),
        });
        self.compact(collection, compaction, (notices, led.clone()));
        let (layout, divided) = watch::channel(None);
        let watched = Watched { layout, first: led, observer: observer.clone() };
        self.layouts.insert(name.clone(), watched);
        self.project(collection, observer, (divided, first, parts), stop);
        Ok(())
    }

    /// What compacts the logs of `collection` by its policy.
    fn compact(
        &mut self,
        collection: &CollectionConfig,
        compaction: Compaction,
        (notices, led): (mpsc::Receiver<Notice>, watch::Receiver<Standing>),
    ) {
        let name = &collection.name;
        self.log_policies.push(LogPolicy {
            collection: name.clone(),
            source: MongoSource::new(self.database.clone()),
            store: MongoStore::new(self.database, name, Part::WHOLE)
                .with_transactions(self.transactions.clone()),
            compaction,
            every: collection.compaction.every,
            notices,
            led,
            time: self.time.clone(),
            heart: self.heart("compaction", name),
        });
    }

    /// Keeps the projectors of the parts of `collection`, each as a task of its own.
    fn project(
        &mut self,
        collection: &CollectionConfig,
        observer: Observer,
        (layout, first, parts): (
            watch::Receiver<Option<u32>>,
            watch::Sender<Standing>,
            revisit::Parts,
        ),
        stop: &CancellationToken,
    ) {
        let name = collection.name.clone();
        let (pause, paused) = watch::channel(None);
        self.pauses.insert(name.clone(), pause);
        let division = Division {
            collection: name.clone(),
            layout,
            leaderships: self.leaderships.clone(),
            first,
            observer: observer.clone(),
            time: self.time.clone(),
            heart: self.heart("parts", &name),
        };
        let (database, time) = (self.database.clone(), self.time.clone());
        let transactions = self.transactions.clone();
        let (heartbeats, subscribe) = (self.heartbeats.clone(), self.subscribe.clone());
        let settings = settings(self.config, collection);
        let liveness_limit = self.config.daemon.liveness_limit;
        let start = move |part: Part, led: watch::Receiver<Standing>, until| {
            let of = if part == Part::WHOLE { String::new() } else { format!(" {part}") };
            let loop_name = format!("projector of {name}{of}");
            let heart = heartbeats.register(loop_name, liveness_limit, time.now());
            let (wishes, revisits) = revisit::channel();
            let projector = Projector {
                collection: name.clone(),
                part,
                source: MongoSource::new(database.clone()),
                store: MongoStore::new(&database, &name, part)
                    .with_transactions(transactions.clone()),
                time: time.clone(),
                settings: settings.shared_among(part.of),
                observer: observer.clone().of_part(part).with_heart(heart.clone()),
                subscribe: subscribe.clone(),
                revisits,
            };
            parts.put(part, Led { standing: led.clone(), wishes });
            let lead = projector.lead(led, paused.clone(), until);
            let task = AbortOnDropHandle::new(tokio::spawn(lead));
            let (heartbeats, parts) = (heartbeats.clone(), parts.clone());
            async move {
                let ended = task.await;
                parts.remove(part);
                match ended {
                    Ok(()) => heartbeats.forget(&heart),
                    Err(error) => error!(%error, "a projector failed"),
                }
            }
        };
        let stop = stop.clone();
        self.projectors.spawn(async move {
            division.run(start, stop).await;
            "projector"
        });
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
        limits: collection.fold_limits(),
        snapshot_events: collection.snapshots.every_events,
        mark_events: growth(collection.compaction.keep_events.into()),
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
