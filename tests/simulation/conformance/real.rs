//! A real mongod as a server of the test bodies, through the daemon's own log and store.

#[allow(dead_code, unreachable_pub, reason = "shared with the system tests, which use all of it")]
#[path = "../../common/server.rs"]
mod shared;

use bson::{Document, RawDocumentBuf, doc, rawdoc};
use futures::TryStreamExt;
use mongodb::{
    Collection,
    options::{ReadConcern, WriteConcern},
};

use super::Server;
use crate::{
    log::mongo::MongoSource,
    model::{
        compaction::{LiveClient, Mark},
        id::DocumentId,
        part::Part,
        position::LogId,
    },
    simulation::world::{COLLECTION, EVENTS},
    store::{
        CLIENTS_COLLECTION, MARKS_COLLECTION, QUARANTINE_COLLECTION,
        mongo::{MongoLayouts, MongoLeases, MongoStore},
    },
};

pub(super) struct Real {
    database: shared::TestDatabase,
}

/// Runs a body in a fresh database.
pub(super) fn run(body: impl AsyncFnOnce(Real)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let real = Real { database: shared::database().await };
        for collection in [EVENTS, "others.events", COLLECTION] {
            real.database.db.create_collection(collection).await.unwrap();
        }
        body(real).await;
    });
}

impl Real {
    fn events(&self, collection: &str, concern: WriteConcern) -> Collection<RawDocumentBuf> {
        let options = mongodb::options::CollectionOptions::builder().write_concern(concern).build();
        self.database.db.collection_with_options(collection, options)
    }

    async fn rename(&self, from: &str, to: &str) {
        let name = |collection: &str| format!("{}.{collection}", self.database.name);
        let command = doc! { "renameCollection": name(from), "to": name(to) };
        self.database.client.database("admin").run_command(command).await.unwrap();
    }

    fn majority(&self, collection: &str) -> Collection<RawDocumentBuf> {
        self.events(collection, WriteConcern::majority())
    }
}

impl Server for Real {
    type Source = MongoSource;
    type Store = MongoStore;
    type Leases = MongoLeases;
    type Layouts = MongoLayouts;

    const NOT_READ_AHEAD: i64 = 70_000;
    const LARGE_EVENT: usize = 9 << 20;

    fn source(&self) -> MongoSource {
        MongoSource::new(self.database.db.clone())
    }

    fn store_of(&self, part: Part) -> MongoStore {
        MongoStore::new(&self.database.db, COLLECTION, part)
    }

    fn layouts(&self) -> MongoLayouts {
        MongoLayouts::new(&self.database.db)
    }

    fn leases(&self) -> MongoLeases {
        MongoLeases::new(&self.database.db)
    }

    async fn append(&self, events: &[RawDocumentBuf]) {
        self.majority(EVENTS).insert_many(events).ordered(true).await.unwrap();
    }

    async fn append_together(&self, events: &[RawDocumentBuf]) {
        let mut session = self.database.client.start_session().await.unwrap();
        session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(WriteConcern::majority())
            .await
            .unwrap();
        let log = self.database.db.collection::<RawDocumentBuf>(EVENTS);
        for event in events {
            log.insert_one(event).session(&mut session).await.unwrap();
        }
        session.commit_transaction().await.unwrap();
    }

    async fn append_carelessly(&self, event: &RawDocumentBuf) {
        let concern = WriteConcern::builder().w(mongodb::options::Acknowledgment::Nodes(1)).build();
        self.events(EVENTS, concern).insert_one(event).await.unwrap();
    }

    async fn append_elsewhere(&self, event: &RawDocumentBuf) {
        self.majority("others.events").insert_one(event).await.unwrap();
    }

    async fn drop_log(&self) {
        self.majority(EVENTS).drop().await.unwrap();
    }

    async fn make_log(&self) {
        self.database.db.create_collection(EVENTS).await.unwrap();
    }

    async fn rename_log(&self) {
        self.rename(EVENTS, "old.events").await;
    }

    async fn rename_log_back(&self) {
        self.rename("old.events", EVENTS).await;
    }

    async fn delete_row(&self) {
        self.majority(COLLECTION).delete_one(doc! { "_id": "a" }).await.unwrap();
    }

    async fn put_row(&self, row: &RawDocumentBuf) {
        self.delete_row().await;
        self.majority(COLLECTION).insert_one(row).await.unwrap();
    }

    async fn drop_rows(&self) {
        self.majority(COLLECTION).drop().await.unwrap();
    }

    async fn refuse_name(&self, name: &str) {
        let validator = doc! { "state.name": { "$ne": name } };
        let command = doc! { "collMod": COLLECTION, "validator": validator };
        let _reply: Document = self.database.db.run_command(command).await.unwrap();
    }

    async fn mark(&self, log: LogId, id: &DocumentId, marks: &[Mark]) {
        let mark = |mark: &Mark| doc! { "version": mark.version, "at": mark.at };
        let marks: Vec<Document> = marks.iter().map(mark).collect();
        let key = doc! { "c": COLLECTION, "d": id.to_bson() };
        let row = doc! { "_id": key, "log": log.0, "marks": marks };
        self.database.db.collection(MARKS_COLLECTION).insert_one(row).await.unwrap();
    }

    async fn acknowledge(&self, id: &DocumentId, client: LiveClient) {
        let key = doc! { "c": COLLECTION, "x": &client.name, "d": id.to_bson() };
        let row = rawdoc! {
            "_id": RawDocumentBuf::try_from(&key).unwrap(), "clock": client.clock.to_raw(),
            "seen_at": client.seen_at,
        };
        let rows = self.database.db.collection::<RawDocumentBuf>(CLIENTS_COLLECTION);
        rows.insert_one(row).await.unwrap();
    }

    async fn late_on_record(&self) -> Vec<RawDocumentBuf> {
        let rows = self.database.db.collection::<Document>(QUARANTINE_COLLECTION);
        let rows = rows.find(doc! { "class": "late", "_id.late": COLLECTION });
        let rows: Vec<Document> =
            rows.sort(doc! { "_id.s": 1 }).await.unwrap().try_collect().await.unwrap();
        let event =
            |row: &Document| RawDocumentBuf::try_from(row.get_document("event").unwrap()).unwrap();
        rows.iter().map(event).collect()
    }
}
