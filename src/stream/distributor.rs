//! The one change stream of a daemon: opened over all collections that somebody is subscribed to,
//! reopened wherever it broke, and handed on batch by batch. It decides nothing about events.
//!
//! A subscriber that stays full, since its collection cannot be written, would stop the stream for all. It is taken off
//! and gets a stream of its own, which begins where it stands once it can take something, and ends where the shared one is.

use std::sync::Arc;

use bson::Timestamp;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{mpsc, watch};
use tracing::info;

use super::{Restarts, Subscribe, streaming::Streaming};
use crate::{
    database::{Error, Verdict},
    health::{Heart, beating},
    log::LogSource,
    metrics::RestartReason,
    retry::Backoff,
    time::Time,
};

/// How many stragglers may be on their way at once before one waits.
const STRAGGLERS_MAX: usize = 16;

/// A subscriber with a stream of its own, until that is where the shared one is, or nobody receives it any more.
type Straggler = BoxFuture<'static, ()>;

/// See the module.
pub struct Distributor<S: LogSource, T: Time, R: Restarts> {
    requests: mpsc::Receiver<Subscribe>,
    streaming: Streaming<S, T, R>,
    /// How far the stream is.
    place: watch::Sender<Timestamp>,
}

/// Where stragglers go, and come back from.
struct Aside {
    stragglers: mpsc::Sender<Straggler>,
    back: mpsc::Sender<Subscribe>,
    returned: mpsc::Receiver<Subscribe>,
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
        let streaming = Streaming::new((source, time, backoff), Arc::new(restarts));
        let place = watch::Sender::new(Timestamp { time: 0, increment: 0 });
        Self { requests, streaming, place }
    }

    /// The same, with a heart that beats on every turn.
    #[must_use]
    pub fn with_heart(mut self, heart: Heart) -> Self {
        self.streaming.heart = heart;
        self
    }

    /// Runs until nobody can subscribe any more.
    pub async fn run(mut self) {
        let (stragglers, came) = mpsc::channel(STRAGGLERS_MAX);
        let (back, returned) = mpsc::channel(STRAGGLERS_MAX);
        tokio::select! {
            biased;
            () = self.share(Aside { stragglers, back, returned }) => {}
            () = feed_stragglers(came) => {}
        }
    }

    async fn share(&mut self, mut aside: Aside) {
        loop {
            self.streaming.turned();
            if !self.streaming.is_wanted() {
                match self.asked(&mut aside).await {
                    Some(request) => self.admit(request),
                    None => return,
                }
            }
            // Whoever asks now need not have the stream opened once more.
            while let Ok(request) = self.requests.try_recv() {
                self.admit(request);
            }
            let ended = match self.streaming.open().await {
                Ok(tail) => self.follow(tail, &mut aside).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                // Whoever cannot be told now finds it out on a stream of its own.
                let is_told = matches!(error.verdict(), Verdict::CatchUp | Verdict::Stop(_));
                if is_told && !self.streaming.have_room().await {
                    self.set_aside(&aside).await;
                }
                self.streaming.recover(error).await;
            }
        }
    }

    /// Waits until somebody subscribes, or comes back.
    async fn asked(&mut self, aside: &mut Aside) -> Option<Subscribe> {
        let Self { requests, streaming, .. } = self;
        let asked = async {
            tokio::select! {
                biased;
                request = requests.recv() => request,
                Some(returned) = aside.returned.recv() => Some(returned),
            }
        };
        beating(&streaming.heart, &streaming.time, asked).await
    }

    /// Hands on batches until the stream fails or has to be opened again for a new subscriber.
    async fn follow(&mut self, mut tail: S::Tail, aside: &mut Aside) -> Result<(), Error> {
        loop {
            let Self { requests, streaming, .. } = self;
            let request = tokio::select! {
                biased;
                Some(request) = requests.recv() => request,
                Some(returned) = aside.returned.recv() => returned,
                batch = streaming.next(&mut tail) => {
                    match batch? {
                        Some(batch) => {
                            self.place.send_replace(batch.position.cluster_time);
                            self.streaming.deliver(batch).await;
                        }
                        None => self.set_aside(aside).await,
                    }
                    match self.streaming.is_wanted() {
                        true => continue,
                        false => return Ok(()),
                    }
                }
            };
            self.admit(request);
            self.streaming.restarted(RestartReason::CollectionsChanged);
            return Ok(());
        }
    }

    fn admit(&mut self, request: Subscribe) {
        let subscribers = &mut self.streaming.subscribers;
        subscribers.retain(|subscriber| {
            (&subscriber.collection, subscriber.part) != (&request.collection, request.part)
        });
        subscribers.push(request);
    }

    /// Takes those off that hold up the others.
    async fn set_aside(&mut self, aside: &Aside) {
        for subscriber in self.streaming.take_full() {
            let Subscribe { collection, part, .. } = &subscriber;
            info!(collection, %part, "it takes nothing, and the others go on: it gets a stream of its own");
            let alone = self.streaming.alone(subscriber);
            let straggler = feed_alone(alone, self.place.subscribe(), aside.back.clone());
            // Whoever takes them ends together with this.
            drop(aside.stragglers.send(straggler.boxed()).await);
        }
    }
}

/// Feeds all stragglers at once.
async fn feed_stragglers(mut came: mpsc::Receiver<Straggler>) {
    let mut stragglers = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(straggler) = came.recv() => stragglers.push(straggler),
            Some(()) = stragglers.next() => {}
        }
    }
}

/// Feeds a subscriber by a stream of its own, from when it can take something until it is where the shared stream is, and
/// gives it back then.
async fn feed_alone<S: LogSource, T: Time, R: Restarts>(
    mut alone: Streaming<S, T, R>,
    place: watch::Receiver<Timestamp>,
    back: mpsc::Sender<Subscribe>,
) {
    while alone.have_room().await && alone.is_wanted() {
        let ended = match alone.open().await {
            Ok(mut tail) => loop {
                match alone.next(&mut tail).await {
                    Ok(Some(batch)) => alone.deliver(batch).await,
                    Ok(None) => {}
                    Err(error) => break error,
                }
                if !alone.is_wanted() {
                    return;
                }
                let is_level = alone.is_level(*place.borrow());
                if let Some(subscriber) = alone.subscribers.pop_if(|_| is_level) {
                    // Whoever takes it back ends together with this.
                    return drop(back.send(subscriber).await);
                }
            },
            Err(error) => error,
        };
        alone.recover(ended).await;
    }
}
