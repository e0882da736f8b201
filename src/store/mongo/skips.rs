//! Skips on MongoDB, `{_id: {c, d, s}, client, class, reason, skipped_at}` in `alluvium.skips`; and discarded events,
//! `{_id: {c, d, s}, class, reason, since, events}` in `alluvium.quarantine`, counted in `alluvium.meta` as
//! `{_id: {discards: <collection>}, count}`.

use std::collections::BTreeSet;

use bson::{Document, RawArrayBuf, RawDocument, RawDocumentBuf, doc, raw::cstr, rawdoc};
use futures::TryStreamExt;
use mongodb::{
    ClientSession,
    options::{ReadConcern, WriteConcern},
};

use super::{
    MongoStore, collection_range, event_key, no_write_errors,
    statements::{judge, replacement, write_errors},
    update_statement,
};
use crate::{
    database::{Error, Result},
    model::{
        document::Class,
        event::EventKey,
        id::{DocumentId, INTEGER_MAX, integral},
        skip::{Skip, SkippedVersions, Skips},
    },
    store::{
        Discarded, DiscardedEvents, META_COLLECTION, QUARANTINE_COLLECTION, RowOutcome, RowWrite,
        SKIPS_COLLECTION, SkipOutcome, SkipRows,
    },
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

impl DiscardedEvents for MongoStore {
    async fn keep_discarded(&self, events: &[Discarded]) -> Result<()> {
        // One by one: a few of the largest would be beyond what one command may carry.
        for discarded in events {
            let mut about = rawdoc! { "class": Class::Gap.name() };
            about.append(cstr!("reason"), discarded.reason.as_str());
            about.append(cstr!("since"), discarded.since);
            let filter = rawdoc! { "_id": event_key(&self.collection, &discarded.key) };
            let update = rawdoc! {
                "$setOnInsert": about, "$addToSet": { "events": discarded.event.clone() },
            };
            let statements: RawArrayBuf =
                [update_statement(filter, update, true)].into_iter().collect();
            let reply = self.bulk("update", QUARANTINE_COLLECTION, "updates", statements).await?;
            no_write_errors(&reply)?;
        }
        let filter = rawdoc! { "_id": { "discards": self.collection.as_str() } };
        let count =
            rawdoc! { "$inc": { "count": i64::try_from(events.len()).unwrap_or(i64::MAX) } };
        let statements = [update_statement(filter, count, true)].into_iter().collect();
        no_write_errors(&self.bulk("update", META_COLLECTION, "updates", statements).await?)
    }

    async fn discards(&self) -> Result<i64> {
        let meta = self.database.collection::<RawDocumentBuf>(META_COLLECTION);
        let counted = meta.find_one(doc! { "_id": { "discards": &self.collection } });
        match counted.read_concern(ReadConcern::majority()).await? {
            Some(row) => Ok(row.get("count")?.and_then(integral).unwrap_or_default()),
            None => Ok(0),
        }
    }

    async fn load_discarded(&self) -> Result<BTreeSet<EventKey>> {
        let mut filter = collection_range(&self.collection);
        filter.insert("_id.s", doc! { "$exists": true });
        let rows = self.quarantine.find(filter).projection(doc! { "_id": 1 });
        let rows = rows.read_concern(ReadConcern::majority());
        let rows: Vec<RawDocumentBuf> = rows.await?.try_collect().await?;
        let places = rows.iter().map(|row| place(row));
        places
            .filter(|key| !key.as_ref().is_ok_and(|key| !self.part.holds(&key.document)))
            .collect()
    }

    async fn discarded_of(&self, document: &DocumentId) -> Result<BTreeSet<i64>> {
        let rows = self.quarantine.find(events_of(&self.collection, document));
        let rows = rows.projection(doc! { "_id": 1 }).read_concern(ReadConcern::majority());
        let rows: Vec<RawDocumentBuf> = rows.await?.try_collect().await?;
        rows.iter().map(|row| place(row).map(|key| key.version)).collect()
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
