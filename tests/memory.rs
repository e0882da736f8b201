//! Memory is bounded by configuration, also while nothing can be written: the daemon stops reading
//! rather than buffer. A process of its own, because that is what has a memory.

#[path = "common/mod.rs"]
mod common;
#[path = "judge/mod.rs"]
mod judge;
#[path = "common/scene.rs"]
mod scene;

use alluvium::embedded::{Mongod, Options};
use bson::{Document, doc};
use common::{Daemon, wait_until};
use mongodb::Client;
use scene::{Scene, change};

/// How much the daemon is given beside its cache: itself, unoptimized, and a few batches of the server.
const BESIDE_MIB: f64 = 200.0;
const CACHE_MIB: f64 = 8.0;
/// The log has much more than the daemon may hold.
const DOCUMENTS: usize = 40_000;
const STATE_BYTES: usize = 10_000;

/// The most memory that a process has had at once.
fn peak_mib(daemon: &Daemon) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

async fn block_writes(scene: &Scene, mode: impl Into<bson::Bson>) -> i64 {
    let data = doc! {
        "failCommands": ["insert", "update"], "namespace": format!("{}.games", scene.db.name()),
        "blockConnection": true, "blockTimeMS": 2_000,
    };
    let command = doc! { "configureFailPoint": "failCommand", "mode": mode.into(), "data": data };
    let reply = scene.db.client().database("admin").run_command(command).await.unwrap();
    reply.get("count").and_then(|n| n.as_i64().or(n.as_i32().map(i64::from))).unwrap_or_default()
}

/// Which of the two ways the events come.
async fn stays_bounded(tailing: bool) {
    let options = Options {
        args: ["--setParameter", "enableTestCommands=1"].map(str::to_owned).to_vec(),
        cache_mib: 512,
        ..Options::default()
    };
    let mongod = Mongod::start(options).await.unwrap();
    let client = Client::with_uri_str(mongod.uri()).await.unwrap();
    let scene = Scene::on(mongod.uri().to_owned(), client.database("memory")).await;
    let config = format!(
        "[mongodb]\nuri = \"{}\"\ndatabase = \"memory\"\n[http]\nlisten = \"127.0.0.1:{}\"\n\
         [[collections]]\nname = \"games\"\ncache_bytes = \"{CACHE_MIB}MiB\"\n",
        mongod.uri(),
        common::free_port()
    );
    let create = |document: usize| -> Document {
        let state = doc! { "filler": "x".repeat(STATE_BYTES), "n": 0 };
        change(format!("d{document}"), 1, doc! { "op": "create", "state": state })
    };
    let mut daemon = None;
    if tailing {
        daemon.insert(Daemon::start(&config)).ready().await;
        block_writes(&scene, "alwaysOn").await;
    }
    let numbers: Vec<usize> = (0..DOCUMENTS).collect();
    for numbers in numbers.chunks(2_000) {
        scene.append(numbers.iter().map(|document| create(*document))).await;
    }
    if !tailing {
        block_writes(&scene, "alwaysOn").await;
    }
    let mut daemon = daemon.unwrap_or_else(|| Daemon::start(&config));
    let before = block_writes(&scene, "alwaysOn").await;
    wait_until("writes have been held up for a while", async || {
        block_writes(&scene, "alwaysOn").await >= before + 8
    })
    .await;
    let held_up = peak_mib(&daemon);
    block_writes(&scene, "off").await;
    let games = scene.collection("games");
    wait_until("everything is projected", async || {
        games.estimated_document_count().await.unwrap() == DOCUMENTS as u64
    })
    .await;
    let bound = CACHE_MIB + BESIDE_MIB;
    let peak = peak_mib(&daemon);
    println!("tailing: {tailing}, held up: {held_up:.0} MiB, at most: {peak:.0} MiB");
    assert!(peak < bound, "{peak} MiB (held up: {held_up} MiB) is beyond {bound} MiB");
    assert!(daemon.stop().await.success());
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_whose_writes_are_held_up_stops_reading_rather_than_buffer() {
    stays_bounded(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_whose_writes_are_held_up_stops_reading_rather_than_buffer() {
    stays_bounded(false).await;
}
