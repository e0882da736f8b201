//! Every key of the configuration, its bounds and its default, in the order of the example file.

use std::{
    collections::HashSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Map, Value};

use super::{
    CollectionConfig, CompactionConfig, Config, DaemonConfig, EVENT_BYTES_MAX, Expect, HttpConfig,
    MongoConfig, SnapshotsConfig, Uri,
    names::{collection_problem, database_problem, instance_problem},
    redact::{named, unreadable},
    section::{Problem, Section},
    values::Bytes,
};

/// The keys that an environment variable can set: all outside `[[collections]]`.
pub(super) const SCALAR_KEYS: [&str; 17] = [
    "mongodb.uri",
    "mongodb.uri_file",
    "mongodb.database",
    "http.listen",
    "http.health_listen",
    "http.tokens_file",
    "http.metrics_token",
    "http.tls_cert",
    "http.tls_key",
    "http.connections_max",
    "http.head_timeout",
    "daemon.instance",
    "daemon.checkpoint_interval",
    "daemon.lease_time",
    "daemon.shutdown_timeout",
    "daemon.max_ready_lag",
    "daemon.liveness_limit",
];

const SECOND: Duration = Duration::from_secs(1);
const KIB: u64 = 1 << 10;

/// Reads the merged tables. `None` when a key without a default is unusable; with problems, what is
/// returned must not be used.
pub(super) fn read(
    values: Map<String, Value>,
    expect: Expect,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    let mut root = Section::new("", values, problems);
    let (mongodb, http, daemon) = (root.table("mongodb"), root.table("http"), root.table("daemon"));
    let tables = root.tables("collections");
    if tables.is_empty() && expect == Expect::Collections {
        root.problem(
            "collections",
            "there is none; add a table [[collections]] with name = \"games\", say",
        );
    }
    root.close();
    let mongodb = read_mongodb(Section::new("mongodb", mongodb, problems));
    let http = read_http(Section::new("http", http, problems));
    let daemon = read_daemon(Section::new("daemon", daemon, problems));
    let database = mongodb.as_ref().map_or("", |mongodb| mongodb.database.as_str());
    let mut names = HashSet::new();
    let mut collections = Vec::new();
    for (path, table) in tables {
        let section = Section::new(path, table, problems);
        collections.extend(read_collection(section, database, &mut names));
    }
    one_archive_each(&collections, problems);
    Some(Config { mongodb: mongodb?, http, daemon, collections })
}

/// An archive has one manifest, which names one collection.
fn one_archive_each(collections: &[CollectionConfig], problems: &mut Vec<Problem>) {
    let mut places = HashSet::new();
    for (at, collection) in collections.iter().enumerate() {
        let Some(place) = &collection.compaction.archive else { continue };
        if !places.insert(place) {
            let key = format!("collections[{at}].compaction.archive");
            let message = format!(
                "{place} is another collection's too; give each a directory or a prefix of its own"
            );
            problems.push(Problem { key, message });
        }
    }
}

fn read_mongodb(mut section: Section<'_>) -> Option<MongoConfig> {
    let uri = read_uri(&mut section);
    let database: Option<String> = section.required(
        "database",
        "set it in the file, as ALLUVIUM_MONGODB__DATABASE, or with --database",
    );
    if let Some(problem) = database.as_deref().and_then(database_problem) {
        section.problem("database", problem);
    }
    section.close();
    Some(MongoConfig { uri: uri?, database: database? })
}

/// The connection string, or that of the file that is named instead.
fn read_uri(section: &mut Section<'_>) -> Option<Uri> {
    let file: Option<PathBuf> = section.given("uri_file");
    let Some(file) = file else {
        return section.required(
            "uri",
            "set it in the file, as ALLUVIUM_MONGODB__URI, or with --uri, \
             such as \"mongodb://localhost:27017/?replicaSet=rs0\"",
        );
    };
    if section.given::<Uri>("uri").is_some() {
        section.problem("uri_file", "is there beside mongodb.uri; remove one of them");
        return None;
    }
    let uri = secret(&file, "the connection string").and_then(|text| {
        text.parse()
            .map_err(|problem| format!("{}: what it holds {problem}", named(&file.display())))
    });
    uri.map_err(|problem| section.problem("uri_file", problem)).ok()
}

/// What a file of one line holds. It is never shown.
fn secret(file: &Path, what: &str) -> Result<String, String> {
    let shown = named(&file.display());
    let text = fs::read_to_string(file).map_err(|error| {
        let write = format!("write {what} into it, as its only line");
        format!("{shown} {}", unreadable(&error, Some(&write)))
    })?;
    match text.trim() {
        "" => Err(format!(
            "{shown} is empty; write {what} into it, as its only line (for the systemd unit: into \
             /etc/alluvium/mongodb-uri, and restart it)"
        )),
        text => Ok(text.to_owned()),
    }
}

fn read_http(mut section: Section<'_>) -> HttpConfig {
    let HttpConfig {
        listen,
        health_listen: _,
        tokens_file: _,
        metrics_token,
        tls_cert: _,
        tls_key: _,
        connections_max,
        head_timeout,
    } = HttpConfig::default();
    let listen: SocketAddr = section.optional("listen", listen);
    let health_listen: Option<SocketAddr> = section.given("health_listen");
    if health_listen == Some(listen) && listen.port() != 0 {
        section
            .problem("health_listen", format!("{listen} is http.listen too; give it another port"));
    }
    let tokens_file: Option<String> = section.given("tokens_file");
    let metrics_token = section.optional("metrics_token", metrics_token);
    if metrics_token && tokens_file.is_none() {
        section
            .problem("metrics_token", "asks for tokens, but there are none; set http.tokens_file");
    }
    if !listen.ip().is_loopback() && tokens_file.is_none() {
        section.problem(
            "listen",
            format!(
                "{listen} can be reached from other machines, and there are no access tokens; set \
                 http.tokens_file (`alluvium token new` prints what goes into it), or listen on a \
                 loopback address such as \"127.0.0.1:{}\"",
                listen.port()
            ),
        );
    }
    let (tls_cert, tls_key) = (section.given("tls_cert"), section.given("tls_key"));
    let alone = match (&tls_cert, &tls_key) {
        (Some(_), None) => Some(("tls_cert", "http.tls_key")),
        (None, Some(_)) => Some(("tls_key", "http.tls_cert")),
        _ => None,
    };
    if let Some((key, other)) = alone {
        section
            .problem(key, format!("has no effect without {other}; set both, or none for no TLS"));
    }
    let connections_max = section.bounded("connections_max", connections_max, (8, 100_000));
    let head_timeout = section.bounded("head_timeout", head_timeout, (SECOND, 600 * SECOND));
    section.close();
    HttpConfig {
        listen,
        health_listen,
        tokens_file,
        metrics_token,
        tls_cert,
        tls_key,
        connections_max,
        head_timeout,
    }
}

fn read_daemon(mut section: Section<'_>) -> DaemonConfig {
    let DaemonConfig {
        instance: _,
        checkpoint_interval,
        lease_time,
        shutdown_timeout,
        max_ready_lag,
        liveness_limit,
    } = DaemonConfig::default();
    let instance: Option<String> = section.given("instance");
    if let Some(problem) = instance.as_deref().and_then(instance_problem) {
        section.problem("instance", problem);
    }
    let checkpoint_interval = section.bounded(
        "checkpoint_interval",
        checkpoint_interval,
        (Duration::from_millis(100), 60 * SECOND),
    );
    let lease_time = section.bounded("lease_time", lease_time, (SECOND, 600 * SECOND));
    let shutdown_timeout =
        section.bounded("shutdown_timeout", shutdown_timeout, (SECOND, 600 * SECOND));
    let max_ready_lag =
        section.bounded("max_ready_lag", max_ready_lag, (SECOND, 24 * 3_600 * SECOND));
    // Longer than the longest attempt at anything, or trouble with the database would turn liveness red.
    let liveness_limit =
        section.bounded("liveness_limit", liveness_limit, (60 * SECOND, 3_600 * SECOND));
    section.close();
    DaemonConfig {
        instance,
        checkpoint_interval,
        lease_time,
        shutdown_timeout,
        max_ready_lag,
        liveness_limit,
    }
}

fn read_collection(
    mut section: Section<'_>,
    database: &str,
    names: &mut HashSet<String>,
) -> Option<CollectionConfig> {
    let name: Option<String> = section.required("name", "name = \"games\", say");
    if let Some(problem) = name.as_deref().and_then(|name| collection_problem(name, database)) {
        section.problem("name", problem);
    }
    if let Some(name) = &name
        && !names.insert(name.clone())
    {
        section.problem("name", format!("`{name}` is there twice; remove one of the tables"));
    }
    let CollectionConfig {
        name: _,
        flush_interval,
        cache_bytes,
        gap_grace,
        max_event_bytes,
        max_state_bytes,
        max_clients,
        snapshots: _,
        compaction: _,
    } = CollectionConfig::new("");
    let flush_interval =
        section.bounded("flush_interval", flush_interval, (Duration::ZERO, 10 * SECOND));
    let gap_grace = section.bounded("gap_grace", gap_grace, (Duration::ZERO, 86_400 * SECOND));
    let mut bytes = |key, default, least, most| {
        section.bounded(key, Bytes(default), (Bytes(least), Bytes(most))).0
    };
    let cache_bytes = bytes("cache_bytes", cache_bytes, 1024 * KIB, 1 << 40);
    let max_event_bytes = bytes("max_event_bytes", max_event_bytes, KIB, EVENT_BYTES_MAX);
    let max_state_bytes = bytes("max_state_bytes", max_state_bytes, KIB, 15 << 20);
    let max_clients = section.bounded("max_clients", max_clients, (1, 100_000));
    let snapshots = read_snapshots(section.within("snapshots"));
    let compaction = read_compaction(section.within("compaction"));
    section.close();
    Some(CollectionConfig {
        name: name?,
        flush_interval,
        cache_bytes,
        gap_grace,
        max_event_bytes,
        max_state_bytes,
        max_clients,
        snapshots,
        compaction,
    })
}

fn read_snapshots(mut section: Section<'_>) -> SnapshotsConfig {
    let SnapshotsConfig { every_events, every, keep } = SnapshotsConfig::default();
    let every_events = section.bounded("every_events", every_events, (0, 1_000_000_000));
    let every = section.bounded("every", every, (Duration::ZERO, 366 * 86_400 * SECOND));
    if !every.is_zero() && every < SECOND {
        section.problem("every", "must be at least \"1s\", or \"0s\" for never");
    }
    let keep = section.bounded("keep", keep, (1, 10_000));
    section.close();
    SnapshotsConfig { every_events, every, keep }
}

fn read_compaction(mut section: Section<'_>) -> CompactionConfig {
    const YEAR: Duration = Duration::from_secs(366 * 86_400);
    let CompactionConfig { every: _, min_age, keep_events, client_ttl, archive: _ } =
        CompactionConfig::default();
    let never = Duration::ZERO;
    let every = section.bounded("every", never, (Duration::ZERO, YEAR));
    if !every.is_zero() && every < SECOND {
        section
            .problem("every", "must be at least \"1s\"; \"0s\", or left out, is only on request");
    }
    let min_age = section.bounded("min_age", min_age, (Duration::ZERO, 100 * YEAR));
    let keep_events = section.bounded("keep_events", keep_events, (0, 1_000_000_000));
    let client_ttl = section.bounded("client_ttl", client_ttl, (Duration::ZERO, 100 * YEAR));
    let archive = section.given("archive");
    section.close();
    let every = (!every.is_zero()).then_some(every);
    CompactionConfig { every, min_age, keep_events, client_ttl, archive }
}
