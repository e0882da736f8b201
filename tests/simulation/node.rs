//! One process's connection to the replica set: every call goes through here, is counted, takes time,
//! and meets the faults that the plan holds for it. The server's part of a call is a task of its own,
//! so a request that was sent is carried out also when whoever sent it dies or has given up.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fastrand::Rng;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    executor::{Owner, Sim},
    plan::{CallFault, Trouble, When},
    world::World,
};
use crate::{
    database::{Error, Result},
    model::{id::DocumentId, part::Part},
    projector::revisit::{Parts, Revisit},
};

/// A process's connection.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) world: World,
    pub(super) owner: Owner,
    inner: Arc<Mutex<Inner>>,
    /// Is told of every crash.
    crashes: Arc<Notify>,
}

struct Inner {
    calls: u32,
    faults: BTreeMap<u32, CallFault>,
    rng: Rng,
    /// The network between this process and the server is down until then.
    cut_until: Duration,
    /// The process has crashed, and stays down for this long.
    crashed: Option<Duration>,
    /// The leadership that its next start has, if it was given one.
    promoted: Option<i64>,
    process: Option<Process>,
}

/// A daemon that is up.
struct Process {
    parts: Parts,
    stop: CancellationToken,
    /// It was told to stop, and is to stay down for this long then.
    stops_for: Option<Duration>,
}

impl Node {
    pub(super) fn new(world: &World, owner: Owner, faults: &[CallFault]) -> Self {
        let label = match owner {
            Owner::World => 0x100,
            Owner::Actor(number) => 0x200 + number as u64,
            Owner::Daemon(number) => 0x300 + number as u64,
        };
        let faults = faults.iter().map(|fault| (fault.call, *fault)).collect();
        let rng = world.sim.rng(label);
        let inner = Inner {
            calls: 0,
            faults,
            rng,
            cut_until: Duration::ZERO,
            crashed: None,
            promoted: None,
            process: None,
        };
        let inner = Arc::new(Mutex::new(inner));
        Self { world: world.clone(), owner, inner, crashes: Arc::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(super) fn sim(&self) -> &Sim {
        &self.world.sim
    }

    /// A number below `bound`.
    pub(super) fn random(&self, bound: usize) -> usize {
        self.inner().rng.usize(..bound)
    }

    /// Cuts the network until `until`.
    pub(super) fn cut(&self, until: Duration) {
        self.inner().cut_until = until;
    }

    /// Kills the process; it stays down for `down`.
    pub(super) fn crash(&self, down: Duration) {
        let process = {
            let mut inner = self.inner();
            inner.crashed = Some(down);
            inner.process.take()
        };
        drop(process);
        self.sim().kill(self.owner);
        self.crashes.notify_one();
    }

    /// The process is up: what it projects is to be seen in `parts`, and `stop` tells it to end.
    pub(super) fn begins(&self, parts: Parts, stop: CancellationToken) {
        self.inner().process = Some(Process { parts, stop, stops_for: None });
    }

    /// Asks the process to look at a document again, if it is up and has room for the wish.
    pub(super) fn revisit(&self, document: &DocumentId, wish: impl FnOnce() -> Revisit) {
        let parts = self.inner().process.as_ref().map(|process| process.parts.clone());
        if let Some(part) = parts.and_then(|parts| parts.of(Some(document))) {
            // Without room it is left out: the operator asks for more than can be heard.
            drop(part.wishes.try_send(wish()));
        }
    }

    /// The parts that this process leads, each with the epoch under which it does.
    pub(super) fn leads(&self) -> Vec<(Part, i64)> {
        let parts = self.inner().process.as_ref().map(|process| process.parts.clone());
        parts.map(|parts| parts.leads()).unwrap_or_default()
    }

    /// Tells the process to end, and to stay down for `down` then.
    pub(super) fn stop(&self, down: Duration) {
        let mut inner = self.inner();
        let Some(process) = &mut inner.process else { return };
        process.stops_for = Some(down);
        let stop = process.stop.clone();
        drop(inner);
        stop.cancel();
    }

    /// The process ends if it was told to stop, whether it is ready to or not.
    pub(super) fn exit(&self) {
        let stops_for = self.inner().process.as_ref().and_then(|process| process.stops_for);
        if let Some(down) = stops_for {
            self.sim().tell(|| format!("{:?} has stopped", self.owner));
            self.crash(down);
        }
    }

    /// Completes when the process has crashed.
    pub(super) async fn crashed(&self) {
        while self.inner().crashed.is_none() {
            self.crashes.notified().await;
        }
    }

    /// Waits for as long as the process is to stay down; it may be struck again meanwhile.
    pub(super) async fn stay_down(&self) {
        while let Some(down) = self.take_crash() {
            self.sim().sleep(down).await;
        }
    }

    fn take_crash(&self) -> Option<Duration> {
        self.inner().crashed.take()
    }

    /// Gives the next start of this daemon the leadership `epoch`.
    pub(super) fn promote(&self, epoch: i64) {
        self.inner().promoted = Some(epoch);
    }

    /// The leadership that it was given, if it was.
    pub(super) fn promoted(&self) -> Option<i64> {
        self.inner().promoted
    }

    /// From here on nothing more goes wrong with the calls.
    pub(super) fn heal(&self) {
        let mut inner = self.inner();
        inner.faults.clear();
        inner.cut_until = Duration::ZERO;
    }

    /// The name of a call, which only a story tells.
    pub(super) fn name(&self, name: impl FnOnce() -> String) -> String {
        if self.sim().is_told() { name() } else { String::new() }
    }

    /// Sends a request and waits for the answer. `work` is the server's part.
    ///
    /// # Errors
    /// The server's, and those of a broken network: then the request may have been carried out, may
    /// be carried out later, or never.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (number, fault, there, back) = self.begin();
        let told =
            |what: &str| self.sim().tell(|| format!("{:?} {what} #{number} {name}", self.owner));
        if let Some(fault @ CallFault { when: When::Before, .. }) = fault {
            told("fails before");
            return self.fail(fault.trouble, there).await;
        }
        if !name.starts_with("next") {
            told("sends");
        }
        let answer = self.send(there, work);
        if let Some(fault @ CallFault { when: When::During, .. }) = fault {
            self.sim().sleep(there / 2).await;
            told("fails during");
            return self.fail(fault.trouble, Duration::ZERO).await;
        }
        let Ok(answer) = answer.await else { return pending().await };
        self.sim().sleep(back).await;
        if let Some(fault @ CallFault { when: When::After, .. }) = fault {
            told("fails after");
            return self.fail(fault.trouble, Duration::ZERO).await;
        }
        if self.is_cut() {
            told("is cut off after");
            return Err(Error::unreachable("the network is down"));
        }
        if let Err(error) = &answer {
            told(&format!("is answered `{error}` to"));
        }
        answer
    }

    fn begin(&self) -> (u32, Option<CallFault>, Duration, Duration) {
        let cut = self.is_cut();
        let mut inner = self.inner();
        let number = inner.calls;
        inner.calls += 1;
        let cut =
            cut.then_some(CallFault { call: number, when: When::Before, trouble: Trouble::Error });
        let fault = inner.faults.get(&number).copied().or(cut);
        let (there, back) = (latency(&mut inner.rng), latency(&mut inner.rng));
        (number, fault, there, back)
    }

    fn send<T: Send + 'static>(
        &self,
        there: Duration,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> oneshot::Receiver<Result<T>> {
        let (sender, answer) = oneshot::channel();
        let (sim, world) = (self.sim().clone(), self.world.clone());
        self.sim().spawn(Owner::World, async move {
            sim.sleep(there).await;
            world.thawed().await;
            // Whoever asked may not wait any more.
            let _unheard = sender.send(work.await);
            sim.changed();
        });
        answer
    }

    async fn fail<T>(&self, trouble: Trouble, pause: Duration) -> Result<T> {
        match trouble {
            Trouble::Crash { down } => {
                self.crash(down);
                pending().await
            }
            Trouble::Error => {
                self.sim().sleep(pause).await;
                Err(Error::unreachable("the connection broke"))
            }
        }
    }

    fn is_cut(&self) -> bool {
        let now = self.sim().now();
        now < self.inner().cut_until
    }
}

/// Mostly quick, at times slow, so that requests overtake each other.
fn latency(rng: &mut Rng) -> Duration {
    Duration::from_micros(match rng.u8(..32) {
        0 => rng.u64(100_000..1_000_000),
        1..4 => rng.u64(5_000..60_000),
        _ => rng.u64(100..3_000),
    })
}
