//! Scenes of the change stream with two subscribers, of which one takes nothing for long.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bson::Timestamp;
use tokio::sync::mpsc;

use super::{
    executor::{Executor, Owner, Sim, VirtualTime},
    log::SimLogSource,
    node::Node,
    regressions::{Scene, create, update},
    world::{COLLECTION, EVENTS, World},
};
use crate::{
    database::Error,
    log::{Start, TailItem, events_collection},
    metrics::RestartReason,
    model::{event::EventKey, part::Part},
    retry::Backoff,
    stream::{self, Distributor, Feed, Restarts, Subscribe},
};

/// How many events are appended while one of the two takes nothing.
const EVENTS_MEANWHILE: i64 = 40;

/// Counts how often the stream was opened for other subscribers.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl Restarts for Counted {
    fn restarted(&self, _collections: &[String], reason: RestartReason) {
        if reason == RestartReason::CollectionsChanged {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn failed(&self, _collections: &[String], error: &Error) {
        panic!("{error}");
    }
}

/// Who is fed, and which versions it was given, in this order.
#[derive(Clone, Default)]
struct Fed {
    takes: Arc<AtomicBool>,
    versions: Arc<Mutex<Vec<i64>>>,
}

impl Fed {
    /// Takes what comes whenever it is to take anything.
    async fn run(self, sim: Sim, mut feed: mpsc::Receiver<Feed>) {
        loop {
            let takes = self.takes.clone();
            sim.until(move || takes.load(Ordering::Relaxed).then_some(())).await;
            let Some(fed) = feed.recv().await else { return };
            let Feed::Batch(batch) = fed else { panic!("{fed:?}") };
            for change in batch.changes.documents().unwrap() {
                let known = |name: &str| name == EVENTS;
                if let TailItem::Event { event, .. } =
                    TailItem::decode(change.unwrap(), known).unwrap()
                {
                    let key = EventKey::from_event(event).unwrap();
                    self.versions.lock().unwrap().push(key.version);
                }
            }
        }
    }

    /// Which versions it has, each once, and whether each came first after the one before.
    fn seen(&self) -> Vec<i64> {
        let mut seen: Vec<i64> = Vec::new();
        for version in &*self.versions.lock().unwrap() {
            if !seen.contains(version) {
                seen.push(*version);
            }
        }
        seen
    }

    fn has(&self, versions: i64) -> bool {
        self.seen() == (1..=versions).collect::<Vec<i64>>()
    }
}

/// The world, the stream, and two that are fed by it.
struct Stage {
    executor: Executor,
    sim: Sim,
    world: World,
    fed: [Fed; 2],
    counted: Counted,
    version: i64,
}

impl Stage {
    fn new(seed: u64) -> Self {
        assert_eq!(events_collection(COLLECTION), EVENTS);
        let sim = Sim::new(seed, false);
        let world = World::new(&sim);
        sim.spawn(Owner::World, world.clone().replicate());
        sim.spawn(Owner::World, world.clone().heartbeat());
        let source = SimLogSource { node: Node::new(&world, Owner::Daemon(0), &[]) };
        let (subscribe, requests) = mpsc::channel(2);
        let counted = Counted::default();
        let (time, backoff) = (VirtualTime::new(&sim, 0), Backoff::default());
        let distributor = Distributor::new(source, time, backoff, requests, counted.clone());
        let fed = [Fed::default(), Fed::default()];
        for (fed, index) in fed.iter().zip(0..) {
            fed.takes.store(true, Ordering::Relaxed);
            let (feed, received) = stream::channel();
            let start = Start::At(Timestamp { time: 0, increment: 0 });
            let (collection, part) = (COLLECTION.into(), Part { index, of: 2 });
            subscribe.try_send(Subscribe { collection, part, start, feed }).unwrap();
            sim.spawn(Owner::Daemon(0), fed.clone().run(sim.clone(), received));
        }
        let kept = sim.clone();
        sim.spawn(Owner::Daemon(0), async move {
            // Others could subscribe for as long as this lives.
            let _subscribe = subscribe;
            kept.until(|| None::<()>).await;
        });
        sim.spawn(Owner::Daemon(0), distributor.run());
        Self { executor: Executor::new(&sim), sim, world, fed, counted, version: 0 }
    }

    /// Appends the next event.
    fn append(&mut self) {
        self.version += 1;
        let body = if self.version == 1 { create() } else { update() };
        self.world.apply(vec![Scene::event(self.version, &body)]);
    }

    fn takes(&self, who: usize, takes: bool) {
        self.fed[who].takes.store(takes, Ordering::Relaxed);
        self.sim.changed();
    }

    fn within(&mut self, seconds: u64, what: &str, mut done: impl FnMut(&[Fed; 2]) -> bool) {
        let (limit, fed) = (self.sim.now() + Duration::from_secs(seconds), self.fed.clone());
        let reached = self.executor.run(limit, || done(&fed));
        assert_eq!(self.sim.outcome().0, None, "{what}");
        let seen = self.fed.each_ref().map(Fed::seen);
        assert!(reached, "{what}: {seen:?}");
    }
}

#[test]
fn one_that_takes_nothing_holds_the_other_up_for_a_moment_and_comes_back_at_its_place() {
    for seed in 0..20 {
        let mut stage = Stage::new(seed);
        stage.append();
        stage.within(30, "both are fed", |fed| fed.iter().all(|fed| fed.has(1)));
        for round in 1..=2 {
            stage.takes(1, false);
            for _ in 0..EVENTS_MEANWHILE {
                stage.append();
            }
            let all = stage.version;
            stage.within(20, "the other goes on", |fed| fed[0].has(all));
            stage.append();
            let all = stage.version;
            stage.within(5, "nothing holds it up any more", |fed| fed[0].has(all));
            assert!(!stage.fed[1].has(all), "seed {seed}");
            stage.takes(1, true);
            stage.within(60, "it is given the rest", |fed| fed[1].has(all));
            let counted = stage.counted.clone();
            let came_back = move || counted.0.load(Ordering::Relaxed) >= round;
            stage.within(60, "it comes back", |_| came_back());
            stage.append();
            let all = stage.version;
            stage.within(30, "both are fed", |fed| fed.iter().all(|fed| fed.has(all)));
        }
    }
}

#[test]
fn where_nobody_takes_anything_nobody_is_taken_off() {
    for seed in 0..20 {
        let mut stage = Stage::new(seed);
        stage.append();
        stage.within(30, "both are fed", |fed| fed.iter().all(|fed| fed.has(1)));
        let opened = stage.counted.0.load(Ordering::Relaxed);
        stage.takes(0, false);
        stage.takes(1, false);
        for _ in 0..EVENTS_MEANWHILE {
            stage.append();
        }
        let later = stage.sim.now() + Duration::from_secs(300);
        let sim = stage.sim.clone();
        stage.within(301, "time passes", |_| sim.now() > later);
        stage.takes(0, true);
        stage.takes(1, true);
        let all = stage.version;
        stage.within(60, "both are given all", |fed| fed.iter().all(|fed| fed.has(all)));
        assert_eq!(stage.counted.0.load(Ordering::Relaxed), opened, "seed {seed}");
    }
}
