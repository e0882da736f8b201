//! Skips on MongoDB, `{_id: {c, d, s}, client, class, reason, skipped_at}` in `alluvium.skips`.

use bson::{Document, RawDocument, RawDocumentBuf, doc, raw::cstr, rawdoc};
use futures::TryStreamExt;
use mongodb::{
    ClientSession,
    options::{ReadConcern, WriteConcern},
};

use super::{
    MongoStore, collection_range, event_key, no_write_errors,
    statements::{judge, replacement, write_errors},
};
use crate::{
    database::{Error, Result},
    model::{
        event::EventKey,
        id::{DocumentId, INTEGER_MAX, integral},
        skip::{Skip, SkippedVersions, Skips},
    },
    store::{RowOutcome, RowWrite, SKIPS_COLLECTION, SkipOutcome, SkipRows},
};

impl SkipRows for MongoStore {
    async fn load_skips(&self) -> Result<Skips> {
        let mut skips = Skips::default();
        for key in self.skipped(collection_range(&self.collection)).await? {
            if self.part.holds(&key.document) {
                skips.insert(key.document, key.version);
            }
        }
        Ok(skips)
    }

    async fn load_skips_of(&self, document: &DocumentId) -> Result<SkippedVersions> {
        let found = self.skipped(events_of(&self.collection, document)).await?;
        Ok(found.into_iter().map(|key| key.version).collect())
    }

    async fn skip(&self, skip: &Skip, write: &RowWrite) -> Result<SkipOutcome> {
        let mut session = self.database.client().start_session().await?;
        let outcome = match self.skip_in(&mut session, skip, write).await {
            Ok(outcome @ (SkipOutcome::Done | SkipOutcome::Existed)) => {
                session.commit_transaction().await?;
                return Ok(outcome);
            }
            other => other,
        };
        // The server ends it by itself if this fails.
        drop(session.abort_transaction().await);
        outcome
    }
}

impl MongoStore {
    /// The places of skips.
    async fn skipped(&self, filter: Document) -> Result<Vec<EventKey>> {
        let found = self.skips.find(filter).projection(doc! { "_id": 1 });
        let rows: Vec<RawDocumentBuf> =
            found.read_concern(ReadConcern::majority()).await?.try_collect().await?;
        rows.iter().map(|row| place(row)).collect()
    }

    /// Takes the steps of a skip in a transaction, which is to be committed if they succeed.
    async fn skip_in(
        &self,
        session: &mut ClientSession,
        skip: &Skip,
        write: &RowWrite,
    ) -> Result<SkipOutcome> {
        session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(WriteConcern::majority())
            .await?;
        let key = event_key(&self.collection, &skip.key);
        let known = self.skips.find_one(doc! { "_id": Document::try_from(key.clone())? });
        if known.session(&mut *session).await?.is_some() {
            return Ok(SkipOutcome::Existed);
        }
        let command = match write.expected {
            0 => rawdoc! { "insert": self.collection.as_str(), "documents": [write.row.clone()] },
            _ => rawdoc! { "update": self.collection.as_str(), "updates": [replacement(write)] },
        };
        let reply = self.database.run_raw_command(command).session(&mut *session).await?;
        if let Some((_, error)) = write_errors(&reply).next() {
            return Ok(match judge(error)? {
                Some(RowOutcome::Rejected { code, reason }) => {
                    SkipOutcome::Rejected { code, reason }
                }
                _ => SkipOutcome::Stale,
            });
        }
        if reply.get_i32("n").unwrap_or_default() != 1 {
            return Ok(SkipOutcome::Stale);
        }
        let mut row = rawdoc! { "_id": key };
        row.append(cstr!("client"), skip.client.as_str());
        row.append(cstr!("class"), skip.class.name());
        row.append(cstr!("reason"), skip.reason.as_str());
        row.append(cstr!("skipped_at"), skip.skipped_at);
        let command = rawdoc! { "insert": SKIPS_COLLECTION, "documents": [row] };
        let reply = self.database.run_raw_command(command).session(&mut *session).await?;
        no_write_errors(&reply)?;
        Ok(SkipOutcome::Done)
    }
}

/// Matches the rows about events of one document, as a range that the index on `_id` serves.
pub(crate) fn events_of(collection: &str, document: &DocumentId) -> Document {
    let key = |version: i64| doc! { "c": collection, "d": document.to_bson(), "s": version };
    doc! { "_id": { "$gte": key(1), "$lte": key(INTEGER_MAX) } }
}

/// The place of the event that a row is about.
pub(crate) fn place(row: &RawDocument) -> Result<EventKey> {
    let damaged = || Error::damaged(format!("a row about an event has no usable `_id`: {row:?}"));
    let key = row.get_document("_id").map_err(|_| damaged())?;
    let document = key.get("d")?.and_then(|id| DocumentId::from_raw(id).ok());
    let version = key.get("s")?.and_then(integral);
    let (Some(document), Some(version)) = (document, version) else { return Err(damaged()) };
    Ok(EventKey { document, version })
}
