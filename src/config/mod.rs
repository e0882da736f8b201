//! The configuration, in two steps: sources are merged ([`load`]), then read key by key so that every
//! mistake is reported at once, each with its key and what to do. A key that would have no effect is
//! refused, so what is accepted is what happens.

mod load;
mod names;
mod read;
pub(crate) mod redact;
mod section;
mod uri;
mod values;

use std::{net::SocketAddr, time::Duration};

pub use load::{Expect, Sources, load};
pub(crate) use names::collection_problem;
pub use section::{ConfigError, Problem};
pub use uri::Uri;

use crate::model::place::Place;
use crate::model::{compaction::Retention, document::FoldLimits, state::Limits};

/// The largest event that a collection can be configured to take, in bytes: the change stream wraps
/// an event in a document that must itself stay below 16 MiB.
pub const EVENT_BYTES_MAX: u64 = 15 << 20;

/// Everything that the daemon is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[mongodb]`
    pub mongodb: MongoConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[daemon]`
    pub daemon: DaemonConfig,
    /// `[[collections]]`, in the order of the file.
    pub collections: Vec<CollectionConfig>,
}

impl Config {
    /// What a document of this collection may become; the default where the collection is not configured.
    pub fn fold_limits(&self, collection: &str) -> FoldLimits {
        let known = self.collections.iter().find(|known| known.name == collection);
        known.map_or_else(FoldLimits::default, CollectionConfig::fold_limits)
    }

    /// What is allowed, and rarely meant.
    pub fn warnings(&self) -> Vec<String> {
        let collections = self.collections.iter().enumerate();
        let collections = collections.filter(|(_, known)| known.compaction.min_age < MIN_AGE_SAFE);
        let young = collections.map(|(at, known)| {
            let min_age = humantime::format_duration(known.compaction.min_age);
            format!(
                "collections[{at}].compaction.min_age is {min_age}: a writer may take an hour from what it has read to its \
                 event, whose place is free again by then, and the event comes late; `{}` needs at least \"2h\" unless \
                 this is for trying out",
                known.name
            )
        });
        self.mongodb.uri.warning().into_iter().chain(young).collect()
    }
}

/// The least age at which events may go: a writer takes at most an hour from reading the last version to its last try, and
/// a server's clock may be off by a bit.
const MIN_AGE_SAFE: Duration = Duration::from_secs(2 * 3_600);

/// Where the data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MongoConfig {
    /// The connection string. Its read preference and its read and write concern have no effect: what
    /// is read and written goes through the primary and the majority.
    pub uri: Uri,
    /// The database that holds the collections.
    pub database: String,
}

/// The HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it listens. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where it serves health and metrics alone, also to other machines without tokens; `None`: nowhere else.
    pub health_listen: Option<SocketAddr>,
    /// The file of the tokens that let in; `None`: whoever reaches the address may do everything.
    pub tokens_file: Option<String>,
    /// Whether the metrics need a token too.
    pub metrics_token: bool,
    /// The file of the certificate that the server shows, with those that signed it; `None`: no TLS. There is a key then.
    pub tls_cert: Option<String>,
    /// The file of its private key.
    pub tls_key: Option<String>,
    /// How many connections there may be at once. Beyond that the idlest is closed.
    pub connections_max: u32,
    /// How long the head of a request may take, and how long a connection may be idle.
    pub head_timeout: Duration,
}

/// The daemon as a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// What this instance is called; a suffix tells its runs apart. `None`: the name of the host or the pod.
    pub instance: Option<String>,
    /// The longest time between two saved checkpoints while events arrive.
    pub checkpoint_interval: Duration,
    /// How long a leader may be silent before another instance takes over its collections.
    pub lease_time: Duration,
    /// How long a first SIGTERM waits for what is in flight before the process ends all the same.
    pub shutdown_timeout: Duration,
    /// How far behind a leader may be and still answer `/readyz` with 200.
    pub max_ready_lag: Duration,
    /// How long a loop may go without a turn before `/healthz` answers 503.
    pub liveness_limit: Duration,
}

/// One collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionConfig {
    /// Its name; the log is `<name>.events`.
    pub name: String,
    /// The longest time a folded event may wait for its flush under load. When the projection is late
    /// already, it may wait longer: a tenth of how late it is, and two seconds at most.
    pub flush_interval: Duration,
    /// How much memory the cache of documents may take, in bytes.
    pub cache_bytes: u64,
    /// How long a gap may be open before it is reported as one that will not heal by itself. Only then
    /// can an operator close it.
    pub gap_grace: Duration,
    /// The largest event, in bytes. The validator refuses a larger one; one that gets past it parks its
    /// document.
    pub max_event_bytes: u64,
    /// The largest state that a document may grow to, in bytes.
    pub max_state_bytes: u64,
    /// The largest number of clients in one document's clock.
    pub max_clients: u32,
    /// `[collections.snapshots]`
    pub snapshots: SnapshotsConfig,
    /// `[collections.compaction]`
    pub compaction: CompactionConfig,
}

/// What is kept of the logs, and how often what is not kept goes without being asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionConfig {
    /// How often; `None` is only on request. What was begun is finished either way.
    pub every: Option<Duration>,
    /// Events younger than this stay.
    pub min_age: Duration,
    /// So many of the newest events of each document stay.
    pub keep_events: u32,
    /// A client that was seen within this time is alive, and what it lacks stays.
    pub client_ttl: Duration,
    /// Where what goes is kept before; `None` is nowhere.
    pub archive: Option<Place>,
}

/// When snapshots are taken without being asked for, and how many are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotsConfig {
    /// A snapshot is taken when a document passes a multiple of so many events; 0 is never.
    pub every_events: u32,
    /// A snapshot is taken of a document that has changed when its last one is so old; 0 is never.
    pub every: Duration,
    /// How many of the newest snapshots of each document are kept.
    pub keep: u32,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8750)),
            health_listen: None,
            tokens_file: None,
            metrics_token: false,
            tls_cert: None,
            tls_key: None,
            connections_max: 512,
            head_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            instance: None,
            checkpoint_interval: Duration::from_secs(1),
            lease_time: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(20),
            max_ready_lag: Duration::from_secs(30),
            liveness_limit: Duration::from_secs(90),
        }
    }
}

impl Default for SnapshotsConfig {
    fn default() -> Self {
        Self { every_events: 0, every: Duration::ZERO, keep: 3 }
    }
}

impl Default for CompactionConfig {
    fn default() -> Self {
        let day = Duration::from_secs(86_400);
        Self { every: None, min_age: 7 * day, keep_events: 100, client_ttl: day, archive: None }
    }
}

impl CompactionConfig {
    /// What is kept.
    pub fn retention(&self) -> Retention {
        let Self { every: _, min_age, keep_events, client_ttl, archive: _ } = *self;
        Retention { min_age, keep_events: keep_events.into(), client_ttl }
    }
}

impl CollectionConfig {
    /// A collection of this name with every other key at its default.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            flush_interval: Duration::from_millis(250),
            cache_bytes: 64 << 20,
            gap_grace: Duration::from_secs(30),
            max_event_bytes: 4 << 20,
            max_state_bytes: 15 << 20,
            max_clients: 10_000,
            snapshots: SnapshotsConfig::default(),
            compaction: CompactionConfig::default(),
        }
    }

    /// What a document may become.
    pub fn fold_limits(&self) -> FoldLimits {
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        FoldLimits {
            state: Limits { state_bytes_max: size(self.max_state_bytes), ..Limits::default() },
            clients_max: size(self.max_clients.into()),
            event_bytes_max: size(self.max_event_bytes),
        }
    }
}
