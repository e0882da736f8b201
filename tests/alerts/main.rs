//! The rules and the dashboard of `metrics/` with the tools of Prometheus: its own unit tests of the rules, and a real
//! server that watches real daemons, a leader and a standby, and sees the right alerts fire and end. Needs `promtool`
//! and `prometheus` on PATH.

#[path = "../common/mod.rs"]
mod common;
#[path = "../judge/mod.rs"]
mod judge;
mod prometheus;
#[path = "../common/scene.rs"]
mod scene;

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use bson::doc;
use common::{Daemon, free_port};
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

/// Documents that wait: one behind a gap, one parked.
async fn waiting(scene: &Scene, leader: &Daemon, watch: &Prometheus) {
    scene.append([event("gap", 1), event("gap", 3)]).await;
    let patch = doc! { "op": "update", "patch": { "$inc": { "n": "one" } } };
    scene.append([event("poison", 1), change("poison", 2, patch)]).await;
    watch.fires("AlluviumDocumentParked games").await;
    watch.only(&["AlluviumDocumentParked games", "AlluviumGapOld games"]).await;
    let (status, job) = leader.post("/v1/collections/games/quarantine/poison/skip", &json!({}));
    assert!(matches!(status, 200 | 202), "{job}");
    watch.only(&["AlluviumGapOld games"]).await;
    scene.append([event("gap", 2)]).await;
    watch.only(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_wait_have_their_alerts_which_end_with_them_and_nothing_else_fires() {
    let scene = Scene::new().await;
    let ports = [free_port(), free_port()];
    let mut first = daemon(&scene, ports[0]);
    first.ready().await;
    let mut second = daemon(&scene, ports[1]);
    second.ready().await;
    let watch = Prometheus::start(&ports).await;
    let stop = AtomicBool::new(false);
    let story = async {
        // Before anything is wrong: the leader and the standby are seen, and nothing fires.
        watch.says("sum(alluvium_leader)", 1.0).await;
        watch.says("count(alluvium_leader)", 2.0).await;
        watch.says("sum(alluvium:events_applied:rate5m) > bool 0", 1.0).await;
        watch.only(&[]).await;
        waiting(&scene, &first, &watch).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(story, load(&scene, &stop));
}
