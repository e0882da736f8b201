//! What an import appends. A document without a log gets its first event, many in one command; every other one is read with
//! its log and brought to what the source has, one by one.

use std::collections::HashMap;

use bson::{DateTime, Document as Fields, RawDocument, RawDocumentBuf, doc, raw::cstr, rawdoc};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use mongodb::{
    Collection, Cursor, Database,
    options::{ReadConcern, WriteConcern},
};

use super::{
    ImportError, Options,
    decide::{Step, decide, proven},
    last::last_versions,
    source::Item,
};
use crate::{
    database::{Error, Result, code},
    log::{
        append::{AppendLimits, Appender, Row, fitting},
        mongo::{KnownLog, NamedLog},
    },
    model::{
        base::{Base, VERSION_MIN},
        clock::Clock,
        document::Document,
        event::EventKey,
        id::DocumentId,
        new_event::{NewChange, NewEvent},
        part::Part,
        quarantine::Quarantine,
        snapshot::FOLD,
    },
    read::{ReadError, ReadLimits, Reader},
    store::{
        bases::{Bases, Hindrance},
        mongo::MongoStore,
    },
};

/// How many documents are brought up to date at once.
pub(super) const AT_ONCE: usize = 8;
/// How often others may be quicker.
const ATTEMPTS: usize = 5;
/// How many rows are read together.
const ROWS: u32 = 1_000;

/// What became of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Same,
    Created,
    Updated,
    Deleted,
    Left(String),
}

/// The log and the rows of the collection that gets the documents.
#[derive(Debug)]
pub(super) struct Writing {
    log: NamedLog,
    appender: Appender,
    reader: Reader,
    documents: Collection<RawDocumentBuf>,
    store: MongoStore,
    options: Options,
}

/// A document of the source with its first events.
type First<'a> = (&'a Item, Vec<RawDocumentBuf>);

impl Writing {
    pub(super) async fn open(database: &Database, options: &Options) -> Result<Self, ImportError> {
        let collection = &options.collection;
        let missing = || ImportError::NoLog(KnownLog::new(database, collection).events());
        let log = NamedLog::open(database, collection).await?.ok_or_else(missing)?;
        let limits = ReadLimits { fold: options.limits, ..ReadLimits::default() };
        Ok(Self {
            appender: Appender::new(log.clone(), AppendLimits::default()),
            reader: Reader::new(database, collection, limits),
            documents: database.collection(collection),
            store: MongoStore::new(database, collection, Part::WHOLE),
            options: options.clone(),
            log,
        })
    }

    /// Whether bases may be written now.
    pub(super) async fn may_write_bases(
        &self,
        settled: std::time::Duration,
    ) -> Result<bool, ImportError> {
        match self.store.hindrance(settled).await? {
            None => Ok(true),
            Some(Hindrance::Passing) => Ok(false),
            Some(Hindrance::Stands(reason)) => Err(ImportError::NoBases(reason)),
        }
    }

    /// The projected documents among these.
    pub(super) async fn rows(&self, items: &[Item]) -> Result<HashMap<DocumentId, RawDocumentBuf>> {
        let ids: Vec<bson::Bson> = items.iter().map(|item| item.id.to_bson()).collect();
        let found = self.documents.find(doc! { "_id": { "$in": ids } });
        let rows: Vec<RawDocumentBuf> =
            found.read_concern(ReadConcern::majority()).await?.try_collect().await?;
        Ok(rows.into_iter().filter_map(|row| Some((DocumentId::of_row(&row)?, row))).collect())
    }

    /// The last versions of some of these documents.
    pub(super) async fn last_versions(&self, items: &[Item]) -> Result<HashMap<DocumentId, i64>> {
        last_versions(&self.log, items).await
    }

    /// Whether a row holds this state, and its log nothing above it. `last` is its last version, where that is known.
    pub(super) async fn is_same(
        &self,
        row: Option<&RawDocumentBuf>,
        last: Option<i64>,
        item: &Item,
    ) -> Result<bool> {
        let held = row
            .and_then(|row| Some((row.get_document("state").ok()?, row.get_i64("version").ok()?)));
        match held {
            Some((state, version)) if state.as_bytes() == item.state.as_bytes() => {
                let last = match last {
                    Some(last) => last,
                    None => self.appender.last_version(&item.id).await?,
                };
                Ok(last == version)
            }
            _ => Ok(false),
        }
    }

    /// The clocks of all rows that are no deleted ones, batch by batch.
    pub(super) async fn all_rows(&self) -> Result<Rows> {
        let find = self.documents.find(doc! { "deleted": { "$ne": true } });
        let fields = doc! { "version": 1, "clock": 1 };
        let find = find.projection(fields).read_concern(ReadConcern::majority()).batch_size(ROWS);
        Ok(Rows { cursor: find.await? })
    }

    /// Brings these documents, which have other rows than the source has, or none, to what the source has.
    pub(super) async fn take_over(
        &self,
        items: &[&Item],
        rows: &HashMap<DocumentId, RawDocumentBuf>,
    ) -> Result<Vec<(DocumentId, Done)>, ImportError> {
        let (mut done, mut first, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            if rows.contains_key(&item.id) {
                known.push(*item);
                continue;
            }
            match self.first(item) {
                Ok(events) => first.push((*item, events)),
                Err(reason) => done.push((item.id.clone(), Done::Left(reason))),
            }
        }
        let mut rest = &*first;
        while !rest.is_empty() {
            let part = fitting(rest, |(_, events)| {
                events.iter().map(|event| event.as_bytes().len()).sum()
            });
            for ((item, _), made) in part.iter().zip(self.make(part).await?) {
                match made {
                    Some(what) => done.push((item.id.clone(), what)),
                    None => known.push(*item),
                }
            }
            rest = rest.get(part.len()..).unwrap_or_default();
        }
        done.extend(self.bring_all(&known).await?);
        Ok(done)
    }

    /// The first events of a document: a create, or a base with the event that has to be at its version.
    fn first(&self, item: &Item) -> Result<Vec<RawDocumentBuf>, String> {
        let Options { client, limits, .. } = &self.options;
        let empty = Document::new(item.id.clone());
        let create = NewChange::Create { state: item.state.clone() };
        let events = proven(&empty, &[create], client, limits)?;
        Ok(match item.version.filter(|version| *version >= VERSION_MIN) {
            None => events
                .into_iter()
                .map(|event| Row::new(&item.id, 1, event).event().to_owned())
                .collect(),
            Some(version) => based(&item.id, version, &item.state, client),
        })
    }

    /// Makes documents that have no log. `None` for each that has one.
    async fn make(&self, first: &[First<'_>]) -> Result<Vec<Option<Done>>, ImportError> {
        // A base and its event have to come together, so they come in a transaction: all or none.
        if first.iter().any(|(_, events)| events.len() > 1) {
            let all = match first.len() {
                1 => None,
                _ => self.insert_together(first).await?,
            };
            if all == Some(Done::Created) {
                return Ok(vec![all; first.len()]);
            }
            let mut made = Vec::with_capacity(first.len());
            for one in first {
                made.push(self.insert_together(std::slice::from_ref(one)).await?);
            }
            return Ok(made);
        }
        let events: bson::RawArrayBuf =
            first.iter().flat_map(|(_, events)| events.iter().cloned()).collect();
        let fields = rawdoc! {
            "documents": events, "ordered": false, "writeConcern": { "w": "majority" },
        };
        let mut session = self.appender.causal().session().await?;
        let reply = self.log.run_in(&mut session, cstr!("insert"), &fields).await?;
        self.appender.causal().observe(&session);
        judge(&reply, first.len())
    }

    /// Inserts all of it in a transaction, or nothing. `None` when one of the places is taken.
    async fn insert_together(&self, first: &[First<'_>]) -> Result<Option<Done>, ImportError> {
        let mut session = self.appender.causal().session().await?;
        session
            .start_transaction()
            .write_concern(WriteConcern::majority())
            .await
            .map_err(Error::from)?;
        let events: bson::RawArrayBuf =
            first.iter().flat_map(|(_, events)| events.iter().cloned()).collect();
        let fields = rawdoc! { "documents": events, "ordered": true };
        let reply = self.log.run_in(&mut session, cstr!("insert"), &fields).await;
        let made = match reply {
            Ok(reply) => judge(&reply, 2 * first.len()).map(|made| {
                made.into_iter()
                    .find(|made| *made != Some(Done::Created))
                    .unwrap_or(Some(Done::Created))
            }),
            Err(error) if error.code() == Some(code::DUPLICATE_KEY) => Ok(None),
            Err(error) => Err(error.into()),
        };
        if matches!(made, Ok(Some(Done::Created))) {
            session.commit_transaction().await.map_err(Error::from)?;
            self.appender.causal().observe(&session);
        } else {
            // Where this fails, the server ends it with the session.
            let _ended_anyway = session.abort_transaction().await;
        }
        made
    }

    async fn bring_all(&self, items: &[&Item]) -> Result<Vec<(DocumentId, Done)>, ImportError> {
        let all = items.iter().map(|item| {
            async move { Ok((item.id.clone(), self.bring(&item.id, Some(&item.state)).await?)) }
                .boxed()
        });
        stream::iter(all.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// A document as its log has it, and what keeps it from going on.
    async fn current(&self, id: &DocumentId) -> Result<(Document, Option<Quarantine>), ReadError> {
        let current = self.reader.current(id).await?;
        let whole = current.map(|current| (current.document, current.waits));
        Ok(whole.unwrap_or_else(|| (Document::new(id.clone()), None)))
    }

    /// Brings one document to what the source has; `None`: it has gone from there.
    pub(super) async fn bring(
        &self,
        id: &DocumentId,
        wanted: Option<&RawDocument>,
    ) -> Result<Done, ImportError> {
        let Options { client, limits, .. } = &self.options;
        for _ in 0..ATTEMPTS {
            let (document, waits) = self.current(id).await?;
            let changes = match decide(&document, waits.as_ref(), wanted, client) {
                Step::Same => return Ok(Done::Same),
                Step::Leave(reason) => return Ok(Done::Left(reason)),
                Step::Append(changes) => changes,
            };
            let events = match proven(&document, &changes, client, limits) {
                Ok(events) => events,
                Err(reason) => return Ok(Done::Left(reason)),
            };
            let count = events.len();
            if self.appender.insert(id, document.version, events).await? == count {
                return Ok(match (wanted, document.version) {
                    (None, _) => Done::Deleted,
                    (Some(_), 0) => Done::Created,
                    (Some(_), _) => Done::Updated,
                });
            }
        }
        Ok(Done::Left("others wrote to it in every attempt; run the import again".into()))
    }

    /// Which of these are what the source has, by their logs. Nothing is written.
    pub(super) async fn compare(
        &self,
        items: &[&Item],
    ) -> Result<Vec<(DocumentId, Done)>, ImportError> {
        let all = items.iter().map(|item| {
            async move {
                let (document, _) = self.current(&item.id).await?;
                let done = match decide(&document, None, Some(&item.state), &self.options.client) {
                    Step::Same => Done::Same,
                    Step::Leave(reason) => Done::Left(reason),
                    Step::Append(_) => Done::Updated,
                };
                Ok((item.id.clone(), done))
            }
            .boxed()
        });
        stream::iter(all.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).try_collect().await
    }
}

/// A walk over projected documents.
pub(super) struct Rows {
    cursor: Cursor<RawDocumentBuf>,
}

impl Rows {
    /// The versions and clocks of the next ones; none at the end.
    pub(super) async fn next(&mut self) -> Result<HashMap<DocumentId, (i64, Clock)>> {
        let mut batch = HashMap::new();
        while batch.len() < ROWS as usize {
            let Some(row) = self.cursor.try_next().await? else { break };
            let read = || {
                let id = DocumentId::of_row(&row)?;
                let version = row.get_i64("version").ok()?;
                Some((id, (version, Clock::from_raw(row.get_document("clock").ok()?).ok()?)))
            };
            batch.extend(read());
        }
        Ok(batch)
    }
}

/// A base at a version, and the event that has to be there.
fn based(id: &DocumentId, version: i64, state: &RawDocument, client: &str) -> Vec<RawDocumentBuf> {
    let (now, key) = (DateTime::now(), |version| EventKey { document: id.clone(), version });
    let mut clock = Clock::new();
    clock.set(client, version);
    let base = Base {
        key: key(1).to_raw(),
        id: id.clone(),
        version,
        clock,
        state: Some(state.to_owned()),
        at: now,
        at_max: now,
        fold: FOLD,
        pruned: version - 1,
        based_at: now,
        mark: None,
        erased_through: 0,
    };
    let nothing = NewChange::Patch { patch: rawdoc! {}, array_filters: None };
    let event = NewEvent::new(client, nothing, now);
    vec![base.to_raw(), Row::new(id, version, event).event().to_owned()]
}

/// What the server said of each of `count` inserts.
fn judge(reply: &Fields, count: usize) -> Result<Vec<Option<Done>>, ImportError> {
    let mut made = vec![Some(Done::Created); count];
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    for error in errors.iter().filter_map(bson::Bson::as_document) {
        let index = error.get_i32("index").ok().and_then(|index| usize::try_from(index).ok());
        let reason = error.get_str("errmsg").unwrap_or("the server refuses it").to_owned();
        let found = match error.get_i32("code") {
            Ok(code::DUPLICATE_KEY) => None,
            Ok(code) if !is_of_one(code) => {
                return Err(Error::server(code, reason).into());
            }
            _ => Some(Done::Left(format!("the server refuses the event: {reason}"))),
        };
        if let Some(place) = index.and_then(|index| made.get_mut(index)) {
            *place = found;
        }
    }
    if let Ok(error) = reply.get_document("writeConcernError") {
        let code = error.get_i32("code").unwrap_or_default();
        let said = error.get_str("errmsg").unwrap_or("write concern not satisfied");
        return Err(Error::server(code, said).into());
    }
    Ok(made)
}

/// Whether an error is about what one event holds, by what is known to be: validator, size, keys.
fn is_of_one(code: i32) -> bool {
    [code::VALIDATION_FAILED, 10334, 2, 17280, 15].contains(&code)
}
