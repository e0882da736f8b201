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
use futures::TryStreamExt;
use mongodb::Client;
use scene::{Scene, change};

/// How much the daemon is given beside its cache, also unoptimized: deploy/README.md says what for.
const BESIDE_MIB: f64 = 256.0;
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

/// A server of the test's own, and the configuration of a daemon with a small cache.
async fn stage() -> (Mongod, Scene, String) {
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
    (mongod, scene, config)
}

/// Checks the peak of a process, and prints it.
fn assert_bounded(daemon: &Daemon, what: &str) {
    let (peak, bound) = (peak_mib(daemon), CACHE_MIB + BESIDE_MIB);
    println!("{what}: {peak:.0} MiB at most");
    assert!(peak < bound, "{what}: {peak} MiB is beyond {bound} MiB");
}

/// Waits until the versions of all documents come to so much.
async fn projected(scene: &Scene, versions: i64) {
    let games = scene.collection("games");
    wait_until("everything is projected", async || {
        let sum = doc! { "$group": { "_id": null, "sum": { "$sum": "$version" } } };
        let mut sums = games.aggregate([sum]).await.unwrap();
        let sum = sums.try_next().await.unwrap();
        sum.is_some_and(|sum| sum.get_i64("sum").unwrap() == versions)
    })
    .await;
}

/// Which of the two ways the events come.
async fn stays_bounded(tailing: bool) {
    let (mongod, scene, config) = stage().await;
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
    assert_bounded(&daemon, &format!("tailing: {tailing}, held up: {held_up:.0} MiB"));
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

#[tokio::test(flavor = "multi_thread")]
async fn many_large_documents_that_change_after_a_start_are_brought_into_memory_as_it_has_room() {
    const LARGE: usize = 1_000;
    let (mongod, scene, config) = stage().await;
    let create = |document: usize| {
        let state = doc! { "filler": "x".repeat(256 << 10), "n": 0 };
        change(format!("d{document}"), 1, doc! { "op": "create", "state": state })
    };
    let mut daemon = Daemon::start(&config);
    daemon.ready().await;
    let numbers: Vec<usize> = (0..LARGE).collect();
    for numbers in numbers.chunks(50) {
        scene.append(numbers.iter().map(|document| create(*document))).await;
    }
    projected(&scene, LARGE as i64).await;
    assert_bounded(&daemon, "created");
    assert!(daemon.stop().await.success());
    let touch = |document: usize, version: i64| {
        let patch = doc! { "$inc": { "n": 1 } };
        change(format!("d{document}"), version, doc! { "op": "update", "patch": patch })
    };
    for round in [2, 3] {
        scene.append(numbers.iter().map(|document| touch(*document, round))).await;
        if round == 3 {
            // Without a place to begin at the log is scanned against the rows.
            scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
        }
        let mut daemon = Daemon::start(&config);
        daemon.ready().await;
        projected(&scene, round * LARGE as i64).await;
        assert_bounded(&daemon, if round == 2 { "resumed" } else { "scanned" });
        assert!(daemon.stop().await.success());
    }
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_many_small_values_take_a_bounded_share_however_many_are_asked_for_at_once() {
    let (mongod, scene, config) = stage().await;
    let numbers = |count: i32| bson::Array::from_iter((0..count).map(bson::Bson::Int32));
    let state = doc! { "n": numbers(250_000) };
    scene.append([change("a", 1, doc! { "op": "create", "state": state })]).await;
    for version in 2..=10 {
        let patch = doc! { "$set": { "n": numbers(250_000) } };
        scene.append([change("a", version, doc! { "op": "update", "patch": patch })]).await;
    }
    let mut daemon = Daemon::start(&config);
    daemon.ready().await;
    projected(&scene, 10).await;
    assert_bounded(&daemon, "projected");
    let document = "/v1/collections/games/documents/a";
    for path in [
        format!("{document}?ejson=canonical"),
        format!("{document}/events?limit=1000&ejson=canonical"),
        format!("{document}/missing?clock=%7B%7D&ejson=canonical"),
    ] {
        let url = daemon.url(&path);
        let asks = (0..6).map(|_| {
            let url = url.clone();
            tokio::task::spawn_blocking(move || {
                let answer = ureq::get(&url).call().map_err(|error| error.to_string())?;
                std::io::copy(&mut answer.into_body().into_reader(), &mut std::io::sink())
                    .map_err(|error| error.to_string())
            })
        });
        let answers = futures::future::join_all(asks).await;
        for answer in answers {
            let bytes = answer.unwrap();
            assert!(bytes.as_ref().is_ok_and(|bytes| *bytes > 1 << 20), "{path}: {bytes:?}");
        }
        assert_bounded(&daemon, &path);
    }
    assert!(daemon.stop().await.success());
    mongod.stop().await.unwrap();
}
