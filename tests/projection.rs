//! The main job on a real server: what is appended becomes documents, whatever was there before.

mod common;

use std::time::Duration;

use alluvium::{
    config::{CollectionConfig, Config, DaemonConfig, HttpConfig, MongoConfig},
    daemon::Daemon,
};
use bson::{Document, doc};
use common::{TestDatabase, database, wait_for, wait_until};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smoke() {
    let db = database().await;
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    db.db.run_command(doc! { "create": "games.events", "clusteredIndex": { "key": { "_id": 1 }, "unique": true } }).await.unwrap();
    let events = db.db.collection::<Document>("games.events");
    events.insert_many((1..=3).map(|s| event("a", s))).await.unwrap();
    let config = Config {
        mongodb: MongoConfig { uri: db.uri.parse().unwrap(), database: db.name.clone() },
        http: HttpConfig { listen: "127.0.0.1:0".parse().unwrap() },
        daemon: DaemonConfig {
            checkpoint_interval: Duration::from_secs(1),
            lease_time: Duration::from_secs(1),
            shutdown_timeout: Duration::from_secs(10),
        },
        collections: vec![CollectionConfig::new("games")],
    };
    let daemon = Daemon::start(&db.db, &config).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(daemon.run_until(stop.clone().cancelled_owned()));
    let games = db.db.collection::<Document>("games");
    let row = wait_for("version 3", async || {
        games.find_one(doc! { "_id": "a", "version": 3_i64 }).await.unwrap()
    })
    .await;
    println!("{row}");
    events.insert_many((4..=6).map(|s| event("a", s))).await.unwrap();
    let row = wait_for("version 6", async || {
        games.find_one(doc! { "_id": "a", "version": 6_i64 }).await.unwrap()
    })
    .await;
    println!("{row}");
    stop.cancel();
    task.await.unwrap().unwrap();
    println!(
        "{:?}",
        db.db.collection::<Document>("alluvium.checkpoints").find_one(doc! {}).await.unwrap()
    );
}

fn event(d: &str, s: i32) -> Document {
    let at = bson::DateTime::now();
    match s {
        1 => {
            doc! { "_id": { "d": d, "s": s }, "client": "x", "op": "create", "state": { "n": 0 }, "at": at }
        }
        _ => {
            doc! { "_id": { "d": d, "s": s }, "client": "x", "op": "update", "patch": { "$inc": { "n": 1 } }, "at": at }
        }
    }
}
