//! Every metric that the rules, the dashboard and the catalogue name is one that a daemon exports.

use std::collections::BTreeSet;

use bson::{Document, doc};

use crate::{
    common::{wait_for, wait_until},
    scene::{Scene, change, event, events},
};

const FILES: [(&str, &str); 4] = [
    ("alluvium.rules.yml", include_str!("../../metrics/alluvium.rules.yml")),
    ("alluvium.rules.test.yml", include_str!("../../metrics/alluvium.rules.test.yml")),
    ("dashboard.json", include_str!("../../metrics/dashboard.json")),
    ("README.md", include_str!("../../metrics/README.md")),
];

/// The names that begin so, each to its end.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_name(c) && c != ':');
    let ours = words.filter(|word| word.starts_with("alluvium_") || word.starts_with("process_"));
    ours.filter(|word| !word.contains(':')).map(str::to_owned).collect()
}

/// Has a job done.
async fn done(scene: &Scene, job: Document) {
    let jobs = scene.collection("alluvium.jobs");
    let id = jobs.insert_one(job).await.unwrap().inserted_id;
    let wanted = doc! { "_id": id, "state": "done" };
    wait_until(&format!("{wanted}"), async || {
        jobs.find_one(wanted.clone()).await.unwrap().is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_rules_dashboard_and_catalogue_name_is_exported_by_a_daemon() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=5)).await;
    let poison = doc! { "op": "update", "patch": { "$inc": { "n": "one" } } };
    scene.append([event("b", 1), change("b", 2, poison), event("c", 2)]).await;
    scene.reached("a", 5).await;
    for job in ["verify", "compact"] {
        done(&scene, doc! { "kind": job, "collection": "games", "dry_run": job == "compact" })
            .await;
    }
    let address = format!("http://{}/metrics", daemon.http);
    let exported = async || {
        let address = address.clone();
        let get = move || ureq::get(address).call().unwrap().body_mut().read_to_string().unwrap();
        tokio::task::spawn_blocking(get).await.unwrap()
    };
    let named: BTreeSet<String> = FILES.iter().flat_map(|(_, text)| names(text)).collect();
    assert!(named.len() > 40, "{named:?}");
    // No test can wait until an oplog of the usual size forgets: it is another one's matter that this is exported then.
    let elsewhere = "alluvium_checkpoint_lost_in_seconds";
    let mut missing = BTreeSet::new();
    let all = wait_for("the headroom is known", async || {
        let text = exported().await;
        text.contains("alluvium_oplog_headroom_seconds{").then_some(text)
    });
    let found = names(&all.await);
    for (file, text) in FILES {
        for name in names(text) {
            if name != elsewhere && !found.contains(&name) {
                missing.insert(format!("{name} of {file}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?} are not among {found:?}");
    daemon.stop().await;
}
