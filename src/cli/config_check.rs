//! `alluvium config check`: reads the configuration as the daemon would, and prints what it amounts to.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::{CommandResult, Globals, output};
use crate::access::Access;
use crate::config::{
    self, CollectionConfig, CompactionConfig, ConfigError, DaemonConfig, Expect, HttpConfig,
    MongoConfig, Problem, SnapshotsConfig,
};

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Report every mistake in the configuration, or print what it amounts to
    Check,
}

impl Config {
    pub(super) fn run(self, globals: &Globals) -> CommandResult {
        let Self::Check = self;
        let config = globals.load(Expect::Collections)?;
        for warning in config.warnings() {
            output::note(format!("warning: {warning}"));
        }
        let problems: Vec<Problem> = Access::problems(&config.http)
            .iter()
            .map(|error| Problem { key: error.key().to_owned(), message: error.message() })
            .collect();
        if !problems.is_empty() {
            return Err(ConfigError { problems }.into());
        }
        let (access, _) = Access::open(&config.http)?;
        for warning in access.warnings(&config.collections) {
            output::note(format!("warning: {warning}"));
        }
        if globals.json {
            output::json(&to_json(&config))?;
        } else {
            let names: Vec<&str> = config.collections.iter().map(|c| c.name.as_str()).collect();
            output::line(format!(
                "the configuration is good: {} in database {} at {}, HTTP on {}",
                names.join(", "),
                config.mongodb.database,
                config.mongodb.uri,
                config.http.listen
            ))?;
        }
        Ok(())
    }
}

fn to_json(config: &config::Config) -> serde_json::Value {
    let config::Config { mongodb, http, daemon, collections } = config;
    let MongoConfig { uri, database } = mongodb;
    let HttpConfig {
        listen,
        health_listen,
        tokens_file,
        metrics_token,
        tls_cert,
        tls_key,
        connections_max,
        head_timeout,
    } = http;
    let DaemonConfig {
        instance,
        checkpoint_interval,
        lease_time,
        shutdown_timeout,
        max_ready_lag,
        liveness_limit,
    } = daemon;
    let shown = |duration: &Duration| humantime::format_duration(*duration).to_string();
    json!({
        "mongodb": { "uri": uri.to_string(), "database": database },
        "http": {
            "listen": listen.to_string(),
            "health_listen": health_listen.map(|address| address.to_string()),
            "tokens_file": tokens_file,
            "metrics_token": metrics_token,
            "tls_cert": tls_cert,
            "tls_key": tls_key,
            "connections_max": connections_max,
            "head_timeout": shown(head_timeout),
        },
        "daemon": {
            "instance": instance,
            "checkpoint_interval": shown(checkpoint_interval),
            "lease_time": shown(lease_time),
            "shutdown_timeout": shown(shutdown_timeout),
            "max_ready_lag": shown(max_ready_lag),
            "liveness_limit": shown(liveness_limit),
        },
        "collections": collections.iter().map(collection_json).collect::<Vec<_>>(),
    })
}

fn collection_json(collection: &CollectionConfig) -> serde_json::Value {
    let CollectionConfig {
        name,
        flush_interval,
        cache_bytes,
        gap_grace,
        max_event_bytes,
        max_state_bytes,
        max_clients,
        snapshots: SnapshotsConfig { every_events, every, keep },
        compaction:
            CompactionConfig { every: compaction_every, min_age, keep_events, client_ttl, archive },
    } = collection;
    json!({
        "name": name,
        "flush_interval": humantime::format_duration(*flush_interval).to_string(),
        "cache_bytes": cache_bytes,
        "gap_grace": humantime::format_duration(*gap_grace).to_string(),
        "max_event_bytes": max_event_bytes,
        "max_state_bytes": max_state_bytes,
        "max_clients": max_clients,
        "snapshots": {
            "every_events": every_events,
            "every": humantime::format_duration(*every).to_string(),
            "keep": keep,
        },
        "compaction": {
            "every": compaction_every.as_ref().map(|every| humantime::format_duration(*every).to_string()),
            "min_age": humantime::format_duration(*min_age).to_string(),
            "keep_events": keep_events,
            "client_ttl": humantime::format_duration(*client_ttl).to_string(),
            "archive": archive.as_ref().map(ToString::to_string),
        },
    })
}
