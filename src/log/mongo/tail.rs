//! The change stream over the logs of one database.

use std::time::Duration;

use bson::{Bson, Document, RawBson, RawBsonRef, Timestamp, doc};
use futures::StreamExt;
use mongodb::{Database, options::ReadConcern, raw_batch_cursor::RawBatchCursor};

use crate::{
    database::{Error, Result},
    log::{Batch, Bodies, Start, Tail, TailBatch, events_collection},
    model::position::Position,
};

/// How long the server waits for a change before it answers with an empty batch. Every answer moves
/// the place that a checkpoint can save.
const AWAIT_TIME: Duration = Duration::from_millis(500);

/// The most changes in one batch of a stream. Fewer, and round trips show; more only take memory, and make
/// everything behind them wait (benches/README.md).
const BATCH_CHANGES: u32 = 4_096;
/// A batch beyond this was ended by the server's limit of 16 MB.
const BATCH_BYTES_FULL: usize = 15 << 20;

/// The stream reduced, on the server, to what the projection needs: inserts into the logs, rows that are deleted, which the
/// daemon hardly ever does, and what may take a log or rows away. The form matters, since the server's one thread for the stream is what bounds a
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
    let rows: Vec<Document> =
        collections.iter().map(|name| doc! { "db": database, "coll": name }).collect();
    let mut fields = doc! {
        "operationType": 1, "clusterTime": 1, "wallTime": 1, "ns": 1, "to": 1, "documentKey": 1,
    };
    match bodies {
        Bodies::All => fields.insert("fullDocument", 1),
        Bodies::UpTo(bytes) => {
            let size = doc! { "$bsonSize": { "$ifNull": ["$fullDocument", {}] } };
            let fits = doc! { "$lte": [size, bytes] };
            fields.insert("fullDocument", doc! { "$cond": [fits, "$fullDocument", "$$REMOVE"] })
        }
    };
    vec![
        doc! { "$changeStream": stage },
        doc! { "$match": { "$or": [
            { "operationType": "insert", "ns": { "$in": logs } },
            { "operationType": "delete", "ns": { "$in": rows } },
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

impl MongoTail {
    /// Opens a stream.
    pub(super) async fn open(
        database: &Database,
        collections: &[String],
        start: &Start,
        bodies: Bodies,
    ) -> Result<Self> {
        let cursor = database
            .aggregate(pipeline(database.name(), collections, start, bodies))
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
        Ok(Self { cursor, reached })
    }
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
