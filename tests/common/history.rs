//! Logs and rows made by hand, for tests of the reading side alone: events inserted with the driver,
//! rows folded with the model.

use alluvium::model::{
    document::{Document, FoldLimits, Outcome, Quarantine},
    event::Event,
    id::DocumentId,
};
use bson::{DateTime, RawDocumentBuf, doc};
use mongodb::{
    Database,
    options::{ClusteredIndex, WriteConcern},
};

/// An event of document `d` by `client`; `fields` hold `op` and what goes with it, and may override.
pub fn event(d: &DocumentId, s: i64, client: &str, fields: bson::Document) -> bson::Document {
    let mut event = doc! { "_id": { "d": d.to_bson(), "s": s }, "client": client, "at": at(s) };
    event.extend(fields);
    event
}

/// The writer's time of version `s` in [`event`]: `s` seconds after the epoch.
pub fn at(s: i64) -> DateTime {
    DateTime::from_millis(s * 1_000)
}

/// Makes the log of `collection`, clustered or plain.
pub async fn make_log(db: &Database, collection: &str, clustered: bool) {
    let create = db.create_collection(format!("{collection}.events"));
    let create = match clustered {
        true => create.clustered_index(ClusteredIndex::default()),
        false => create,
    };
    create.await.unwrap();
}

/// Appends at majority.
pub async fn append(db: &Database, collection: &str, events: &[bson::Document]) {
    let log = db.collection::<bson::Document>(&format!("{collection}.events"));
    log.insert_many(events).write_concern(WriteConcern::majority()).await.unwrap();
}

/// Folds `events` from the first; every one of them must apply.
pub fn folded(id: &DocumentId, events: &[bson::Document]) -> Document {
    let mut document = Document::new(id.clone());
    for event in events {
        let raw = RawDocumentBuf::try_from(event).unwrap();
        let event = Event::decode(&raw).unwrap();
        let outcome = document.apply(&event, &FoldLimits::default());
        assert!(matches!(outcome, Outcome::Applied(_)), "{event:?}: {outcome:?}");
    }
    document
}

/// Stores the row of a document, as the daemon would.
pub async fn project(db: &Database, collection: &str, document: &Document) {
    let rows = db.collection::<RawDocumentBuf>(collection);
    let majority = WriteConcern::majority();
    rows.replace_one(doc! { "_id": document.id.to_bson() }, document.to_raw())
        .upsert(true)
        .write_concern(majority)
        .await
        .unwrap();
}

/// Records that a document is parked, as the daemon would.
pub async fn park(db: &Database, collection: &str, id: &DocumentId, mark: &Quarantine) {
    let mut record = doc! { "_id": { "c": collection, "d": id.to_bson() }, "since": at(0) };
    record.extend(bson::Document::try_from(mark.to_raw()).unwrap());
    let records = db.collection::<bson::Document>("alluvium.quarantine");
    records.insert_one(record).write_concern(WriteConcern::majority()).await.unwrap();
}
