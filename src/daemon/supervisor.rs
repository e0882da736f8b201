//! What the service manager is told (systemd's notify protocol): that the first look at every collection has succeeded,
//! how the collections are doing, and that all loops turn. Without NOTIFY_SOCKET in the environment nobody is told.

use std::{io, time::Duration};

use sd_notify::NotifyState;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    health::Heartbeats,
    status::{CollectionStatus, LastError, Phase, Role},
    time::Time,
};

/// The longest between two looks at what there is to tell.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long a status line may be, in characters.
const STATUS_CHARS_MAX: usize = 500;

/// What is known of each collection; none before there is a daemon.
pub(super) type Statuses = Vec<watch::Receiver<CollectionStatus>>;

/// What tells the service manager.
pub(super) struct Supervisor<T, S> {
    pub(super) heartbeats: Heartbeats,
    pub(super) time: T,
    /// Why there is no daemon yet.
    pub(super) cause: watch::Receiver<Option<LastError>>,
    pub(super) statuses: watch::Receiver<Statuses>,
    /// How long the service manager waits for a sign of life; none if it does not.
    pub(super) watchdog: Option<Duration>,
    pub(super) send: S,
}

/// Tells that the process is on its way to its end.
pub(super) fn stopping() {
    complain(sd_notify::notify(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: flushing and saving the checkpoints"),
    ]));
}

fn complain(told: io::Result<()>) {
    if let Err(error) = told {
        warn!(%error, "the service manager cannot be told; see NOTIFY_SOCKET");
    }
}

impl<T: Time, S: Fn(&[NotifyState<'_>]) -> io::Result<()>> Supervisor<T, S> {
    /// Tells for as long as it is run.
    pub(super) async fn run(self) {
        // Three signs for every one that is waited for, so that a late one does no harm.
        let pause = self.watchdog.map_or(PAUSE_MAX, |limit| PAUSE_MAX.min(limit / 3));
        let (mut told, mut ready) = (String::new(), false);
        loop {
            let status = self.status();
            let looked = self.has_looked();
            let mut states = Vec::new();
            if looked && !ready {
                states.push(NotifyState::Ready);
            }
            if status != told {
                states.push(NotifyState::Status(&status));
            }
            if self.watchdog.is_some() && self.heartbeats.stopped(self.time.now()).is_empty() {
                states.push(NotifyState::Watchdog);
            }
            if !states.is_empty() {
                complain((self.send)(&states));
            }
            ready |= looked;
            told = status;
            self.time.sleep(pause).await;
        }
    }

    /// Whether it is known of every collection who leads it, and where to begin with what is led here. What is
    /// refused or paused has been looked at.
    fn has_looked(&self) -> bool {
        let statuses = self.statuses.borrow();
        let looked = |status: &CollectionStatus| match status.role {
            None => false,
            Some(Role::Standby) => true,
            Some(Role::Leader) => status.phase != Phase::Starting,
        };
        !statuses.is_empty() && statuses.iter().all(|status| looked(&status.borrow()))
    }

    fn status(&self) -> String {
        let statuses = self.statuses.borrow();
        let mut line = String::new();
        for status in statuses.iter() {
            let separator = if line.is_empty() { "" } else { "; " };
            line += separator;
            describe(&mut line, &status.borrow());
        }
        if statuses.is_empty() {
            let cause = self.cause.borrow();
            let why = cause.as_ref().map_or("connecting", |cause| &cause.message);
            line = format!("waiting for MongoDB: {why}");
        }
        // A line feed would end the status and begin something else.
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(STATUS_CHARS_MAX).collect()
    }
}

fn describe(line: &mut String, status: &CollectionStatus) {
    *line += &status.name;
    *line += ": ";
    *line += status.role.map_or("role unknown", Role::name);
    *line += ", ";
    *line += status.phase.name();
    if let Some(lag) = status.lag_seconds {
        *line += &format!(", lag {lag:.0} s");
    }
    if let Some(error) = &status.last_error {
        *line += &format!(", last error: {}", error.message);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, pin::pin};

    use tokio::time::timeout;

    use super::*;
    use crate::{model::part::Part, time::SystemTime};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_is_alive_while_every_loop_turns() {
        let (time, heartbeats) = (SystemTime::new(), Heartbeats::default());
        let heart = heartbeats.register("loop", 60 * SECOND, time.now());
        let told = RefCell::new(Vec::new());
        let watchdog = Some(6 * SECOND);
        let send = recorder(&told);
        let (cause, statuses) = (watch::channel(None).1, watch::channel(Vec::new()).1);
        let clock = time.clone();
        let supervisor = Supervisor { heartbeats, time: clock, cause, statuses, watchdog, send };
        let mut run = pin!(supervisor.run());
        let signs = || told.borrow_mut().drain(..).filter(|state| state == "WATCHDOG=1").count();
        drop(timeout(61 * SECOND, &mut run).await);
        assert_eq!(signs(), 31);
        drop(timeout(10 * SECOND, &mut run).await);
        assert_eq!(signs(), 0, "the loop stands");
        heart.beat(time.now());
        drop(timeout(10 * SECOND, &mut run).await);
        assert_eq!(signs(), 5, "it turns again");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_ready_once_after_the_first_look_at_every_collection() {
        let told = RefCell::new(Vec::new());
        let (cause, causes) = watch::channel(None);
        let (senders, receivers): (Vec<_>, Statuses) = ["games", "users"]
            .map(|name| watch::channel(CollectionStatus::new(name)))
            .into_iter()
            .unzip();
        let (statuses, seen) = watch::channel(Vec::new());
        let supervisor = Supervisor {
            heartbeats: Heartbeats::default(),
            time: SystemTime::new(),
            cause: causes,
            statuses: seen,
            watchdog: None,
            send: recorder(&told),
        };
        let mut run = pin!(supervisor.run());
        let mut then = async || {
            drop(timeout(3 * SECOND, &mut run).await);
            told.take()
        };
        assert_eq!(then().await, ["STATUS=waiting for MongoDB: connecting"]);
        cause.send_replace(Some(LastError {
            part: Part::WHOLE,
            at: bson::DateTime::now(),
            class: "unavailable",
            message: "nobody is there\nREADY=1".into(),
            advice: String::new(),
        }));
        assert_eq!(then().await, ["STATUS=waiting for MongoDB: nobody is there READY=1"]);
        statuses.send_replace(receivers);
        let unknown = "role unknown, starting";
        assert_eq!(then().await, [format!("STATUS=games: {unknown}; users: {unknown}")]);
        let look = |which: usize, role, phase, lag_seconds| {
            senders[which].send_modify(|status| {
                (status.role, status.phase, status.lag_seconds) = (Some(role), phase, lag_seconds);
            });
        };
        look(0, Role::Standby, Phase::StandingBy, None);
        look(1, Role::Leader, Phase::Starting, None);
        let games = "STATUS=games: standby, standing_by; users: leader";
        assert_eq!(then().await, [format!("{games}, starting")]);
        look(1, Role::Leader, Phase::Scanning, Some(95.4));
        assert_eq!(then().await, ["READY=1".into(), format!("{games}, scanning, lag 95 s")]);
        look(1, Role::Leader, Phase::Tailing, Some(0.2));
        assert_eq!(then().await, [format!("{games}, tailing, lag 0 s")]);
        look(1, Role::Leader, Phase::Starting, None);
        look(1, Role::Leader, Phase::Tailing, Some(0.1));
        assert_eq!(then().await, [""; 0], "nothing is new");
    }

    fn recorder(told: &RefCell<Vec<String>>) -> impl Fn(&[NotifyState<'_>]) -> io::Result<()> + '_ {
        |states| {
            told.borrow_mut().extend(states.iter().map(ToString::to_string));
            Ok(())
        }
    }
}
