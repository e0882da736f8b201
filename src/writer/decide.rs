//! Optimistic concurrency, without types: decide on a document, append the event, and decide again when
//! another writer was quicker. A document in the cache may be out of date. The append finds that out.
//! Whatever does not end in an append is decided on a document that was just read.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use bson::RawDocument;
use mongodb::Database;
use quick_cache::{Weighter, sync::Cache};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    WriterOptions,
    error::{Result, WriteError},
};
use crate::{
    database::code,
    log::{
        self,
        append::{AppendError, Appender, Row},
        mongo::KnownLog,
    },
    model::{
        document::{Body, Class, Document, FoldLimits, Outcome},
        event::EventKey,
        id::DocumentId,
        new_event::NewEvent,
        position::LogId,
        skip::FILLER_CLIENT,
        state::State,
    },
    read::{ReadLimits, Reader},
    time::{SystemTime, Time},
};

/// What a cached document is taken to weigh at least, to size the cache's tables, in bytes.
const TYPICAL_BYTES: u64 = 1_024;

/// How many callers of different documents may go on at once without ever waiting for each other.
const QUEUES: usize = 1_024;

/// How often a document is read whose log is being replaced.
const LOOKS_MAX: usize = 3;

/// What to do with a document: append an event, or nothing. `outcome` is the caller's, and is returned
/// once that is done.
pub(super) struct Decision<R> {
    event: Option<NewEvent>,
    outcome: R,
}

impl<R> Decision<R> {
    pub(super) fn append(event: NewEvent, outcome: R) -> Self {
        Self { event: Some(event), outcome }
    }

    pub(super) fn leave(outcome: R) -> Self {
        Self { event: None, outcome }
    }
}

/// How long a document is remembered: the place after an older one may be free again, because it was compacted.
const REMEMBERED_MAX: Duration = Duration::from_secs(3_600);

/// The writer of one collection, without its type.
pub(super) struct Decider {
    pub(super) reader: Reader,
    database: Database,
    /// Appends to the log that was there when it was last looked up.
    appender: std::sync::Mutex<Option<Appender>>,
    /// Each with the log that it is of, and when it was read or appended to.
    cache: Cache<DocumentId, (LogId, Arc<Document>, Duration), Bytes>,
    queues: Queues,
    time: SystemTime,
    options: WriterOptions,
}

impl Decider {
    pub(super) fn new(database: &Database, collection: &str, options: WriterOptions) -> Self {
        let limits = ReadLimits { fold: options.limits, ..ReadLimits::default() };
        let items = usize::try_from(options.cache_bytes / TYPICAL_BYTES).unwrap_or(usize::MAX);
        Self {
            reader: Reader::new(database, collection, limits),
            database: database.clone(),
            appender: std::sync::Mutex::default(),
            cache: Cache::with_weighter(items.max(1), options.cache_bytes, Bytes),
            queues: Queues::new(),
            time: SystemTime::new(),
            options,
        }
    }

    /// Decides on document `id` and appends, again and again until it succeeds or the options end it.
    /// `guess` is the document to decide on first if the cache has none; without it the document is
    /// read.
    pub(super) async fn decide<R>(
        &self,
        id: &DocumentId,
        guess: Option<Document>,
        mut decide: impl FnMut(&Document) -> Result<Decision<R>>,
    ) -> Result<(Arc<Document>, R)> {
        // What is remembered was read long ago.
        self.reader.check_format().await?;
        let mut appender = self.appender().await?;
        let _turn = self.queues.turn(id).await;
        let remembered = self.cache.get(id).filter(|(log, _, since)| {
            *log == appender.log() && self.time.now().saturating_sub(*since) < REMEMBERED_MAX
        });
        let remembered = remembered.map(|(_, document, _)| document);
        let mut guess = remembered.or_else(|| guess.map(Arc::new));
        let mut pauses = self.pauses();
        let mut attempts = 0;
        loop {
            let (base, fresh) = match guess.take() {
                Some(guess) => (guess, false),
                None => {
                    let (base, to) = self.base(id).await?;
                    appender = to;
                    (base, true)
                }
            };
            let (next, row, outcome) = match self.prepare(&base, decide(&base)) {
                Ok((Some((next, row)), outcome)) => (next, row, outcome),
                Ok((None, outcome)) if fresh => return Ok((base, outcome)),
                Err(error) if fresh => return Err(error),
                Ok((None, _)) | Err(_) => continue,
            };
            attempts += 1;
            match appender.insert_rows(id, &[row]).await {
                Ok(1) => {
                    let next = Arc::new(next);
                    let entry = (appender.log(), next.clone(), self.time.now());
                    self.cache.insert(id.clone(), entry);
                    return Ok((next, outcome));
                }
                Ok(_) => {}
                // Nothing was appended: the version is decided on anew, by the log that is there now.
                Err(AppendError::Database(error)) if error.code() == Some(code::LOG_MISMATCH) => {
                    self.forget(&appender);
                    appender = self.appender().await?;
                }
                Err(error) => return Err(error.into()),
            }
            self.cache.remove(id);
            match pauses.next() {
                Some(_) if !fresh => {}
                Some(pause) => self.time.sleep(pause).await,
                None => return Err(WriteError::Conflict { id: id.clone(), attempts }),
            }
        }
    }

    /// The document with every event that the majority holds, and the log that they are in, if there are any.
    pub(super) async fn load(&self, id: &DocumentId) -> Result<(Arc<Document>, Option<LogId>)> {
        let Some(current) = self.reader.current(id).await? else {
            return Ok((Arc::new(log::history::start(id)), None));
        };
        match current.waits {
            None => Ok((Arc::new(current.document), Some(current.log))),
            // An event of ours in the gap would take the place of the one that is on its way.
            Some(mark) if mark.class == Class::Gap => {
                Err(WriteError::Gap { id: id.clone(), version: mark.version })
            }
            Some(mark) => Err(WriteError::Parked { id: id.clone(), mark }),
        }
    }

    /// The document as it is, and what appends to the log that it was read from.
    async fn base(&self, id: &DocumentId) -> Result<(Arc<Document>, Appender)> {
        for _ in 0..LOOKS_MAX {
            let appender = self.appender().await?;
            let (document, log) = self.load(id).await?;
            if log.is_none_or(|log| log == appender.log()) {
                return Ok((document, appender));
            }
            self.forget(&appender);
        }
        Err(WriteError::Conflict { id: id.clone(), attempts: LOOKS_MAX })
    }

    /// Appends to the log that was found last, or to the one that is there.
    async fn appender(&self) -> Result<Appender> {
        let known = self.known().clone();
        if let Some(appender) = known {
            return Ok(appender);
        }
        let look = KnownLog::new(&self.database, self.reader.collection());
        let Some(log) = look.get().await? else {
            let database = self.database.name().to_owned();
            return Err(WriteError::NoLog { log: look.events(), database });
        };
        let appender = Appender::new(log, self.options.append);
        *self.known() = Some(appender.clone());
        Ok(appender)
    }

    /// The log of this appender is not there any more.
    fn forget(&self, appender: &Appender) {
        self.known().take_if(|known| known.log() == appender.log());
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Appender>> {
        self.appender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes what was decided and folds it, so that what would park the document is never appended.
    fn prepare<R>(
        &self,
        base: &Document,
        decision: Result<Decision<R>>,
    ) -> Result<(Option<(Document, Row)>, R)> {
        let Decision { event, outcome } = decision?;
        let Some(mut event) = event else { return Ok((None, outcome)) };
        if event.client == FILLER_CLIENT {
            return Err(WriteError::ReservedClient);
        }
        if (1..=self.options.seen_clients_max).contains(&base.clock.clients()) {
            event.seen = Some(base.clock.clone());
        }
        let row = Row::new(&base.id, base.version + 1, event);
        let next = fold(base, row.event(), &self.options.limits)?;
        Ok((Some((next, row)), outcome))
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(2))
            .with_max_delay(Duration::from_millis(250))
            .with_max_times(self.options.attempts.saturating_sub(1))
            .with_jitter()
            .with_jitter_seed(fastrand::u64(..))
            .build()
    }
}

/// The document after `event`, in the same fold as the projection's.
fn fold(base: &Document, event: &RawDocument, limits: &FoldLimits) -> Result<Document> {
    let unfit = |reason: String| WriteError::Unfit { reason };
    let key = EventKey { document: base.id.clone(), version: base.version + 1 };
    let mut next = base.clone();
    match next.offer(&key, event, false, limits) {
        Outcome::Applied(_) => {}
        Outcome::Poison(mark) => return Err(unfit(mark.reason)),
        // The event was given the next version of this very document.
        other => return Err(unfit(format!("{other:?}"))),
    }
    if let Body::Live(state) = &next.body {
        // As bytes again: a tree that is edited and kept would grow with every event.
        let state = State::from_raw(&state.to_raw()).map_err(|error| unfit(error.to_string()))?;
        next.body = Body::Live(state);
    }
    Ok(next)
}

/// Weighs cached documents.
#[derive(Clone)]
struct Bytes;

impl Weighter<DocumentId, (LogId, Arc<Document>, Duration)> for Bytes {
    fn weight(&self, id: &DocumentId, (_, document, _): &(LogId, Arc<Document>, Duration)) -> u64 {
        (id.heap_bytes() + document.heap_bytes()) as u64
    }
}

/// Callers of the same document in this process go one after the other: racing each other to the
/// server would cost a read for every loser.
struct Queues {
    hasher: RandomState,
    queues: Box<[Mutex<()>]>,
}

impl Queues {
    fn new() -> Self {
        let queues = std::iter::repeat_with(Mutex::default).take(QUEUES).collect();
        Self { hasher: RandomState::new(), queues }
    }

    async fn turn(&self, id: &DocumentId) -> MutexGuard<'_, ()> {
        let queue = self.hasher.hash_one(id) as usize % self.queues.len();
        self.queues[queue].lock().await
    }
}
