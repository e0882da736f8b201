//! The event log on MongoDB. Change streams and scans are read as raw batches: one buffer per reply,
//! decoded in place. Resuming is ours and not the driver's, since a checkpoint has to know every place.

use std::time::Duration;

use bson::{
    Bson, Document, RawArrayBuf, RawBson, RawBsonRef, RawDocumentBuf, Timestamp, doc, raw::cstr,
    rawdoc,
};
use futures::{StreamExt, stream::try_unfold};
use mongodb::{
    ClientSession, Collection, Database, options::ReadConcern, raw_batch_cursor::RawBatchCursor,
};

use super::{
    Batch, Bodies, EventLog, Found, LogSource, Mend, Scan, Start, Tail, TailBatch,
    events_collection,
};
use crate::{
    database::{Ahead, Error, Result},
    model::{
        event::EventKey,
        id::{DocumentId, INTEGER_MAX},
        position::{LogId, Position},
    },
};

/// How long the server waits for a change before it answers with an empty batch. Every answer moves
/// the place that a checkpoint can save.
const AWAIT_TIME: Duration = Duration::from_millis(500);

/// The most changes in one batch of a stream. Fewer, and round trips show; more only take memory, and make
/// everything behind them wait (benches/README.md).
const BATCH_CHANGES: u32 = 4_096;
/// The most events in one batch of a scan: some megabytes of ordinary ones. Fewer, and the server's work for a
/// batch shows; more only take memory.
const BATCH_EVENTS: u32 = 16_384;
/// A batch beyond this was ended by the server's limit of 16 MB.
const BATCH_BYTES_FULL: usize = 15 << 20;

/// The logs of one MongoDB database.
#[derive(Clone, Debug)]
pub struct MongoSource {
    database: Database,
}

impl MongoSource {
    /// The logs of `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

impl LogSource for MongoSource {
    type Tail = MongoTail;
    type Log = MongoLog;

    async fn now(&self) -> Result<Timestamp> {
        let mut session = self.database.client().start_session().causal_consistency(true).await?;
        self.database.run_command(doc! { "ping": 1 }).session(&mut session).await?;
        operation_time(&session)
    }

    async fn tail(
        &self,
        collections: &[String],
        start: &Start,
        bodies: Bodies,
    ) -> Result<MongoTail> {
        let cursor = self
            .database
            .aggregate(pipeline(self.database.name(), collections, start, bodies))
            .max_await_time(AWAIT_TIME)
            .batch_size(BATCH_CHANGES)
            .read_concern(ReadConcern::majority())
            .batch()
            .await
            .map_err(|error| match start {
                Start::After(_) => Error::from(error).of_token(),
                Start::At(_) => error.into(),
            })?;
        let reached = match start {
            Start::After(position) => position.cluster_time,
            Start::At(time) => *time,
        };
        Ok(MongoTail { cursor, reached })
    }

    fn log(&self, collection: &str) -> MongoLog {
        MongoLog {
            name: events_collection(collection),
            events: self.database.collection(&events_collection(collection)),
            database: self.database.clone(),
        }
    }
}

/// The stream reduced, on the server, to what the projection needs: inserts into the logs, and what
/// may take a log away. The form matters, since the server's one thread for the stream is what bounds a
/// tail: a log is named by its whole `ns`, which the server compares in the oplog itself, and what is rare
/// is not told apart by name (benches/README.md).
fn pipeline(
    database: &str,
    collections: &[String],
    start: &Start,
    bodies: Bodies,
) -> Vec<Document> {
    let mut stage = Document::new();
    match start {
        Start::After(position) => {
            stage.insert("resumeAfter", Bson::try_from(position.token.clone()).ok())
        }
        Start::At(time) => stage.insert("startAtOperationTime", *time),
    };
    let logs: Vec<Document> = collections
        .iter()
        .map(|name| doc! { "db": database, "coll": events_collection(name) })
        .collect();
    let mut fields = doc! { "operationType": 1, "clusterTime": 1, "wallTime": 1, "ns": 1, "to": 1 };
    match bodies {
        Bodies::All => fields.insert("fullDocument", 1),
        Bodies::UpTo(bytes) => {
            fields.insert("documentKey", 1);
            let size = doc! { "$bsonSize": { "$ifNull": ["$fullDocument", {}] } };
            let fits = doc! { "$lte": [size, bytes] };
            fields.insert("fullDocument", doc! { "$cond": [fits, "$fullDocument", "$$REMOVE"] })
        }
    };
    vec![
        doc! { "$changeStream": stage },
        doc! { "$match": { "$or": [
            { "operationType": "insert", "ns": { "$in": logs } },
            { "operationType": { "$in": ["drop", "rename", "dropDatabase", "invalidate"] } },
        ] } },
        doc! { "$project": fields },
    ]
}

/// A change stream, read as raw batches.
pub struct MongoTail {
    cursor: RawBatchCursor,
    /// The latest time that the stream is known to have passed: what stands beside a token whose time
    /// cannot be read, since starting too early only replays.
    reached: Timestamp,
}

impl Tail for MongoTail {
    async fn next(&mut self) -> Result<TailBatch> {
        let Some(batch) = self.cursor.next().await else {
            return Err(Error::unreachable("the server closed the change stream"));
        };
        let changes = Batch::from(batch?);
        let reply = changes.reply().ok_or_else(|| Error::damaged("a batch without a reply"))?;
        let server_time = reply.get_timestamp("operationTime").ok();
        let token = match reply.get_document("cursor")?.get("postBatchResumeToken")? {
            Some(RawBsonRef::Document(token)) => RawBson::Document(token.to_owned()),
            _ => {
                return Err(Error::damaged("a change stream's reply without postBatchResumeToken"));
            }
        };
        self.reached = token_time(&token).unwrap_or(self.reached);
        let position = Position { token, cluster_time: self.reached };
        let is_full = changes.bytes() > BATCH_BYTES_FULL
            || changes.documents()?.count() >= BATCH_CHANGES as usize;
        Ok(TailBatch { changes, position, server_time, is_full })
    }
}

/// The time of the last answer in a session.
fn operation_time(session: &ClientSession) -> Result<Timestamp> {
    session.operation_time().ok_or_else(|| {
        Error::damaged("the server answers without an operationTime: it is no replica set member")
    })
}

/// The cluster time inside a resume token, whose text begins with it: type byte 0x82, then seconds and
/// increment, big-endian, in hex. See `resume_token.cpp` and `key_string.cpp` of the server.
fn token_time(token: &RawBson) -> Option<Timestamp> {
    let RawBson::Document(token) = token else { return None };
    let data = token.get_str("_data").ok()?;
    let number = |range| u32::from_str_radix(data.get(range)?, 16).ok();
    match data.get(0..2)? {
        "82" => Some(Timestamp { time: number(2..10)?, increment: number(10..18)? }),
        _ => None,
    }
}

/// One collection's log on MongoDB.
#[derive(Clone, Debug)]
pub struct MongoLog {
    database: Database,
    name: String,
    events: Collection<Document>,
}

impl MongoLog {
    /// A session in which majority reads see everything before `at_least`.
    async fn session(&self, at_least: Option<Timestamp>) -> Result<ClientSession> {
        let mut session = self.database.client().start_session().causal_consistency(true).await?;
        if let Some(time) = at_least {
            session.advance_operation_time(time);
        }
        Ok(session)
    }
}

/// The range of the keys of one document's events above version `after`: the bounded form, since on a
/// clustered collection only a range on `_id` is a seek.
fn range_after(document: &DocumentId, after: i64) -> Document {
    let d = document.to_bson();
    doc! { "_id": {
        "$gt": { "d": d.clone(), "s": after },
        "$lte": { "d": d, "s": INTEGER_MAX },
    } }
}

impl EventLog for MongoLog {
    type Scan = MongoScan;

    async fn identity(&self) -> Result<Option<Found>> {
        let mut session = self.session(None).await?;
        let look = self.database.list_collections().filter(doc! { "name": &self.name });
        let mut found = look.session(&mut session).await?;
        match found.next(&mut session).await.transpose()? {
            Some(spec) => match spec.info.uuid.map(|binary| binary.to_uuid()) {
                Some(Ok(uuid)) => {
                    Ok(Some(Found { id: LogId(uuid), at: operation_time(&session)? }))
                }
                _ => Err(Error::damaged(format!("`{}` has no UUID: is it a view?", self.name))),
            },
            None => Ok(None),
        }
    }

    async fn estimated_events(&self) -> Result<u64> {
        Ok(self.events.estimated_document_count().await?)
    }

    async fn scan(&self, after: Option<&EventKey>, at_least: Timestamp) -> Result<MongoScan> {
        let mut session = self.session(Some(at_least)).await?;
        let filter = after.map_or_else(Document::new, |key| {
            doc! { "_id": { "$gt": { "d": key.document.to_bson(), "s": key.version } } }
        });
        let cursor = self
            .events
            .find(filter)
            .sort(doc! { "_id": 1 })
            .batch_size(BATCH_EVENTS)
            .read_concern(ReadConcern::majority())
            .session(&mut session)
            .batch()
            .await?;
        let batches = try_unfold((session, cursor), async |(mut session, mut cursor)| {
            let batch = cursor.stream(&mut session).next().await.transpose()?;
            Ok(batch.map(|batch| (Batch::from(batch), (session, cursor))))
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
        let mut session = self.session(at_least).await?;
        let mut cursor = self
            .events
            .find(range_after(document, after))
            .sort(doc! { "_id": 1 })
            .limit(i64::from(limit))
            .batch_size(limit)
            .read_concern(ReadConcern::majority())
            .session(&mut session)
            .batch()
            .await?;
        match cursor.stream(&mut session).next().await {
            Some(batch) => Ok(Batch::from(batch?)),
            None => Err(Error::unreachable("the server closed a cursor without a batch")),
        }
    }
}

/// An ordered walk over a log, in one causally consistent session.
pub struct MongoScan(Ahead<Batch>);

impl Scan for MongoScan {
    async fn next(&mut self) -> Result<Option<Batch>> {
        self.0.next().await
    }
}

/// The server's code for a key that exists.
const DUPLICATE_KEY: i32 = 11000;

impl Mend for MongoLog {
    async fn insert(&self, events: &[RawDocumentBuf]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let events: RawArrayBuf = events.iter().cloned().collect();
        let statements = rawdoc! { "documents": events, "ordered": false };
        self.write("insert", statements, &[DUPLICATE_KEY]).await
    }
}

impl MongoLog {
    /// Runs a write command at majority.
    async fn write(&self, name: &str, statements: RawDocumentBuf, expected: &[i32]) -> Result<()> {
        let mut command = RawDocumentBuf::new();
        command.append(bson::raw::CString::try_from(name)?, self.name.as_str());
        for (field, value) in statements.iter().flatten() {
            command.append(field, value);
        }
        command.append(cstr!("writeConcern"), rawdoc! { "w": "majority" });
        let reply = self.database.run_raw_command(command).await?;
        let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
        let refused = reply.get_document("writeConcernError").ok().into_iter();
        let errors = errors
            .iter()
            .filter_map(Bson::as_document)
            .filter(|error| !expected.contains(&error.get_i32("code").unwrap_or_default()));
        match errors.chain(refused).next() {
            Some(error) => Err(Error::server(
                error.get_i32("code").unwrap_or_default(),
                error.get_str("errmsg").unwrap_or("a write failed"),
            )),
            None => Ok(()),
        }
    }
}
