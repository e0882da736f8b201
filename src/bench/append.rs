//! Appending through the typed writer, beside a bare insert of the same events by somebody who knows
//! every version beforehand. All of it on one task, as both sides spend their time waiting.

use std::time::Instant;

use bson::{DateTime, RawDocumentBuf, rawdoc};
use futures::{StreamExt, TryStreamExt, stream};
use mongodb::options::WriteConcern;
use serde::{Deserialize, Serialize};

use super::{
    backlog,
    daemon::COLLECTION,
    error::Result,
    report::{Row, Target, Unit},
    server::Server,
};
use crate::{
    log::events_collection,
    model::{
        clock::Clock,
        event::EventKey,
        id::DocumentId,
        new_event::{NewChange, NewEvent},
    },
    writer::{EventSourced, WriterOptions},
};

const DOCUMENTS: usize = 1_000;
const CALLERS: usize = 32;
/// The cache of the writer: all documents fit.
const CACHE_BYTES: u64 = 16 << 20;
const CLIENT: &str = "client-0";

#[derive(Serialize, Deserialize)]
struct Game {
    name: String,
    gold: i64,
    level: i32,
    experience: i64,
}

/// Measures cached and uncached appends, and bare inserts, in turn.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run(server: &mut Server, events: usize, repeat: usize) -> Result<Vec<Row>> {
    let row = |which, target| {
        let work = format!("typed writer, {CALLERS} callers, majority, {which}");
        Row::new(work, Unit::EventsPerSecond, "bare insert_one", target)
    };
    let mut cached = row("documents cached", Target::RatioAtLeast(0.9));
    let mut uncached = row("nothing cached", Target::None);
    for round in 0..repeat {
        // In turn, so that whatever one leaves behind for the next burdens both.
        let (bare, ours) = if round % 2 == 0 {
            let bare = insert(server, events).await?;
            (bare, write(server, events, CACHE_BYTES).await?)
        } else {
            let ours = write(server, events, CACHE_BYTES).await?;
            (insert(server, events).await?, ours)
        };
        cached.bare.push(bare);
        cached.ours.push(ours);
        uncached.bare.push(bare);
        uncached.ours.push(write(server, events, 0).await?);
    }
    Ok(vec![cached, uncached])
}

async fn insert(server: &mut Server, events: usize) -> Result<f64> {
    let fresh = server.fresh().await?;
    let log = fresh.database.collection::<bson::RawDocumentBuf>(&events_collection(COLLECTION));
    let log = &log;
    let begun = Instant::now();
    stream::iter(0..events)
        .map(|number| async move {
            let version = (number / DOCUMENTS) as i64 + 2;
            log.insert_one(event(number % DOCUMENTS, version))
                .write_concern(WriteConcern::majority())
                .await
        })
        .buffer_unordered(CALLERS)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(events as f64 / begun.elapsed().as_secs_f64())
}

/// The event that the writer appends at this place.
fn event(document: usize, version: i64) -> RawDocumentBuf {
    let patch = rawdoc! { "$inc": { "gold": 5_i64, "experience": 10_i64 } };
    let change = NewChange::Patch { patch, array_filters: None };
    let mut event =
        NewEvent::new(CLIENT, change, DateTime::now()).id(bson::Binary::from(bson::Uuid::new()));
    event.seen = Some(Clock::from_iter([(CLIENT, version - 1)]));
    event.encode(&EventKey { document: id(document), version })
}

fn id(document: usize) -> DocumentId {
    DocumentId::String(backlog::id(document).into())
}

async fn write(server: &mut Server, events: usize, cache_bytes: u64) -> Result<f64> {
    let fresh = server.fresh().await?;
    let options = WriterOptions { cache_bytes, ..WriterOptions::default() };
    let writer = EventSourced::<Game>::with_options(&fresh.database, COLLECTION, options);
    let writer = &writer;
    stream::iter(0..DOCUMENTS)
        .map(|number| async move {
            let name = format!("the game number {number}");
            let game = Game { name, gold: 100, level: 1, experience: 0 };
            writer.create(&id(number), CLIENT, &game).await
        })
        .buffer_unordered(CALLERS)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let begun = Instant::now();
    stream::iter(0..events)
        .map(|number| async move {
            let change = |game: &mut Game| {
                game.gold += 5;
                game.experience += 10;
            };
            writer.update(&id(number % DOCUMENTS), CLIENT, change).await
        })
        .buffer_unordered(CALLERS)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(events as f64 / begun.elapsed().as_secs_f64())
}
