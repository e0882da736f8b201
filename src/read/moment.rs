//! One moment of one collection: a session with read concern snapshot, over which document and log are
//! read as they stood together. Whatever must be exact is read through it, or by a single command of that read
//! concern ([`super::suffix`]), and through nothing else.

use std::{future::Future, ops::RangeInclusive, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use bson::{RawDocument, raw::cstr, rawdoc};
use futures::StreamExt;
use mongodb::{ClientSession, options::ReadConcern, raw_batch_cursor::SessionRawBatchCursor};

use super::{
    Reader,
    error::{ReadError, Result},
};
use crate::{
    database::code,
    log::{Batch, Reading, history, mongo::NamedLog},
    model::{
        base::Base,
        document::{Class, Document, Quarantine},
        event::{EventKey, is_base},
        id::DocumentId,
        position::LogId,
        skip::{SkippedEvent, SkippedVersions, TOLD_MAX},
    },
    store::mongo::{events_of, place_of_skip, told_of},
};

/// How often a read whose moment was lost begins again.
const MOMENTS_MAX: usize = 5;

/// The most events that one reply of the server is asked for.
const BATCH_MAX: u32 = 10_000;

/// Document and log as they stood together.
pub(super) struct Moment<'r> {
    reader: &'r Reader,
    log: NamedLog,
    session: ClientSession,
}

/// What is read of each event of a range.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Pick {
    /// The whole event, oldest first.
    Events,
    /// Key and client only, oldest first.
    Clients,
    /// Key and client only, newest first.
    ClientsBackwards,
}

impl Reader {
    /// Runs `read` until it is not interrupted by the loss of its moment, a bounded number of times.
    pub(super) async fn at_one_moment<T, F>(&self, read: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(5))
            .with_max_delay(Duration::from_millis(200))
            .with_max_times(MOMENTS_MAX - 1)
            .with_jitter();
        read.retry(pauses).when(ReadError::lost_its_moment).await
    }
}

impl<'r> Moment<'r> {
    /// Opens a moment; the first read fixes it. The log is fixed here.
    pub(super) async fn open(reader: &'r Reader) -> Result<Self> {
        let log = reader.known_log().await?;
        let session = reader.database.client().start_session().snapshot(true).await?;
        Ok(Self { reader, log, session })
    }

    /// Which log is read.
    pub(super) fn log(&self) -> LogId {
        self.log.id()
    }

    /// The projected document.
    pub(super) async fn document(&mut self, id: &DocumentId) -> Result<Option<Document>> {
        let found = self
            .reader
            .documents
            .find_one(by_id(id))
            .read_concern(ReadConcern::snapshot())
            .session(&mut self.session)
            .await?;
        found.as_deref().map(|row| read_row(id, row)).transpose()
    }

    /// The base of the document's log, if that begins with one.
    pub(super) async fn base(&mut self, id: &DocumentId) -> Result<Option<Base>> {
        let mut first = self.events(id, 1..=1, Pick::Events, 1).await?;
        let Some(first) = first.next().await?.filter(|first| is_base(first)) else {
            return Ok(None);
        };
        let base = Base::from_raw(first);
        base.map(Some).map_err(|source| ReadError::Base { id: id.clone(), source })
    }

    /// The record of a parked document, which is there even where no row can be. A document that waits
    /// behind a gap is not parked.
    pub(super) async fn parked(&mut self, id: &DocumentId) -> Result<Option<Quarantine>> {
        let key = bson::doc! { "c": self.reader.collection(), "d": id.to_bson() };
        let found = self
            .reader
            .quarantine
            .find_one(bson::doc! { "_id": key })
            .read_concern(ReadConcern::snapshot())
            .session(&mut self.session)
            .await?;
        let mark = found.as_deref().and_then(Quarantine::from_raw);
        Ok(mark.filter(|mark| mark.class != Class::Gap))
    }

    /// The events of one document in a range of versions: one bounded range of keys, which is the only
    /// form that a clustered collection does not answer by reading everything. `expected` is how many of
    /// them the caller thinks to use: that many come with the first reply.
    pub(super) async fn events(
        &mut self,
        id: &DocumentId,
        versions: RangeInclusive<i64>,
        pick: Pick,
        expected: i64,
    ) -> Result<Events<'_>> {
        // One more than expected, so that the reply also says that there is no more.
        let batch = u32::try_from(expected).unwrap_or(BATCH_MAX).min(BATCH_MAX) + 1;
        let mut find = rawdoc! {
            "filter": history::range(id, &versions),
            "hint": { "_id": 1 },
            "sort": { "_id": if pick == Pick::ClientsBackwards { -1 } else { 1 } },
            "batchSize": i64::from(batch),
        };
        if versions.start() == versions.end() {
            // So that nobody walks over what was pruned behind it.
            find.append(cstr!("limit"), 1_i64);
        }
        if pick != Pick::Events {
            find.append(cstr!("projection"), rawdoc! { "_id": 1, "client": 1 });
        }
        let cursor = self.log.cursor_in(&mut self.session, cstr!("find"), &find, batch).await;
        let cursor = cursor.inspect_err(|error| {
            if error.code() == Some(code::LOG_MISMATCH) {
                self.reader.log.forget(self.log.id());
            }
        })?;
        let (reader, session) = (self.reader, &mut self.session);
        Ok(Events { reader, cursor, batch: None, passed: 0, session, skips: None })
    }

    /// Which of the events of a document are skipped.
    pub(super) async fn skips(&mut self, id: &DocumentId) -> Result<SkippedVersions> {
        skips(self.reader, &mut self.session, id).await
    }

    /// The same, with what a client is told of them.
    pub(super) async fn told_skips(&mut self, id: &DocumentId) -> Result<ToldSkips> {
        let versions = self.skips(id).await?;
        let mut told = ToldSkips { versions, ..ToldSkips::default() };
        if told.versions.is_empty() {
            return Ok(told);
        }
        let find = self.reader.skips.find(events_of(self.reader.collection(), id));
        let find = find.sort(bson::doc! { "_id": -1 }).read_concern(ReadConcern::snapshot());
        let mut found = find.session(&mut self.session).await?;
        while told.newest.len() < TOLD_MAX && found.advance(&mut self.session).await? {
            told.add_older(told_of(found.current())?);
        }
        Ok(told)
    }
}

/// What is skipped of a document, as a client is told of it.
#[derive(Clone, Debug, Default)]
pub(super) struct ToldSkips {
    pub(super) versions: SkippedVersions,
    /// The newest of them, newest first.
    pub(super) newest: Vec<SkippedEvent>,
}

impl ToldSkips {
    /// Adds the events of a record that is older than all others, ascending.
    pub(super) fn add_older(&mut self, events: Vec<SkippedEvent>) {
        let room = TOLD_MAX.saturating_sub(self.newest.len());
        self.newest.extend(events.into_iter().rev().take(room));
    }
}

async fn skips(
    reader: &Reader,
    session: &mut ClientSession,
    id: &DocumentId,
) -> Result<SkippedVersions> {
    let find = reader.skips.find(events_of(reader.collection(), id));
    let find = find.projection(bson::doc! { "_id": 1, "through": 1 });
    let find = find.read_concern(ReadConcern::snapshot());
    let mut found = find.session(&mut *session).await?;
    let mut skips = SkippedVersions::default();
    while found.advance(session).await? {
        let (key, through) = place_of_skip(found.current())?;
        skips.insert(key.version, through);
    }
    Ok(skips)
}

/// The events of a range, one by one.
pub(super) struct Events<'m> {
    reader: &'m Reader,
    cursor: SessionRawBatchCursor,
    batch: Option<Reading>,
    /// The place behind the event that was given last, in its batch.
    passed: usize,
    session: &'m mut ClientSession,
    /// Which of the document's events are skipped, once that was looked up.
    skips: Option<SkippedVersions>,
}

impl Events<'_> {
    /// The next event, and whether an operator has skipped it; `None` at the end of the range. That is looked up when
    /// there is something to fold.
    pub(super) async fn next_to_fold(
        &mut self,
        id: &DocumentId,
    ) -> Result<Option<(&RawDocument, bool)>> {
        if !self.advance().await? {
            return Ok(None);
        }
        if self.skips.is_none() {
            self.skips = Some(skips(self.reader, self.session, id).await?);
        }
        let Some(event) = Self::current(&self.batch, &mut self.passed)? else { return Ok(None) };
        let version = EventKey::from_event(event).map_or(0, |key| key.version);
        let is_skipped = self.skips.as_ref().is_some_and(|skips| skips.contains(version));
        Ok(Some((event, is_skipped)))
    }

    /// The next event, or `None` at the end of the range.
    pub(super) async fn next(&mut self) -> Result<Option<&RawDocument>> {
        match self.advance().await? {
            true => Self::current(&self.batch, &mut self.passed),
            false => Ok(None),
        }
    }

    /// Goes on to the next event; whether there is one.
    async fn advance(&mut self) -> Result<bool> {
        loop {
            if let Some(batch) = &mut self.batch {
                batch.pass(self.passed);
                if batch.peek()?.is_some() {
                    return Ok(true);
                }
            }
            let Some(batch) = self.cursor.stream(self.session).next().await else {
                return Ok(false);
            };
            (self.batch, self.passed) = (Some(Reading::new(Batch::from(batch?))?), 0);
        }
    }

    /// The event that comes next, which is passed with the next step.
    fn current<'e>(
        batch: &'e Option<Reading>,
        passed: &mut usize,
    ) -> Result<Option<&'e RawDocument>> {
        let Some(batch) = batch else { return Ok(None) };
        let next = batch.peek()?;
        Ok(next.map(|(event, behind)| {
            *passed = behind;
            event
        }))
    }
}

/// Reads a stored row as the document `id`.
pub(super) fn read_row(id: &DocumentId, row: &RawDocument) -> Result<Document> {
    Document::from_raw(row).map_err(|source| ReadError::Row { id: id.clone(), source })
}

/// The filter for one projected document.
pub(super) fn by_id(id: &DocumentId) -> bson::Document {
    bson::doc! { "_id": id.to_bson() }
}
