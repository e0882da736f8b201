//! Writers: the append procedure of the protocol, carried out by actors that lose answers, race each
//! other, and at times break the rules (a careless one waits for no majority; a hole is left; poison is sent).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bson::{Bson, DateTime, Document, RawDocumentBuf, Timestamp, doc, oid::ObjectId};
use fastrand::Rng;

use super::{
    compaction::late_body,
    executor::EPOCH_MILLIS,
    node::Node,
    plan::{Action, Step, WriterPlan},
    world::{COLLECTION, EVENTS, Key, Op, Row, State, Ticket, World},
};
use crate::{
    database::{Error, Result},
    model::{
        event::{EventKey, claimed_version, is_base},
        id::DocumentId,
    },
    planted::{Bug, planted},
};

/// How often an append is tried before the writer gives it up.
const ATTEMPTS: usize = 12;

/// What the writers know of their appends.
#[derive(Clone, Default)]
pub(super) struct Appends {
    inner: Arc<Mutex<Acknowledged>>,
}

#[derive(Clone, Default)]
pub(super) struct Acknowledged {
    pub(super) events: Vec<Document>,
    pub(super) together: Vec<Vec<Document>>,
}

impl Appends {
    pub(super) fn taken(&self) -> Acknowledged {
        self.inner.lock().unwrap().clone()
    }
}

/// One writer.
pub(super) struct Writer {
    node: Node,
    client: String,
    careless: bool,
    appends: Appends,
    rng: Rng,
    /// The session: what this writer has seen happen.
    seen: Timestamp,
    marks: i64,
}

/// The events that one append consists of, before they have versions.
type Bodies = Vec<Document>;

/// More documents than any plan has.
pub(super) const DOCUMENTS: usize = 4;

/// The id of a document by its number: one of every type.
pub(super) fn document_id(number: usize) -> DocumentId {
    match number % 4 {
        0 => DocumentId::String("a".into()),
        1 => DocumentId::Integer(7),
        2 => DocumentId::ObjectId(ObjectId::from_bytes([3; 12])),
        _ => DocumentId::Uuid([9; 16]),
    }
}

impl Writer {
    pub(super) fn new(node: Node, number: usize, plan: &WriterPlan, appends: &Appends) -> Self {
        let rng = node.sim().rng(0x400 + number as u64);
        Self {
            node,
            client: format!("writer-{number}"),
            careless: plan.careless,
            appends: appends.clone(),
            rng,
            seen: Timestamp { time: 0, increment: 0 },
            marks: 0,
        }
    }

    /// Does all that it has to do.
    pub(super) async fn run(mut self, steps: Vec<Step>) {
        for step in steps {
            self.node.sim().sleep(step.pause).await;
            self.step(document_id(step.document), step.action).await;
        }
    }

    /// Takes one step, trying again while it fails.
    pub(super) async fn step(&mut self, document: DocumentId, action: Action) {
        for _ in 0..ATTEMPTS {
            // What is decided again is another event.
            self.marks += 1;
            let mark = format!("{}#{}", self.client, self.marks);
            let done = match action {
                Action::Fill => self.fill(&document).await,
                action => self.append(&document, action, &mark).await,
            };
            match done {
                Ok(true) => return,
                Ok(false) => {}
                Err(_) => self.node.sim().sleep(Duration::from_millis(self.rng.u64(1..200))).await,
            }
        }
        self.node.sim().tell(|| format!("{} gives up on {document}", self.client));
    }

    /// One attempt: `false` means that somebody else took the version, and to decide again.
    async fn append(&mut self, document: &DocumentId, action: Action, mark: &str) -> Result<bool> {
        let (last, lives) = self.last(document).await?;
        let first = if action == Action::Skip { last + 2 } else { last + 1 };
        let bodies = self.bodies(action, lives, first);
        let events: Vec<Document> = bodies
            .into_iter()
            .zip(first..)
            .map(|(body, version)| self.event(document, version, body, mark))
            .collect();
        let transaction = matches!(action, Action::Transaction { .. });
        if transaction {
            self.appends.inner.lock().unwrap().together.push(events.clone());
        }
        let reversed = action == Action::Transaction { reversed: true };
        loop {
            match self.insert(&events, transaction, reversed).await {
                Ok(()) => return self.acknowledge(document, &events).await,
                Err(error) if error.code() == Some(11000) => {
                    if planted(Bug::WriterTakesDuplicateKeyForSuccess) {
                        return self.acknowledge(document, &events).await;
                    }
                    return self.judge_duplicate(document, &events, transaction).await;
                }
                // The outcome is not known: the same events under the same keys, again.
                Err(_) => {
                    let pause = Duration::from_millis(self.rng.u64(1..100));
                    self.node.sim().sleep(pause).await;
                }
            }
        }
    }

    /// After 11000, whose events are there tells whether an earlier attempt has succeeded.
    async fn judge_duplicate(
        &mut self,
        document: &DocumentId,
        events: &[Document],
        transaction: bool,
    ) -> Result<bool> {
        let mut own = Vec::new();
        for event in events {
            if self.is_stored(event).await? {
                own.push(event.clone());
            }
        }
        if !own.is_empty() && own.len() < events.len() && !transaction {
            // The ordered insert stopped midway: what follows is decided again, as events of their own.
            self.acknowledge(document, &own).await?;
            return Ok(true);
        }
        match own.len() == events.len() {
            true => self.acknowledge(document, &own).await,
            false => Ok(false),
        }
    }

    /// Takes appends for done. Where logs are compacted without delay, as no real one is, each place may have been a freed
    /// one: a base at or above it means that the append did not happen, and that it has to be decided again.
    async fn acknowledge(&mut self, document: &DocumentId, events: &[Document]) -> Result<bool> {
        if self.careless {
            return Ok(true);
        }
        let is_compacted = self.node.world.state().compaction.is_on;
        let mut floor = 0;
        let mut log = None;
        if is_compacted {
            let all = self.read(document, |events| events.collect::<Vec<_>>()).await?;
            // Nothing is there at all: the log is away.
            let first = all.first().ok_or_else(|| Error::unreachable("there is no log"))?;
            floor = if is_base(&first.1) { claimed_version(&first.1) } else { 0 };
            log = Some(all);
        }
        // What came late may have made room for what was put back.
        let stands = |event: &Document, version: i64| {
            log.as_ref().is_none_or(|log| {
                let stored = log.iter().find(|(at, _)| *at == version);
                let stored = stored.and_then(|(_, stored)| Document::try_from(stored).ok());
                stored.is_some_and(|stored| stored.get("id") == event.get("id"))
            })
        };
        let is_done = |event: &Document| {
            key_of(event).is_some_and(|(_, version)| version > floor && stands(event, version))
        };
        let done = events.iter().filter(|event| is_done(event)).cloned();
        let mut acknowledged = self.appends.inner.lock().unwrap();
        acknowledged.events.extend(done);
        Ok(events.iter().all(is_done))
    }

    /// Reads the last version, and inserts an event after a nap: at the next place, or so much further down.
    pub(super) async fn nap(&mut self, document: &DocumentId, nap: Duration, down: i64) {
        let Ok((last, lives)) = self.last(document).await else { return };
        let version = last + 1 - down;
        if version < 2 || (down == 0 && !lives) {
            return;
        }
        self.node.sim().sleep(nap).await;
        let mark = format!("{} late", self.client);
        let event = self.event(document, version, late_body(version), &mark);
        if let Ok(()) = self.insert(std::slice::from_ref(&event), false, false).await {
            self.node.sim().tell(|| format!("{} comes late to {document} {version}", self.client));
            // An error means that it does not know, and has acknowledged nothing.
            drop(self.acknowledge(document, &[event]).await);
        }
    }

    /// The newest version, and whether the document lives after it.
    async fn last(&mut self, document: &DocumentId) -> Result<(i64, bool)> {
        let found = self.read(document, |mut events| {
            events
                .next_back()
                .map(|(version, event)| (version, event.get_str("op").ok() != Some("delete")))
        });
        Ok(found.await?.unwrap_or((0, false)))
    }

    async fn is_stored(&mut self, event: &Document) -> Result<bool> {
        let Some((document, version)) = key_of(event) else { return Ok(false) };
        let (id, mark) = (document.clone(), event.get("id").cloned());
        self.read(&id, move |mut events| {
            let stored = events.find(|(at, _)| *at == version);
            stored.is_some_and(|(_, stored)| {
                Document::try_from(stored).is_ok_and(|stored| stored.get("id").cloned() == mark)
            })
        })
        .await
    }

    /// Reads a document's events: at majority in the own session, or, if careless, whatever the primary has.
    async fn read<T: Send + 'static>(
        &mut self,
        document: &DocumentId,
        look: impl FnOnce(std::vec::IntoIter<(i64, RawDocumentBuf)>) -> T + Send + 'static,
    ) -> Result<T> {
        let (world, document) = (self.node.world.clone(), document.clone());
        let (seen, careless) = (self.seen, self.careless);
        let work = async move {
            if !careless {
                world.causal(seen).await;
            }
            let state = world.state();
            let data = if careless { &state.latest } else { &state.visible };
            let events: Vec<_> = data
                .events(&document, 0)
                .map(|(version, event)| (version, event.clone()))
                .collect();
            Ok((look(events.into_iter()), state.operation_time()))
        };
        let (found, time) = self.node.call("read of a writer", work).await?;
        self.seen = self.seen.max(time);
        Ok(found)
    }

    async fn insert(
        &mut self,
        events: &[Document],
        transaction: bool,
        reversed: bool,
    ) -> Result<()> {
        let world = self.node.world.clone();
        let careless = self.careless;
        let mut rows: Vec<(EventKey, RawDocumentBuf)> = events
            .iter()
            .filter_map(|event| {
                let (document, version) = key_of(event)?;
                Some((EventKey { document, version }, RawDocumentBuf::try_from(event).ok()?))
            })
            .collect();
        if reversed {
            rows.reverse();
        }
        let name = self.node.name(|| {
            let key = |(key, _): &(EventKey, _)| format!("{} {}", key.document, key.version);
            format!("insert {}", rows.iter().map(key).collect::<Vec<_>>().join(", "))
        });
        let work = async move {
            if world.state().log_is_aside {
                return Err(Error::server(13, "not authorized to make a collection"));
            }
            let (ticket, duplicate) = world.insert_events(rows, transaction);
            if let Some(ticket) = ticket.filter(|_| !careless) {
                world.majority(ticket).await?;
            }
            if duplicate {
                return Err(Error::server(11000, "E11000 duplicate key error"));
            }
            Ok(world.state().operation_time())
        };
        let time = self.node.call(&name, work).await?;
        self.seen = self.seen.max(time);
        Ok(())
    }

    /// Inserts what is missing below the newest version.
    pub(super) async fn fill(&mut self, document: &DocumentId) -> Result<bool> {
        let missing = self.read(document, |events| {
            let events: Vec<(i64, RawDocumentBuf)> = events.collect();
            let first = events.first().filter(|(_, first)| is_base(first));
            let floor = first.map(|(_, base)| claimed_version(base));
            let versions: BTreeMap<i64, bool> = events
                .iter()
                .map(|(version, event)| (*version, event.get_str("op").ok() != Some("delete")))
                .collect();
            let last = versions.keys().next_back().copied().unwrap_or(0);
            let below = |version: &i64| {
                versions.range(..version).next_back().is_some_and(|(_, lives)| *lives)
            };
            let floor = floor.unwrap_or(0);
            let holes = (floor + 1..last).filter(|version| !versions.contains_key(version));
            holes.map(|version| (version, below(&version))).collect::<Vec<_>>()
        });
        for (version, lives) in missing.await? {
            let body = if lives {
                doc! { "op": "update", "patch": {} }
            } else {
                created(0)
            };
            let mark = format!("{} fills {version}", self.client);
            let event = self.event(document, version, body, &mark);
            match self.insert(&[event], false, false).await {
                Err(error) if error.code() != Some(11000) => return Err(error),
                _ => {}
            }
        }
        Ok(true)
    }

    fn event(
        &mut self,
        document: &DocumentId,
        version: i64,
        body: Document,
        mark: &str,
    ) -> Document {
        let now = self.node.sim().now().as_millis() as i64;
        // Writers' clocks are wrong, and JavaScript sends integers as doubles.
        let at = DateTime::from_millis(EPOCH_MILLIS + now + self.rng.i64(-5_000..5_000));
        let mut number = |value: i64| match self.rng.u8(..3) {
            0 => Bson::Int32(value as i32),
            1 => Bson::Double(value as f64),
            _ => Bson::Int64(value),
        };
        let d = match document {
            DocumentId::Integer(value) => number(*value),
            other => other.to_bson(),
        };
        let mut event = doc! { "_id": { "d": d, "s": number(version) }, "client": &self.client };
        event.extend(body);
        event.insert("at", at);
        event.insert("id", format!("{mark}.{version}"));
        if event.remove("bad").is_some() {
            event.remove("client");
        }
        event
    }

    fn bodies(&mut self, action: Action, lives: bool, version: i64) -> Bodies {
        let patch = |patch: Document| doc! { "op": "update", "patch": patch };
        let add = |more: i64| patch(doc! { "$inc": { "gold": more } });
        if !lives && !matches!(action, Action::BadEvent | Action::Two | Action::Transaction { .. })
        {
            return vec![created(version)];
        }
        let first = if lives { add(1) } else { created(version) };
        match action {
            Action::Add(more) => vec![add(more)],
            Action::Rename(name) => {
                vec![patch(doc! { "$set": { "name": format!("name-{name}") } })]
            }
            Action::Push(value) => vec![patch(doc! { "$push": { "list": value } })],
            Action::Unset => vec![patch(doc! { "$unset": { "list": "" } })],
            Action::Merge(value) => {
                vec![doc! { "op": "update", "merge": { "merged": value, "level": Bson::Null } }]
            }
            Action::Nothing | Action::Fill => vec![patch(doc! {})],
            Action::Delete => vec![doc! { "op": "delete" }],
            Action::Two => vec![first, add(2)],
            Action::Transaction { .. } => {
                vec![first, add(3), patch(doc! { "$push": { "list": 3_i64 } })]
            }
            Action::BadPatch => vec![patch(doc! { "$inc": { "gold": 1_i64, "name": 1_i64 } })],
            Action::BadEvent => vec![doc! { "op": "update", "patch": {}, "bad": true }],
            Action::Skip => vec![add(5)],
            Action::Big => {
                vec![doc! { "op": "update", "patch": { "$inc": { "gold": 9_i64 } }, "big": true }]
            }
        }
    }
}

fn created(version: i64) -> Document {
    doc! { "op": "create", "state": { "name": format!("made-at-{version}"), "gold": version, "level": 1_i64 } }
}

fn key_of(event: &Document) -> Option<(DocumentId, i64)> {
    let key = event.get_document("_id").ok()?;
    let document = DocumentId::from_bson(key.get("d")?).ok()?;
    let version = match key.get("s")? {
        Bson::Int32(version) => i64::from(*version),
        Bson::Double(version) => *version as i64,
        other => other.as_i64()?,
    };
    Some((document, version))
}

impl World {
    /// Inserts in order until one is there already, or, in a transaction, all or none. An insert into a
    /// collection that does not exist makes it.
    pub(super) fn insert_events(
        &self,
        rows: Vec<(EventKey, RawDocumentBuf)>,
        transaction: bool,
    ) -> (Option<Ticket>, bool) {
        self.make_log();
        let exists = |state: &State, key: &EventKey| {
            state.latest.get(EVENTS, &Key::Event(key.clone())).is_some()
        };
        let put = |(key, event): (EventKey, RawDocumentBuf)| Op::Put {
            collection: EVENTS.into(),
            key: Key::Event(key),
            row: Row::Raw(event),
        };
        if transaction {
            let duplicate = rows.iter().any(|(key, _)| exists(&self.state(), key));
            let ticket = (!duplicate).then(|| self.apply(rows.into_iter().map(put).collect()));
            return (ticket, duplicate);
        }
        let mut last = None;
        for row in rows {
            if exists(&self.state(), &row.0) {
                return (last, true);
            }
            last = Some(self.apply(vec![put(row)]));
        }
        (last, false)
    }

    /// Makes the log's collection if there is none.
    pub(super) fn make_log(&self) {
        self.make(EVENTS);
    }

    /// Makes the collection of the rows, if it is not there, as any write to it does.
    pub(super) fn make_rows(&self) {
        self.make(COLLECTION);
    }

    fn make(&self, collection: &str) {
        let mut state = self.state();
        if !state.latest.collections.contains_key(collection) {
            let id = state.new_id();
            drop(state);
            self.apply(vec![Op::Create { collection: collection.into(), id }]);
        }
    }
}
