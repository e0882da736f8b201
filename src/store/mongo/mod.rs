//! The store on MongoDB: one handle per collection, one file per kind of row. All writes are majority
//! writes, and every write's filter states what it assumes, which is what makes a late or doubled daemon harmless.

mod again;
mod archive;
mod bases;
mod checkpoints;
mod documents;
mod erase;
mod instances;
mod jobs;
mod layouts;
mod loading;
mod leases;
mod marks;
mod overview;
mod pauses;
mod quarantine;
mod readiness;
mod restoring;
mod skips;
mod snapshots;
mod statements;
mod transactions;
mod versions;
mod waiting;

pub use instances::{Instance, Report, instances};
pub use jobs::{JOBS_KEPT_SECONDS, MongoJobs};
pub use layouts::MongoLayouts;
pub use leases::MongoLeases;
pub use marks::ensure_compaction;
pub use overview::{Overview, Resume, overview, resume_point};
pub use pauses::MongoPauses;
pub(crate) use skips::{events_of, place as place_of_skip, told_of};
pub use transactions::Transactions;
pub use versions::MongoVersions;
pub use waiting::{WaitingQuery, late, waiting};

use bson::{Document, RawArrayBuf, RawDocumentBuf, doc, raw::cstr, rawdoc};
use mongodb::{Collection, Database};

use crate::{
    database::{Causal, Error, Result, reply_of},
    model::part::Part,
    store::{LeaseName, QUARANTINE_COLLECTION, SKIPS_COLLECTION},
};

/// One collection's projected documents and bookkeeping in MongoDB.
#[derive(Clone, Debug)]
pub struct MongoStore {
    database: Database,
    collection: String,
    part: Part,
    documents: Collection<RawDocumentBuf>,
    quarantine: Collection<RawDocumentBuf>,
    skips: Collection<RawDocumentBuf>,
    /// What is on record as skipped is never read as it was before a row that was read.
    causal: Causal,
    transactions: Option<Transactions>,
}

impl MongoStore {
    /// The store of `part` of `collection` in `database`.
    pub fn new(database: &Database, collection: &str, part: Part) -> Self {
        Self {
            database: database.clone(),
            collection: collection.to_owned(),
            part,
            documents: database.collection(collection),
            quarantine: database.collection(QUARANTINE_COLLECTION),
            skips: database.collection(SKIPS_COLLECTION),
            causal: Causal::new(database.client().clone()),
            transactions: None,
        }
    }

    /// The same, writing rows in transactions where that costs the server less.
    #[must_use]
    pub fn with_transactions(self, transactions: Transactions) -> Self {
        Self { transactions: Some(transactions), ..self }
    }

    /// The `_id` of the checkpoint.
    fn checkpoint_id(&self) -> String {
        LeaseName { collection: self.collection.clone(), part: self.part }.to_string()
    }

    /// [`bulk`] in this store's database.
    async fn bulk(
        &self,
        command: &str,
        collection: &str,
        statements_field: &str,
        statements: RawArrayBuf,
    ) -> Result<Document> {
        bulk(&self.database, command, collection, statements_field, statements).await
    }
}

/// Runs a write command of many statements, unordered and at majority, and gives the reply, whose
/// `writeErrors` the caller judges.
///
/// # Errors
/// When the command failed, or its effect is not known to be majority-committed.
async fn bulk(
    database: &Database,
    command: &str,
    collection: &str,
    statements_field: &str,
    statements: RawArrayBuf,
) -> Result<Document> {
    let mut bulk = write_command(command, collection, statements_field, statements)?;
    bulk.append(cstr!("writeConcern"), rawdoc! { "w": "majority" });
    let reply = reply_of(database.run_raw_command(bulk)).await?;
    held_by_majority(&reply)?;
    Ok(reply)
}

/// Whether the concern of a majority write was met, by its reply.
fn held_by_majority(reply: &Document) -> Result<()> {
    match reply.get_document("writeConcernError") {
        Ok(error) => Err(Error::server(
            error.get_i32("code").unwrap_or_default(),
            error.get_str("errmsg").unwrap_or("write concern not satisfied"),
        )
        .whatever_was_sent()),
        Err(_) => Ok(()),
    }
}

/// A write command of many statements, unordered.
fn write_command(
    command: &str,
    collection: &str,
    statements_field: &str,
    statements: RawArrayBuf,
) -> Result<RawDocumentBuf> {
    let mut bulk = RawDocumentBuf::new();
    bulk.append(bson::raw::CString::try_from(command)?, collection);
    bulk.append(bson::raw::CString::try_from(statements_field)?, statements);
    bulk.append(cstr!("ordered"), false);
    Ok(bulk)
}

/// The one statement of an update command that replaces or makes the document of this filter.
fn update_statement(
    filter: RawDocumentBuf,
    update: RawDocumentBuf,
    upsert: bool,
) -> RawDocumentBuf {
    rawdoc! { "q": filter, "u": update, "upsert": upsert }
}

/// The first write error of a reply, for commands in which none is expected.
fn no_write_errors(reply: &Document) -> Result<()> {
    no_write_errors_but(&[], reply)
}

/// The first write error of a reply whose code is not among those `expected`.
fn no_write_errors_but(expected: &[i32], reply: &Document) -> Result<()> {
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let code = |error: &Document| error.get_i32("code").unwrap_or_default();
    let mut errors = errors.iter().filter_map(bson::Bson::as_document);
    match errors.find(|error| !expected.contains(&code(error))) {
        Some(error) => Err(Error::server(
            error.get_i32("code").unwrap_or_default(),
            error.get_str("errmsg").unwrap_or("a write failed"),
        )),
        None => Ok(()),
    }
}

/// The `_id` of a collection's row about one document: `{c, d}`.
fn collection_key(collection: &str, document: &crate::model::id::DocumentId) -> RawDocumentBuf {
    let mut key = rawdoc! { "c": collection };
    key.append(cstr!("d"), document.as_raw());
    key
}

/// The `_id` of a collection's row about one event: `{c, d, s}`.
fn event_key(collection: &str, event: &crate::model::event::EventKey) -> RawDocumentBuf {
    let mut key = collection_key(collection, &event.document);
    key.append(cstr!("s"), event.version);
    key
}

/// Matches the rows of one collection whose `_id` begins with `{c, d}`, as a range that the index on `_id` serves.
fn collection_range(collection: &str) -> Document {
    doc! { "_id": {
        "$gte": { "c": collection, "d": bson::Bson::MinKey },
        "$lte": { "c": collection, "d": bson::Bson::MaxKey },
    } }
}
