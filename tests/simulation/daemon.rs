//! A daemon of the simulation: the real distributor and the real projector over this process's
//! connection, started again after every crash.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    executor::VirtualTime, log::SimLogSource, monitor::Monitor, node::Node, plan::DaemonPlan,
    store::SimStore, world::COLLECTION,
};
use crate::{
    lease::Standing,
    metrics::{CollectionMetrics, Metrics, RestartReason},
    model::part::Part,
    projector::{
        Projector, Settings,
        distributor::{Distributor, Restarts},
        observe::Observer,
    },
    retry::{ATTEMPT_LIMIT, Backoff},
    status::CollectionStatus,
};

/// Starts the daemon, and again whenever it has crashed.
pub(super) async fn supervise(node: Node, monitor: Monitor, plan: DaemonPlan) {
    let sim = node.sim().clone();
    sim.sleep(plan.start).await;
    node.stay_down().await;
    let mut starts = 0;
    loop {
        sim.tell(|| format!("{:?} starts", node.owner));
        start(&node, &monitor, &plan, starts);
        node.crashed().await;
        node.stay_down().await;
        starts += 1;
    }
}

fn start(node: &Node, monitor: &Monitor, plan: &DaemonPlan, starts: u64) {
    let sim = node.sim();
    let time = VirtualTime { sim: sim.clone(), wall_ahead_millis: plan.wall_ahead_millis };
    let source = SimLogSource { node: node.clone() };
    let store = SimStore { node: node.clone(), monitor: monitor.clone() };
    let status = Arc::new(watch::Sender::new(CollectionStatus::new(COLLECTION)));
    let (subscribe, requests) = mpsc::channel(1);
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
    };
    let (leadership, led) = watch::channel(Standing::Leader(node.promoted().unwrap_or(plan.epoch)));
    sim.spawn(node.owner, async move {
        projector.lead(led, CancellationToken::new()).await;
        drop(leadership);
    });
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
