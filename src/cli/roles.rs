//! The least rights with which each kind of user can work, as roles to be made by an administrator. What each of them is
//! granted stands in one table; the test target `rights` creates them and compares them with what is really needed.

use std::io;

use serde_json::{Value, json};

use super::output;
use crate::{
    config::Config,
    log::events_collection,
    store::{
        ARCHIVE_COLLECTION, CHECKPOINTS_COLLECTION, CLIENTS_COLLECTION, JOBS_COLLECTION,
        LEASES_COLLECTION, MARKS_COLLECTION, META_COLLECTION, QUARANTINE_COLLECTION,
        SKIPS_COLLECTION, snapshots_collection,
    },
};

/// What a kind of user may do. Actions are MongoDB's, separated by spaces.
struct Role {
    name: &'static str,
    /// Who is granted it.
    about: &'static str,
    /// On the whole database.
    database: &'static str,
    /// On the oplog, which belongs to another database.
    oplog: &'static str,
    /// On each log.
    events: &'static str,
    /// On each collection of rows.
    rows: &'static str,
    /// On each collection of snapshots.
    snapshots: &'static str,
    /// On the bookkeeping.
    bookkeeping: &'static [(&'static str, &'static str)],
}

const ROLES: [Role; 4] = [
    Role {
        name: "daemon",
        about: "for `alluvium run`",
        // The change stream is one over the whole database, which needs `find` on all of it. So nothing below names it.
        database: "changeStream find listCollections",
        oplog: "find",
        // Whoever may insert may also make the collection. Events are inserted to fill a gap. They are replaced by a base, and removed below one, by compaction alone.
        events: "insert remove update",
        // Rows that swap values of a unique index are removed and inserted again.
        rows: "insert remove update",
        snapshots: "insert remove",
        bookkeeping: &[
            (ARCHIVE_COLLECTION, "createIndex insert remove update"),
            (CHECKPOINTS_COLLECTION, "insert remove update"),
            (CLIENTS_COLLECTION, "createIndex"),
            (JOBS_COLLECTION, "createIndex insert update"),
            (LEASES_COLLECTION, "insert remove update"),
            (MARKS_COLLECTION, "createIndex insert update"),
            (META_COLLECTION, "insert remove update"),
            (QUARANTINE_COLLECTION, "insert remove update"),
            // Skips are kept for ever; an erasure takes their reasons away.
            (SKIPS_COLLECTION, "insert update"),
        ],
    },
    Role {
        name: "writer",
        about: "for programs that append events; with it the typed writer can also read",
        database: "listCollections",
        oplog: "",
        events: "find insert",
        rows: "find",
        snapshots: "",
        bookkeeping: &[
            (META_COLLECTION, "find"),
            (QUARANTINE_COLLECTION, "find"),
            (SKIPS_COLLECTION, "find"),
        ],
    },
    Role {
        name: "operator",
        about: "for people who use the commands, `init` among them",
        database: "listCollections",
        oplog: "",
        events: "collMod createCollection find insert",
        rows: "createCollection find",
        snapshots: "createCollection find",
        bookkeeping: &[
            (ARCHIVE_COLLECTION, "createIndex find"),
            (CHECKPOINTS_COLLECTION, "find"),
            (CLIENTS_COLLECTION, "createIndex find"),
            (JOBS_COLLECTION, "createIndex find insert update"),
            (LEASES_COLLECTION, "find"),
            (MARKS_COLLECTION, "createIndex find"),
            (META_COLLECTION, "find insert remove update"),
            (QUARANTINE_COLLECTION, "find"),
            (SKIPS_COLLECTION, "createCollection find"),
        ],
    },
    Role {
        name: "reader",
        about: "for whoever only looks: `status`, `get`, `history`, `missing`, lists",
        database: "listCollections",
        oplog: "",
        events: "find",
        rows: "find",
        snapshots: "find",
        bookkeeping: &[
            (ARCHIVE_COLLECTION, "find"),
            (CHECKPOINTS_COLLECTION, "find"),
            (JOBS_COLLECTION, "find"),
            (LEASES_COLLECTION, "find"),
            (META_COLLECTION, "find"),
            (QUARANTINE_COLLECTION, "find"),
            (SKIPS_COLLECTION, "find"),
        ],
    },
];

/// Prints the commands that make the roles, and then those that bring roles up to date which exist: for mongosh, or with
/// `as_json` as an array.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn print(config: &Config, as_json: bool) -> io::Result<()> {
    let verbs = ["createRole", "updateRole"];
    if as_json {
        let all = verbs.iter().flat_map(|verb| ROLES.iter().map(|role| role.command(config, verb)));
        return output::json(&all.collect());
    }
    let [create, update] = verbs.map(|verb| {
        let commands = ROLES.iter().map(|role| shown(&role.command(config, verb)));
        commands.collect::<Vec<_>>().join("\n")
    });
    output::line(
        "// To be pasted into mongosh by a user who may make roles, such as one with userAdminAnyDatabase.",
    )?;
    for role in &ROLES {
        output::line(format!("// {}: {}.", role.called(config), role.about))?;
    }
    output::line(format!("\n// The first time:\n{create}"))?;
    output::line(format!("\n// After an upgrade, or a change of the configuration:\n{update}"))
}

impl Role {
    fn called(&self, config: &Config) -> String {
        format!("alluvium-{}-{}", config.mongodb.database, self.name)
    }

    /// The command that makes it, or brings it up to date.
    fn command(&self, config: &Config, verb: &str) -> Value {
        let privileges = self.privileges(config);
        json!({ verb: self.called(config), "privileges": privileges, "roles": [] })
    }

    fn privileges(&self, config: &Config) -> Vec<Value> {
        let database = config.mongodb.database.as_str();
        let mut granted = vec![
            (database, String::new(), self.database),
            ("local", "oplog.rs".to_owned(), self.oplog),
        ];
        for collection in &config.collections {
            granted.push((database, events_collection(&collection.name), self.events));
            granted.push((database, collection.name.clone(), self.rows));
            granted.push((database, snapshots_collection(&collection.name), self.snapshots));
        }
        let bookkeeping = self.bookkeeping.iter();
        granted.extend(bookkeeping.map(|(name, actions)| (database, (*name).to_owned(), *actions)));
        let granted = granted.into_iter().filter(|(.., actions)| !actions.is_empty());
        let privilege = |(database, collection, actions): (&str, String, &str)| {
            let actions: Vec<&str> = actions.split(' ').collect();
            json!({ "resource": { "db": database, "collection": collection }, "actions": actions })
        };
        granted.map(privilege).collect()
    }
}

/// A command as mongosh takes it, one privilege on a line.
fn shown(command: &Value) -> String {
    let fields = command.as_object().into_iter().flatten().map(|(name, value)| {
        let value = match value.as_array().filter(|all| !all.is_empty()) {
            Some(all) => {
                let lines: Vec<String> = all.iter().map(|one| format!("\n    {one}")).collect();
                format!("[{}\n  ]", lines.join(","))
            }
            None => value.to_string(),
        };
        format!("\n  \"{name}\": {value}")
    });
    let fields: Vec<String> = fields.collect();
    format!("db.getSiblingDB(\"admin\").runCommand({{{}\n}})", fields.join(","))
}
