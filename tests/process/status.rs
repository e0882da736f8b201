//! What `alluvium status` and `alluvium health` say, and with which exit code, of daemons that are well and of such
//! that are not.

use std::{
    collections::BTreeSet,
    process::{Command, Output},
};

use alluvium::store::format::FORMAT;
use bson::{DateTime, doc};
use serde_json::Value;

use crate::{
    common::{Daemon, TestDatabase, database, free_port, wait_for, wait_until},
    config,
};

struct Scene {
    db: TestDatabase,
    folder: tempfile::TempDir,
    config: String,
}

impl Scene {
    async fn new(http: &str) -> Scene {
        let db = database().await;
        let config = config(&db, free_port(), http);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("alluvium.toml"), &config).unwrap();
        Scene { db, folder, config }
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        command.args(arguments).arg("--config").arg(self.folder.path().join("alluvium.toml"));
        let Output { status, stdout, stderr } = command.output().unwrap();
        let said =
            String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        (status.code().unwrap(), said)
    }

    /// Waits until `status` ends with this code and says this.
    async fn says(&self, code: i32, part: &str) -> String {
        let mut last = (0, String::new());
        let found = wait_until(part, async || {
            last = self.run(&["status"]);
            last.0 == code && last.1.contains(part)
        });
        found.await;
        last.1
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_is_one_line_that_says_whether_all_is_well() {
    let scene = Scene::new("").await;
    let (code, said) = scene.run(&["status"]);
    assert_eq!((code, said.as_str()), (4, "games: needs attention; nobody leads it\n"));
    let mut daemon = Daemon::start(&scene.config);
    daemon.ready().await;
    let said = scene.says(0, "games: ok; led by ").await;
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("(tailing, 0.0 s behind"), "{said}");
    let (_, shown) = scene.run(&["status", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let instance = daemon.get("/v1/status").1["instance"].clone();
    let games = &shown["collections"][0];
    assert_eq!((&shown["ok"], &games["ok"]), (&true.into(), &true.into()), "{shown}");
    assert_eq!(games["leaders"][0]["instance"], instance, "{shown}");
    assert_eq!(games["leaders"][0]["last_error"], Value::Null, "{shown}");
    assert_eq!(shown["instances"][0]["name"], instance, "{shown}");
    assert_eq!(shown["instances"][0]["format"], FORMAT, "{shown}");

    // A document behind a gap, one that is parked, a pause, and a leader that is gone.
    let event = |d: &str, s: i64, op: &str| {
        let mut event =
            doc! { "_id": { "d": d, "s": s }, "client": "me", "op": op, "at": DateTime::now() };
        event.extend(match op {
            "create" => doc! { "state": { "n": "one" } },
            _ => doc! { "patch": { "$inc": { "n": 1 } } },
        });
        event
    };
    let log = scene.db.db.collection("games.events");
    let events = [
        event("a", 1, "create"),
        event("a", 3, "update"),
        event("b", 1, "create"),
        event("b", 2, "update"),
    ];
    log.insert_many(events).await.unwrap();
    let said = scene.says(4, "1 documents wait behind a gap; 1 documents are parked").await;
    assert!(said.starts_with("games: needs attention; led by "), "{said}");
    assert_eq!(scene.run(&["pause", "games"]).0, 0);
    scene.says(4, "it is paused (`alluvium resume` lets it go on)").await;
    daemon.kill();
    scene.says(4, "is silent").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_error_is_told_until_its_cause_has_gone() {
    let scene = Scene::new("").await;
    let mut daemon = Daemon::start(&scene.config);
    daemon.ready().await;
    let events = scene.db.db.collection::<bson::Document>("games.events");
    let other = scene.db.name.clone();
    let rename = |from: &str, to: &str| {
        doc! { "renameCollection": format!("{other}.{from}"), "to": format!("{other}.{to}") }
    };
    drop(events);
    let admin = scene.db.client.database("admin");
    admin.run_command(rename("games.events", "elsewhere")).await.unwrap();
    let said = scene.says(4, "is refused").await;
    assert!(said.contains("bring the log back"), "{said}");
    admin.run_command(rename("elsewhere", "games.events")).await.unwrap();
    scene.says(0, "games: ok").await;
    let (_, status) = daemon.get("/v1/status");
    assert_eq!(status["collections"][0]["last_error"], Value::Null, "{status}");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_says_that_it_stands_by_and_does_not_know() {
    let scene = Scene::new("").await;
    let mut leader = Daemon::start(&scene.config);
    leader.ready().await;
    let mut standby = Daemon::start(&config(&scene.db, free_port(), ""));
    standby.ready().await;
    let games = standby.get("/v1/status").1["collections"][0].clone();
    assert_eq!((&games["role"], &games["phase"]), (&"standby".into(), &"standing_by".into()));
    for unknown in ["version_gaps", "quarantined", "lag_seconds", "lag_events", "last_error"] {
        assert_eq!(games[unknown], Value::Null, "{games}");
    }
    let metrics = standby.get("/metrics").1;
    let metrics = metrics.as_str().unwrap();
    for absent in ["alluvium_version_gaps{", "alluvium_quarantined_documents{"] {
        assert!(!metrics.contains(absent), "{metrics}");
    }
    for log in [leader.log(), standby.log()] {
        for debug_form in ["Some(", "ObjectId(", "labels: {", "source: None", "Standby\""] {
            assert!(!log.contains(debug_form), "{log}");
        }
    }
    assert_eq!(standby.stop().await.code(), Some(0));
    assert_eq!(leader.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_asks_the_daemon_of_this_machine() {
    let scene = Scene::new("").await;
    let (code, said) = scene.run(&["health"]);
    assert!(code == 4 && said.contains("does not answer"), "{said}");
    let mut daemon = Daemon::start(&scene.config);
    daemon.ready().await;
    assert_eq!(scene.run(&["health"]), (0, "ready\n".into()));
    assert_eq!(scene.run(&["health", "--live"]), (0, "alive\n".into()));
    let (_, json) = scene.run(&["health", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["ready"], true);
    scene.db.db.collection::<bson::Document>("games.events").drop().await.unwrap();
    let (code, said) = wait_for("it is not ready", async || {
        Some(scene.run(&["health"])).filter(|(code, _)| *code != 0)
    })
    .await;
    assert!(code == 4 && said.starts_with("not ready: `games` is "), "{said}");
    assert_eq!(scene.run(&["health", "--live"]).0, 0);
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_called_like_its_host_or_as_it_is_configured() {
    let scene = Scene::new("[daemon]\ninstance = \"projector\"").await;
    let mut daemon = Daemon::start(&scene.config);
    daemon.ready().await;
    let name = daemon.get("/v1/status").1["instance"].as_str().unwrap().to_owned();
    assert_eq!(name.strip_prefix("projector-").map(str::len), Some(6), "{name}");
    daemon.stop().await;
    let db = database().await;
    let pod = ["env", "HOSTNAME=pod-7"];
    let mut daemon = Daemon::under(&pod, &config(&db, free_port(), ""), &[]);
    daemon.ready().await;
    let name = daemon.get("/v1/status").1["instance"].as_str().unwrap().to_owned();
    assert!(name.starts_with("pod-7-"), "{name}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documentation_lists_exactly_the_loops() {
    let scene = Scene::new("").await;
    let mut daemon = Daemon::start(&scene.config);
    daemon.ready().await;
    let (_, health) = daemon.get("/healthz");
    let loops = health["loops"].as_array().unwrap().iter();
    let found: BTreeSet<String> =
        loops.map(|turning| turning["name"].as_str().unwrap().replace("games", "C")).collect();
    let page = include_str!("../../deploy/README.md");
    let (_, table) = page.split_once("| loop | what stops with it |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let first = rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2));
    let listed: BTreeSet<String> = first.map(str::to_owned).collect();
    assert_eq!(listed, found);
    daemon.stop().await;
}

/// A task of the driver that outlives the runtime panics, in a few of hundreds of runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_ends_in_order_every_time() {
    let scene = Scene::new("").await;
    for _ in 0..100 {
        let (code, said) = scene.run(&["status"]);
        assert_eq!((code, said.as_str()), (4, "games: needs attention; nobody leads it\n"));
    }
}
