//! The loop of one projection, from its beginning until it is stopped or has to begin again. It decides nothing by itself:
//! what came is handed on, and when something is due is asked.

mod folding;

use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Projector,
    ask::Ask,
    commits::Commits,
    documents::{
        Documents,
        memory::{Arrival, Memory},
        refused,
        remake::row_taken_away,
        review::{Review, note_parked},
    },
    flush::Flushed,
    intake::{
        Came, Intake,
        backlog::{Looks, Stands},
        begin::Begin,
        chunk::Chunks,
    },
    revisit::{How, Revisit},
};
use crate::{
    database::{Error, Result, Verdict},
    health::beating,
    log::{Batch, EventLog, LogSource, TailBatch, TailItem, events_collection},
    model::event::EventKey,
    observe::Observer,
    planted::{Bug, planted},
    retry::limited,
    store::Store,
    stream::{self, Feed, Subscribe},
    time::Time,
};

/// How often the lag is told and a checkpoint considered, at least.
const TICK: Duration = Duration::from_secs(1);

/// A projection under way.
pub(super) struct Run<'p, S: LogSource, D: Store, T: Time> {
    projector: &'p Projector<S, D, T>,
    documents: Documents<S::Log, D, T>,
    intake: Intake<S::Log, D>,
    commits: Commits,
    review: Review,
    looks: Looks,
    revisits: OwnedMutexGuard<mpsc::Receiver<Revisit>>,
}

/// Why a run has ended in order, with everything written that it had folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// The writers have left it so far behind that a scan is quicker.
    LeftBehind,
}

/// What the loop met.
enum Met {
    Flushed(Result<Flushed>),
    Stop,
    Asked(Revisit),
    Came(Came),
    Recheck,
    Tick,
}

impl<'p, S: LogSource, D: Store, T: Time> Run<'p, S, D, T> {
    /// Decides where to begin and subscribes there. Every document that waits is to be looked at again.
    ///
    /// # Errors
    /// When the database is away, or going on would be wrong.
    pub(super) async fn begin(projector: &'p Projector<S, D, T>, epoch: i64) -> Result<Self> {
        let Projector { collection, part, source, store, time, settings, observer, .. } = projector;
        let limit = settings.backoff.attempt_limit;
        let decide = Begin::decide(source, store, (collection, *part), settings.backlog);
        let begin = limited(time, limit, decide).await?;
        observer.turned(time);
        let start = begin.start();
        let (handles, how) = ((begin.log, store.clone()), (time.clone(), settings.backoff));
        let mut ask = Ask::new(handles, how, observer.clone(), begin.at);
        let recorded = (ask.records().await?, ask.skips().await?);
        let (feed, fed) = stream::channel();
        let request = Subscribe { collection: collection.clone(), part: *part, start, feed };
        beating(observer.heart(), time, projector.subscribe.send(request))
            .await
            .map_err(|_| Error::unreachable("the change stream has ended"))?;
        let bounds = (settings.cache_bytes, settings.limits);
        let memory = Memory::new(recorded, bounds, (time.clone(), observer.clone()));
        observer.resumed(&memory.waiting.classes());
        let mut documents = Documents {
            ask,
            memory,
            part: *part,
            snapshot_events: settings.snapshot_events,
            mark_events: settings.mark_events,
            tries: refused::Tries::default(),
            askers: Vec::new(),
        };
        documents.look_at_gaps();
        documents.learn_refused();
        note_parked(&mut documents, None, usize::MAX);
        let scan = begin.resume.is_none().then_some((begin.at, begin.extent));
        let chunks =
            Chunks { part: *part, events_max: settings.chunk_events, observer: observer.clone() };
        Ok(Self {
            projector,
            documents,
            intake: Intake::new(fed, scan, (events_collection(collection), chunks)),
            commits: Commits::new((begin.resume, begin.passed_events), epoch, *settings),
            review: Review::new(time.now()),
            looks: Looks::new(time.now()),
            revisits: projector.revisits.clone().lock_owned().await,
        })
    }

    /// Projects until `stop`, or until a scan is quicker, then drains.
    ///
    /// # Errors
    /// When it has to begin again, or not at all.
    pub(super) async fn follow(mut self, stop: &CancellationToken) -> Result<Ended> {
        loop {
            self.observer().heart().beat(self.projector.time.now());
            match self.meet(stop).await {
                Met::Flushed(flushed) => self.settle(flushed?).await?,
                Met::Stop => return self.drain(Ended::Stopped).await,
                Met::Asked(revisit) => self.asked(revisit),
                Met::Came(Came::Scanned(batch)) => {
                    self.scanned(batch).await?;
                    if let Some(fed) = self.intake.fed_meanwhile() {
                        self.fed(fed).await?;
                    }
                }
                Met::Came(Came::Fed(Some(fed))) => self.fed(fed).await?,
                Met::Came(Came::Fed(None)) => {
                    return Err(Error::unreachable("the change stream has ended"));
                }
                Met::Recheck | Met::Tick => {}
            }
            self.documents.recheck_some().await?;
            refused::try_again(&mut self.documents).await?;
            self.flush_if_due();
            if !self.intake.is_scanning() && self.review.is_due(self.projector.time.now()) {
                self.review.run(&mut self.documents).await?;
            }
            if self.is_left_behind().await {
                return self.drain(Ended::LeftBehind).await;
            }
            self.tell();
        }
    }

    /// Waits for the next thing to do.
    async fn meet(&mut self, stop: &CancellationToken) -> Met {
        let has_room = !self.is_full();
        let pause = match self.documents.memory.changed_at() {
            Some(_) if self.documents.ask.flushing.is_idle() => {
                self.projector.settings.flush_interval.min(TICK)
            }
            _ => TICK,
        };
        let can_recheck = self.documents.can_recheck();
        let Self { projector, documents, intake, revisits, .. } = self;
        let Ask { flushing, log, time, backoff, .. } = &mut documents.ask;
        tokio::select! {
            biased;
            // 1. A flush that has returned frees memory and moves the checkpoint.
            flushed = flushing.returned() => Met::Flushed(flushed),
            // 2. Stopping goes before more work.
            () = stop.cancelled() => Met::Stop,
            // 3. What an operator asks for is little, and somebody waits for it.
            Some(revisit) = revisits.recv(), if has_room => Met::Asked(revisit),
            // 4. The scan and the stream, when there is room for it: not reading is what slows the stream down.
            came = intake.next(log, (&*time, backoff.attempt_limit)), if has_room => Met::Came(came),
            // 5. Documents that wait are looked at when there is nothing else to do.
            () = std::future::ready(()), if can_recheck => Met::Recheck,
            // 6. Time.
            () = projector.time.sleep(pause) => Met::Tick,
        }
    }

    /// Those that came with the first are looked at together with it.
    fn asked(&mut self, first: Revisit) {
        let mut next = Some(first);
        while let Some(Revisit { document, how, done }) = next {
            let rechecks = &mut self.documents.memory.rechecks;
            match how {
                _ if !self.projector.part.holds(&document) => self.documents.askers.push(done),
                How::OnItsRow => rechecks.asked(&document, done),
                How::FromItsLog(folded) => rechecks.differs(&document, folded, done),
            }
            next = self.revisits.try_recv().ok();
        }
    }

    /// The walk stays where it is until it is over: no checkpoint may be saved before.
    async fn scanned(&mut self, batch: Result<Option<Batch>>) -> Result<()> {
        match batch {
            Ok(Some(batch)) => {
                self.documents.ask.has_seen(batch.read_at());
                let chunks = self.intake.chunks.clone();
                let mut chunk = chunks.chunk();
                for event in batch.documents()? {
                    chunk.push(event?, false);
                    if chunk.is_full() {
                        self.fold_scanned(chunk.take()).await?;
                        self.make_room().await?;
                    }
                }
                self.fold_scanned(chunk.take()).await?;
                self.documents.tell_suspects();
                self.documents.recheck_urgent().await
            }
            Ok(None) => self.intake.end_scan(&mut self.documents).await,
            Err(error) if error.verdict() == Verdict::Retry => {
                self.observer().error(&error);
                self.projector.time.sleep(self.projector.settings.backoff.shortest).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn fed(&mut self, feed: Feed) -> Result<()> {
        match feed {
            Feed::Batch(batch) => self.fold_changes(&batch).await,
            Feed::Lost { .. } if planted(Bug::LostHistoryIgnored) => Ok(()),
            Feed::Lost { at } => {
                // That the log was replaced may be among what was lost, and that rows were taken away.
                self.find_log_again().await?;
                self.forget().await?;
                self.intake.lost(at);
                Ok(())
            }
            Feed::Failed(error) => Err(error),
        }
    }

    /// What is in memory is not believed any more: the rows may not be those that were read. What is yet to be written
    /// stays, since records of what waits go with it.
    async fn forget(&mut self) -> Result<()> {
        if !self.documents.ask.flushing.is_idle() {
            let flushed = self.documents.ask.flushing.returned().await?;
            self.settle(flushed).await?;
        }
        self.documents.memory.cache.forget_unchanged();
        Ok(())
    }

    /// The log was taken away, or may have been: it has to be there again under its name.
    async fn find_log_again(&mut self) -> Result<()> {
        let Projector { source, collection, time, settings, .. } = self.projector;
        let found = limited(time, settings.backoff.attempt_limit, source.open(collection)).await?;
        if found.is_some_and(|found| found.id() == self.documents.ask.log.id()) {
            tracing::info!(collection, "the log is looked through again");
            return Ok(());
        }
        Err(Error::log_mismatch(&self.intake.events, self.documents.ask.log.id()))
    }

    /// Between two chunks of one batch: flushes if that is due, and waits for it if memory is short.
    async fn make_room(&mut self) -> Result<()> {
        self.documents.ask.flushing.advance().await;
        if let Some(flushed) = self.documents.ask.flushing.take() {
            self.settle(flushed?).await?;
        }
        self.flush_if_due();
        while self.is_full() && !self.documents.ask.flushing.is_idle() {
            let flushed = self.documents.ask.flushing.returned().await?;
            self.settle(flushed).await?;
            self.flush_if_due();
        }
        Ok(())
    }

    async fn settle(&mut self, flushed: Flushed) -> Result<()> {
        self.commits.settle(&mut self.documents, flushed).await
    }

    fn flush_if_due(&mut self) {
        let coming = self.intake.coming();
        self.commits.flush_if_due(&mut self.documents, coming);
    }

    fn is_full(&self) -> bool {
        self.commits.is_full(&self.documents, self.intake.coming())
    }

    async fn is_left_behind(&mut self) -> bool {
        let stands = self.stands();
        let Self { looks, documents, commits, projector, .. } = self;
        looks
            .are_left_behind(documents, &mut commits.progress, (stands, projector.settings.backlog))
            .await
    }

    fn stands(&self) -> Stands {
        let (coming, now) = (self.intake.coming(), self.projector.time.now());
        Stands {
            is_scanning: coming.is_scanning,
            is_level: self.commits.is_level(coming, now),
            lag_seconds: self.commits.lag_seconds(coming, now),
        }
    }

    fn tell(&mut self) {
        self.review.tell_oldest_gap(&self.documents, self.projector.settings.gap_grace);
        let Stands { lag_seconds, is_level, .. } = self.stands();
        self.observer().lag(lag_seconds, is_level.then_some(0));
    }

    fn observer(&self) -> &Observer {
        &self.projector.observer
    }

    /// Writes everything that has been folded, saves the checkpoint, and is done. What still waits in the
    /// feed is left: it comes again.
    async fn drain(mut self, why: Ended) -> Result<Ended> {
        self.intake.close();
        loop {
            if !self.documents.ask.flushing.is_idle() {
                let flushed = self.documents.ask.flushing.returned().await?;
                self.settle(flushed).await?;
            }
            self.documents.recheck_urgent().await?;
            if self.commits.flush_rest(&mut self.documents, self.intake.coming()) {
                return Ok(why);
            }
        }
    }
}
