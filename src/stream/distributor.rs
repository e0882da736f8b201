//! The one change stream of a daemon: opened over all collections that somebody is subscribed to,
//! reopened wherever it broke, and handed on batch by batch. It decides nothing about events.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Feed, Subscribe};
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

/// Is told of every restart of the stream over some collections.
pub trait Restarts: Send + Sync {
    /// The stream over `collections` is about to be opened again.
    fn restarted(&self, collections: &[String], reason: RestartReason);

    /// The stream over `collections` has failed, and is tried again.
    fn failed(&self, collections: &[String], error: &Error);
}

/// See the module.
pub struct Distributor<S: LogSource, T: Time, R: Restarts> {
    source: S,
    time: T,
    backoff: Backoff,
    requests: mpsc::Receiver<Subscribe>,
    subscribers: Vec<Subscribe>,
    restarts: R,
    heart: Heart,
    /// How often in a row the stream was lost at one place.
    losses: u32,
    lost_at: Option<Start>,
}

impl<S: LogSource, T: Time, R: Restarts> Distributor<S, T, R> {
    /// A distributor that takes its subscribers from `requests`.
    pub fn new(
        source: S,
        time: T,
        backoff: Backoff,
        requests: mpsc::Receiver<Subscribe>,
        restarts: R,
    ) -> Self {
        Self {
            source,
            time,
            backoff,
            requests,
            subscribers: Vec::new(),
            restarts,
            heart: Heart::unheard(),
            losses: 0,
            lost_at: None,
        }
    }

    /// The same, with a heart that beats on every turn.
    #[must_use]
    pub fn with_heart(self, heart: Heart) -> Self {
        Self { heart, ..self }
    }

    /// Runs until nobody can subscribe any more.
    pub async fn run(mut self) {
        loop {
            self.heart.beat(self.time.now());
            self.subscribers.retain(|subscriber| !subscriber.feed.is_closed());
            if self.subscribers.is_empty() {
                match beating(&self.heart, &self.time, self.requests.recv()).await {
                    Some(request) => self.admit(request),
                    None => return,
                }
            }
            // Whoever asks now need not have the stream opened once more.
            while let Ok(request) = self.requests.try_recv() {
                self.admit(request);
            }
            let Some(start) = self.earliest() else { continue };
            let bodies = match self.losses {
                losses if losses < LOSSES_BEFORE_BODILESS => Bodies::All,
                _ => Bodies::UpTo(BODY_BYTES_MAX),
            };
            let collections = self.collections();
            let opening = self.source.tail(&collections, &start, bodies);
            let ended = match limited(&self.time, self.backoff.attempt_limit, opening).await {
                Ok(tail) => self.follow(tail).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                self.recover(error).await;
            }
        }
    }

    /// Hands on batches until the stream fails or has to be opened again for a new subscriber.
    async fn follow(&mut self, mut tail: S::Tail) -> Result<(), Error> {
        loop {
            let Self { requests, subscribers, heart, time, backoff, .. } = self;
            let next = async {
                beating(heart, time, room(subscribers)).await;
                limited(time, backoff.attempt_limit, tail.next()).await
            };
            tokio::select! {
                biased;
                request = requests.recv(), if !requests.is_closed() => {
                    if let Some(request) = request {
                        self.admit(request);
                        self.restarts.restarted(&self.collections(), RestartReason::CollectionsChanged);
                        return Ok(());
                    }
                }
                batch = next => {
                    self.deliver(batch?).await;
                    self.note_progress();
                    if self.subscribers.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn earliest(&self) -> Option<Start> {
        Start::earliest(self.subscribers.iter().map(|subscriber| &subscriber.start))
    }

    fn admit(&mut self, request: Subscribe) {
        self.subscribers.retain(|subscriber| {
            (&subscriber.collection, subscriber.part) != (&request.collection, request.part)
        });
        self.subscribers.push(request);
    }

    fn collections(&self) -> Vec<String> {
        let mut collections: Vec<String> = Vec::new();
        for Subscribe { collection, .. } in &self.subscribers {
            if !collections.contains(collection) {
                collections.push(collection.clone());
            }
        }
        collections
    }

    async fn deliver(&mut self, batch: TailBatch) {
        let batch = Arc::new(batch);
        for subscriber in &mut self.subscribers {
            // A subscriber that was further already sees replays, and stays where it was.
            if subscriber.start.cluster_time() <= batch.position.cluster_time {
                subscriber.start = Start::After(batch.position.clone());
            }
            // A failed send is a projector that has ended; it is removed before the next batch.
            // A projector that waits for the database holds the stream up, and that is no fault of this loop.
            let sending = subscriber.feed.send(Feed::Batch(Arc::clone(&batch)));
            let _ended = beating(&self.heart, &self.time, sending).await;
        }
        self.subscribers.retain(|subscriber| !subscriber.feed.is_closed());
    }

    /// A stream that was opened again has got somewhere only when it has left the place of its last loss:
    /// an empty batch can come before what breaks it.
    fn note_progress(&mut self) {
        if self.losses > 0 && self.earliest() != self.lost_at {
            self.losses = 0;
        }
    }

    async fn recover(&mut self, error: Error) {
        self.losses += 1;
        self.lost_at = self.earliest();
        if !matches!(error.verdict(), Verdict::Stop(_)) {
            self.restarts.failed(&self.collections(), &error);
        }
        match error.verdict() {
            Verdict::Retry | Verdict::Oversized => {
                warn!(%error, "the change stream was lost and is opened again");
                self.restarts.restarted(&self.collections(), RestartReason::LostConnection);
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
        self.restarts.restarted(&self.collections(), RestartReason::LostToken);
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

/// Waits until everybody can take a batch: one that is fetched before only takes memory.
async fn room(subscribers: &[Subscribe]) {
    for subscriber in subscribers {
        // That nobody receives any more is noticed when the batch is sent.
        let _room = subscriber.feed.reserve().await;
    }
}
