//! A daemon of the simulation: the real distributor and the real projector over this process's
//! connection, and the real keeper of leases where leases decide who leads; started again after
//! every crash and every stop.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    compaction,
    executor::{Owner, Sim, VirtualTime},
    layouts::SimLayouts,
    leases::SimLeases,
    log::SimLogSource,
    monitor::Monitor,
    node::Node,
    plan::DaemonPlan,
    store::SimStore,
    world::COLLECTION,
};
use crate::{
    config::DaemonConfig,
    health::{Heart, Heartbeats, Pulse},
    lease::{Keeper, Leaderships, LeaseSettings, Standing},
    metrics::{CollectionMetrics, Metrics, RestartReason},
    model::part::Part,
    observe::Observer,
    projector::{
        Projector, Settings,
        division::Division,
        intake::backlog::BacklogSettings,
        revisit::{self, Led, Parts},
    },
    retry::{ATTEMPT_LIMIT, Backoff},
    status::CollectionStatus,
    stream::{Distributor, Restarts, Subscribe},
    time::Time as _,
    upkeep::{
        compact::policy::NOTICES_MAX,
        layout::{LayoutWatch, Watched},
    },
};

/// So small that a run of a few dozen events has many backlogs, and tails that are left behind.
const BACKLOG: BacklogSettings = BacklogSettings {
    events_min: 1,
    lag_min: Duration::ZERO,
    look_interval: Duration::from_millis(500),
};

/// Starts the daemon, and again whenever it has crashed. Without a lease time it leads every part from the start.
pub(super) async fn supervise(
    node: Node,
    monitor: Monitor,
    plan: DaemonPlan,
    lease_time: Option<Duration>,
) {
    let sim = node.sim().clone();
    sim.sleep(plan.start).await;
    node.stay_down().await;
    let mut starts = 0;
    loop {
        sim.tell(|| format!("{:?} starts", node.owner));
        let (stop, goodbye) = (CancellationToken::new(), CancellationToken::new());
        let parts = Parts::default();
        node.begins(parts.clone(), stop.clone());
        let beats = Heartbeats::default();
        // Who keeps leases asks for the server's time, which puts this right.
        let wall_ahead_millis = lease_time.map_or(0, |_| plan.wall_ahead_millis);
        let process = Process {
            node: node.clone(),
            monitor: monitor.clone(),
            plan: plan.clone(),
            starts,
            lease_time,
            leaderships: Leaderships::default(),
            parts,
            hearts: Hearts { beats, time: VirtualTime::new(&sim, wall_ahead_millis) },
        };
        process.project(stop, goodbye.clone());
        process.keep(goodbye);
        sim.spawn(node.owner, process.hearts.clone().watch(sim.clone(), node.owner));
        node.crashed().await;
        node.stay_down().await;
        starts += 1;
    }
}

/// Liveness, as the real daemon has it: nothing that happens to the database may turn it red.
#[derive(Clone)]
struct Hearts {
    beats: Heartbeats,
    time: VirtualTime,
}

impl Hearts {
    fn heart(&self, name: &str) -> Heart {
        self.beats.register(name, DaemonConfig::default().liveness_limit, self.time.now())
    }

    async fn watch(self, sim: Sim, owner: Owner) {
        loop {
            sim.sleep(Duration::from_secs(10)).await;
            let pulses = self.beats.pulses(self.time.now());
            if let Some(complaint) = pulses.iter().find_map(Pulse::complaint) {
                return sim.violation(format!("{owner:?}: {complaint}"));
            }
        }
    }
}

/// One run of a daemon.
struct Process {
    node: Node,
    monitor: Monitor,
    plan: DaemonPlan,
    starts: u64,
    lease_time: Option<Duration>,
    leaderships: Leaderships,
    parts: Parts,
    hearts: Hearts,
}

impl Process {
    /// Projects until told to stop, and says goodbye then: only now may another instance take over at once.
    fn project(&self, stop: CancellationToken, goodbye: CancellationToken) {
        let (sim, owner, time) = (self.node.sim(), self.node.owner, self.hearts.time.clone());
        let source = SimLogSource { node: self.node.clone() };
        let status = Arc::new(watch::Sender::new(CollectionStatus::new(COLLECTION)));
        let (notice, notices) = mpsc::channel(NOTICES_MAX);
        let observer = Observer::new(status, metrics(), time.clone()).with_notices(notice);
        let watching = compaction::clear_late(self.node.clone(), self.monitor.clone(), notices);
        sim.spawn(owner, watching);
        let (subscribe, requests): (mpsc::Sender<Subscribe>, _) = mpsc::channel(1);
        let distributor =
            Distributor::new(source.clone(), time.clone(), self.backoff(), requests, Uncounted);
        let distributor = distributor.with_heart(self.hearts.heart("change stream"));
        sim.spawn(owner, distributor.run());
        let (layout, divided) = watch::channel(None);
        let (first, led) = watch::channel(Standing::Unknown);
        let watched = Watched { layout, first: led, observer: observer.clone() };
        let watching = LayoutWatch {
            layouts: SimLayouts { node: self.node.clone() },
            time: time.clone(),
            collections: BTreeMap::from([(COLLECTION.to_owned(), watched)]),
            heart: self.hearts.heart("layouts"),
        };
        sim.spawn(owner, watching.run());
        let division = Division {
            collection: COLLECTION.into(),
            layout: divided,
            leaderships: self.leaderships.clone(),
            first,
            observer: observer.clone(),
            time,
            heart: self.hearts.heart("parts"),
        };
        let start = self.start(observer, source, subscribe);
        sim.spawn(owner, async move {
            division.run(start, stop).await;
            goodbye.cancel();
        });
    }

    /// Starts the projector of a part as a task of its own.
    fn start(
        &self,
        observer: Observer,
        source: SimLogSource,
        subscribe: mpsc::Sender<Subscribe>,
    ) -> impl FnMut(Part, watch::Receiver<Standing>, CancellationToken) -> BoxFuture<'static, ()> + use<>
    {
        let (node, monitor, plan) = (self.node.clone(), self.monitor.clone(), self.plan.clone());
        let settings = Settings {
            backoff: self.backoff(),
            cache_bytes: self.plan.cache_bytes,
            // So small that most batches are folded piece by piece, with flushes in between.
            chunk_events: 2,
            scanned_documents_max: 2,
            backlog: match self.plan.scans_backlogs {
                true => BACKLOG,
                false => BacklogSettings { events_min: u64::MAX, ..BACKLOG },
            },
            ..Settings::default()
        };
        let (parts, is_leased) = (self.parts.clone(), self.lease_time.is_some());
        let hearts = self.hearts.clone();
        let paused = watch::channel(Some(false)).1;
        let leads = Standing::Leader(node.promoted().unwrap_or(plan.epoch));
        let (leading, always) = watch::channel(leads);
        move |part, led, until| {
            let led = if is_leased { led } else { always.clone() };
            let (wishes, revisits) = revisit::channel();
            parts.put(part, Led { standing: led.clone(), wishes });
            let heart = hearts.heart("projector");
            let store = SimStore::new(node.clone(), monitor.clone(), part);
            let projector = Projector {
                collection: COLLECTION.into(),
                part,
                source: source.clone(),
                store,
                settings,
                observer: observer.clone().of_part(part).with_heart(heart.clone()),
                time: hearts.time.clone(),
                subscribe: subscribe.clone(),
                revisits,
            };
            let (ended, end) = oneshot::channel();
            let (paused, parts, leading) = (paused.clone(), parts.clone(), leading.clone());
            let beats = hearts.beats.clone();
            node.sim().spawn(node.owner, async move {
                projector.lead(led, paused, until).await;
                parts.remove(part);
                beats.forget(&heart);
                drop(leading);
                let _unheard = ended.send(());
            });
            end.map(drop).boxed()
        }
    }

    /// Keeps the leases, or merely waits, until the goodbye, which ends the process.
    fn keep(&self, goodbye: CancellationToken) {
        let (process, sim) = (self.node.clone(), self.node.sim());
        let Some(lease_time) = self.lease_time else {
            sim.spawn(self.node.owner, async move {
                goodbye.cancelled().await;
                process.exit();
            });
            return;
        };
        let instance = format!("{:?}.{}", self.node.owner, self.starts);
        let settings = LeaseSettings { instance, lease_time };
        let leases = SimLeases { node: self.node.clone() };
        let time = self.hearts.time.clone();
        let keeper = Keeper::new(leases, time, settings, self.leaderships.clone());
        let keeper = keeper.with_heart(self.hearts.heart("leases"));
        sim.spawn(self.node.owner, async move {
            // A daemon ends in either case: it was told to, or the data is in a newer format.
            drop(keeper.run(goodbye).await);
            process.exit();
        });
    }

    fn backoff(&self) -> Backoff {
        Backoff {
            shortest: Duration::from_millis(50),
            longest: Duration::from_secs(2),
            attempt_limit: ATTEMPT_LIMIT,
            seed: self.plan.epoch.unsigned_abs() + self.starts,
        }
    }
}

struct Uncounted;

impl Restarts for Uncounted {
    fn restarted(&self, _collections: &[String], _reason: RestartReason) {}

    fn failed(&self, _collections: &[String], _error: &crate::database::Error) {}
}

/// All runs count in one place, which nobody looks at: making metrics takes longer than a run.
pub(super) fn metrics() -> CollectionMetrics {
    static METRICS: OnceLock<CollectionMetrics> = OnceLock::new();
    let make = || {
        let (_, status) = watch::channel(CollectionStatus::new(COLLECTION));
        Metrics::new().unwrap().collection(COLLECTION, status).unwrap()
    };
    METRICS.get_or_init(make).clone()
}
