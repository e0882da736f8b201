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
    executor::VirtualTime, leases::SimLeases, log::SimLogSource, monitor::Monitor, node::Node,
    plan::DaemonPlan, store::SimStore, world::COLLECTION,
};
use crate::{
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
        project(&node, &monitor, &plan, starts, (led, stop, goodbye.clone(), revisits));
        keep(&node, &plan, starts, lease_time, (leadership, goodbye));
        node.crashed().await;
        node.stay_down().await;
        starts += 1;
    }
}

type Led = (watch::Receiver<Standing>, CancellationToken, CancellationToken, Revisits);

/// Projects until told to stop, and says goodbye then: only now may another instance take over at once.
fn project(node: &Node, monitor: &Monitor, plan: &DaemonPlan, starts: u64, led: Led) {
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
    sim.spawn(node.owner, distributor.run());
    let projector = Projector {
        collection: COLLECTION.into(),
        part: Part::WHOLE,
        source,
        store,
        settings: Settings { backoff, cache_bytes: plan.cache_bytes, ..Settings::default() },
        observer: Observer::new(status, metrics(), time.clone()),
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
    plan: &DaemonPlan,
    starts: u64,
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
