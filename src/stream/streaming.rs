//! A change stream and whom it feeds: opened where the first of them stands, handed on batch by batch, and tried again
//! wherever it broke.

use std::{sync::Arc, time::Duration};

use bson::Timestamp;
use futures::future::select_all;
use tracing::{info, warn};

use super::{Feed, Restarts, Subscribe};
use crate::{
    database::{Error, Verdict},
    health::{Heart, beating},
    log::{Bodies, LogSource, Start, Tail, TailBatch},
    metrics::RestartReason,
    retry::{Backoff, limited},
    time::Time,
};

/// After so many losses at one place the stream is opened without large bodies: an event near 16 MB
/// makes the server close the connection or fail, again and again.
const LOSSES_BEFORE_BODILESS: u32 = 2;
/// The largest body that such a stream still carries.
const BODY_BYTES_MAX: i64 = 1 << 20;
/// For how long those that could go on wait for one that cannot.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Streaming<S: LogSource, T: Time, R: Restarts> {
    source: S,
    pub(super) time: T,
    backoff: Backoff,
    pub(super) subscribers: Vec<Subscribe>,
    restarts: Arc<R>,
    pub(super) heart: Heart,
    /// How often in a row the stream was lost at one place.
    losses: u32,
    lost_at: Option<Start>,
}

impl<S: LogSource, T: Time, R: Restarts> Streaming<S, T, R> {
    pub(super) fn new((source, time, backoff): (S, T, Backoff), restarts: Arc<R>) -> Self {
        Self {
            source,
            time,
            backoff,
            subscribers: Vec::new(),
            restarts,
            heart: Heart::unheard(),
            losses: 0,
            lost_at: None,
        }
    }

    /// One of its own for a subscriber.
    pub(super) fn alone(&self, subscriber: Subscribe) -> Self {
        let how = (self.source.clone(), self.time.clone(), self.backoff);
        let subscribers = vec![subscriber];
        Self { subscribers, ..Self::new(how, Arc::clone(&self.restarts)) }
    }

    /// Its loop turns.
    pub(super) fn turned(&self) {
        self.heart.beat(self.time.now());
    }

    /// It is about to be opened again.
    pub(super) fn restarted(&self, reason: RestartReason) {
        self.restarts.restarted(&self.collections(), reason);
    }

    /// Whether everybody is about where another stream is.
    pub(super) fn is_level(&self, place: Timestamp) -> bool {
        let seconds = |subscriber: &Subscribe| subscriber.start.cluster_time().time;
        self.subscribers.iter().all(|subscriber| seconds(subscriber) + 1 >= place.time)
    }

    /// Forgets those that have ended; whether any is left.
    pub(super) fn is_wanted(&mut self) -> bool {
        self.subscribers.retain(|subscriber| !subscriber.feed.is_closed());
        !self.subscribers.is_empty()
    }

    pub(super) async fn open(&self) -> Result<S::Tail, Error> {
        let start = self.earliest().unwrap_or(Start::At(Timestamp { time: 0, increment: 0 }));
        let bodies = match self.losses {
            losses if losses < LOSSES_BEFORE_BODILESS => Bodies::All,
            _ => Bodies::UpTo(BODY_BYTES_MAX),
        };
        let collections = self.collections();
        let opening = self.source.tail(&collections, &start, bodies);
        limited(&self.time, self.backoff.attempt_limit, opening).await
    }

    /// The next batch, once everybody can take it: one that is fetched before only takes memory. Nothing when some
    /// cannot, for which the others have waited for long enough.
    pub(super) async fn next(&self, tail: &mut S::Tail) -> Result<Option<TailBatch>, Error> {
        match self.have_room().await {
            true => limited(&self.time, self.backoff.attempt_limit, tail.next()).await.map(Some),
            false => Ok(None),
        }
    }

    /// Waits until everybody can take something, or until those that can have waited for long enough. A subscriber that
    /// waits for the database holds the stream up, and that is no fault of this loop.
    pub(super) async fn have_room(&self) -> bool {
        let everybody = async {
            for subscriber in &self.subscribers {
                // That nobody receives any more is noticed when the batch is sent.
                drop(subscriber.feed.reserve().await);
            }
        };
        let others = async {
            // Where nobody can go on, nobody is held up.
            let can = |subscriber: &Subscribe| {
                let feed = subscriber.feed.clone();
                Box::pin(async move { drop(feed.reserve().await) })
            };
            match self.subscribers.len() {
                0 | 1 => std::future::pending().await,
                _ => drop(select_all(self.subscribers.iter().map(can)).await),
            }
            self.time.sleep(PATIENCE).await;
        };
        let has_room = async {
            tokio::select! {
                biased;
                () = everybody => true,
                () = others => false,
            }
        };
        beating(&self.heart, &self.time, has_room).await
    }

    /// Takes out those that cannot take anything now.
    pub(super) fn take_full(&mut self) -> Vec<Subscribe> {
        let is_full = |subscriber: &mut Subscribe| {
            subscriber.feed.capacity() == 0 && !subscriber.feed.is_closed()
        };
        self.subscribers.extract_if(.., is_full).collect()
    }

    fn earliest(&self) -> Option<Start> {
        Start::earliest(self.subscribers.iter().map(|subscriber| &subscriber.start))
    }

    pub(super) fn collections(&self) -> Vec<String> {
        let mut collections: Vec<String> = Vec::new();
        for Subscribe { collection, .. } in &self.subscribers {
            if !collections.contains(collection) {
                collections.push(collection.clone());
            }
        }
        collections
    }

    pub(super) async fn deliver(&mut self, batch: TailBatch) {
        let batch = Arc::new(batch);
        for subscriber in &mut self.subscribers {
            // A subscriber that was further already sees replays, and stays where it was.
            if subscriber.start.cluster_time() <= batch.position.cluster_time {
                subscriber.start = Start::After(batch.position.clone());
            }
            // A failed send is a projector that has ended; it is removed before the next batch.
            let sending = subscriber.feed.send(Feed::Batch(Arc::clone(&batch)));
            let _ended = beating(&self.heart, &self.time, sending).await;
        }
        self.note_progress();
    }

    /// A stream that was opened again has got somewhere only when it has left the place of its last loss:
    /// an empty batch can come before what breaks it.
    fn note_progress(&mut self) {
        if self.losses > 0 && self.earliest() != self.lost_at {
            self.losses = 0;
        }
    }

    pub(super) async fn recover(&mut self, error: Error) {
        self.losses += 1;
        self.lost_at = self.earliest();
        if !matches!(error.verdict(), Verdict::Stop(_)) {
            self.restarts.failed(&self.collections(), &error);
        }
        match error.verdict() {
            Verdict::Retry | Verdict::Oversized => {
                warn!(%error, "the change stream was lost and is opened again");
                self.restarted(RestartReason::LostConnection);
                self.time.sleep(self.pause()).await;
            }
            Verdict::Reposition => {
                info!(%error, "the resume token belongs to another stream: resuming by cluster time");
                for subscriber in &mut self.subscribers {
                    subscriber.start = Start::At(subscriber.start.cluster_time());
                }
            }
            Verdict::CatchUp => self.catch_up(&error).await,
            Verdict::Stop(_) => {
                for subscriber in self.subscribers.drain(..) {
                    let telling = subscriber.feed.send(Feed::Failed(error.clone()));
                    let _ended = beating(&self.heart, &self.time, telling).await;
                }
            }
        }
    }

    /// The server no longer holds the place: everybody goes on from now, and reads the rest from the log.
    async fn catch_up(&mut self, error: &Error) {
        warn!(%error, "the oplog no longer holds the place of the change stream: catching up from the log");
        self.restarted(RestartReason::LostToken);
        let now = match limited(&self.time, self.backoff.attempt_limit, self.source.now()).await {
            Ok(now) => now,
            Err(error) => {
                warn!(%error, "the cluster time is not to be had; trying again");
                return self.time.sleep(self.pause()).await;
            }
        };
        for subscriber in &mut self.subscribers {
            subscriber.start = Start::At(now);
            let telling = subscriber.feed.send(Feed::Lost { at: now });
            let _ended = beating(&self.heart, &self.time, telling).await;
        }
    }

    fn pause(&self) -> Duration {
        let doublings = self.losses.saturating_sub(1).min(16);
        self.backoff.shortest.saturating_mul(1 << doublings).min(self.backoff.longest)
    }
}
