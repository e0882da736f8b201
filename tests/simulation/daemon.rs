//! A daemon of the simulation: the real distributor and the real projector over this process's
//! connection, and the real keeper of leases where leases decide who leads; started again after
//! every crash and every stop.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    executor::{Owner, Sim, VirtualTime},
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
    lease::{Keeper, Leadership, LeaseSettings, Standing},
    metrics::{CollectionMetrics, Metrics, RestartReason},
    model::part::Part,
    projector::{
        Projector, Settings,
        distributor::{Distributor, Restarts},
        feed::Subscribe,
        observe::Observer,
        revisit::{self, Revisits},
    },
    retry::{ATTEMPT_LIMIT, Backoff},
    status::CollectionStatus,
    store::LeaseName,
    time::Time as _,
};

/// Starts the daemon, and again whenever it has crashed. Without a lease time it leads from the start.
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
        let leads = match lease_time {
            None => Standing::Leader(node.promoted().unwrap_or(plan.epoch)),
            Some(_) => Standing::Unknown,
        };
        let (leadership, led) = watch::channel(leads);
        let (stop, goodbye) = (CancellationToken::new(), CancellationToken::new());
        let (wishes, revisits) = revisit::channel();
        node.begins(led.clone(), stop.clone(), wishes);
        let hearts = Hearts { beats: Heartbeats::default(), time: time(&node, &plan) };
        let led = (led, stop, goodbye.clone(), revisits);
        project(&node, &monitor, (&plan, starts), &hearts, led);
        keep(&node, (&plan, starts), &hearts, lease_time, (leadership, goodbye));
        sim.spawn(node.owner, hearts.watch(sim.clone(), node.owner));
        node.crashed().await;
        node.stay_down().await;
        starts += 1;
    }
}

type Led = (watch::Receiver<Standing>, CancellationToken, CancellationToken, Revisits);

/// Liveness, as the real daemon has it: nothing that happens to the database may turn it red.
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

/// Projects until told to stop, and says goodbye then: only now may another instance take over at once.
fn project(
    node: &Node,
    monitor: &Monitor,
    (plan, starts): (&DaemonPlan, u64),
    hearts: &Hearts,
    led: Led,
) {
    let (led, stop, goodbye, revisits) = led;
    let sim = node.sim();
    let time = time(node, plan);
    let source = SimLogSource { node: node.clone() };
    let store = SimStore { node: node.clone(), monitor: monitor.clone() };
    let status = Arc::new(watch::Sender::new(CollectionStatus::new(COLLECTION)));
    let (subscribe, requests): (mpsc::Sender<Subscribe>, _) = mpsc::channel(1);
    let backoff = Backoff {
        shortest: Duration::from_millis(50),
        longest: Duration::from_secs(2),
        attempt_limit: ATTEMPT_LIMIT,
        seed: plan.epoch.unsigned_abs() + starts,
    };
    let distributor = Distributor::new(source.clone(), time.clone(), backoff, requests, Uncounted);
    sim.spawn(node.owner, distributor.with_heart(hearts.heart("change stream")).run());
    let projector = Projector {
        collection: COLLECTION.into(),
        part: Part::WHOLE,
        source,
        store,
        settings: Settings { backoff, cache_bytes: plan.cache_bytes, ..Settings::default() },
        observer: Observer::new(status, metrics(), time.clone())
            .with_heart(hearts.heart("projector")),
        time,
        subscribe,
        revisits,
    };
    sim.spawn(node.owner, async move {
        let paused = watch::channel(Some(false)).1;
        projector.lead(led, paused, stop).await;
        goodbye.cancel();
    });
}

/// Keeps the leases, or merely the leadership that was given, until the goodbye, which ends the process.
fn keep(
    node: &Node,
    (plan, starts): (&DaemonPlan, u64),
    hearts: &Hearts,
    lease_time: Option<Duration>,
    (leadership, goodbye): (Leadership, CancellationToken),
) {
    let process = node.clone();
    let Some(lease_time) = lease_time else {
        node.sim().spawn(node.owner, async move {
            goodbye.cancelled().await;
            drop(leadership);
            process.exit();
        });
        return;
    };
    let settings = LeaseSettings { instance: format!("{:?}.{starts}", node.owner), lease_time };
    let name = LeaseName { collection: COLLECTION.into(), part: Part::WHOLE };
    let leases = SimLeases { node: node.clone() };
    let leaderships = BTreeMap::from([(name, leadership)]);
    let keeper = Keeper::new(leases, time(node, plan), settings, leaderships);
    let keeper = keeper.with_heart(hearts.heart("leases"));
    node.sim().spawn(node.owner, async move {
        keeper.run(goodbye).await;
        process.exit();
    });
}

fn time(node: &Node, plan: &DaemonPlan) -> VirtualTime {
    VirtualTime { sim: node.sim().clone(), wall_ahead_millis: plan.wall_ahead_millis }
}

struct Uncounted;

impl Restarts for Uncounted {
    fn restarted(&self, _collections: &[String], _reason: RestartReason) {}

    fn failed(&self, _collections: &[String], _error: &crate::database::Error) {}
}

/// All runs count in one place, which nobody looks at: making metrics takes longer than a run.
fn metrics() -> CollectionMetrics {
    static METRICS: OnceLock<CollectionMetrics> = OnceLock::new();
    let make = || {
        let (_, status) = watch::channel(CollectionStatus::new(COLLECTION));
        Metrics::new().unwrap().collection(COLLECTION, status).unwrap()
    };
    METRICS.get_or_init(make).clone()
}
