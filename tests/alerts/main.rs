//! The rules and the dashboard of `metrics/` with the tools of Prometheus: its own unit tests of the rules, and a real
//! server that watches real daemons while faults are put in, and sees the right alert fire and end. Needs `promtool`
//! and `prometheus` on PATH.

#[path = "../common/mod.rs"]
mod common;
mod dashboard;
#[path = "../judge/mod.rs"]
mod judge;
mod prometheus;
#[path = "../common/scene.rs"]
mod scene;

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use alluvium::{
    embedded::{Mongod, Options},
    store::{Pauses, mongo::MongoPauses},
};
use bson::{Document, Timestamp, doc};
use common::{Daemon, free_port, wait_until};
use dashboard::Dashboard;
use mongodb::Client;
use prometheus::{METRICS, Prometheus};
use scene::{Scene, change, event};
use serde_json::json;

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(METRICS).output();
    let output = output.unwrap_or_else(|error| {
        panic!("`promtool` cannot be run ({error}); see .ci/run for how to install it")
    });
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}{complaint}");
}

#[test]
fn the_rules_and_the_scrape_configuration_are_well_formed_and_pass_their_unit_tests() {
    promtool(&["check", "rules", "alluvium.rules.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "alluvium.rules.test.yml"]);
}

/// A server whose oplog forgets while a test runs.
async fn forgetful() -> (Mongod, Scene) {
    let args = ["--syncdelay", "1", "--setParameter", "enableTestCommands=1"];
    let args = args.map(str::to_owned).to_vec();
    let mongod =
        Mongod::start(Options { oplog_mib: 16, args, ..Options::default() }).await.unwrap();
    let client = Client::with_uri_str(mongod.uri()).await.unwrap();
    let scene = Scene::on(mongod.uri().to_owned(), client.database("t")).await;
    (mongod, scene)
}

fn daemon(scene: &Scene, port: u16) -> Daemon {
    let (uri, database) = (&scene.uri, scene.db.name());
    Daemon::start(&format!(
        "[mongodb]\nuri = \"{uri}&appName=watched\"\ndatabase = \"{database}\"\n\
         [http]\nlisten = \"127.0.0.1:{port}\"\n[[collections]]\nname = \"games\"\ngap_grace = \"1s\"\n"
    ))
}

/// Writes until it is told to stop: `load` grows, and the oplog with it.
async fn load(scene: &Scene, stop: &AtomicBool) {
    let mut version = 0;
    wait_for_stop(stop, async || {
        version += 1;
        // A server that is frozen or fails answers later, or not at all.
        let log = scene.collection("games.events");
        if log.insert_one(event("load", version)).await.is_err() {
            version -= 1;
        }
    })
    .await;
}

async fn wait_for_stop(stop: &AtomicBool, mut step: impl AsyncFnMut()) {
    let mut turns = tokio::time::interval(std::time::Duration::from_millis(50));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        step().await;
        turns.tick().await;
    }
}

async fn pause(scene: &Scene, paused: bool) {
    MongoPauses::new(&scene.db).set_paused("games", paused, "test").await.unwrap();
}

/// Has the oplog forget what is before the checkpoint, or is about to.
async fn forget(scene: &Scene) {
    let oplog = scene.db.client().database("local").collection::<Document>("oplog.rs");
    let first = async || -> Timestamp {
        let entry = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).await.unwrap();
        entry.unwrap().get_timestamp("ts").unwrap()
    };
    let (start, mut number) = (first().await, 0);
    wait_until("the oplog forgets", async || {
        number += 1;
        // Another text each time: the oplog holds what differs.
        let set = doc! { "$set": { "text": format!("{number:08}").repeat(32 << 10) } };
        let filler = scene.collection("filler");
        filler.update_one(doc! { "_id": 1 }, set).upsert(true).await.unwrap();
        first().await > start
    })
    .await;
}

/// Documents that wait: one behind a gap, one parked.
async fn waiting(scene: &Scene, leader: &Daemon, (watch, dashboard): (&Prometheus, &Dashboard)) {
    scene.append([event("gap", 1), event("gap", 3)]).await;
    let patch = doc! { "op": "update", "patch": { "$inc": { "n": "one" } } };
    scene.append([event("poison", 1), change("poison", 2, patch)]).await;
    watch.fires("AlluviumDocumentParked games").await;
    watch.only(&["AlluviumDocumentParked games", "AlluviumGapOld games"]).await;
    dashboard.look(watch);
    let (status, job) = leader.post("/v1/collections/games/quarantine/poison/skip", &json!({}));
    assert!(matches!(status, 200 | 202), "{job}");
    watch.only(&["AlluviumGapOld games"]).await;
    scene.append([event("gap", 2)]).await;
    watch.only(&[]).await;
}

/// A projection that cannot write rows falls behind, and is not lost. It keeps its lease all the while: a daemon that can write
/// nothing at all, or is told that its server shuts down, loses the lease first, and then nobody knows any lag.
async fn lagging(scene: &Scene, watch: &Prometheus) {
    let admin = scene.db.client().database("admin");
    let rows = format!("{}.games", scene.db.name());
    const LOCK_TIMEOUT: i32 = 24;
    let data = doc! {
        "failCommands": ["insert", "update"], "namespace": rows, "errorCode": LOCK_TIMEOUT, "appName": "watched",
    };
    let fail = |mode: &str| doc! { "configureFailPoint": "failCommand", "mode": mode };
    let mut on = fail("alwaysOn");
    on.insert("data", data);
    admin.run_command(on).await.unwrap();
    watch.fires("AlluviumLagHigh games").await;
    watch.only(&["AlluviumLagHigh games"]).await;
    admin.run_command(fail("off")).await.unwrap();
    watch.only(&[]).await;
}

/// An operator's pause is told as one; what it may cost as well.
async fn paused(scene: &Scene, watch: &Prometheus, dashboard: &Dashboard) {
    pause(scene, true).await;
    watch.only(&["AlluviumPaused games"]).await;
    forget(scene).await;
    watch.only(&["AlluviumCheckpointLostSoon games", "AlluviumPaused games"]).await;
    dashboard.look(watch);
    pause(scene, false).await;
    watch.only(&[]).await;
}

fn signal(pid: u32, name: &str) {
    let arguments = ["-c", "kill -s \"$1\" \"$2\"", "signal", name, &pid.to_string()];
    assert!(Command::new("/bin/sh").args(arguments).status().unwrap().success());
}

/// What there is to do beside projecting, so that there is something to see of it.
fn busy(leader: &Daemon) {
    let (status, missing) = leader.get("/v1/collections/games/documents/load/missing?clock=%7B%7D");
    assert_eq!(status, 200, "{missing}");
    for job in ["verify", "compact", "snapshot"] {
        let (status, told) = leader.post(&format!("/v1/collections/games/{job}"), &json!({}));
        assert_eq!(status, 202, "{told}");
    }
}

/// A server that does not answer: after a while nobody knows the lag, and after the lease time nobody leads.
async fn frozen(mongod: &Mongod, watch: &Prometheus) {
    let pid = mongod.pid().unwrap();
    signal(pid, "STOP");
    watch.fires("AlluviumLagUnknown games").await;
    watch.fires("AlluviumNoLeader games").await;
    signal(pid, "CONT");
    watch.only(&[]).await;
}

/// Whoever leads dies, and until its lease has run out nobody does.
async fn died(daemons: [&mut Daemon; 2], watch: &Prometheus) {
    let leads = |daemon: &&mut Daemon| {
        let (_, status) = daemon.get("/v1/status");
        status["collections"][0]["role"] == "leader"
    };
    daemons.into_iter().find(leads).unwrap().kill();
    watch.fires("AlluviumNoLeader games").await;
    watch.only(&["AlluviumDown"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_has_its_alert_which_ends_with_it_and_nothing_else_fires() {
    let (mongod, scene) = forgetful().await;
    let ports = [free_port(), free_port()];
    let mut first = daemon(&scene, ports[0]);
    first.ready().await;
    let mut second = daemon(&scene, ports[1]);
    second.ready().await;
    let watch = Prometheus::start(&ports).await;
    let (stop, dashboard) = (AtomicBool::new(false), Dashboard::new());
    let story = async {
        // Before anything is wrong: the leader and the standby are seen, and nothing fires.
        watch.says("sum(alluvium_leader)", 1.0).await;
        watch.says("count(alluvium_leader)", 2.0).await;
        watch.says("sum(alluvium:events_applied:rate5m) > bool 0", 1.0).await;
        watch.only(&[]).await;
        busy(&first);
        waiting(&scene, &first, (&watch, &dashboard)).await;
        lagging(&scene, &watch).await;
        paused(&scene, &watch, &dashboard).await;
        dashboard.is_complete(&watch).await;
        watch.has_evaluated_all();
        frozen(&mongod, &watch).await;
        died([&mut first, &mut second], &watch).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(story, load(&scene, &stop));
    mongod.stop().await.unwrap();
}
