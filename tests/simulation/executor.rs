//! A single-threaded executor with virtual time, in which one seed decides which ready task runs next.
//! It is our own because the order of tasks must be random and yet repeatable, a task must be
//! droppable or suspendable from outside at any await, and a run must cost milliseconds.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bson::DateTime;
use fastrand::Rng;

use crate::time::{Time, Wall};

/// The wall clock of the simulated world at its beginning, in milliseconds since 1970.
pub(super) const EPOCH_MILLIS: i64 = 1_700_000_000_000;

/// Who owns a task. Killing or suspending an owner does so with all its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// The world itself: the server, the faults. Never dies.
    World,
    /// A writer or a reading client, by its number.
    Actor(usize),
    /// A daemon, by its number.
    Daemon(usize),
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    owner: Owner,
    future: Boxed,
    waker: Arc<TaskWaker>,
}

struct TaskWaker {
    id: usize,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap().push(self.id);
        }
    }
}

struct Core {
    now: Duration,
    seed: u64,
    scheduler: Rng,
    timers: BinaryHeap<Reverse<(Duration, u64)>>,
    sleeping: BTreeMap<u64, Waker>,
    sequence: u64,
    spawned: Vec<(Owner, Boxed)>,
    killed: Vec<Owner>,
    suspended: BTreeSet<Owner>,
    waiters: Vec<Waker>,
    story: Option<Vec<String>>,
    violation: Option<String>,
}

/// A handle on the simulation: its clock, its randomness, its tasks and its story.
#[derive(Clone)]
pub(super) struct Sim {
    is_told: bool,
    core: Arc<Mutex<Core>>,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl Sim {
    /// A simulation in which `seed` decides everything; with `story`, it is written down.
    pub(super) fn new(seed: u64, story: bool) -> Self {
        let core = Core {
            now: Duration::ZERO,
            seed,
            scheduler: Rng::with_seed(seed),
            timers: BinaryHeap::new(),
            sleeping: BTreeMap::new(),
            sequence: 0,
            spawned: Vec::new(),
            killed: Vec::new(),
            suspended: BTreeSet::new(),
            waiters: Vec::new(),
            story: story.then(Vec::new),
            violation: None,
        };
        Self { is_told: story, core: Arc::new(Mutex::new(core)), ready: Arc::default() }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap()
    }

    /// A source of randomness of its own for whoever bears `label`: what others draw does not change it,
    /// so leaving an actor out of a run leaves the others nearly as they were.
    pub(super) fn rng(&self, label: u64) -> Rng {
        Rng::with_seed(self.core().seed ^ label.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17))
    }

    /// Virtual time since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.core().now
    }

    /// The wall clock of the world.
    pub(super) fn wall(&self) -> DateTime {
        DateTime::from_millis(EPOCH_MILLIS + self.now().as_millis() as i64)
    }

    /// Starts a task.
    pub(super) fn spawn(&self, owner: Owner, future: impl Future<Output = ()> + Send + 'static) {
        self.core().spawned.push((owner, Box::pin(future)));
    }

    /// Drops all tasks of `owner`, at the await where each of them stands.
    pub(super) fn kill(&self, owner: Owner) {
        self.core().killed.push(owner);
    }

    /// Stops running the tasks of `owner`, while its clocks go on, as SIGSTOP does.
    pub(super) fn suspend(&self, owner: Owner) {
        self.core().suspended.insert(owner);
    }

    /// Lets the tasks of `owner` run again.
    pub(super) fn resume(&self, owner: Owner) {
        self.core().suspended.remove(&owner);
    }

    /// Completes after `duration` of virtual time.
    pub(super) fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        let sim = self.clone();
        let mut timer = None;
        poll_fn(move |context| {
            let mut core = sim.core();
            let (at, sequence) = *timer.get_or_insert_with(|| {
                core.sequence += 1;
                let timer = (core.now + duration, core.sequence);
                core.timers.push(Reverse(timer));
                timer
            });
            if core.now >= at {
                core.sleeping.remove(&sequence);
                return Poll::Ready(());
            }
            core.sleeping.insert(sequence, context.waker().clone());
            Poll::Pending
        })
    }

    /// Completes with what `condition` gives, looked at again after every [`Sim::changed`].
    pub(super) async fn until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match condition() {
            Some(value) => Poll::Ready(value),
            None => {
                self.core().waiters.push(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// Lets everybody look again at what they wait for.
    pub(super) fn changed(&self) {
        let waiters = std::mem::take(&mut self.core().waiters);
        waiters.into_iter().for_each(Waker::wake);
    }

    /// Moves the clock to the next timer.
    fn advance(&self, horizon: Duration) -> bool {
        let mut core = self.core();
        loop {
            let Some(Reverse((at, sequence))) = core.timers.peek().copied() else { return false };
            if at > horizon {
                return false;
            }
            core.timers.pop();
            let Some(waker) = core.sleeping.remove(&sequence) else { continue };
            core.now = at;
            drop(core);
            waker.wake();
            return true;
        }
    }

    /// Whether a story is written.
    pub(super) fn is_told(&self) -> bool {
        self.is_told
    }

    /// Adds a line to the story, if one is written.
    pub(super) fn tell(&self, line: impl FnOnce() -> String) {
        if !self.is_told {
            return;
        }
        let mut core = self.core();
        let now = core.now.as_millis();
        if let Some(story) = &mut core.story {
            story.push(format!("{now:>6} ms  {}", line()));
        }
    }

    /// The run has gone wrong: it ends here. The first violation stands.
    pub(super) fn violation(&self, what: String) {
        self.tell(|| format!("VIOLATION: {what}"));
        self.core().violation.get_or_insert(what);
    }

    /// The violation, if there was one, and the story so far.
    pub(super) fn outcome(&self) -> (Option<String>, Vec<String>) {
        let core = self.core();
        (core.violation.clone(), core.story.clone().unwrap_or_default())
    }

    /// Whether the last line of the story ends with this.
    pub(super) fn was_told(&self, end: &str) -> bool {
        let core = self.core();
        core.story.iter().flatten().next_back().is_some_and(|line| line.ends_with(end))
    }
}

/// Runs the tasks of a simulation, and owns them: they end with it.
pub(super) struct Executor {
    sim: Sim,
    /// By their ids; those that have ended are none.
    tasks: Vec<Option<Task>>,
}

impl Executor {
    pub(super) fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), tasks: Vec::new() }
    }

    /// Runs until `done`, until the world stands still, until a violation, or until `horizon`.
    /// Gives whether `done` was reached.
    pub(super) fn run(&mut self, horizon: Duration, mut done: impl FnMut() -> bool) -> bool {
        while self.sim.core().violation.is_none() {
            self.reap();
            self.adopt();
            if done() {
                return true;
            }
            match self.pick() {
                Some(id) => self.poll(id),
                None if self.sim.advance(horizon) => {}
                None => return false,
            }
        }
        false
    }

    fn reap(&mut self) {
        let killed = std::mem::take(&mut self.sim.core().killed);
        if !killed.is_empty() {
            // Dropping a future may call back into the simulation, so none is dropped under the lock.
            let spawned = std::mem::take(&mut self.sim.core().spawned);
            let spawned =
                spawned.into_iter().filter(|(owner, _)| !killed.contains(owner)).collect();
            self.sim.core().spawned = spawned;
            for slot in &mut self.tasks {
                if slot.as_ref().is_some_and(|task| killed.contains(&task.owner)) {
                    *slot = None;
                }
            }
        }
    }

    fn adopt(&mut self) {
        let spawned = std::mem::take(&mut self.sim.core().spawned);
        for (owner, future) in spawned {
            let (id, ready) = (self.tasks.len(), Arc::clone(&self.sim.ready));
            let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(false), ready });
            Arc::clone(&waker).wake();
            self.tasks.push(Some(Task { owner, future, waker }));
        }
    }

    /// One of the ready tasks, at random.
    fn pick(&self) -> Option<usize> {
        let mut ready = self.sim.ready.lock().unwrap();
        let mut core = self.sim.core();
        let suspended = |core: &Core, id: usize| {
            let owner = self.tasks[id].as_ref().map(|task| task.owner);
            owner.is_some_and(|owner| core.suspended.contains(&owner))
        };
        let mut aside = Vec::new();
        // Whoever waits together for one thing is woken in any order.
        ready.sort_unstable();
        let picked = loop {
            if ready.is_empty() {
                break None;
            }
            let choice = core.scheduler.usize(..ready.len());
            let id = ready.swap_remove(choice);
            if !core.suspended.is_empty() && suspended(&core, id) {
                aside.push(id);
            } else if self.tasks[id].is_some() {
                break Some(id);
            }
        };
        ready.extend(aside);
        picked
    }

    fn poll(&mut self, id: usize) {
        let Some(task) = self.tasks[id].as_mut() else { return };
        task.waker.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&task.waker));
        if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.tasks[id] = None;
        }
    }
}

impl Drop for Executor {
    /// What was never adopted holds the simulation that holds it.
    fn drop(&mut self) {
        let spawned = std::mem::take(&mut self.sim.core().spawned);
        drop(spawned);
    }
}

/// Virtual time as it is handed to a daemon.
#[derive(Clone)]
pub(super) struct VirtualTime {
    sim: Sim,
    wall: Wall,
}

impl VirtualTime {
    /// That of a machine whose wall clock is ahead by so much.
    pub(super) fn new(sim: &Sim, ahead_millis: i64) -> Self {
        let wall = sim.wall().timestamp_millis() + ahead_millis;
        Self { sim: sim.clone(), wall: Wall::new(DateTime::from_millis(wall), sim.now()) }
    }
}

impl Time for VirtualTime {
    fn now(&self) -> Duration {
        self.sim.now()
    }

    fn wall(&self) -> DateTime {
        self.wall.at(self.sim.now())
    }

    fn heard(&self, server: DateTime, asked: Duration) {
        self.wall.hear(server, (asked, self.sim.now()));
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        self.sim.sleep(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn race(seed: u64) -> String {
        let sim = Sim::new(seed, true);
        for name in ["a", "b", "c"] {
            let task = sim.clone();
            sim.spawn(Owner::World, async move {
                for _ in 0..3 {
                    task.sleep(Duration::from_millis(5)).await;
                    task.tell(|| name.into());
                }
            });
        }
        Executor::new(&sim).run(Duration::MAX, || false);
        sim.outcome().1.join("\n")
    }

    #[test]
    fn one_seed_is_one_order_and_seeds_differ() {
        assert_eq!(race(1), race(1));
        assert!((2..20).any(|seed| race(seed) != race(1)));
    }

    #[test]
    fn a_killed_task_never_runs_on_and_a_suspended_one_later() {
        let sim = Sim::new(1, true);
        for (number, owner) in [Owner::Daemon(0), Owner::Daemon(1)].into_iter().enumerate() {
            let task = sim.clone();
            sim.spawn(owner, async move {
                task.sleep(Duration::from_millis(10)).await;
                task.tell(|| number.to_string());
            });
        }
        let world = sim.clone();
        sim.spawn(Owner::World, async move {
            world.sleep(Duration::from_millis(5)).await;
            world.kill(Owner::Daemon(0));
            world.suspend(Owner::Daemon(1));
            world.sleep(Duration::from_millis(20)).await;
            world.resume(Owner::Daemon(1));
        });
        Executor::new(&sim).run(Duration::MAX, || false);
        assert_eq!(sim.outcome().1, ["    25 ms  1"]);
    }
}
