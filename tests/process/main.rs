//! The program as a process among others: what it makes of signals, of a log that cannot be written, of a database
//! that is away, of connections that want too much. Always the real binary.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod configuration;
mod connections;
mod dev;
mod logs;
mod refusing;
mod signals;
mod start;
mod status;
mod supervisor;
mod tls;
mod top;
mod unsaid;

use std::{fs, path::Path};

use bson::{Document, doc};
use common::{TestDatabase, wait_for};

/// A configuration of one collection, `games`, with further keys in `[http]`.
fn config(db: &TestDatabase, port: u16, http: &str) -> String {
    at(&db.uri, &db.name, port, http)
}

/// The same for any connection string.
fn at(uri: &str, database: &str, port: u16, http: &str) -> String {
    format!(
        "[mongodb]\nuri = \"{uri}\"\ndatabase = \"{database}\"\n\
         [http]\nlisten = \"127.0.0.1:{port}\"\n{http}\n[[collections]]\nname = \"games\"\n"
    )
}

/// Whether the lease of `games` is free: given back, and not only run out.
async fn is_given_back(db: &TestDatabase) -> bool {
    let leases = db.db.collection::<Document>("alluvium.leases");
    let lease = leases.find_one(doc! { "_id.c": "games" }).await.unwrap().unwrap();
    lease.get("holder") == Some(&bson::Bson::Null)
}

/// Waits until a process has handlers for these signals, by their numbers.
async fn listens(pid: u32, signals: &[u32]) {
    wait_for("its handlers are there", async || {
        let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
        let status = status.ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        signals.iter().all(|signal| caught & (1 << (signal - 1)) != 0).then_some(())
    })
    .await;
}
