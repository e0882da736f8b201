//! Skips on MongoDB, in `alluvium.skips`: `{_id: {c, d, s}, client, seq, class, reason, skipped_at}` of one event, and
//! `{_id: {c, d, s}, through, skipped: [{s, client, seq}], class, reason, skipped_at}` of everything from a gap on.

use bson::{
    Document, RawArrayBuf, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, doc,
    raw::cstr, rawdoc,
};
use futures::TryStreamExt;
use mongodb::{
    ClientSession, Database,
    options::{ReadConcern, WriteConcern},
};
use tokio::sync::MutexGuard;

use super::{
    MongoStore, collection_range, event_key, no_write_errors,
    statements::{judge, replacement, write_errors},
    transactions::Slot,
};
use crate::{
    database::{Error, Result, code::DUPLICATE_KEY, reply_of},
    model::{
        event::EventKey,
        id::{DocumentId, INTEGER_MAX, integral},
        names::events_collection,
        shown::id_of,
        skip::{Skip, SkippedEvent, SkippedVersions, Skips},
    },
    store::{
        Filler, RowOutcome, RowWrite, SKIPS_COLLECTION, SkipAboveOutcome, SkipOutcome, SkipRows,
    },
};

impl SkipRows for MongoStore {
    async fn load_skips(&self) -> Result<Skips> {
        let mut skips = Skips::default();
        for (key, through) in self.skipped(collection_range(&self.collection), None).await? {
            if self.part.holds(&key.document) {
                skips.insert(key.document, (key.version, through));
            }
        }
        Ok(skips)
    }

    async fn load_skips_of(
        &self,
        document: &DocumentId,
        at_least: Option<Timestamp>,
    ) -> Result<SkippedVersions> {
        let found = self.skipped(events_of(&self.collection, document), at_least).await?;
        Ok(found.into_iter().map(|(key, through)| (key.version, through)).collect())
    }

    async fn skip(&self, skip: &Skip, write: &RowWrite) -> Result<SkipOutcome> {
        let mut held = self.begin().await?;
        let outcome = self.skip_in(held.session(), skip, write).await;
        let is_kept = matches!(outcome, Ok(SkipOutcome::Done | SkipOutcome::Existed));
        held.end(&self.database, is_kept).await?;
        outcome
    }

    async fn skip_above(&self, skip: &Skip, filler: &Filler) -> Result<SkipAboveOutcome> {
        let mut held = self.begin().await?;
        let outcome = self.skip_above_in(held.session(), skip, filler).await;
        let is_kept = matches!(outcome, Ok(SkipAboveOutcome::Done | SkipAboveOutcome::Existed));
        held.end(&self.database, is_kept).await?;
        outcome
    }
}

impl MongoStore {
    /// The places of skips, each with the last version that is skipped there.
    async fn skipped(
        &self,
        filter: Document,
        at_least: Option<Timestamp>,
    ) -> Result<Vec<(EventKey, i64)>> {
        let mut session = self.causal.session().await?;
        if let Some(time) = at_least {
            session.advance_operation_time(time);
        }
        let find = self.skips.find(filter).projection(doc! { "_id": 1, "through": 1 });
        let mut found = find.read_concern(ReadConcern::majority()).session(&mut session).await?;
        let rows: Vec<RawDocumentBuf> = found.stream(&mut session).try_collect().await?;
        rows.iter().map(|row| place(row)).collect()
    }

    /// A session in which a transaction has begun. Where others know of it, who takes over from this instance ends it,
    /// and need not wait until the server does.
    pub(super) async fn begin(&self) -> Result<Held<'_>> {
        let mut held = match &self.transactions {
            Some(transactions) => Held::Lent(transactions.slot(&self.database).await?),
            None => Held::Own(Box::new(self.database.client().start_session().await?)),
        };
        held.session()
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(WriteConcern::majority())
            .await?;
        Ok(held)
    }

    /// Takes the steps of a skip in a transaction, which is to be committed if they succeed.
    async fn skip_in(
        &self,
        session: &mut ClientSession,
        skip: &Skip,
        write: &RowWrite,
    ) -> Result<SkipOutcome> {
        if self.is_on_record(session, skip).await? {
            return Ok(SkipOutcome::Existed);
        }
        let command = match write.expected {
            0 => rawdoc! { "insert": self.collection.as_str(), "documents": [write.row.clone()] },
            _ => rawdoc! { "update": self.collection.as_str(), "updates": [replacement(write)] },
        };
        let reply = reply_of(self.database.run_raw_command(command).session(&mut *session)).await?;
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
        self.put_on_record(session, skip).await?;
        Ok(SkipOutcome::Done)
    }

    /// The same of a skip of everything from a gap on. The filler names its log, so that it never gets into another one.
    async fn skip_above_in(
        &self,
        session: &mut ClientSession,
        skip: &Skip,
        filler: &Filler,
    ) -> Result<SkipAboveOutcome> {
        if self.is_on_record(session, skip).await? {
            return Ok(SkipAboveOutcome::Existed);
        }
        if !filler.leaves_newer {
            let key = |version: i64| doc! { "d": skip.key.document.to_bson(), "s": version };
            let newer = doc! { "_id": { "$gt": key(skip.through), "$lte": key(INTEGER_MAX) } };
            let events =
                self.database.collection::<RawDocumentBuf>(&events_collection(&self.collection));
            let newer = events.find_one(newer).projection(doc! { "_id": 1 });
            if newer.session(&mut *session).await?.is_some() {
                return Ok(SkipAboveOutcome::Newer);
            }
        }
        let mut command = rawdoc! { "insert": events_collection(&self.collection) };
        command.append(cstr!("documents"), RawArrayBuf::from_iter([filler.event.clone()]));
        command.append(cstr!("collectionUUID"), RawBson::Binary(filler.log.0.into()));
        let reply = reply_of(self.database.run_raw_command(command).session(&mut *session)).await?;
        let taken = |error: &Document| error.get_i32("code").ok() == Some(DUPLICATE_KEY);
        if write_errors(&reply).any(|(_, error)| taken(error)) {
            return Ok(SkipAboveOutcome::Taken);
        }
        no_write_errors(&reply)?;
        self.put_on_record(session, skip).await?;
        Ok(SkipAboveOutcome::Done)
    }

    async fn is_on_record(&self, session: &mut ClientSession, skip: &Skip) -> Result<bool> {
        let key = Document::try_from(event_key(&self.collection, &skip.key))?;
        let known = self.skips.find_one(doc! { "_id": key });
        Ok(known.session(&mut *session).await?.is_some())
    }

    async fn put_on_record(&self, session: &mut ClientSession, skip: &Skip) -> Result<()> {
        let row = encode(event_key(&self.collection, &skip.key), skip);
        let command = rawdoc! { "insert": SKIPS_COLLECTION, "documents": [row] };
        let reply = reply_of(self.database.run_raw_command(command).session(&mut *session)).await?;
        no_write_errors(&reply)
    }
}

/// The session of a transaction under way.
pub(super) enum Held<'t> {
    /// One of those that others know of.
    Lent(MutexGuard<'t, Slot>),
    /// One of its own.
    Own(Box<ClientSession>),
}

impl Held<'_> {
    pub(super) fn session(&mut self) -> &mut ClientSession {
        match self {
            Self::Lent(slot) => &mut slot.session,
            Self::Own(session) => session,
        }
    }

    /// Commits the transaction, or ends it without effect.
    pub(super) async fn end(self, database: &Database, is_kept: bool) -> Result<()> {
        match self {
            Self::Lent(mut slot) => slot.end(database, is_kept).await,
            Self::Own(mut session) if is_kept => Ok(session.commit_transaction().await?),
            Self::Own(mut session) => {
                // The server ends it by itself if this fails.
                drop(session.abort_transaction().await);
                Ok(())
            }
        }
    }
}

fn encode(key: RawDocumentBuf, skip: &Skip) -> RawDocumentBuf {
    let mut row = rawdoc! { "_id": key };
    match skip.told.as_slice() {
        [only] if skip.through == skip.key.version => {
            row.append(cstr!("client"), only.client.as_str());
            row.append(cstr!("seq"), only.seq);
        }
        told => {
            let told = told.iter().map(
                |event| rawdoc! { "s": event.version, "client": event.client.as_str(), "seq": event.seq },
            );
            row.append(cstr!("through"), skip.through);
            row.append(cstr!("skipped"), RawArrayBuf::from_iter(told));
        }
    }
    row.append(cstr!("class"), skip.class.name());
    row.append(cstr!("reason"), skip.reason.as_str());
    row.append(cstr!("skipped_at"), skip.skipped_at);
    row
}

/// The events that the record of a skip names, ascending.
pub(crate) fn told_of(row: &RawDocument) -> Result<Vec<SkippedEvent>> {
    let damaged = || Error::damaged(format!("the record {} of a skip is unusable", id_of(row)));
    let read = |row: &RawDocument, version: Option<i64>| {
        let client = row.get_str("client").ok()?.to_owned();
        let seq = row.get("seq").ok().flatten().and_then(integral)?;
        Some(SkippedEvent { version: version?, client, seq })
    };
    let (key, _) = place(row)?;
    match row.get("skipped")? {
        None => Ok(vec![read(row, Some(key.version)).ok_or_else(damaged)?]),
        Some(RawBsonRef::Array(told)) => {
            let read = |event: RawBsonRef<'_>| {
                let event = event.as_document()?;
                read(event, event.get("s").ok().flatten().and_then(integral))
            };
            told.into_iter().map(|event| read(event?).ok_or_else(damaged)).collect()
        }
        Some(_) => Err(damaged()),
    }
}

/// Matches the rows about events of one document, as a range that the index on `_id` serves.
pub(crate) fn events_of(collection: &str, document: &DocumentId) -> Document {
    let key = |version: i64| doc! { "c": collection, "d": document.to_bson(), "s": version };
    doc! { "_id": { "$gte": key(1), "$lte": key(INTEGER_MAX) } }
}

/// The place of the first event that the record of a skip is about, and the version of the last.
pub(crate) fn place(row: &RawDocument) -> Result<(EventKey, i64)> {
    let damaged =
        || Error::damaged(format!("the record {} of a skip has no usable place", id_of(row)));
    let key = row.get_document("_id").map_err(|_| damaged())?;
    let document = key.get("d")?.and_then(|id| DocumentId::from_raw(id).ok());
    let version = key.get("s")?.and_then(integral);
    let (Some(document), Some(version)) = (document, version) else { return Err(damaged()) };
    let through = match row.get("through")? {
        None => version,
        Some(through) => integral(through).filter(|last| *last >= version).ok_or_else(damaged)?,
    };
    Ok((EventKey { document, version }, through))
}
