//! Bases, marks and clients on MongoDB. A base stands in the log itself; marks in `alluvium.marks`: `{_id: {c, d}, log,
//! marks: [{version, at}], due}`; what clients have acknowledged in `alluvium.clients`: `{_id: {c, x, d}, clock, seen_at}`.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bson::{
    Binary, Bson, DateTime, Document, RawBson, RawDocument, RawDocumentBuf, Timestamp, doc,
    raw::cstr, rawdoc, spec::BinarySubtype,
};
use futures::TryStreamExt;
use mongodb::{ClientSession, options::ReadConcern};

use super::{MongoStore, held_by_majority, no_write_errors};
use crate::{
    database::{Error, Result, Verdict, reply_of, server_time},
    model::{
        base::Base,
        clock::Clock,
        compaction::{LiveClient, Mark},
        event::{BASE_OP, EventKey},
        id::{DocumentId, integral},
        names::events_collection,
        position::LogId,
    },
    planted::{Bug, planted},
    store::{
        CLIENTS_COLLECTION, MARKS_COLLECTION, QUARANTINE_COLLECTION,
        bases::{Bases, Forgotten, Hindrance, Over, Prune, PruneOutcome, Restore, Which},
    },
};

impl Bases for MongoStore {
    async fn restore(&self, log: LogId, step: &Restore) -> Result<bool> {
        let mut held = self.begin().await?;
        let outcome = self.restore_in(held.session(), log, step).await;
        let is_kept = matches!(outcome, Ok(true));
        held.end(&self.database, is_kept).await?;
        outcome
    }

    async fn hold(&self, log: LogId, id: &DocumentId, is_held: bool) -> Result<()> {
        self.put_hold(log, id, is_held).await
    }

    async fn held(&self, log: LogId, ids: &[DocumentId]) -> Result<HashSet<DocumentId>> {
        self.find_held(log, ids).await
    }

    async fn hindrance(&self, settled: Duration) -> Result<Option<Hindrance>> {
        self.hindrance_of_bases(settled).await
    }

    async fn put_base(&self, log: LogId, base: &Base, over: &Over) -> Result<bool> {
        let filter = match over {
            Over::Create => rawdoc! { "_id": base.key.clone(), "op": "create" },
            Over::Base(which) => which_base(base.key.clone(), which),
        };
        let statement = rawdoc! { "q": filter, "u": base.to_raw() };
        let mut update = self.on_log("update", log, rawdoc! { "updates": [statement] })?;
        update.append(cstr!("writeConcern"), rawdoc! { "w": "majority" });
        let reply = reply_of(self.database.run_raw_command(update)).await?;
        held_by_majority(&reply)?;
        Ok(written(&reply)? == 1)
    }

    async fn prune(&self, log: LogId, steps: &[Prune]) -> Result<PruneOutcome> {
        let mut held = self.begin().await?;
        let outcome = self.prune_in(held.session(), log, steps).await;
        let outcome = match outcome {
            // The server has ended the transaction for its own reasons.
            Err(error) if is_busy(&error) => Ok(PruneOutcome::Busy),
            outcome => outcome,
        };
        let is_kept = matches!(outcome, Ok(PruneOutcome::Done));
        match held.end(&self.database, is_kept).await {
            Err(error) if is_kept && is_busy(&error) => Ok(PruneOutcome::Busy),
            ended => ended.and(outcome),
        }
    }

    async fn marks(
        &self,
        log: LogId,
        ids: &[DocumentId],
    ) -> Result<HashMap<DocumentId, Vec<Mark>>> {
        let keys: Vec<Bson> =
            ids.iter().map(|id| doc! { "c": &self.collection, "d": id.to_bson() }.into()).collect();
        let filter = doc! { "_id": { "$in": keys }, "log": log.0 };
        let marks = self.database.collection::<RawDocumentBuf>(MARKS_COLLECTION);
        let rows: Vec<RawDocumentBuf> =
            marks.find(filter).read_concern(ReadConcern::majority()).await?.try_collect().await?;
        Ok(rows.iter().filter_map(|row| Some((document_of(row)?, marks_of(row)))).collect())
    }

    async fn clients(&self, ids: &[DocumentId]) -> Result<HashMap<DocumentId, Vec<LiveClient>>> {
        let ids: Vec<Bson> = ids.iter().map(DocumentId::to_bson).collect();
        let filter = doc! { "_id.c": &self.collection, "_id.d": { "$in": ids } };
        let clients = self.database.collection::<RawDocumentBuf>(CLIENTS_COLLECTION);
        let rows: Vec<RawDocumentBuf> =
            clients.find(filter).read_concern(ReadConcern::majority()).await?.try_collect().await?;
        let mut clients: HashMap<DocumentId, Vec<LiveClient>> = HashMap::new();
        for row in &rows {
            let Some(id) = document_of(row) else { continue };
            // One that cannot be read lacks everything: nothing is pruned that it might need.
            let clock =
                row.get_document("clock").ok().and_then(|clock| Clock::from_raw(clock).ok());
            let name = row.get_document("_id").ok().and_then(|key| key.get_str("x").ok());
            let seen_at = row.get_datetime("seen_at").ok();
            let client = LiveClient {
                is_readable: clock.is_some() && name.is_some() && seen_at.is_some(),
                name: name.unwrap_or_default().to_owned(),
                clock: clock.unwrap_or_default(),
                seen_at: seen_at.unwrap_or(DateTime::MAX),
            };
            clients.entry(id).or_default().push(client);
        }
        Ok(clients)
    }

    async fn late(
        &self,
        log: LogId,
        base: &Base,
        limit: u32,
        at_least: Timestamp,
    ) -> Result<Vec<RawDocumentBuf>> {
        let find = rawdoc! {
            "filter": { "_id": EventKey::range(&base.id, &(2..=base.pruned)) },
            "sort": { "_id": 1 },
            "limit": i64::from(limit),
            "readConcern": { "level": "majority", "afterClusterTime": at_least },
        };
        let find = self.on_log("find", log, find)?;
        // As bytes: an event may have anything in it.
        let rows = self.database.run_raw_cursor_command(find).await?;
        Ok(rows.with_type::<RawDocumentBuf>().try_collect().await?)
    }

    async fn remove_late(&self, log: LogId, base: &Base, event: &RawDocumentBuf) -> Result<bool> {
        let late = (event, server_time(&self.database).await?);
        let mut held = self.begin().await?;
        let outcome = self.remove_late_in(held.session(), log, base, late).await;
        let is_kept = matches!(outcome, Ok(true));
        // Others write there, who may be taking it out as well.
        let unless_busy = |error: Error| if is_busy(&error) { Ok(false) } else { Err(error) };
        match held.end(&self.database, is_kept).await {
            Err(error) if is_kept => unless_busy(error),
            ended => ended.and(outcome.or_else(unless_busy)),
        }
    }

    async fn forget(&self, id: &DocumentId, through: i64) -> Result<Forgotten> {
        self.forget_content(id, through).await
    }
}

impl MongoStore {
    /// A command on the log, which names it.
    pub(super) fn on_log(
        &self,
        verb: &str,
        log: LogId,
        fields: RawDocumentBuf,
    ) -> Result<RawDocumentBuf> {
        let mut command = RawDocumentBuf::new();
        command.append(bson::raw::CString::try_from(verb)?, events_collection(&self.collection));
        for field in &fields {
            let (name, value) = field?;
            command.append(name, value);
        }
        command.append(cstr!("collectionUUID"), RawBson::Binary(log.0.into()));
        Ok(command)
    }

    async fn prune_in(
        &self,
        session: &mut ClientSession,
        log: LogId,
        steps: &[Prune],
    ) -> Result<PruneOutcome> {
        let touches = steps.iter().map(|step| {
            let key = EventKey { document: step.id.clone(), version: 1 }.to_raw();
            rawdoc! {
                "q": which_base(key, &step.base), "u": { "$set": { "pruned": step.through } },
            }
        });
        let touches: bson::RawArrayBuf = touches.collect();
        let update = self.on_log("update", log, rawdoc! { "updates": touches })?;
        if self.write_in(session, update).await? != steps.len() as i64 {
            return Ok(PruneOutcome::Moved);
        }
        let deletes = steps.iter().map(|step| {
            let range = EventKey::range(&step.id, &(step.base.pruned + 1..=step.through));
            rawdoc! { "q": { "_id": range }, "limit": 0 }
        });
        let deletes: bson::RawArrayBuf = deletes.collect();
        let delete = self.on_log("delete", log, rawdoc! { "deletes": deletes })?;
        let gone = self.write_in(session, delete).await?;
        let expected: i64 = steps.iter().map(Prune::events).sum();
        Ok(match gone == expected || planted(Bug::StepWithoutCount) {
            true => PruneOutcome::Done,
            false => PruneOutcome::Short,
        })
    }

    async fn remove_late_in(
        &self,
        session: &mut ClientSession,
        log: LogId,
        base: &Base,
        (event, since): (&RawDocumentBuf, DateTime),
    ) -> Result<bool> {
        // A base that is put back or replaced meanwhile decides anew whether the event is late. To write what stands there
        // already would not conflict with that, so the step is one of its own kind: the time of the last of them.
        let touch = rawdoc! {
            "q": which_base(base.key.clone(), &Which::from(base)),
            "u": [{ "$set": { "late_at": "$$NOW" } }],
        };
        let update = self.on_log("update", log, rawdoc! { "updates": [touch] })?;
        if self.write_in(session, update).await? != 1 {
            return Ok(false);
        }
        let record = self.late_record((event, base), since)?;
        let insert = rawdoc! { "insert": QUARANTINE_COLLECTION, "documents": [record] };
        self.write_in(session, insert).await?;
        let key = rawdoc! { "_id": event.get_document("_id")?.to_owned() };
        let find = self.on_log("find", log, rawdoc! { "filter": key.clone(), "limit": 1 })?;
        let found = self.database.run_raw_cursor_command(find).session(&mut *session).await?;
        let mut found = found.with_type::<RawDocumentBuf>();
        let found: Vec<RawDocumentBuf> = found.stream(session).try_collect().await?;
        if found.first() != Some(event) {
            return Ok(false);
        }
        let delete =
            self.on_log("delete", log, rawdoc! { "deletes": [{ "q": key, "limit": 1 }] })?;
        Ok(self.write_in(session, delete).await? == 1)
    }

    /// Runs a command that writes in a transaction; how many it has written.
    pub(super) async fn write_in(
        &self,
        session: &mut ClientSession,
        command: RawDocumentBuf,
    ) -> Result<i64> {
        written(&reply_of(self.database.run_raw_command(command).session(session)).await?)
    }

    /// The record of a late event, which keeps it whole unless its place is one of those that were erased.
    fn late_record(
        &self,
        (event, base): (&RawDocument, &Base),
        since: DateTime,
    ) -> Result<RawDocumentBuf> {
        let key = event.get_document("_id")?;
        let mut id = rawdoc! { "late": self.collection.as_str() };
        for field in key {
            let (name, value) = field?;
            id.append(name, value);
        }
        id.append(cstr!("n"), bson::oid::ObjectId::new());
        let mut record = rawdoc! { "_id": id, "class": "late" };
        record.append(cstr!("event"), late_as_kept(base, event));
        record.append(cstr!("since"), since);
        Ok(record)
    }
}

fn late_as_kept(base: &Base, event: &RawDocument) -> RawDocumentBuf {
    if planted(Bug::LateKeepsErased) { event.to_owned() } else { base.kept_of(event) }
}

/// How many documents a write has matched, inserted or deleted, by its reply.
fn written(reply: &Document) -> Result<i64> {
    no_write_errors(reply)?;
    Ok(reply.get_i32("n").unwrap_or_default().into())
}

pub(super) fn which_base(key: RawDocumentBuf, which: &Which) -> RawDocumentBuf {
    let hash = Binary { subtype: BinarySubtype::Generic, bytes: which.hash.to_vec() };
    let mut filter = rawdoc! {
        "_id": key, "op": BASE_OP, "version": which.version, "hash": hash, "pruned": which.pruned,
    };
    match which.erased_through {
        0 => filter.append(cstr!("erased_through"), rawdoc! { "$exists": false }),
        through => filter.append(cstr!("erased_through"), through),
    }
    filter
}

/// Whether a transaction may succeed when it is taken again, or in smaller pieces: another one wrote there, it took too
/// long, or it was too large.
fn is_busy(error: &Error) -> bool {
    const TOO_MUCH: [i32; 6] = [112, 225, 251, 256, 257, 267];
    error.code().is_some_and(|code| TOO_MUCH.contains(&code))
        && !matches!(error.verdict(), Verdict::Stop(_))
}

/// The document that a row is about.
pub(super) fn document_of(row: &RawDocument) -> Option<DocumentId> {
    let id = row.get_document("_id").ok()?.get("d").ok()??;
    DocumentId::from_raw(id).ok()
}

fn marks_of(row: &RawDocument) -> Vec<Mark> {
    let Ok(marks) = row.get_array("marks") else { return Vec::new() };
    let mark = |mark: &RawDocument| {
        let version = mark.get("version").ok()?.and_then(integral)?;
        Some(Mark { version, at: mark.get_datetime("at").ok()? })
    };
    let marks = marks.into_iter().flatten();
    marks.filter_map(|raw| mark(raw.as_document()?)).collect()
}
