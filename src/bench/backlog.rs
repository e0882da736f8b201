//! Backlogs to project: events of a small game, as a writer would append them, in the order that a
//! scenario asks for. The same seed gives the same events.

use std::collections::HashMap;

use bson::{DateTime, RawArrayBuf, RawDocumentBuf, doc, raw::cstr, rawdoc};
use mongodb::Database;

use super::{COLLECTION, error::Result};
use crate::log::events_collection;

/// How many events one insert carries.
const INSERT_EVENTS: usize = 10_000;
/// How many of the last documents are looked at to see whether the daemon is nearly done.
const LAST: usize = 16;
const SEED: u64 = 7;

/// Which documents the events belong to, in which order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// Every document in turn, `each` times around, after `before` events that are there already.
    Interleaved { documents: usize, each: i64, before: i64 },
    /// Documents drawn by Zipf's law with exponent 1.1.
    Zipf { documents: usize, events: usize },
    /// Interleaved, written by so many clients in turn.
    Clients { documents: usize, each: i64, clients: usize },
    /// The second event of every so many-th document.
    Spread { documents: usize, every: usize },
}

/// How to see that all of it has been projected.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    /// The sum of the versions of all documents.
    pub(super) events: i64,
    /// Some of the documents that are written last, with their versions.
    pub(super) last: Vec<(String, i64)>,
}

/// The places of the events of a shape, in the order in which they are appended.
pub(super) fn places(shape: Shape) -> Box<dyn Iterator<Item = (usize, i64)> + Send> {
    match shape {
        Shape::Interleaved { documents, each, before } => Box::new(
            (before + 1..=before + each).flat_map(move |s| (0..documents).map(move |d| (d, s))),
        ),
        Shape::Clients { documents, each, .. } => {
            Box::new((1..=each).flat_map(move |s| (0..documents).map(move |d| (d, s))))
        }
        Shape::Spread { documents, every } => {
            Box::new((0..documents).step_by(every).map(|d| (d, 2)))
        }
        Shape::Zipf { documents, events } => {
            let mut random = fastrand::Rng::with_seed(SEED);
            let sums = zipf_sums(documents);
            let mut versions = vec![0_i64; documents];
            Box::new((0..events).map(move |_| {
                let drawn = random.f64() * sums.last().copied().unwrap_or_default();
                let rank = sums.partition_point(|sum| *sum < drawn).min(documents - 1);
                // Popular documents are not neighbours.
                let document = (rank * 7_919) % documents;
                versions[document] += 1;
                (document, versions[document])
            }))
        }
    }
}

fn zipf_sums(documents: usize) -> Vec<f64> {
    let mut sum = 0.0;
    (1..=documents)
        .map(|rank| {
            sum += (rank as f64).powf(-1.1);
            sum
        })
        .collect()
}

/// The id of a document by its number.
pub(super) fn id(document: usize) -> String {
    format!("game-{document:08}")
}

/// Who wrote an event.
pub(super) fn client(document: usize, version: i64, clients: usize) -> String {
    let turn = usize::try_from(version).unwrap_or_default().wrapping_add(document);
    format!("client-{}", turn % clients.max(1))
}

/// One event, of about 200 bytes.
pub(super) fn event(document: usize, version: i64, clients: usize, at: DateTime) -> RawDocumentBuf {
    let mut event = RawDocumentBuf::new();
    event.append(cstr!("_id"), rawdoc! { "d": id(document), "s": version });
    event.append(cstr!("client"), client(document, version, clients));
    if version == 1 {
        event.append(cstr!("op"), "create");
        event.append(
            cstr!("state"),
            rawdoc! {
                "name": format!("the game number {document}"), "gold": 100_i64, "level": 1,
                "experience": 0_i64, "last_updated": at,
            },
        );
    } else {
        event.append(cstr!("op"), "update");
        event.append(
            cstr!("patch"),
            rawdoc! { "$inc": { "gold": 5_i64, "experience": 10_i64 }, "$set": { "last_updated": at } },
        );
    }
    event.append(cstr!("at"), at);
    event.append(cstr!("id"), bson::oid::ObjectId::new());
    event
}

/// Appends all events of a shape and waits until the majority and the disk have them.
///
/// # Errors
/// When the server refuses.
pub(super) async fn append(database: &Database, shape: Shape) -> Result<Expected> {
    let clients = if let Shape::Clients { clients, .. } = shape { clients } else { 4 };
    let at = DateTime::now();
    let mut chunk = RawArrayBuf::new();
    let (mut size, mut events) = (0, 0);
    let mut last: HashMap<usize, i64> = HashMap::new();
    let mut recent = Vec::new();
    for (document, version) in places(shape) {
        chunk.push(event(document, version, clients, at));
        last.insert(document, version);
        recent.push(document);
        (size, events) = (size + 1, events + 1);
        if size == INSERT_EVENTS {
            insert(database, &events_collection(COLLECTION), std::mem::take(&mut chunk)).await?;
            recent.drain(..recent.len() - LAST);
            size = 0;
        }
    }
    if size > 0 {
        insert(database, &events_collection(COLLECTION), chunk).await?;
    }
    settle(database).await?;
    let recent = recent.iter().rev().take(LAST);
    let last = recent.map(|document| (id(*document), last[document])).collect();
    let before = if let Shape::Interleaved { documents, before, .. } = shape {
        before * documents as i64
    } else {
        0
    };
    Ok(Expected { events: before + events, last })
}

/// Inserts documents in order, acknowledged by the primary alone.
pub(super) async fn insert(
    database: &Database,
    collection: &str,
    documents: RawArrayBuf,
) -> Result<()> {
    let command = rawdoc! {
        "insert": collection, "documents": documents, "ordered": true, "writeConcern": { "w": 1 },
    };
    let reply = database.run_raw_command(command).await?;
    match reply.get_array("writeErrors") {
        Ok(errors) => Err(crate::database::Error::damaged(format!("{errors:?}")).into()),
        Err(_) => Ok(()),
    }
}

/// Lets the server write everything to its disk, so that no measurement pays for what was before it.
pub(super) async fn settle(database: &Database) -> Result<()> {
    database.client().database("admin").run_command(doc! { "fsync": 1 }).await?;
    Ok(())
}
