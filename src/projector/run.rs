//! The loop of one projection, from its beginning until it is stopped or has to begin again.

use std::{sync::Arc, time::Duration};

use bson::Timestamp;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    Projector,
    backlog::Looks,
    begin::{Begin, fenced},
    cache::Cache,
    feed::{self, Feed, Subscribe},
    flush::{CheckpointOutcome, Flushed, returned},
    observe::Counts,
    progress::Progress,
    review::records,
    revisit::{Askers, Revisit},
    scan::Walk,
    waiting::Waiting,
    window::Ended,
    work::{Arrival, Work},
};
use crate::{
    database::{Error, Result, Verdict},
    health::beating,
    log::{Batch, EventLog, LogSource, TailBatch, TailItem, events_collection},
    model::{event::EventKey, id::DocumentId, part::Part, position::Position},
    planted::{Bug, planted},
    retry::limited,
    status::Phase,
    store::Store,
    time::Time,
};

/// How many bytes of events are folded before it is looked whether a flush is due.
const CHUNK_BYTES: usize = 1 << 20;

/// Events of one batch that are folded together.
struct Chunk<'a> {
    arrivals: Vec<Arrival<'a>>,
    bytes: usize,
    events_max: usize,
    /// The document that was last looked at, and whether the part holds it: a scan brings one after the other,
    /// and finding out takes longer than reading an event.
    looked_at: Option<(DocumentId, bool)>,
}

impl<'a> Chunk<'a> {
    fn new(events_max: usize) -> Self {
        Self { arrivals: Vec::new(), bytes: 0, events_max, looked_at: None }
    }

    fn push(&mut self, arrival: Arrival<'a>) {
        self.bytes += arrival.event.as_bytes().len();
        self.arrivals.push(arrival);
    }

    fn is_held(&mut self, part: Part, document: &DocumentId) -> bool {
        match &self.looked_at {
            _ if part == Part::WHOLE => true,
            Some((known, held)) if known == document => *held,
            _ => {
                let held = part.holds(document);
                self.looked_at = Some((document.clone(), held));
                held
            }
        }
    }

    fn is_full(&self) -> bool {
        self.arrivals.len() >= self.events_max || self.bytes >= CHUNK_BYTES
    }

    fn take(&mut self) -> Vec<Arrival<'a>> {
        self.bytes = 0;
        let room = self.arrivals.len();
        std::mem::replace(&mut self.arrivals, Vec::with_capacity(room))
    }
}

/// A projection under way.
pub(super) struct Run<S: LogSource, D: Store, T: Time> {
    pub(super) source: S,
    pub(super) collection: String,
    pub(super) work: Work<S::Log, D, T>,
    pub(super) progress: Progress,
    pub(super) walk: Option<Walk<S::Log, D>>,
    pub(super) feed: mpsc::Receiver<Feed>,
    pub(super) events: String,
    pub(super) epoch: i64,
    /// What a scan has seen need not be taken from the stream again.
    ignore_before: Option<Timestamp>,
    /// What the flush under way covers.
    pub(super) covers: Option<Position>,
    /// The overdue hole that was last told of.
    pub(super) overdue: Option<(DocumentId, i64)>,
    pub(super) review_at: Duration,
    pub(super) looks: Looks,
    /// The last parked document that was looked at, if there are more.
    pub(super) reviewed: Option<DocumentId>,
    revisits: OwnedMutexGuard<mpsc::Receiver<Revisit>>,
    pub(super) askers: Askers,
}

/// What the loop met.
enum Met {
    Flushed(Result<Flushed>),
    Stop,
    Asked(Revisit),
    Scanned(Result<Option<Batch>>),
    Fed(Option<Feed>),
    Tick,
}

impl<S: LogSource, D: Store, T: Time> Run<S, D, T> {
    /// Decides where to begin, subscribes there, and looks again at every document behind a hole.
    ///
    /// # Errors
    /// When the database is away, or going on would be wrong.
    pub(super) async fn begin(projector: &Projector<S, D, T>, epoch: i64) -> Result<Self> {
        let Projector { collection, part, source, store, time, settings, observer, .. } = projector;
        let limit = settings.backoff.attempt_limit;
        let decide = Begin::decide(source, store, (collection, *part), settings.backlog);
        let begin = limited(time, limit, decide).await?;
        observer.turned(time);
        let waiting = Waiting::new(limited(time, limit, records(store)).await?);
        observer.turned(time);
        let (sender, feed) = feed::channel();
        let request = Subscribe {
            collection: collection.clone(),
            part: *part,
            start: begin.start(),
            feed: sender,
        };
        beating(observer.heart(), time, projector.subscribe.send(request))
            .await
            .map_err(|_| Error::unreachable("the change stream has ended"))?;
        let mut work = Work {
            log: begin.log,
            part: *part,
            store: store.clone(),
            time: time.clone(),
            settings: *settings,
            observer: observer.clone(),
            cache: Cache::new(settings.cache_bytes),
            doubtful: Default::default(),
            skips: limited(time, limit, store.load_skips()).await?,
            discards: limited(time, limit, store.discards()).await?,
            discarded: limited(time, limit, store.load_discarded()).await?,
            has_read: false,
            waiting,
            counts: Counts::default(),
            offered: 0,
            changed_at: None,
            oldest: None,
            seen: begin.at,
            flush: None,
            flushed: None,
        };
        work.look_behind_holes().await?;
        let parked = work.waiting.parked(None, usize::MAX);
        work.look_at_parked(&parked).await?;
        observer.resumed(&work.waiting.classes());
        let walk = begin.resume.is_none().then(|| Walk::new(begin.at, begin.extent));
        observer.phase(if walk.is_some() { Phase::Scanning } else { Phase::Tailing });
        Ok(Self {
            source: source.clone(),
            collection: collection.clone(),
            work,
            progress: Progress::new(begin.resume, begin.passed_events),
            ignore_before: walk.as_ref().map(|walk| walk.at),
            walk,
            feed,
            events: events_collection(collection),
            epoch,
            covers: None,
            overdue: None,
            reviewed: None,
            review_at: Self::first_review(time.now()),
            looks: Looks::new(time.now()),
            revisits: projector.revisits.clone().lock_owned().await,
            askers: Askers::default(),
        })
    }

    /// Projects until `stop`, or until a scan is quicker, then drains.
    ///
    /// # Errors
    /// When it has to begin again, or not at all.
    pub(super) async fn follow(mut self, stop: &CancellationToken) -> Result<Ended> {
        loop {
            self.work.observer.heart().beat(self.work.time.now());
            match self.meet(stop).await {
                Met::Flushed(flushed) => self.settle(flushed?).await?,
                Met::Stop => return self.drain(Ended::Stopped).await,
                Met::Asked(revisit) => self.revisit(revisit).await?,
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
            self.review_if_due().await?;
            if self.is_left_behind().await {
                return self.drain(Ended::LeftBehind).await;
            }
            self.tell();
        }
    }

    /// Waits for the next thing to do.
    async fn meet(&mut self, stop: &CancellationToken) -> Met {
        if let Some(flushed) = self.work.flushed.take() {
            return Met::Flushed(flushed);
        }
        let (pause, room) = (self.pause(), !self.is_full());
        let Self { work, walk, feed, revisits, .. } = self;
        let (log, time, backoff) = (work.log.clone(), work.time.clone(), work.settings.backoff);
        tokio::select! {
            biased;
            // 1. A flush that has returned frees memory and moves the checkpoint.
            flushed = returned(&mut work.flush) => {
                work.flush = None;
                Met::Flushed(flushed)
            }
            // 2. Stopping goes before more work.
            () = stop.cancelled() => Met::Stop,
            // 3. What an operator asks for is little, and somebody waits for it.
            Some(revisit) = revisits.recv(), if room => Met::Asked(revisit),
            // 4. Catching up goes before news, which may depend on it.
            batch = next_scanned(walk, &log, (&time, backoff.attempt_limit)), if room => Met::Scanned(batch),
            // 5. News, when there is room for it: not reading is what slows the stream down.
            fed = feed.recv(), if room => Met::Fed(fed),
            // 6. Time.
            () = time.sleep(pause) => Met::Tick,
        }
    }

    pub(super) async fn settle(&mut self, flushed: Flushed) -> Result<()> {
        let all_written = flushed.all_written();
        match self.work.settle(flushed).await? {
            CheckpointOutcome::Saved(Some(position)) => {
                self.progress.saved(position, self.work.time.now());
            }
            CheckpointOutcome::Saved(None) | CheckpointOutcome::NotSaved => {}
            CheckpointOutcome::Fenced => return Err(fenced()),
        }
        if all_written {
            self.progress.flushed(self.covers.take());
        }
        self.askers.flushed();
        Ok(())
    }

    /// The walk stays where it is until it is over: no checkpoint may be saved before.
    async fn scanned(&mut self, batch: Result<Option<Batch>>) -> Result<()> {
        match batch {
            Ok(Some(batch)) => {
                self.work.has_seen(batch.read_at());
                let mut chunk = Chunk::new(self.work.settings.chunk_events);
                for event in batch.documents()? {
                    self.arrive(&mut chunk, event?);
                    if chunk.is_full() {
                        self.fold_scanned(chunk.take()).await?;
                        self.make_room().await?;
                    }
                }
                self.fold_scanned(chunk.take()).await
            }
            Ok(None) => {
                let Some(walk) = self.walk.take() else { return Ok(()) };
                self.work.finish_scan(walk).await?;
                info!(collection = self.work.observer.collection(), "the scan of the log is over");
                self.work.observer.phase(Phase::Tailing);
                Ok(())
            }
            Err(error) if error.verdict() == Verdict::Retry => {
                self.work.observer.error(&error);
                self.work.time.sleep(self.work.settings.backoff.shortest).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn fold_scanned(&mut self, chunk: Vec<Arrival<'_>>) -> Result<()> {
        match &mut self.walk {
            Some(walk) => self.work.fold_scanned(walk, chunk).await,
            None => Ok(()),
        }
    }

    pub(super) async fn fed(&mut self, feed: Feed) -> Result<()> {
        match feed {
            Feed::Batch(batch) => self.fold_changes(&batch).await,
            Feed::Lost { .. } if planted(Bug::LostHistoryIgnored) => Ok(()),
            Feed::Lost { at } => {
                // That the log was replaced may be among what was lost, and then its events come from `at` on.
                self.find_log_again(at).await?;
                self.ignore_before = Some(at);
                Ok(())
            }
            Feed::Failed(error) => Err(error),
        }
    }

    async fn fold_changes(&mut self, batch: &Arc<TailBatch>) -> Result<()> {
        self.work.has_seen(Some(batch.position.cluster_time));
        let events = self.events.clone();
        let (mut chunk, mut passed) = (Chunk::new(self.work.settings.chunk_events), 0);
        for change in batch.changes.documents()? {
            match TailItem::decode(change?, |name| name == events)? {
                TailItem::Event { events: name, event, cluster_time, wall_time }
                    if name == events =>
                {
                    if self.ignore_before.is_some_and(|time| cluster_time < time) {
                        continue;
                    }
                    passed += 1;
                    self.work.oldest = self.work.oldest.or(wall_time);
                    self.arrive(&mut chunk, event);
                }
                TailItem::Bodiless { events: name, key } if name == events => {
                    self.work.fold(&chunk.take()).await?;
                    self.fetch(EventKey::from_raw(key)).await?;
                    passed += 1;
                }
                item if item.moves(&events) => {
                    self.work.fold(&chunk.take()).await?;
                    self.find_log_again(batch.position.cluster_time).await?;
                }
                _ => {}
            }
            if chunk.is_full() {
                self.work.fold(&chunk.take()).await?;
                self.make_room().await?;
            }
        }
        self.work.fold(&chunk.take()).await?;
        self.progress.folded(batch, passed, self.work.time.now());
        Ok(())
    }

    fn arrive<'a>(&self, chunk: &mut Chunk<'a>, event: &'a bson::RawDocument) {
        let near = chunk.arrivals.last().map(|arrival| &arrival.key.document);
        match EventKey::from_event_near(event, near) {
            Ok(key) if chunk.is_held(self.work.part, &key.document) => {
                chunk.push(Arrival { key, event });
            }
            Ok(_) => {}
            Err(error) => self.work.observer.homeless_event(&error.to_string()),
        }
    }
}

async fn next_scanned<L: EventLog, D: Store>(
    walk: &mut Option<Walk<L, D>>,
    log: &L,
    within: (&impl Time, Duration),
) -> Result<Option<Batch>> {
    match walk {
        Some(walk) => walk.next(log, within).await,
        None => std::future::pending().await,
    }
}
