//! The append procedure, in one place: insert the next version at majority, and never trust a single
//! answer. An event's own `id`, read back at majority in the same causal session, is the only proof
//! of what happened.

mod answer;

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bson::{RawArrayBuf, RawBson, RawDocument, RawDocumentBuf, raw::cstr, rawdoc};
use futures::TryStreamExt;
use mongodb::ClientSession;

use self::answer::{Failure, Insert};
use super::{
    Batch, history,
    mongo::{NamedLog, majority},
};
use crate::{
    database::{self, Causal, code},
    model::{
        event::EventKey,
        id::{DocumentId, INTEGER_MAX},
        new_event::NewEvent,
        position::LogId,
    },
    time::{SystemTime, Time},
};

/// The most marks in one reply.
const BATCH_MAX: u32 = 10_000;
/// How many bytes of events one command carries, where they are several: the server takes 16 MB.
const COMMAND_BYTES_MAX: usize = 12 << 20;

/// Appends events to one log, and to no other that takes its name: a version that was read from this log is never
/// taken for one of another.
#[derive(Clone, Debug)]
pub struct Appender {
    log: NamedLog,
    causal: Causal,
    time: SystemTime,
    limits: AppendLimits,
}

/// How long and how often an append is tried.
#[derive(Clone, Copy, Debug)]
pub struct AppendLimits {
    /// How often an uncertain insert is tried, at least once.
    pub attempts: usize,
    /// How long one attempt may take, in the server and on the way.
    pub timeout: Duration,
}

impl Default for AppendLimits {
    fn default() -> Self {
        Self { attempts: 6, timeout: Duration::from_secs(10) }
    }
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The majority holds the event at this version.
    At(i64),
    /// Somebody else took the version: read what happened and decide again.
    Conflict,
}

/// Why an append failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The collection's validator refuses the event.
    #[error("the server refuses the event: {reason}")]
    Refused {
        /// How many events of the batch stand in the log before the refused one.
        appended: usize,
        /// The server's words, with the field at fault where it names one.
        reason: String,
    },
    /// Every attempt ended without a proof. Inserting the same event, with the same `id`, at the same
    /// version again is safe; at another version it may double it.
    #[error(
        "whether the event was appended is unknown after {attempts} attempts ({source}); \
         read the document's history once the database answers, and write again only if it lacks the event"
    )]
    Uncertain {
        /// How often it was tried.
        attempts: usize,
        /// What the last attempt met.
        source: database::Error,
    },
    /// The database refused to read or to insert; nothing was appended.
    #[error(transparent)]
    Database(#[from] database::Error),
}

impl Appender {
    /// For this log.
    pub fn new(log: NamedLog, limits: AppendLimits) -> Self {
        let causal = Causal::new(log.database().client().clone());
        Self { log, causal, time: SystemTime::new(), limits }
    }

    /// The log that it appends to.
    pub fn log(&self) -> LogId {
        self.log.id()
    }

    /// The sessions of this appender, for reads that must see what it appended.
    pub fn causal(&self) -> &Causal {
        &self.causal
    }

    /// Appends one event after the last one that the majority holds.
    ///
    /// # Errors
    /// [`AppendError`]; a version that somebody else took is no error but [`Appended::Conflict`].
    pub async fn append(
        &self,
        document: &DocumentId,
        event: NewEvent,
    ) -> Result<Appended, AppendError> {
        let last = self.last_version(document).await?;
        let appended = self.insert(document, last, vec![event]).await?;
        Ok(if appended == 1 { Appended::At(last + 1) } else { Appended::Conflict })
    }

    /// The version of the document's last event that the majority holds; 0 if there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn last_version(&self, document: &DocumentId) -> database::Result<i64> {
        let mut session = self.causal.session().await?;
        let last = self.last_in(document, &mut session).await?;
        self.causal.observe(&session);
        Ok(last)
    }

    async fn last_in(
        &self,
        document: &DocumentId,
        session: &mut ClientSession,
    ) -> database::Result<i64> {
        let find = rawdoc! {
            "filter": history::range(document, &(1..=INTEGER_MAX)),
            "sort": { "_id": -1 },
            "limit": 1,
            "singleBatch": true,
            "projection": { "_id": 1 },
        };
        let found = self.find(session, find).await?;
        found.first().map_or(Ok(0), |event| Ok(key(event)?.version))
    }

    /// Inserts events of one document right after version `after`, in order, and gives how many of
    /// them the log holds at majority: fewer than all means that the version which comes next was
    /// taken by somebody else. `after` must be known to the majority: the version of an event read at
    /// that read concern or appended through this procedure.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn insert(
        &self,
        document: &DocumentId,
        after: i64,
        events: Vec<NewEvent>,
    ) -> Result<usize, AppendError> {
        let rows = events.into_iter().zip(after + 1..);
        let rows: Vec<Row> =
            rows.map(|(event, version)| Row::new(document, version, event)).collect();
        self.insert_rows(document, &rows).await
    }

    /// [`Appender::insert`] of rows that are made already, which follow each other.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn insert_rows(
        &self,
        document: &DocumentId,
        rows: &[Row],
    ) -> Result<usize, AppendError> {
        let mut delays = backoff(self.limits.attempts);
        let (mut held, mut attempts, mut unproven) = (0, 0, false);
        loop {
            attempts += 1;
            let attempt = self.attempt(document, rows, &mut held).await;
            let source = match attempt {
                Ok(()) => return Ok(held),
                Err(Failure::Refused { at, reason }) => {
                    return Err(AppendError::Refused { appended: held + at, reason });
                }
                Err(Failure::Final(error)) if !unproven => return Err(error.into()),
                Err(Failure::Final(error)) => {
                    return Err(AppendError::Uncertain { attempts, source: error });
                }
                Err(Failure::Unproven(error)) => error,
            };
            unproven = true;
            match delays.next() {
                Some(delay) => self.time.sleep(delay).await,
                None => return Err(AppendError::Uncertain { attempts, source }),
            }
        }
    }

    /// Inserts what is not yet held and, where a version was taken, finds out by whom, in one session.
    async fn attempt(
        &self,
        document: &DocumentId,
        rows: &[Row],
        held: &mut usize,
    ) -> Result<(), Failure> {
        let mut session = self.causal.session().await.map_err(Failure::from)?;
        while *held < rows.len() {
            let fitting = fitting(&rows[*held..], |row| row.event.as_bytes().len());
            let inserted = self.insert_once(fitting, &mut session).await;
            self.causal.observe(&session);
            match inserted {
                Ok(()) => *held += fitting.len(),
                Err(Insert::Taken) => break,
                Err(Insert::Failed(failure)) => return Err(failure),
            }
        }
        let [Row { version: next, .. }, ..] = rows[*held..] else { return Ok(()) };
        let last = rows.last().map_or(next, |row| row.version);
        let ids = self.ids(document, next, last, &mut session).await?;
        self.causal.observe(&session);
        let mine = ids.iter().zip(&rows[*held..]).take_while(|(id, row)| **id == row.id).count();
        *held += mine;
        if *held == rows.len() || mine < ids.len() {
            return Ok(());
        }
        // It was taken, and what took it has gone since if the document is further than that.
        let last = self.last_in(document, &mut session).await?;
        self.causal.observe(&session);
        if last >= next {
            return Ok(());
        }
        // What stood in the way is gone, or was never acknowledged by the majority.
        Err(Failure::Unproven(database::Error::server(
            code::DUPLICATE_KEY,
            format!("version {next} of document {document} was taken and is free again"),
        )))
    }

    async fn insert_once(&self, rows: &[Row], session: &mut ClientSession) -> Result<(), Insert> {
        let mut events = RawArrayBuf::new();
        rows.iter().for_each(|row| events.push(row.event.clone()));
        let insert = rawdoc! {
            "documents": events,
            "ordered": true,
            "writeConcern": { "w": "majority", "wtimeout": self.millis() },
        };
        let reply = self.in_time(self.log.run_in(session, cstr!("insert"), &insert)).await?;
        answer::judge(&reply)
    }

    /// The `id`s of the events from version `first` to `last`, up to the first gap.
    async fn ids(
        &self,
        document: &DocumentId,
        first: i64,
        last: i64,
        session: &mut ClientSession,
    ) -> Result<Vec<Option<RawBson>>, Failure> {
        let find = rawdoc! {
            "filter": history::range(document, &(first..=last)),
            "sort": { "_id": 1 },
            "projection": { "id": 1 },
        };
        let found = self.find(session, find).await?;
        let mut ids = Vec::with_capacity(found.len());
        for (event, version) in found.iter().zip(first..) {
            if key(event)?.version != version {
                break;
            }
            let id = event.get("id").map_err(database::Error::from)?;
            ids.push(id.map(RawBson::from));
        }
        Ok(ids)
    }

    /// Reads at majority, behind everything that went before in the session.
    async fn find(
        &self,
        session: &mut ClientSession,
        mut find: RawDocumentBuf,
    ) -> database::Result<Vec<RawDocumentBuf>> {
        find.append(cstr!("readConcern"), majority(session.operation_time()));
        find.append(cstr!("maxTimeMS"), self.millis());
        let read = async {
            let mut cursor = self.log.cursor_in(session, cstr!("find"), &find, BATCH_MAX).await?;
            let batches = cursor.stream(session).map_err(|error| self.log.told(error));
            let batches: Vec<Batch> = batches.map_ok(Batch::from).try_collect().await?;
            let mut found = Vec::new();
            for batch in &batches {
                for event in batch.documents()? {
                    found.push(event?.to_owned());
                }
            }
            Ok(found)
        };
        self.in_time(read).await
    }

    /// Waits a little longer than the server is told to, for an answer that is lost on the way.
    async fn in_time<T>(
        &self,
        action: impl Future<Output = database::Result<T>>,
    ) -> database::Result<T> {
        let limit = self.limits.timeout + Duration::from_secs(1);
        let answer = tokio::time::timeout(limit, action).await;
        answer.unwrap_or_else(|_| Err(self.late()))
    }

    fn millis(&self) -> i64 {
        i64::try_from(self.limits.timeout.as_millis()).unwrap_or(i64::MAX)
    }

    fn late(&self) -> database::Error {
        database::Error::unreachable(format!("no answer within {:?}", self.limits.timeout))
    }
}

/// An event at its place, with the mark that proves it ours.
#[derive(Clone, Debug)]
pub struct Row {
    version: i64,
    id: Option<RawBson>,
    event: RawDocumentBuf,
}

impl Row {
    /// `event` as the `version`-th of `document`, under a mark of its own or a fresh one.
    pub fn new(document: &DocumentId, version: i64, mut event: NewEvent) -> Self {
        let id = event.id.take().unwrap_or_else(|| RawBson::Binary(bson::Uuid::new().into()));
        event.id = Some(id.clone());
        let key = EventKey { document: document.clone(), version };
        Self { version, id: Some(id), event: event.encode(&key) }
    }

    /// The event as it will stand in the log.
    pub fn event(&self) -> &RawDocument {
        &self.event
    }
}

fn backoff(attempts: usize) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .with_max_times(attempts.saturating_sub(1))
        .with_jitter()
        .with_jitter_seed(fastrand::u64(..))
        .build()
}

/// As many of the first ones as go in one command, by their bytes: at least one.
pub(crate) fn fitting<T>(rows: &[T], bytes_of: impl Fn(&T) -> usize) -> &[T] {
    let mut bytes = 0;
    let fits = |row: &&T| {
        bytes += bytes_of(row);
        bytes <= COMMAND_BYTES_MAX
    };
    let count = rows.iter().take_while(fits).count().max(1);
    rows.get(..count).unwrap_or(rows)
}

fn key(event: &RawDocument) -> database::Result<EventKey> {
    EventKey::from_event(event).map_err(|error| database::Error::damaged(error.to_string()))
}
