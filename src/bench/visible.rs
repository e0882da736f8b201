//! From append to visible: how long after a writer began its insert any reader finds the event in the
//! projected document, at a steady rate. The bare consumer does what a first version of anybody's
//! projection does: one update per event, straight off the driver's change stream.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bson::{DateTime, Document, RawDocumentBuf, Timestamp, doc};
use futures::{StreamExt, TryStreamExt, stream::FuturesUnordered};
use mongodb::{
    Collection, Database,
    change_stream::event::ChangeStreamEvent,
    options::{UpdateOptions, WriteConcern},
};

use super::{
    backlog::{self, Expected},
    daemon::{COLLECTION, Tuning},
    error::Result,
    report::{Row, Target, Unit},
    server::{self, Server, Way},
};
use crate::{
    log::events_collection,
    model::{event::EventKey, id::DocumentId},
    time::{SystemTime, Time},
};

pub(super) const DOCUMENTS: usize = 100;
pub(super) const EVENTS_PER_SECOND: u32 = 500;
const LOOK: Duration = Duration::from_millis(1);
/// What is left out at the beginning, while connections are opened.
const WARM_UP: usize = 250;

/// Measures both sides in turn.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run(server: &mut Server, events: usize, repeat: usize) -> Result<Vec<Row>> {
    let unit = Unit::Milliseconds;
    let baseline = "bare consumer, w: 1";
    let name = |which| format!("append to visible, {EVENTS_PER_SECOND} events/s, {which}");
    let mut p50 = Row::new(name("p50"), unit, baseline, Target::RatioAtMost(1.5));
    let mut p99 = Row::new(name("p99"), unit, baseline, Target::RatioAtMost(2.0));
    for _ in 0..repeat {
        let mut bare = measure_bare(server, events).await?;
        let mut ours = measure_ours(server, events).await?;
        for (row, share) in [(&mut p50, 0.5), (&mut p99, 0.99)] {
            row.bare.push(1e3 * percentile(&mut bare, share));
            row.ours.push(1e3 * percentile(&mut ours, share));
        }
    }
    Ok(vec![p50, p99])
}

/// The value below which this share of all values lies.
#[allow(clippy::cast_sign_loss, reason = "a share of a count is never negative")]
pub(super) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).max(0.0) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

async fn measure_ours(server: &mut Server, events: usize) -> Result<Vec<f64>> {
    let fresh = server.fresh().await?;
    let place = server::end_of_log(&fresh.database).await?;
    server::save_checkpoint(&fresh.database, place, Way::Chosen).await?;
    let mut daemon = server.daemon(&fresh.database, &Tuning::default())?;
    // One event that has arrived shows that the daemon follows the stream.
    let first = backlog::event(DOCUMENTS, 1, 1, DateTime::now());
    log(&fresh.database).insert_one(first).await?;
    let expected = Expected { events: 1, last: vec![(backlog::id(DOCUMENTS), 1)] };
    daemon.until_visible(&fresh.database, &expected).await?;
    let seconds = append_and_look(&fresh.database, (0, events)).await?;
    daemon.stop().await?;
    Ok(seconds)
}

async fn measure_bare(server: &mut Server, events: usize) -> Result<Vec<f64>> {
    let fresh = server.fresh().await?;
    let database = &fresh.database;
    tokio::select! {
        biased;
        measured = append_and_look(database, (0, events)) => measured,
        ended = consume(database, fresh.start) => ended.map(|()| Vec::new()),
    }
}

/// The bare consumer. Runs until it is dropped.
async fn consume(database: &Database, start: Timestamp) -> Result<()> {
    let documents: Collection<Document> = database.collection(COLLECTION);
    let events: Collection<Document> = database.collection(&events_collection(COLLECTION));
    let acknowledged =
        WriteConcern::builder().w(mongodb::options::Acknowledgment::Nodes(1)).build();
    let options = UpdateOptions::builder().upsert(true).write_concern(acknowledged).build();
    let mut stream = events.watch().start_at_operation_time(start).await?;
    while let Some(change) = stream.next().await {
        let change: ChangeStreamEvent<Document> = change?;
        let Some(event) = change.full_document else { continue };
        let key = event.get_document("_id")?;
        let (d, s) = (key.get_str("d")?, key.get_i64("s")?);
        let update = match event.get_document("patch") {
            Ok(_) => doc! {
                "$inc": { "state.gold": 5_i64, "state.experience": 10_i64, "clock.client-0": 1_i64 },
                "$set": { "version": s, "state.last_updated": event.get_datetime("at")? },
            },
            Err(_) => doc! { "$set": { "version": s, "state": event.get_document("state")? } },
        };
        documents.update_one(doc! { "_id": d }, update).with_options(options.clone()).await?;
    }
    Ok(())
}

fn log(database: &Database) -> Collection<RawDocumentBuf> {
    database.collection(&events_collection(COLLECTION))
}

/// Appends so many events to new documents, from the `first` on, at the steady rate, each at majority, looks all the
/// while, and gives the seconds from the beginning of each insert until the event was seen.
pub(super) async fn append_and_look(
    database: &Database,
    (first, events): (usize, usize),
) -> Result<Vec<f64>> {
    let mut begun: HashMap<(DocumentId, i64), Instant> = HashMap::new();
    let mut seen: HashMap<DocumentId, i64> = HashMap::new();
    let mut seconds = Vec::with_capacity(events);
    let events_log = log(database);
    let mut inserts = FuturesUnordered::new();
    let (time, start) = (SystemTime::new(), Instant::now());
    let pace = Duration::from_secs(1) / EVENTS_PER_SECOND;
    let mut sent = 0;
    let mut looking = Box::pin(look(database, first));
    while seconds.len() < events {
        let due = start + pace * u32::try_from(sent).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            () = time.sleep(due.saturating_duration_since(Instant::now())), if sent < events => {
                let (document, version) = (first + sent % DOCUMENTS, (sent / DOCUMENTS) as i64 + 1);
                let event = backlog::event(document, version, 4, DateTime::now());
                let key = EventKey::from_event(&event)
                    .map_err(|error| crate::database::Error::damaged(error.to_string()))?;
                begun.insert((key.document, version), Instant::now());
                inserts.push(events_log.insert_one(event).into_future());
                sent += 1;
            }
            Some(inserted) = inserts.next() => { inserted?; }
            rows = &mut looking => {
                let now = Instant::now();
                for (document, version) in rows? {
                    let before = seen.insert(document.clone(), version).unwrap_or_default();
                    for version in before + 1..=version {
                        let begun = begun.remove(&(document.clone(), version));
                        seconds.extend(begun.map(|begun| (now - begun).as_secs_f64()));
                    }
                }
                looking = Box::pin(look(database, first));
            }
        }
    }
    Ok(seconds.split_off(WARM_UP.min(seconds.len() / 2)))
}

/// The versions of all documents from the `first` on, after a short pause.
async fn look(database: &Database, first: usize) -> Result<Vec<(DocumentId, i64)>> {
    SystemTime::new().sleep(LOOK).await;
    let rows: Vec<Document> = database
        .collection::<Document>(COLLECTION)
        .find(doc! { "_id": { "$gte": backlog::id(first) } })
        .projection(doc! { "version": 1 })
        .batch_size(10_000)
        .await?
        .try_collect()
        .await?;
    let place = |row: Document| {
        let id = DocumentId::from_bson(row.get("_id")?).ok()?;
        Some((id, row.get_i64("version").ok()?))
    };
    Ok(rows.into_iter().filter_map(place).collect())
}
