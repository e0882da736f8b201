//! The least rights with which a daemon and its writers can work, as roles to be made by an administrator.

use std::io;

use serde_json::{Value, json};

use super::output;
use crate::{
    config::Config,
    log::events_collection,
    store::{
        BOOKKEEPING_COLLECTIONS, META_COLLECTION, QUARANTINE_COLLECTION, SKIPS_COLLECTION,
        snapshots_collection,
    },
};

/// Prints the commands that make the roles: for mongosh, or with `as_json` as an array.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn print(config: &Config, as_json: bool) -> io::Result<()> {
    let commands = [daemon(config), writer(config)];
    if as_json {
        return output::json(&Value::from(commands.to_vec()));
    }
    for command in commands {
        output::line(format!("db.getSiblingDB(\"admin\").runCommand({command:#})"))?;
    }
    Ok(())
}

/// What the daemon needs. The change stream is one over the whole database.
fn daemon(config: &Config) -> Value {
    let database = config.mongodb.database.as_str();
    let grant = |collection: &str, actions: &[&str]| {
        let resource = json!({ "db": database, "collection": collection });
        json!({ "resource": resource, "actions": actions })
    };
    let rows = ["find", "insert", "update", "remove", "createCollection", "createIndex"];
    let mut privileges = vec![
        grant("", &["find", "changeStream", "listCollections"]),
        json!({ "resource": { "db": "local", "collection": "oplog.rs" }, "actions": ["find"] }),
    ];
    for collection in &config.collections {
        let events = events_collection(&collection.name);
        // Events are inserted to fill a gap. They are replaced by a base, and removed below one, by compaction alone.
        let log = ["find", "insert", "update", "remove", "createCollection", "collMod"];
        privileges.push(grant(&events, &log));
        privileges.push(grant(&collection.name, &rows));
        privileges.push(grant(&snapshots_collection(&collection.name), &rows));
    }
    privileges.extend(BOOKKEEPING_COLLECTIONS.map(|name| grant(name, &rows)));
    role(&format!("alluvium-{database}-daemon"), privileges)
}

/// What a writer needs: to insert and to find. Reading consistently, as the typed writer does, looks at
/// the records of parked documents and of skipped events, at the identity of the log and at the format of the data.
fn writer(config: &Config) -> Value {
    let database = config.mongodb.database.as_str();
    let grant = |collection: &str, actions: &[&str]| {
        let resource = json!({ "db": database, "collection": collection });
        json!({ "resource": resource, "actions": actions })
    };
    let mut privileges = vec![grant("", &["listCollections"])];
    let looked_at = [META_COLLECTION, QUARANTINE_COLLECTION, SKIPS_COLLECTION];
    privileges.extend(looked_at.map(|name| grant(name, &["find"])));
    for collection in &config.collections {
        privileges.push(grant(&events_collection(&collection.name), &["find", "insert"]));
        privileges.push(grant(&collection.name, &["find"]));
    }
    role(&format!("alluvium-{database}-writer"), privileges)
}

fn role(name: &str, privileges: Vec<Value>) -> Value {
    json!({ "createRole": name, "privileges": privileges, "roles": [] })
}
