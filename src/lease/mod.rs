//! Who leads. Any number of instances run; each lease has one holder at a time, under a rising epoch.
//! Leases only save work: two leaders at once do no harm, since every write of theirs says what it assumes.

mod plan;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    database::{Result, create::NewerFormat},
    health::Heart,
    planted::{Bug, planted},
    retry::ATTEMPT_LIMIT,
    store::{Lease, LeaseName, Leases, Presence, format::check_format},
    time::Time,
};

use plan::{Observed, Plan};

/// How leases are kept.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// The name of this instance, unlike any other's, also unlike that of an earlier run.
    pub instance: String,
    /// How long a leader may be silent before another takes over.
    pub lease_time: Duration,
}

/// How often the leases are looked at: what bounds the time until a lease that was given back is taken.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);

/// Where this instance stands with a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// The leases have not been read yet, or could not be for the lease time.
    #[default]
    Unknown,
    /// It could lead, but another instance does, or nobody yet.
    Standby,
    /// It leads, under this epoch.
    Leader(i64),
}

/// The leases that this instance could hold, each with the channel that says how it stands. Cheap to
/// clone.
#[derive(Clone, Debug, Default)]
pub struct Leaderships(Arc<Mutex<BTreeMap<LeaseName, Leadership>>>);

/// The other end goes to whoever projects under the lease.
type Leadership = watch::Sender<Standing>;

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not known"),
            Self::Standby => f.write_str("stands by"),
            Self::Leader(epoch) => write!(f, "leads under epoch {epoch}"),
        }
    }
}

impl Leaderships {
    /// Adds a lease to those that this instance could hold.
    pub fn want(&self, name: LeaseName) -> watch::Receiver<Standing> {
        let (leadership, standing) = watch::channel(Standing::Unknown);
        self.wanted().insert(name, leadership);
        standing
    }

    /// Removes a lease; one that is held is given back. Call it only when nobody works under the lease
    /// any more.
    pub fn release(&self, name: &LeaseName) {
        self.wanted().remove(name);
    }

    fn wanted(&self) -> MutexGuard<'_, BTreeMap<LeaseName, Leadership>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> Vec<LeaseName> {
        self.wanted().keys().cloned().collect()
    }

    fn tell(&self, name: &LeaseName, standing: Standing) {
        if let Some(leadership) = self.wanted().get(name) {
            leadership.send_if_modified(|now| std::mem::replace(now, standing) != standing);
        }
    }
}

/// The one loop that keeps all leases of an instance.
pub struct Keeper<L: Leases, T: Time> {
    leases: L,
    time: T,
    settings: LeaseSettings,
    leaderships: Leaderships,
    held: BTreeMap<LeaseName, Lease>,
    observed: Observed,
    presence: Presence,
    renewed_at: Duration,
    heart: Heart,
    /// What the last beat found, if this version must not go on.
    newer: Option<NewerFormat>,
}

impl<L: Leases, T: Time> Keeper<L, T> {
    /// A keeper that tries to lead everything that `leaderships` names, and tells each of them its epoch.
    pub fn new(leases: L, time: T, settings: LeaseSettings, leaderships: Leaderships) -> Self {
        let observed = Observed::new(settings.instance.clone(), settings.lease_time);
        let presence = Presence { instance: settings.instance.clone(), beat: 0 };
        let renewed_at = time.now();
        Self {
            leases,
            time,
            settings,
            leaderships,
            held: BTreeMap::new(),
            observed,
            presence,
            renewed_at,
            heart: Heart::unheard(),
            newer: None,
        }
    }

    /// The same, with a heart that beats on every turn.
    #[must_use]
    pub fn with_heart(self, heart: Heart) -> Self {
        Self { heart, ..self }
    }

    /// Keeps leases until `stop`, then gives them back, so that another can take over at once.
    ///
    /// # Errors
    /// When a later version of this program has taken the data over. Then nothing more is written, and whoever
    /// runs this keeper has to end: the leases run out by themselves.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), NewerFormat> {
        while !stop.is_cancelled() {
            self.heart.beat(self.time.now());
            // The turn has a time limit. One that hangs would let this instance lead on while the
            // others take it to be dead.
            let (time, limit) = (self.time.clone(), self.settings.lease_time.min(ATTEMPT_LIMIT));
            tokio::select! {
                biased;
                result = self.turn() => if let Err(error) = result {
                    warn!(%error, "the leases could not be kept; trying again");
                },
                () = time.sleep(limit) => warn!("the database does not answer; the leases run out"),
            }
            if let Some(newer) = self.newer.take() {
                self.lose_all("a later version of alluvium has taken the data over");
                return Err(newer);
            }
            self.step_down_if_silent();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.time.sleep(LOOK_INTERVAL.min(self.settings.lease_time / 4)) => {}
            }
        }
        // The presence goes first. When the others then see the leases free, they no longer count this
        // instance among those that share.
        if let Err(error) = self.leases.remove_presence(&self.settings.instance).await {
            warn!(%error, "this instance's presence could not be removed: it is forgotten by itself");
        }
        if let Err(error) = self.give_back_all().await {
            warn!(%error, "leases could not be given back: they run out by themselves");
        }
        Ok(())
    }

    async fn turn(&mut self) -> Result<()> {
        // A process that was stopped for longer than the lease wakes up here. It must not go on as a
        // leader before it knows that it still is one.
        self.step_down_if_silent();
        self.renew().await?;
        if self.newer.is_some() {
            return Ok(());
        }
        let roster = self.leases.load_roster().await?;
        self.observed.see(&roster, self.time.now());
        let epochs = self.held.iter().map(|(name, lease)| (name.clone(), lease.epoch)).collect();
        let wanted = self.leaderships.names();
        let Plan { take, give_back, lost, departed } =
            self.observed.plan(&wanted, &epochs, self.time.now());
        for name in lost {
            self.lose(&name, "another instance has taken it");
        }
        for name in give_back {
            self.give_back(&name).await?;
        }
        for (name, seen) in take {
            self.take(name, seen).await?;
        }
        for name in &wanted {
            // Leases that are held are told too: one may have been released and wanted again since the
            // last turn, and has a new channel.
            let held = self.held.get(name).map(|lease| Standing::Leader(lease.epoch));
            self.leaderships.tell(name, held.unwrap_or(Standing::Standby));
        }
        for instance in departed {
            self.leases.remove_presence(&instance).await?;
        }
        Ok(())
    }

    /// Renews what is held, a few times within the lease time.
    async fn renew(&mut self) -> Result<()> {
        let now = self.time.now();
        let due = self.presence.beat == 0
            || now.saturating_sub(self.renewed_at) >= self.settings.lease_time / 4;
        if !due {
            return Ok(());
        }
        self.newer = check_format(self.leases.load_format().await?).err();
        if self.newer.is_some() {
            return Ok(());
        }
        // Before anything is led: whatever is led goes by the server's clock.
        let asked = self.time.now();
        self.time.heard(self.leases.server_time().await?, asked);
        self.presence.beat += 1;
        self.leases.show_presence(&self.presence).await?;
        let held: Vec<LeaseName> = self.held.keys().cloned().collect();
        for name in held {
            let Some(lease) = self.held.get_mut(&name) else { continue };
            lease.beat += 1;
            let lease = lease.clone();
            if !self.leases.renew_lease(&lease).await? {
                self.lose(&name, "another instance has taken it");
            } else if self.floor(&name).await? > lease.epoch {
                // The row of the lease was lost and made again below its checkpoint. Under this epoch
                // no checkpoint can be saved.
                self.lose(&name, "its checkpoint is of a later epoch; taking it above that");
            }
        }
        // The time before the writes. The others saw the lease renewed after this, so for them it lasts
        // longer.
        self.renewed_at = now;
        Ok(())
    }

    async fn take(&mut self, name: LeaseName, seen: Option<Lease>) -> Result<()> {
        let floor = self.floor(&name).await?;
        // Above the epochs of all parts, also of earlier divisions. Jobs go by the epoch: a later
        // leader must have a higher one.
        let epoch = self.observed.last_epoch(&name.collection).max(floor) + 1;
        let lease = Lease {
            name: name.clone(),
            holder: Some(self.settings.instance.clone()),
            epoch,
            beat: 0,
        };
        let taken_at = self.time.now();
        if self.leases.take_lease(&lease, seen.as_ref()).await? {
            info!(lease = %name, epoch, "leading");
            if self.held.is_empty() {
                self.renewed_at = taken_at;
            }
            self.held.insert(name.clone(), lease);
            self.leaderships.tell(&name, Standing::Leader(epoch));
        }
        Ok(())
    }

    /// The epoch that a lease has to be above.
    async fn floor(&self, name: &LeaseName) -> Result<i64> {
        match planted(Bug::LeaseBelowCheckpoint) {
            true => Ok(0),
            false => self.leases.epoch_floor(name).await,
        }
    }

    async fn give_back(&mut self, name: &LeaseName) -> Result<()> {
        let Some(mut lease) = self.held.get(name).cloned() else { return Ok(()) };
        self.lose(name, "giving it back");
        lease.holder = None;
        lease.beat += 1;
        self.leases.renew_lease(&lease).await.map(drop)
    }

    /// Gives back what is held, and what was taken by a request whose answer never came.
    async fn give_back_all(&mut self) -> Result<()> {
        for lease in self.leases.load_roster().await?.leases {
            if lease.holder.as_ref() == Some(&self.settings.instance) {
                self.lose(&lease.name, "giving it back");
                let beat = lease.beat + 1;
                self.leases.renew_lease(&Lease { holder: None, beat, ..lease }).await?;
            }
        }
        Ok(())
    }

    fn lose(&mut self, name: &LeaseName, why: &str) {
        if self.held.remove(name).is_some() {
            info!(lease = %name, why, "not leading any more");
            self.leaderships.tell(name, Standing::Standby);
        }
    }

    fn lose_all(&mut self, why: &str) {
        let held: Vec<LeaseName> = self.held.keys().cloned().collect();
        for name in held {
            self.lose(&name, why);
        }
    }

    fn step_down_if_silent(&mut self) {
        if self.time.now().saturating_sub(self.renewed_at) < self.settings.lease_time {
            return;
        }
        self.lose_all("it could not be renewed within the lease time");
        for name in self.leaderships.names() {
            self.leaderships.tell(&name, Standing::Unknown);
        }
    }
}
