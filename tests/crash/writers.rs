//! Four writers that append whatever comes to their minds to the same documents, by the append
//! procedure, through every failure, and note down what was acknowledged.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use alluvium::{
    log::{
        append::{AppendLimits, Appender},
        mongo::NamedLog,
    },
    model::{
        event::EventKey,
        id::DocumentId,
        new_event::{NewChange, NewEvent},
    },
};
use bson::{Bson, DateTime, Document, RawDocumentBuf, doc, oid::ObjectId};
use fastrand::Rng;
use mongodb::{Client, Collection, options::ClientOptions};
use tokio::task::JoinHandle;

use crate::{common::wait_until, scene::Scene};

const WRITERS: usize = 4;
const DOCUMENTS: usize = 200;

/// The writers at work.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Vec<Document>>>,
}

impl Writers {
    /// Sets them to work on `games`.
    pub(crate) fn start(scene: &Scene, mut rng: Rng) -> Writers {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let ids: Arc<Vec<DocumentId>> = Arc::new((0..DOCUMENTS).map(id).collect());
        let tasks = (0..WRITERS)
            .map(|number| {
                let (scene, rng, ids) = (scene.clone(), rng.fork(), ids.clone());
                let (stop, written) = (stop.clone(), written.clone());
                tokio::spawn(async move {
                    let mut writer = Writer::new(&scene, format!("writer-{number}"), rng).await;
                    while !stop.load(Ordering::Relaxed) {
                        let id = &ids[writer.rng.usize(..DOCUMENTS)];
                        written.fetch_add(writer.append(id).await, Ordering::Relaxed);
                    }
                    writer.acknowledged
                })
            })
            .collect();
        Writers { stop, written, tasks }
    }

    /// Waits until they have appended so many events more.
    pub(crate) async fn wrote(&self, more: usize) {
        let until = self.written.load(Ordering::Relaxed) + more;
        wait_until(&format!("{more} more events"), async || {
            self.written.load(Ordering::Relaxed) >= until
        })
        .await;
    }

    /// Stops them, and gives every event that was acknowledged.
    pub(crate) async fn finish(self) -> Vec<Document> {
        self.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        for task in self.tasks {
            acknowledged.extend(task.await.unwrap());
        }
        acknowledged
    }
}

fn id(number: usize) -> DocumentId {
    match number % 3 {
        0 => DocumentId::from_bson(&Bson::ObjectId(ObjectId::new())).unwrap(),
        1 => DocumentId::from_bson(&Bson::Int64(number as i64)).unwrap(),
        _ => DocumentId::from_bson(&Bson::String(format!("game/{number}"))).unwrap(),
    }
}

/// What a writer believes of a document: its last version, and whether it lives.
type Belief = (i64, bool);

struct Writer {
    name: String,
    rng: Rng,
    appender: Appender,
    events: Collection<Document>,
    beliefs: HashMap<DocumentId, Belief>,
    acknowledged: Vec<Document>,
}

impl Writer {
    async fn new(scene: &Scene, name: String, rng: Rng) -> Writer {
        let mut options = ClientOptions::parse(&scene.uri).await.unwrap();
        options.server_selection_timeout = Some(Duration::from_secs(5));
        let database = Client::with_options(options).unwrap().database(scene.db.name());
        let limits = AppendLimits { attempts: 4, timeout: Duration::from_secs(5) };
        let log = NamedLog::open(&database, "games").await.unwrap().unwrap();
        Writer {
            name,
            rng,
            appender: Appender::new(log, limits),
            events: database.collection("games.events"),
            beliefs: HashMap::new(),
            acknowledged: Vec::new(),
        }
    }

    /// Tries to append one to three events, and gives how many were acknowledged.
    async fn append(&mut self, id: &DocumentId) -> usize {
        let Some((version, mut lives)) = self.belief(id).await else { return 0 };
        let mut changes = Vec::new();
        for _ in 0..self.rng.usize(1..=3) {
            let (change, left) = change(&mut self.rng, lives);
            lives = left;
            let at = DateTime::from_millis(self.rng.i64(0..2_000_000_000_000));
            let mark = Bson::ObjectId(ObjectId::new());
            let mark = bson::RawBson::try_from(mark).unwrap();
            changes.push(NewEvent::new(self.name.as_str(), change, at).id(mark));
        }
        let sent: Vec<Document> = changes
            .iter()
            .zip(version + 1..)
            .map(|(event, version)| {
                let raw = event.encode(&EventKey { document: id.clone(), version });
                Document::try_from(raw).unwrap()
            })
            .collect();
        match self.appender.insert(id, version, changes).await {
            Ok(held) => {
                if held == sent.len() {
                    self.beliefs.insert(id.clone(), (version + held as i64, lives));
                } else {
                    self.beliefs.remove(id);
                }
                self.acknowledged.extend(sent.into_iter().take(held));
                held
            }
            // Whatever became of it: it may be in the log or not, and is not acknowledged.
            Err(_) => {
                self.beliefs.remove(id);
                0
            }
        }
    }

    async fn belief(&mut self, id: &DocumentId) -> Option<Belief> {
        if let Some(belief) = self.beliefs.get(id) {
            return Some(*belief);
        }
        let version = self.appender.last_version(id).await.ok()?;
        let lives = match version {
            0 => false,
            version => {
                let key = doc! { "_id": { "d": id.to_bson(), "s": version } };
                self.events.find_one(key).await.ok()??.get_str("op").unwrap() != "delete"
            }
        };
        Some((version, lives))
    }
}

/// A change that fits, and whether the document lives after it.
fn change(rng: &mut Rng, lives: bool) -> (NewChange, bool) {
    let raw = |document: Document| RawDocumentBuf::try_from(&document).unwrap();
    let number = rng.i32(-1000..1000);
    if !lives {
        let state = doc! { "n": number, "tags": [], "sub": { "x": 1.5, "y": "text" } };
        return (NewChange::Create { state: raw(state) }, true);
    }
    let patch = match rng.u8(0..8) {
        0 => doc! { "$inc": { "n": number, "sub.count": 1_i64 } },
        1 => doc! { "$set": { "sub.y": number, "z.a.b": { "c": [number] } } },
        2 => doc! { "$unset": { "sub.x": "", "z.a": "", "nothing": "" } },
        3 => doc! { "$push": { "tags": { "$each": [number, { "n": number }] } } },
        4 => doc! { "$set": { "tags": [], "n": number }, "$inc": { "sub.count": 1 } },
        5 => doc! {},
        6 => {
            let merge = doc! { "sub": { "x": null, "m": { "k": number, "gone": null } } };
            return (NewChange::Merge { merge: raw(merge) }, true);
        }
        _ => return (NewChange::Delete, false),
    };
    (NewChange::Patch { patch: raw(patch), array_filters: None }, true)
}
