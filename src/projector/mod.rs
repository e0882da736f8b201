//! The projection of a collection, or of a part of it: it begins, is fed, folds, flushes and saves how far it came. The loop
//! is here; what each step decides is in the file that bears its name.

mod ask;
mod commits;
pub mod division;
mod documents;
mod due;
mod flush;
pub mod intake;
mod progress;
mod rows;
pub mod revisit;
mod run;

use std::time::Duration;

use futures::future::join;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    database::{Error, Verdict},
    health::beating,
    lease::Standing,
    log::LogSource,
    model::{document::FoldLimits, part::Part},
    observe::Observer,
    retry::Backoff,
    status::Phase,
    store::Store,
    stream::Subscribe,
    time::Time,
};

use intake::backlog::BacklogSettings;
use revisit::Revisits;
use run::{Ended, Run};

/// How a collection is projected.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The longest that a folded event waits for its flush under load.
    pub flush_interval: Duration,
    /// The shortest time between two checkpoints under load.
    pub checkpoint_interval: Duration,
    /// The shortest time between two checkpoints when nothing happens: each one moves the oplog.
    pub idle_checkpoint_interval: Duration,
    /// A gap that is open for longer is reported as one that will hardly heal by itself.
    pub gap_grace: Duration,
    /// How many bytes of documents are kept in memory.
    pub cache_bytes: usize,
    /// What a document may become.
    pub limits: FoldLimits,
    /// A snapshot is due when a document passes a multiple of so many events; never at 0.
    pub snapshot_events: u32,
    /// A document is noted when it passes a multiple of so many events; never at 0.
    pub mark_events: i64,
    /// How many events are folded before it is looked whether a flush is due.
    pub chunk_events: usize,
    /// How many documents a scan folds before they are written; and as many again meanwhile. It does not come back to
    /// them, so nothing is won by waiting.
    pub scanned_documents_max: usize,
    /// When a backlog is scanned.
    pub backlog: BacklogSettings,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// How long a refused collection waits before it looks again whether the cause is gone.
    pub refused_pause: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_millis(250),
            checkpoint_interval: Duration::from_secs(1),
            idle_checkpoint_interval: Duration::from_secs(5),
            gap_grace: Duration::from_secs(30),
            cache_bytes: 64 << 20,
            limits: FoldLimits::default(),
            snapshot_events: 0,
            mark_events: 0,
            chunk_events: 4_096,
            scanned_documents_max: 8_000,
            backlog: BacklogSettings::default(),
            backoff: Backoff::default(),
            refused_pause: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// The same for one of several parts: however many of them an instance leads, they take no more memory together
    /// than the whole collection may.
    #[must_use]
    pub fn shared_among(self, parts: u32) -> Self {
        let parts = usize::try_from(parts).unwrap_or(usize::MAX).max(1);
        Self { cache_bytes: self.cache_bytes / parts, ..self }
    }
}

/// The projection of one part of a collection.
pub struct Projector<S: LogSource, D: Store, T: Time> {
    /// The collection.
    pub collection: String,
    /// Which part of it.
    pub part: Part,
    /// Where events come from.
    pub source: S,
    /// Where documents go.
    pub store: D,
    /// The time that it goes by.
    pub time: T,
    /// How.
    pub settings: Settings,
    /// Who is told.
    pub observer: Observer,
    /// Where to ask for changes.
    pub subscribe: mpsc::Sender<Subscribe>,
    /// Documents to look at again.
    pub revisits: Revisits,
}

impl<S: LogSource, D: Store, T: Time> Projector<S, D, T> {
    /// Projects whenever `leadership` says so and `paused` says no, until `stop`; then flushes, saves the
    /// checkpoint and returns. A leadership that is lost ends the projection on the spot, which is safe.
    pub async fn lead(
        self,
        mut leadership: watch::Receiver<Standing>,
        mut paused: watch::Receiver<Option<bool>>,
        stop: CancellationToken,
    ) {
        while !stop.is_cancelled() {
            let standing = *leadership.borrow_and_update();
            let is_paused = *paused.borrow_and_update();
            self.observer.standing(standing);
            if is_paused == Some(true) {
                self.observer.phase(Phase::Paused);
            }
            let changed = match (standing, is_paused) {
                (Standing::Leader(epoch), Some(false)) => {
                    let until = stop.child_token();
                    tokio::select! {
                        biased;
                        changed = leadership.changed() => changed,
                        // A pause is a stop in order, after which nothing is left undone.
                        ((), ()) = join(self.run(epoch, &until), async {
                            tokio::select! {
                                () = news(&mut paused) => {}
                                () = stop.cancelled() => {}
                            }
                            until.cancel();
                        }) => continue,
                    }
                }
                _ => {
                    let news = async {
                        tokio::select! {
                            biased;
                            changed = leadership.changed() => changed,
                            () = news(&mut paused) => Ok(()),
                        }
                    };
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        changed = beating(self.observer.heart(), &self.time, news) => changed,
                    }
                }
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Projects under one epoch until `stop`. Whatever goes wrong in between is told to the observer
    /// and tried again, at once or after a while.
    async fn run(&self, epoch: i64, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            self.observer.phase(Phase::Starting);
            let Some(begun) = stop.run_until_cancelled(Run::begin(self, epoch)).await else {
                return;
            };
            let ended = match begun {
                Ok(run) => run.follow(stop).await,
                Err(error) => Err(error),
            };
            let error = match ended {
                Ok(Ended::Stopped) => return,
                Ok(Ended::LeftBehind) => continue,
                Err(error) => error,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.pause_after(&error) => {}
            }
        }
    }

    async fn pause_after(&self, error: &Error) {
        self.observer.error(error);
        let pause = match error.verdict() {
            Verdict::Stop(advice) => {
                error!(collection = self.collection, %error, advice, "refused");
                self.observer.phase(Phase::Refused);
                self.settings.refused_pause
            }
            _ => {
                error!(collection = self.collection, %error, "starting again");
                self.settings.backoff.shortest
            }
        };
        beating(self.observer.heart(), &self.time, self.time.sleep(pause)).await;
    }
}

/// Waits until somebody else decides about the pause; for ever, if nobody can.
async fn news(paused: &mut watch::Receiver<Option<bool>>) {
    if paused.changed().await.is_err() {
        std::future::pending().await
    }
}
