//! How fast a collection that existed before becomes events, beside a bare copy of the same documents.

use std::time::{Duration, Instant};

use bson::{RawArrayBuf, RawDocumentBuf, doc, oid::ObjectId, rawdoc};
use futures::TryStreamExt;
use mongodb::{Database, options::WriteConcern};

use super::{
    COLLECTION,
    backlog::{insert, settle},
    error::Result,
    report::{Row, Target, Unit},
    server::Server,
};
use crate::{
    database::Error,
    import::{Import, Options},
    log::events_collection,
    model::document::FoldLimits,
};

const SOURCE: &str = "old";
/// How many documents are copied with one command.
const COPIED: usize = 1_000;

/// Imports so many documents: with creates, the same again, and with bases.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run(server: &mut Server, documents: usize, repeat: usize) -> Result<Vec<Row>> {
    let row = |what: &str| {
        let work = format!("import of {documents} documents, {what}");
        Row::new(work, Unit::DocumentsPerSecond, "bare copy", Target::None)
    };
    let mut rows = ["all new", "again, nothing changed", "with versions"].map(row);
    for _ in 0..repeat {
        let database = server.fresh().await?.database;
        fill(&database, documents).await?;
        let bare = documents as f64 / copy(&database).await?;
        for (row, version_field) in rows.iter_mut().zip([None, None, Some("v")]) {
            if version_field.is_some() {
                let log = database.collection::<RawDocumentBuf>(&events_collection(COLLECTION));
                log.delete_many(doc! {}).await?;
            }
            settle(&database).await?;
            let cpu = server.cpu()?;
            row.ours.push(documents as f64 / import(&database, version_field).await?);
            row.bare.push(bare);
            row.server_cpu.push((server.cpu()? - cpu) / documents as f64 * 1e6);
        }
    }
    Ok(rows.into())
}

/// Documents of about 200 bytes.
async fn fill(database: &Database, documents: usize) -> Result<()> {
    for first in (0..documents).step_by(COPIED) {
        let mut batch = RawArrayBuf::new();
        for number in first..documents.min(first + COPIED) {
            batch.push(rawdoc! {
                "_id": ObjectId::new(), "v": (number % 50) as i64 + 2, "name": format!("the game number {number}"),
                "gold": 100_i64, "level": 1, "items": [{ "kind": "sword", "power": 1.5 }, { "kind": "shield" }],
            });
        }
        insert(database, SOURCE, batch).await?;
    }
    Ok(())
}

/// Reads all documents and inserts them elsewhere, as a loop would that somebody writes for the occasion; the seconds.
async fn copy(database: &Database) -> Result<f64> {
    settle(database).await?;
    let begun = Instant::now();
    let to = database.collection::<RawDocumentBuf>("copy");
    let from = database.collection::<RawDocumentBuf>(SOURCE);
    let mut found = from.find(doc! {}).sort(doc! { "_id": 1 }).await?;
    let mut batch = Vec::with_capacity(COPIED);
    loop {
        let next = found.try_next().await?;
        let is_over = next.is_none();
        batch.extend(next);
        if batch.len() == COPIED || (is_over && !batch.is_empty()) {
            to.insert_many(batch.drain(..)).write_concern(WriteConcern::majority()).await?;
        }
        if is_over {
            return Ok(begun.elapsed().as_secs_f64());
        }
    }
}

/// Imports everything, and looks at everything again, as the command does; the seconds.
async fn import(database: &Database, version_field: Option<&str>) -> Result<f64> {
    let options = Options {
        collection: COLLECTION.into(),
        from: SOURCE.into(),
        client: "import".into(),
        version_field: version_field.map(str::to_owned),
        deletes: false,
        limits: FoldLimits::default(),
        settled: Duration::ZERO,
    };
    let begun = Instant::now();
    let import = Import::open(database, options).await?;
    let report = import.run(&mut |_, _| {}).await?;
    match report.refused_total + report.changed {
        0 => Ok(begun.elapsed().as_secs_f64()),
        _ => Err(Error::damaged(format!("the import left {:?}", report.refused)).into()),
    }
}
