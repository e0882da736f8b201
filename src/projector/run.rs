//! The loop of one projection, from its beginning until it is stopped or has to begin again.

use std::{sync::Arc, time::Duration};

use bson::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    Projector, Settings,
    begin::Begin,
    cache::Cache,
    feed::{self, Feed, Subscribe},
    flush::{CheckpointOutcome, Flushed},
    observe::Counts,
    progress::Progress,
    scan::Walk,
    waiting::Waiting,
    work::{Arrival, Work},
};
use crate::{
    database::{Error, Result, Verdict},
    log::{Batch, EventLog, LogSource, TailBatch, TailItem, events_collection},
    model::{
        event::EventKey,
        id::DocumentId,
        position::{Checkpoint, LogId, Position},
    },
    status::Phase,
    store::Store,
    time::Time,
};

/// How many events are folded before it is looked whether a flush is due.
const CHUNK_EVENTS: usize = 4_096;
/// How often the lag is told and a checkpoint considered, at least.
const TICK: Duration = Duration::from_secs(1);

/// A projection under way.
pub(super) struct Run<S: LogSource, D: Store, T: Time> {
    work: Work<S::Log, D, T>,
    progress: Progress,
    walk: Option<Walk<S::Log>>,
    feed: mpsc::Receiver<Feed>,
    events: String,
    log: LogId,
    /// What a scan has seen need not be taken from the stream again.
    ignore_before: Option<Timestamp>,
    /// What the flush under way covers.
    covers: Option<Position>,
    /// The overdue hole that was last told of.
    overdue: Option<(DocumentId, i64)>,
}

/// What the loop met.
enum Met {
    Flushed(Result<Flushed>),
    Stop,
    Scanned(Result<Option<Batch>>),
    Fed(Option<Feed>),
    Tick,
}

impl<S: LogSource, D: Store, T: Time> Run<S, D, T> {
    /// Decides where to begin, subscribes there, and looks again at every document behind a hole.
    ///
    /// # Errors
    /// When the database is away, or going on would be wrong.
    pub(super) async fn begin(projector: &Projector<S, D, T>) -> Result<Self> {
        let Projector { collection, source, store, time, settings, observer, subscribe } =
            projector;
        let log = source.log(collection);
        let begin = Begin::decide(source, &log, store, collection).await?;
        let waiting = Waiting::new(store.load_quarantine().await?);
        let (sender, feed) = feed::channel();
        let request =
            Subscribe { collection: collection.clone(), start: begin.start(), feed: sender };
        subscribe
            .send(request)
            .await
            .map_err(|_| Error::unreachable("the change stream has ended"))?;
        let mut work = Work {
            log,
            store: store.clone(),
            time: time.clone(),
            settings: *settings,
            observer: observer.clone(),
            cache: Cache::new(settings.cache_bytes),
            waiting,
            counts: Counts::default(),
            changed_at: None,
            oldest: None,
            seen: begin.at,
            flush: None,
            flushed: None,
        };
        for document in work.waiting.holes() {
            work.read_on(&document).await?;
        }
        observer.resumed(&work.waiting);
        let walk = begin.checkpoint.is_none().then(|| Walk::new(begin.at));
        observer.phase(if walk.is_some() { Phase::Scanning } else { Phase::Tailing });
        Ok(Self {
            work,
            progress: Progress::new(begin.checkpoint.map(|checkpoint| checkpoint.position)),
            ignore_before: walk.as_ref().map(|walk| walk.at),
            walk,
            feed,
            events: events_collection(collection),
            log: begin.log,
            covers: None,
            overdue: None,
        })
    }

    /// Projects until `stop`, then drains.
    ///
    /// # Errors
    /// When it has to begin again, or not at all.
    pub(super) async fn follow(mut self, stop: &CancellationToken) -> Result<()> {
        loop {
            match self.meet(stop).await {
                Met::Flushed(flushed) => self.settle(flushed?).await?,
                Met::Stop => return self.drain().await,
                Met::Scanned(batch) => {
                    self.scanned(batch).await?;
                    // The stream has to move on while a long scan lasts, or the oplog would overtake it.
                    if let Ok(fed) = self.feed.try_recv() {
                        self.fed(fed).await?;
                    }
                }
                Met::Fed(Some(fed)) => self.fed(fed).await?,
                Met::Fed(None) => return Err(Error::unreachable("the change stream has ended")),
                Met::Tick => {}
            }
            self.flush_if_due();
            self.tell();
        }
    }

    /// Waits for the next thing to do.
    async fn meet(&mut self, stop: &CancellationToken) -> Met {
        if let Some(flushed) = self.work.flushed.take() {
            return Met::Flushed(flushed);
        }
        let pause = self.pause();
        let Self { work, walk, feed, .. } = self;
        let room = !work.cache.is_full();
        let (log, time) = (work.log.clone(), work.time.clone());
        tokio::select! {
            biased;
            // 1. A flush that has returned frees memory and moves the checkpoint.
            flushed = pending(&mut work.flush) => {
                work.flush = None;
                Met::Flushed(flushed)
            }
            // 2. Stopping goes before more work.
            () = stop.cancelled() => Met::Stop,
            // 3. Catching up goes before news, which may depend on it.
            batch = next_scanned(walk, &log), if room => Met::Scanned(batch),
            // 4. News, when there is room for it: not reading is what slows the stream down.
            fed = feed.recv(), if room => Met::Fed(fed),
            // 5. Time.
            () = time.sleep(pause) => Met::Tick,
        }
    }

    async fn settle(&mut self, flushed: Flushed) -> Result<()> {
        let all_written = flushed.all_written();
        match self.work.settle(flushed).await? {
            CheckpointOutcome::Saved(checkpoint) => {
                self.progress.saved(checkpoint.position, self.work.time.now());
            }
            CheckpointOutcome::NotSaved => {}
            CheckpointOutcome::Fenced => {
                return Err(Error::stop(
                    "another instance has taken over this collection",
                    "nothing to do; if no other instance should be running, look for one",
                ));
            }
        }
        if all_written {
            self.progress.flushed(self.covers.take());
        }
        Ok(())
    }

    async fn scanned(&mut self, batch: Result<Option<Batch>>) -> Result<()> {
        let Some(mut walk) = self.walk.take() else { return Ok(()) };
        match batch {
            Ok(Some(batch)) => {
                let mut chunk = Vec::with_capacity(CHUNK_EVENTS);
                for event in batch.documents()? {
                    self.arrive(&mut chunk, event?);
                    if chunk.len() == CHUNK_EVENTS {
                        self.work.fold_scanned(&mut walk, &chunk).await?;
                        chunk.clear();
                        self.make_room().await?;
                    }
                }
                self.work.fold_scanned(&mut walk, &chunk).await?;
                self.walk = Some(walk);
            }
            Ok(None) => {
                self.work.finish_scan(walk).await?;
                info!(collection = self.work.observer.collection(), "the scan of the log is over");
                self.work.observer.phase(Phase::Tailing);
            }
            Err(error) if error.verdict() == Verdict::Retry => {
                self.work.observer.error(&error);
                self.work.time.sleep(self.work.settings.backoff.shortest).await;
                self.walk = Some(walk);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn fed(&mut self, feed: Feed) -> Result<()> {
        match feed {
            Feed::Batch(batch) => self.fold_changes(&batch).await,
            Feed::Lost { at } => {
                self.walk = Some(Walk::new(at));
                self.ignore_before = Some(at);
                self.work.observer.phase(Phase::Scanning);
                Ok(())
            }
            Feed::Failed(error) => Err(error),
        }
    }

    async fn fold_changes(&mut self, batch: &Arc<TailBatch>) -> Result<()> {
        self.work.seen = self.work.seen.max(batch.position.cluster_time);
        let events = self.events.clone();
        let mut chunk = Vec::with_capacity(CHUNK_EVENTS);
        for change in batch.changes.documents()? {
            match TailItem::decode(change?, |name| name == events)? {
                TailItem::Event { events: name, event, cluster_time, wall_time }
                    if name == events =>
                {
                    if self.ignore_before.is_some_and(|time| cluster_time < time) {
                        continue;
                    }
                    self.work.oldest = self.work.oldest.or(wall_time);
                    self.arrive(&mut chunk, event);
                }
                TailItem::Bodiless { events: name, key } if name == events => {
                    self.work.fold(&chunk).await?;
                    chunk.clear();
                    self.fetch(key).await?;
                }
                TailItem::Gone { events: None } => return Err(gone(&events)),
                TailItem::Gone { events: Some(name) } | TailItem::Arrived { events: name }
                    if name == events =>
                {
                    return Err(gone(&events));
                }
                _ => {}
            }
            if chunk.len() == CHUNK_EVENTS {
                self.work.fold(&chunk).await?;
                chunk.clear();
                self.make_room().await?;
            }
        }
        self.work.fold(&chunk).await?;
        self.progress.folded(batch, self.work.time.now());
        Ok(())
    }

    fn arrive<'a>(&self, chunk: &mut Vec<Arrival<'a>>, event: &'a bson::RawDocument) {
        match EventKey::from_event(event) {
            Ok(key) => chunk.push(Arrival { key, event }),
            Err(error) => self.work.observer.homeless_event(&error.to_string()),
        }
    }

    /// The stream left out the body of a large event: the log has it.
    async fn fetch(&mut self, key: &bson::RawDocument) -> Result<()> {
        match EventKey::from_raw(key) {
            Ok(key) => self.work.read_on(&key.document).await,
            Err(error) => {
                self.work.observer.homeless_event(&error.to_string());
                Ok(())
            }
        }
    }

    /// Between two chunks of one batch: flushes if that is due, and waits for it if memory is short.
    async fn make_room(&mut self) -> Result<()> {
        if let Some(flushed) = self.work.flushed.take() {
            self.settle(flushed?).await?;
        }
        self.flush_if_due();
        while self.work.cache.is_full() {
            match self.work.flush.take() {
                Some(flush) => self.settle(flush.await?).await?,
                None => return Ok(()),
            }
            self.flush_if_due();
        }
        Ok(())
    }

    /// Flushes at once when there is nothing more to fold, and otherwise when the window is over or
    /// memory is short.
    fn flush_if_due(&mut self) {
        if self.work.flush.is_some() || self.work.flushed.is_some() {
            return;
        }
        let now = self.work.time.now();
        let due = match self.work.changed_at {
            _ if self.work.cache.is_full() => true,
            None => false,
            Some(since)
                if self.walk.is_some()
                    || self.progress.is_backlogged()
                    || !self.feed.is_empty() =>
            {
                now.saturating_sub(since) >= self.work.settings.flush_interval
            }
            Some(_) => true,
        };
        if due || self.checkpoint_due(now).is_some() {
            self.start_flush(now);
        }
        if self.work.flush.is_none() && self.work.changed_at.is_none() {
            // Nothing to write: what has been folded was replays, or other collections' events.
            self.progress.flushed(self.progress.folded.clone());
        }
    }

    fn checkpoint_due(&self, now: Duration) -> Option<Position> {
        let Settings { checkpoint_interval, idle_checkpoint_interval, .. } = self.work.settings;
        let idle = self.work.changed_at.is_none();
        let interval = if idle { idle_checkpoint_interval } else { checkpoint_interval };
        self.progress.due(now, interval).filter(|_| self.walk.is_none())
    }

    fn start_flush(&mut self, now: Duration) {
        let position = self.checkpoint_due(now);
        self.covers = self.progress.folded.clone();
        self.work.start_flush(position.map(|position| self.checkpoint(position)));
    }

    fn checkpoint(&self, position: Position) -> Checkpoint {
        Checkpoint { position, log: self.log, epoch: self.work.settings.epoch }
    }

    fn tell(&mut self) {
        self.tell_overdue_gap();
        let lag = match self.walk {
            None => self.progress.lag_seconds(self.work.time.now()),
            Some(_) => None,
        };
        let caught_up = lag == Some(0.0) && self.progress.is_flushed() && self.feed.is_empty();
        self.work.observer.lag(lag, caught_up.then_some(0));
    }

    fn tell_overdue_gap(&mut self) {
        let Work { waiting, time, settings, observer, .. } = &self.work;
        let Some(row) = waiting.oldest_hole() else { return };
        let age = time.wall().saturating_duration_since(row.since);
        let hole = (row.document.clone(), row.mark.version);
        if age >= settings.gap_grace && self.overdue.as_ref() != Some(&hole) {
            observer.overdue_gap(row, age);
            self.overdue = Some(hole);
        }
    }

    fn pause(&self) -> Duration {
        match self.work.changed_at {
            Some(_) if self.work.flush.is_none() => self.work.settings.flush_interval.min(TICK),
            _ => TICK,
        }
    }

    /// Writes everything that has been folded, saves the checkpoint, and is done. What still waits in the
    /// feed is left: it comes again.
    async fn drain(mut self) -> Result<()> {
        self.feed.close();
        loop {
            if let Some(flushed) = self.work.flushed.take() {
                self.settle(flushed?).await?;
            } else if let Some(flush) = self.work.flush.take() {
                self.settle(flush.await?).await?;
            } else {
                let last = self.work.changed_at.is_none();
                self.covers = self.progress.folded.clone();
                let unsaved = self.progress.due(Duration::MAX, Duration::ZERO);
                let unsaved = unsaved.filter(|_| self.walk.is_none()).map(|at| self.checkpoint(at));
                self.work.start_flush(unsaved);
                if last && self.work.flush.is_none() {
                    return Ok(());
                }
            }
        }
    }
}

async fn pending<V>(future: &mut Option<futures::future::BoxFuture<'static, V>>) -> V {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn next_scanned<L: EventLog>(walk: &mut Option<Walk<L>>, log: &L) -> Result<Option<Batch>> {
    match walk {
        Some(walk) => walk.next(log).await,
        None => std::future::pending().await,
    }
}

fn gone(events: &str) -> Error {
    Error::stop(
        format!("the log `{events}` was dropped, renamed or replaced while it was being followed"),
        "the documents stay as they are; bring the log back, and the projection goes on by itself",
    )
}
