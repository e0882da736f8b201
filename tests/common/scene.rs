//! The stage of a system test: a database with logs, the daemon in the test's own process, and the
//! verdict of the judge over what became of the documents.

#![allow(dead_code, reason = "every test binary uses a part of this")]
#![allow(unreachable_pub, reason = "a helper is as public as its test binary")]

use std::{net::SocketAddr, time::Duration};

use alluvium::{
    config::{CollectionConfig, Config, DaemonConfig, HttpConfig, MongoConfig},
    daemon::{Daemon, DaemonError, Front},
    status::{CollectionStatus, Phase, Role},
    time::SystemTime,
};
use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::{
    Client, Collection, Database,
    options::{ClientOptions, ReadConcern},
};
use prometheus::TextEncoder;
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::common::{TestDatabase, database, wait_for, wait_until};
use crate::judge::{self, Evidence, Report, ServerReplay};

/// A database with the logs of some collections.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The database, through a client of the test's own.
    pub db: Database,
    /// The connection string of its server.
    pub uri: String,
    /// How each collection is projected; the first one is `games`.
    pub collections: Vec<CollectionConfig>,
    /// How long a daemon may be silent before another takes over: long, so that a busy machine takes it
    /// from nobody.
    pub lease_time: Duration,
    /// How long a stop may take.
    pub shutdown_timeout: Duration,
    /// How far behind a daemon may be and still be ready.
    pub max_ready_lag: Duration,
    /// How long a loop may go without a turn.
    pub liveness_limit: Duration,
}

impl Scene {
    /// A fresh database on the shared server, with the empty log of `games`.
    pub async fn new() -> Scene {
        let TestDatabase { uri, db, .. } = database().await;
        Scene::on(uri, db).await
    }

    /// The same in a database of the test's own server.
    pub async fn on(uri: String, db: Database) -> Scene {
        let scene = Scene {
            db,
            uri,
            collections: Vec::new(),
            lease_time: Duration::from_secs(15),
            shutdown_timeout: Duration::from_secs(20),
            max_ready_lag: Duration::from_secs(30),
            liveness_limit: Duration::from_secs(90),
        };
        scene.with("games").await
    }

    /// Adds a collection with an empty log.
    pub async fn with(mut self, collection: &str) -> Scene {
        self.make_log(collection).await;
        self.collections.push(CollectionConfig::new(collection));
        self
    }

    /// Makes an empty log.
    pub async fn make_log(&self, collection: &str) {
        let clustered = doc! { "key": { "_id": 1 }, "unique": true };
        let create = doc! { "create": format!("{collection}.events"), "clusteredIndex": clustered };
        self.db.run_command(create).await.unwrap();
    }

    /// How `games` is projected.
    pub fn games_config(&mut self) -> &mut CollectionConfig {
        &mut self.collections[0]
    }

    /// The configuration of a daemon for all of it.
    pub fn config(&self) -> Config {
        Config {
            mongodb: MongoConfig {
                uri: self.uri.parse().unwrap(),
                database: self.db.name().to_owned(),
            },
            http: HttpConfig { listen: "127.0.0.1:0".parse().unwrap(), ..HttpConfig::default() },
            daemon: DaemonConfig {
                instance: None,
                checkpoint_interval: Duration::from_millis(100),
                lease_time: self.lease_time,
                shutdown_timeout: self.shutdown_timeout,
                max_ready_lag: self.max_ready_lag,
                liveness_limit: self.liveness_limit,
            },
            collections: self.collections.clone(),
        }
    }

    /// A database of this name's own client, which the server knows under the database's name: so a
    /// failpoint can be narrowed to the daemon.
    pub async fn daemons_database(&self) -> Database {
        let mut options = ClientOptions::parse(&self.uri).await.unwrap();
        options.app_name = Some(self.db.name().to_owned());
        options.server_selection_timeout = Some(Duration::from_secs(2));
        Client::with_options(options).unwrap().database(self.db.name())
    }

    /// Starts a daemon.
    pub async fn start(&self) -> Running {
        self.start_at(DateTime::now()).await
    }

    /// Starts a daemon on a machine whose wall clock shows `wall` now.
    pub async fn start_at(&self, wall: DateTime) -> Running {
        let config = self.config();
        let front = Front::open_by(SystemTime::at(wall), &config).unwrap();
        let database = self.daemons_database().await;
        let daemon = Daemon::start_behind(front, &database, &config).await.unwrap();
        let (statuses, metrics) = (daemon.statuses().to_vec(), daemon.metrics().clone());
        let http = daemon.http();
        let stop = CancellationToken::new();
        let task = tokio::spawn(daemon.run_until(stop.clone().cancelled_owned()));
        Running { http, statuses, metrics, stop, task }
    }

    /// Divides `games` into so many parts, as `alluvium parts` does.
    pub async fn divide(&self, of: u32) {
        let key = doc! { "_id": { "parts": "games" } };
        let update = doc! { "$set": { "of": i64::from(of) } };
        self.collection("alluvium.meta").update_one(key, update).upsert(true).await.unwrap();
    }

    /// Throws the leases away, which only save work: the next daemon need not wait until they run out. What whoever had them
    /// has left open in the database is ended, as a successor does.
    pub async fn forget_leases(&self) {
        let leases = self.collection("alluvium.leases");
        let open = doc! { "sessions.0": { "$exists": true } };
        let mut instances = leases.find(open).await.unwrap();
        while let Some(instance) = instances.try_next().await.unwrap() {
            let sessions = instance.get_array("sessions").unwrap().clone();
            self.db.run_command(doc! { "killSessions": sessions }).await.unwrap();
        }
        leases.delete_many(doc! {}).await.unwrap();
    }

    /// One of its collections: `games`, `games.events`, `alluvium.quarantine`.
    pub fn collection(&self, name: &str) -> Collection<Document> {
        self.db.collection(name)
    }

    /// Inserts events into the log of `games`, as any driver would.
    pub async fn append(&self, events: impl IntoIterator<Item = Document>) {
        self.append_to("games", events).await;
    }

    /// Inserts events into the log of a collection.
    pub async fn append_to(&self, name: &str, events: impl IntoIterator<Item = Document>) {
        self.collection(&format!("{name}.events")).insert_many(events).await.unwrap();
    }

    /// Appends to `d0`, `d1`, … in turn until each has so many versions.
    pub async fn write_on(&self, documents: i64, versions: std::ops::RangeInclusive<i64>) {
        for version in versions {
            let events = (0..documents).map(|document| event(format!("d{document}"), version));
            self.append(events).await;
        }
    }

    /// The projected row of a document of `games`, in whatever state.
    pub async fn row(&self, id: impl Into<Bson>) -> Option<Document> {
        self.collection("games").find_one(doc! { "_id": id.into() }).await.unwrap()
    }

    /// Waits until a document of `games` has reached a version, and gives its row.
    pub async fn reached(&self, id: impl Into<Bson>, version: i64) -> Document {
        let filter = doc! { "_id": id.into(), "version": version };
        let games = self.collection("games");
        wait_for(&format!("{filter}"), async || games.find_one(filter.clone()).await.ok()?).await
    }

    /// Waits until the row of a document of `games` bears the mark of the event at which it is parked, and
    /// gives it. The record comes before the mark: waiting for the one says nothing of the other.
    pub async fn parked(&self, id: impl Into<Bson>, poison: i64) -> Document {
        let filter = doc! { "_id": id.into(), "version": poison - 1, "quarantine.version": poison };
        let games = self.collection("games");
        wait_for(&format!("{filter}"), async || games.find_one(filter.clone()).await.ok()?).await
    }

    /// Waits until every event of a collection's log is applied.
    pub async fn level(&self, name: &str) {
        let (events, rows) = (self.collection(&format!("{name}.events")), self.collection(name));
        wait_until(&format!("{name} is level with its log"), async || {
            let sum = doc! { "$group": { "_id": null, "sum": { "$sum": "$version" } } };
            let (Ok(count), Ok(mut sums)) =
                (events.count_documents(doc! {}).await, rows.aggregate([sum]).await)
            else {
                return false;
            };
            let sum = sums.try_next().await.ok().flatten();
            let applied = sum.map_or(0, |sum| sum.get_i64("sum").unwrap_or(0));
            u64::try_from(applied).unwrap() == count
        })
        .await;
    }

    /// Waits until the record of a document of `games` in quarantine, or its absence, is as `wanted`, and the majority
    /// has it so.
    pub async fn record(&self, id: &str, wanted: impl Fn(Option<&Document>) -> bool) {
        let records = self.collection("alluvium.quarantine");
        let key = doc! { "_id": { "c": "games", "d": id } };
        wait_until(&format!("the record of {id}"), async || {
            let found = records.find_one(key.clone()).read_concern(ReadConcern::majority());
            wanted(found.await.unwrap().as_ref())
        })
        .await;
    }

    /// Waits until a document of `games` is on record as waiting under `class` for `version`.
    pub async fn recorded(&self, id: &str, class: &str, version: i64) {
        self.record(id, |record| {
            record.is_some_and(|record| {
                let there = (record.get_str("class").ok(), record.get_i64("version").ok());
                there == (Some(class), Some(version))
            })
        })
        .await;
    }

    /// Has the judge compare the documents of `games` with a replay of their events.
    pub async fn judged(&self) -> Report {
        self.judged_as("games", Vec::new()).await
    }

    /// Has the judge compare the documents of a collection with a replay of their events, and look for
    /// every acknowledged event in the log.
    pub async fn judged_as(&self, name: &str, acknowledged: Vec<Document>) -> Report {
        let rows = self.db.collection::<RawDocumentBuf>(name).find(doc! {}).await.unwrap();
        let log = self.collection(&format!("{name}.events")).find(doc! {}).await.unwrap();
        let mut log: Vec<Document> = log.try_collect().await.unwrap();
        let mut rows: Vec<RawDocumentBuf> = rows.try_collect().await.unwrap();
        // Of what a base stands for the events are gone, so that nothing can be replayed.
        let document = |event: &Document| event.get_document("_id").unwrap().get("d").cloned();
        let bases = log.iter().filter(|event| event.get_str("op").is_ok_and(|op| op == "base"));
        let compacted: Vec<Option<Bson>> = bases.map(document).collect();
        log.retain(|event| !compacted.contains(&document(event)));
        rows.retain(|row| {
            let id = row.get("_id").unwrap().map(|id| Bson::try_from(id).unwrap());
            !compacted.contains(&id)
        });
        let evidence = Evidence {
            log,
            rows,
            acknowledged,
            skipped: self.skipped(name).await,
            ..Evidence::default()
        };
        let bench = self.db.client().database(&format!("{}_judge", self.db.name()));
        match judge::judge(&evidence, &mut ServerReplay::new(&bench)).await {
            Ok(report) => report,
            Err(findings) => panic!("the judge found:\n{}", findings.join("\n")),
        }
    }

    /// The places of a collection that are skipped, by the record.
    pub async fn skipped(&self, name: &str) -> Vec<(Bson, i64)> {
        let skips = self.collection("alluvium.skips").find(doc! { "_id.c": name }).await.unwrap();
        let skips: Vec<Document> = skips.try_collect().await.unwrap();
        let places = |row: &Document| {
            let key = row.get_document("_id").unwrap();
            let (document, first) = (key.get("d").unwrap().clone(), key.get_i64("s").unwrap());
            let last = row.get_i64("through").unwrap_or(first);
            (first..=last).map(move |version| (document.clone(), version)).collect::<Vec<_>>()
        };
        skips.iter().flat_map(places).collect()
    }
}

/// A daemon in this process. Dropping it ends it at once, as a crash would.
#[derive(Debug)]
pub struct Running {
    /// Where it serves HTTP.
    pub http: SocketAddr,
    statuses: Vec<watch::Receiver<CollectionStatus>>,
    metrics: alluvium::metrics::Metrics,
    stop: CancellationToken,
    task: JoinHandle<Result<(), DaemonError>>,
}

impl Running {
    /// What it says of `games`.
    pub fn status(&self) -> CollectionStatus {
        self.statuses[0].borrow().clone()
    }

    /// Whether it leads each collection, in the order of the configuration; `None` while that is not known.
    pub fn roles(&self) -> Vec<Option<Role>> {
        self.statuses.iter().map(|status| status.borrow().role).collect()
    }

    /// Waits until it says so of `games`.
    pub async fn says(&self, what: &str, wanted: impl Fn(&CollectionStatus) -> bool) {
        wait_until(what, async || wanted(&self.status())).await;
    }

    /// How many parts of `games` it leads.
    pub fn leads(&self) -> usize {
        self.status().led().count()
    }

    /// Waits until it refuses `games`, and gives the reason and the advice.
    pub async fn refuses(&self) -> String {
        self.says("it refuses the collection", |status| status.phase == Phase::Refused).await;
        let last = self.status().last_error.expect("a refusal has a reason");
        format!("{}; {}", last.message, last.advice)
    }

    /// Asks it with GET: the status code and the body.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let address = format!("http://{}{path}", self.http);
        let asked = tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent =
                ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let mut answer = agent.get(address).call().unwrap();
            (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
        });
        asked.await.unwrap()
    }

    /// Waits until it is ready, or not any more, and gives the reasons.
    pub async fn is_ready(&self, wanted: bool) -> Vec<String> {
        wait_for(&format!("ready is {wanted}"), async || {
            let (status, body) = self.get("/readyz").await;
            assert_eq!(status == 200, body["ready"] == true, "{body}");
            let reasons = serde_json::from_value(body["reasons"].clone()).unwrap();
            (body["ready"] == wanted).then_some(reasons)
        })
        .await
    }

    /// Sees that it is alive.
    pub async fn is_alive(&self) {
        let (status, body) = self.get("/healthz").await;
        assert_eq!((status, &body["alive"]), (200, &true.into()), "{body}");
    }

    /// The value of a metric by its name without prefix and its labels without the collection, which is
    /// `games`; `None` while it is absent.
    pub fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        self.metric_of("games", name, labels)
    }

    /// The same for another collection.
    pub fn metric_of(&self, collection: &str, name: &str, labels: &str) -> Option<f64> {
        let text = TextEncoder::new().encode_to_string(&self.metrics.registry().gather()).unwrap();
        let (name, collection) =
            (format!("alluvium_{name}{{"), format!("collection=\"{collection}\""));
        let is_it = |line: &&str| {
            line.starts_with(&name) && line.contains(&collection) && line.contains(labels)
        };
        let (_, value) = text.lines().find(is_it)?.rsplit_once(' ')?;
        Some(value.parse().unwrap())
    }

    /// How many events it has applied to `games`.
    pub fn applied(&self) -> f64 {
        ["create", "update", "delete"]
            .map(|op| self.metric("events_applied_total", &format!("op=\"{op}\"")).unwrap())
            .iter()
            .sum()
    }

    /// Stops it in order, and sees that it was one.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Ends it at once, in the middle of whatever it does.
    pub async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.is_err_and(|error| error.is_cancelled()));
    }
}

/// An event of the client `x` after which `state.n` is the version: a create and then increments.
pub fn event(document: impl Into<Bson>, version: i64) -> Document {
    match version {
        1 => change(document, 1, doc! { "op": "create", "state": { "n": 1 } }),
        _ => change(document, version, doc! { "op": "update", "patch": { "$inc": { "n": 1 } } }),
    }
}

/// The events of one document from one version to another.
pub fn events(document: impl Into<Bson>, versions: std::ops::RangeInclusive<i64>) -> Vec<Document> {
    let document = document.into();
    versions.map(|version| event(document.clone(), version)).collect()
}

/// An event of the client `x` with these fields, which may replace the common ones.
pub fn change(document: impl Into<Bson>, version: i64, fields: Document) -> Document {
    let mut event = doc! {
        "_id": { "d": document.into(), "s": version }, "client": "x", "at": DateTime::now(),
    };
    event.extend(fields);
    event
}
