//! Optimistic concurrency, apart from types: decide on a document, append what was decided, and decide
//! again where somebody else was quicker. A remembered document is only a guess. It is proven by the
//! append itself, and whatever does not end in an append is decided on a document that was just read.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use bson::{RawDocument, doc};
use mongodb::Database;
use quick_cache::{Weighter, sync::Cache};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use super::{
    WriterOptions,
    error::{Result, WriteError},
};
use crate::{
    database,
    log::{
        append::{Appender, Row},
        events_collection,
    },
    model::{
        document::{Body, Class, Document, FoldLimits, Outcome},
        event::EventKey,
        id::DocumentId,
        new_event::NewEvent,
        state::State,
    },
    read::{ReadLimits, Reader},
    time::{SystemTime, Time},
};

/// What a cached document is taken to weigh at least, to size the cache's tables, in bytes.
const TYPICAL_BYTES: u64 = 1_024;

/// How many callers of different documents may go on at once without ever waiting for each other.
const QUEUES: usize = 1_024;

/// What to do with a document: append an event or leave it as it is. The outcome is the caller's, given
/// back when that has been done.
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

/// The writer of one collection, without its type.
pub(super) struct Decider {
    pub(super) reader: Reader,
    database: Database,
    log_exists: OnceCell<()>,
    appender: Appender,
    cache: Cache<DocumentId, Arc<Document>, Bytes>,
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
            log_exists: OnceCell::new(),
            appender: Appender::new(database, collection, options.append),
            cache: Cache::with_weighter(items.max(1), options.cache_bytes, Bytes),
            queues: Queues::new(),
            time: SystemTime::new(),
            options,
        }
    }

    /// Decides on document `id` and appends, as often as it takes and the options allow. `guess` is
    /// what to decide on first when nothing is remembered; without it the document is read.
    pub(super) async fn decide<R>(
        &self,
        id: &DocumentId,
        guess: Option<Document>,
        mut decide: impl FnMut(&Document) -> Result<Decision<R>>,
    ) -> Result<(Arc<Document>, R)> {
        self.log_exists.get_or_try_init(|| self.check_log()).await?;
        let _turn = self.queues.turn(id).await;
        let mut guess = self.cache.get(id).or_else(|| guess.map(Arc::new));
        let mut pauses = self.pauses();
        let mut attempts = 0;
        loop {
            let (base, fresh) = match guess.take() {
                Some(guess) => (guess, false),
                None => (self.load(id).await?, true),
            };
            let (next, row, outcome) = match self.prepare(&base, decide(&base)) {
                Ok((Some((next, row)), outcome)) => (next, row, outcome),
                Ok((None, outcome)) if fresh => return Ok((base, outcome)),
                Err(error) if fresh => return Err(error),
                Ok((None, _)) | Err(_) => continue,
            };
            attempts += 1;
            if self.appender.insert_rows(id, &[row]).await? == 1 {
                let next = Arc::new(next);
                self.cache.insert(id.clone(), next.clone());
                return Ok((next, outcome));
            }
            self.cache.remove(id);
            match pauses.next() {
                Some(_) if !fresh => {}
                Some(pause) => self.time.sleep(pause).await,
                None => return Err(WriteError::Conflict { id: id.clone(), attempts }),
            }
        }
    }

    /// The document with every event that the majority holds.
    pub(super) async fn load(&self, id: &DocumentId) -> Result<Arc<Document>> {
        let Some(current) = self.reader.current(id).await? else {
            return Ok(Arc::new(Document::new(id.clone())));
        };
        match current.waits {
            None => Ok(Arc::new(current.document)),
            // An event of ours in the gap would take the place of the one that is on its way.
            Some(mark) if mark.class == Class::Gap => {
                Err(WriteError::Gap { id: id.clone(), version: mark.version })
            }
            Some(mark) => Err(WriteError::Parked { id: id.clone(), mark }),
        }
    }

    /// Finds out whether there is a log: an insert would make one, without its validator and not clustered.
    async fn check_log(&self) -> Result<()> {
        let log = events_collection(self.reader.collection());
        // The form that needs no right beyond those of a writer.
        let list = doc! {
            "listCollections": 1, "filter": { "name": &log },
            "nameOnly": true, "authorizedCollections": true,
        };
        let listed = self.database.run_command(list).await.map_err(database::Error::from)?;
        let first = listed.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        match first {
            Ok(first) if !first.is_empty() => Ok(()),
            _ => Err(WriteError::NoLog { log, database: self.database.name().to_owned() }),
        }
    }

    /// Completes what was decided and folds it, so that what would park the document is never appended.
    fn prepare<R>(
        &self,
        base: &Document,
        decision: Result<Decision<R>>,
    ) -> Result<(Option<(Document, Row)>, R)> {
        let Decision { event, outcome } = decision?;
        let Some(mut event) = event else { return Ok((None, outcome)) };
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

impl Weighter<DocumentId, Arc<Document>> for Bytes {
    fn weight(&self, id: &DocumentId, document: &Arc<Document>) -> u64 {
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
