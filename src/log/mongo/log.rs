//! One collection's log on MongoDB, as the daemon reads and mends it.

use bson::{Document, RawArrayBuf, RawDocumentBuf, Timestamp, raw::cstr, rawdoc};
use futures::{StreamExt, stream::try_unfold};

use super::named::{NamedLog, majority};
use crate::{
    database::{Ahead, Error, Result, Verdict, code},
    log::{Batch, EventLog, Mend, Scan, history},
    model::{event::EventKey, id::DocumentId, position::LogId},
};

/// The most events in one batch of a scan: some megabytes of ordinary ones. Fewer, and the server's work for a
/// batch shows; more only take memory.
const BATCH_EVENTS: u32 = 16_384;

/// One collection's log on MongoDB.
#[derive(Clone, Debug)]
pub struct MongoLog(NamedLog);

impl MongoLog {
    pub(super) fn new(log: NamedLog) -> Self {
        Self(log)
    }
}

impl EventLog for MongoLog {
    type Scan = MongoScan;

    fn id(&self) -> LogId {
        self.0.id()
    }

    async fn estimated_events(&self) -> Result<u64> {
        let events = self.0.database().collection::<RawDocumentBuf>(self.0.events());
        Ok(events.estimated_document_count().await?)
    }

    async fn scan(&self, after: Option<&EventKey>, at_least: Timestamp) -> Result<MongoScan> {
        let filter = after.map_or_else(RawDocumentBuf::new, |key| {
            rawdoc! { "_id": { "$gt": key.to_raw() } }
        });
        let find = rawdoc! {
            "filter": filter,
            "sort": { "_id": 1 },
            "batchSize": i64::from(BATCH_EVENTS),
            "readConcern": majority(Some(at_least)),
        };
        let cursor = self.0.cursor(cstr!("find"), &find, BATCH_EVENTS).await?;
        let batches = try_unfold(cursor, async |mut cursor| {
            let batch = cursor.next().await.transpose()?;
            Ok(batch.map(|batch| (Batch::from(batch), cursor)))
        });
        Ok(MongoScan(Ahead::new(batches)))
    }

    async fn read(
        &self,
        document: &DocumentId,
        after: i64,
        limit: u32,
        at_least: Option<Timestamp>,
    ) -> Result<Batch> {
        let range = history::range(document, &history::above(after));
        let page = self.page(range, limit, at_least).await?;
        let Some(rest) = page.without_strays()? else { return Ok(page) };
        if !page.is_cut() && page.documents()?.count() < limit as usize {
            return Ok(rest);
        }
        // What has no readable key took the room of others.
        let mut range = history::range(document, &history::above(after));
        for condition in &readable() {
            let (name, value) = condition?;
            range.append(name, value);
        }
        let page = self.page(range, limit, at_least).await?;
        Ok(page.without_strays()?.unwrap_or(page))
    }
}

impl MongoLog {
    /// The first events that match, at most `limit`.
    async fn page(
        &self,
        filter: RawDocumentBuf,
        limit: u32,
        at_least: Option<Timestamp>,
    ) -> Result<Batch> {
        let find = rawdoc! {
            "filter": filter,
            "sort": { "_id": 1 },
            "limit": i64::from(limit),
            // One more than the limit, so that no cursor stays open behind a reply that holds all.
            "batchSize": i64::from(limit) + 1,
            "readConcern": majority(at_least),
        };
        let mut cursor = self.0.cursor(cstr!("find"), &find, limit).await?;
        match cursor.next().await {
            Some(batch) => Ok(Batch::from(batch?)),
            None => Err(Error::unreachable("the server closed a cursor without a batch")),
        }
    }
}

/// Matches, of what stands in the range of a document, what has a readable key: two fields, and a whole number that is
/// no decimal. It costs the server more than the range alone.
fn readable() -> RawDocumentBuf {
    let is_whole = rawdoc! { "$eq": [{ "$trunc": "$_id.s" }, "$_id.s"] };
    let is_pair = rawdoc! { "$eq": [{ "$size": { "$objectToArray": "$_id" } }, 2] };
    rawdoc! {
        "_id.s": { "$type": ["int", "long", "double"] },
        "$expr": { "$and": [is_whole, is_pair] },
    }
}

/// An ordered walk over a log.
pub struct MongoScan(Ahead<Batch>);

impl Scan for MongoScan {
    async fn next(&mut self) -> Result<Option<Batch>> {
        self.0.next().await
    }
}

/// What to do where the server takes no event of ours.
const REFUSED: &str = "an index or a validator of the log refuses an event of alluvium's own: drop that, or let it pass such events";

/// Whether a write error says that the place of an event is taken. A unique index of somebody else says something else.
fn is_taken(error: &Document) -> bool {
    let key = error.get_document("keyPattern");
    error.get_i32("code").ok() == Some(code::DUPLICATE_KEY)
        && key.is_ok_and(|key| key.len() == 1 && key.contains_key("_id"))
}

impl Mend for MongoLog {
    async fn insert(&self, events: &[RawDocumentBuf]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let events: RawArrayBuf = events.iter().cloned().collect();
        let statements = rawdoc! { "documents": events, "ordered": false };
        match self.0.write(cstr!("insert"), statements, is_taken).await {
            // What the server has against an event it has against it at the next attempt as well.
            Err(error) if error.may_be_of_what_was_sent() && error.verdict() == Verdict::Retry => {
                Err(Error::stop(error.to_string(), REFUSED))
            }
            done => done,
        }
    }
}
