//! Everything that there is to do, each part by somebody who has the role for it and no other, while the server notes
//! whatever it refuses.

use std::time::Duration;

use alluvium::{
    config::CollectionConfig,
    model::{clock::Clock, id::DocumentId},
    writer::{EventSourced, WriterOptions},
};
use bson::{Bson, Document, doc};
use mongodb::{Client, IndexModel, options::IndexOptions};

use crate::{
    GAMES,
    common::{Daemon, wait_for, wait_until},
    scene::{Scene, change, event, events},
    secured::{DATABASE, Ended, Secured},
};

/// The server with all that use it.
struct Stage {
    secured: Secured,
    collections: String,
    /// Appends, and sees what becomes of it.
    scene: Scene,
    daemon: String,
    operator: String,
    reader: String,
}

impl Stage {
    async fn new() -> Stage {
        let secured = Secured::bare().await;
        let archive = secured.folder().join("archive");
        let collections = format!(
            "{GAMES}gap_grace = \"0s\"\n\
             [collections.snapshots]\nevery_events = 10\nkeep = 1\n\
             [collections.compaction]\nmin_age = \"0s\"\nkeep_events = 5\narchive = \"file://{}\"\n\
             [[collections]]\nname = \"boats\"\n",
            archive.display()
        );
        for command in secured.roles(&collections).await {
            secured.admin.run_command(command).await.unwrap();
        }
        let daemon = secured.user("daemon", "pw", "daemon").await;
        let operator = secured.user("operator", "pw", "operator").await;
        let reader = secured.user("reader", "pw", "reader").await;
        let writer = secured.user("writer", "pw", "writer").await;
        let scene = Scene {
            db: Client::with_uri_str(&writer).await.unwrap().database(DATABASE),
            uri: writer,
            collections: vec![CollectionConfig::new("games")],
            lease_time: Duration::ZERO,
            shutdown_timeout: Duration::ZERO,
            max_ready_lag: Duration::ZERO,
            liveness_limit: Duration::ZERO,
        };
        Stage { secured, collections, scene, daemon, operator, reader }
    }

    /// What the database holds, seen by its administrator.
    fn seen(&self) -> Scene {
        Scene { db: self.secured.db.clone(), ..self.scene.clone() }
    }

    async fn start(&self) -> Daemon {
        let mut daemon = self.secured.daemon(&self.daemon, &self.collections);
        daemon.ready().await;
        daemon
    }

    /// A command of an operator, which succeeds.
    async fn operate(&self, arguments: &[&str]) -> Ended {
        let ended = self.secured.run(&self.operator, &self.collections, arguments).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended
    }

    /// A command of somebody who only looks, which succeeds.
    async fn look(&self, arguments: &[&str]) -> Ended {
        let ended = self.secured.run(&self.reader, &self.collections, arguments).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended
    }

    /// The server notes what it refuses.
    async fn and_it_would_have_been_noted(&self) {
        self.scene.db.collection::<Document>("games").drop().await.unwrap_err();
        let refused = self.secured.refused();
        assert!(refused.len() == 1 && refused[0].contains("not authorized on game"), "{refused:?}");
    }

    /// A job as any driver inserts it, which nobody has taken: cancelled.
    async fn cancel(&self) {
        let client = Client::with_uri_str(&self.operator).await.unwrap();
        let jobs = client.database(DATABASE).collection("alluvium.jobs");
        let job = jobs.insert_one(doc! { "kind": "verify", "collection": "games" }).await.unwrap();
        let Bson::ObjectId(id) = job.inserted_id else { panic!("{job:?}") };
        self.operate(&["jobs", "cancel", &id.to_hex()]).await;
        self.look(&["jobs", "show", &id.to_hex()]).await;
        assert!(self.look(&["jobs", "list"]).await.out.contains("cancelled"));
    }
}

/// Documents that are parked or behind a gap, and all that can be done about it.
async fn waiting(stage: &Stage) {
    let (scene, seen) = (&stage.scene, stage.seen());
    let poison = doc! { "client": "y", "op": "update", "patch": { "$push": { "n": 1 } } };
    scene.append(events("parked", 1..=3)).await;
    scene.append([change("parked", 4, poison), event("parked", 5)]).await;
    for late in ["healed", "filled", "closed"] {
        scene.append([event(late, 1), event(late, 3)]).await;
    }
    seen.parked("parked", 4).await;
    for late in ["healed", "filled", "closed"] {
        seen.recorded(late, "gap", 2).await;
    }
    assert!(stage.look(&["quarantine", "list", "games"]).await.out.contains("parked"));
    assert!(stage.look(&["gap", "list", "games"]).await.out.contains("closed"));
    stage.operate(&["quarantine", "retry", "games", "parked"]).await;
    stage.operate(&["quarantine", "retry", "games"]).await;
    stage.operate(&["quarantine", "skip", "games", "parked"]).await;
    stage.operate(&["gap", "fill", "games", "filled"]).await;
    stage.operate(&["gap", "fill", "games", "closed", "--skip-above"]).await;
    scene.append([event("healed", 2)]).await;
    seen.reached("parked", 5).await;
    for late in ["healed", "filled", "closed"] {
        seen.reached(late, 3).await;
        seen.record(late, |record| record.is_none()).await;
    }
}

/// Rows that somebody has touched, and rows that swap what a unique index lets only one of them have.
async fn touched(stage: &Stage) {
    let (scene, seen) = (&stage.scene, stage.seen());
    let unique = IndexOptions::builder().unique(true).sparse(true).build();
    let index = IndexModel::builder().keys(doc! { "state.name": 1 }).options(unique).build();
    seen.collection("games").create_index(index).await.unwrap();
    let create = |name: &str| doc! { "op": "create", "state": { "name": name } };
    scene.append([change("left", 1, create("x")), change("right", 1, create("y"))]).await;
    seen.reached("right", 1).await;
    let take = |name: &str| doc! { "op": "update", "merge": { "name": name } };
    scene.append([change("left", 2, take("y")), change("right", 2, take("x"))]).await;
    seen.reached("left", 2).await;
    seen.reached("right", 2).await;

    let rows = seen.collection("games");
    let damage = doc! { "$set": { "state": { "n": -1 } } };
    rows.update_one(doc! { "_id": "d0" }, damage).await.unwrap();
    let found = stage.secured.run(&stage.operator, &stage.collections, &["verify", "games"]).await;
    assert_eq!(found.code, Some(3), "{found:?}");
    stage.operate(&["verify", "games", "--repair"]).await;
    rows.delete_one(doc! { "_id": "d1" }).await.unwrap();
    seen.reached("d1", 20).await;
    stage.operate(&["rebuild", "games"]).await;
    stage.operate(&["verify", "games", "d0"]).await;
    stage.operate(&["snapshot", "games", "d0"]).await;
    stage.operate(&["snapshot", "games"]).await;
    assert!(seen.collection("games.snapshots").count_documents(doc! {}).await.unwrap() > 10);
}

/// What is older goes, into an archive, comes back, and what comes late is kept on record.
async fn compacted(stage: &Stage) {
    let (scene, seen) = (&stage.scene, stage.seen());
    stage.operate(&["compact", "games", "--dry-run"]).await;
    stage.operate(&["compact", "games"]).await;
    let log = seen.collection("games.events");
    let base = doc! { "_id": { "d": "d3", "s": 1 }, "op": "base", "pruned": { "$gt": 5 } };
    assert!(log.find_one(base).await.unwrap().is_some());
    stage.operate(&["archive", "check", "games"]).await;
    stage.look(&["get", "games", "d3", "--at-version", "2"]).await;
    stage.look(&["history", "games", "d3", "--archive"]).await;
    stage.operate(&["restore", "games", "d3"]).await;
    assert_eq!(log.count_documents(doc! { "_id.d": "d3" }).await.unwrap(), 20);
    scene.append([event("d4", 2)]).await;
    let records = seen.collection("alluvium.quarantine");
    let late = doc! { "class": "late" };
    wait_until("it is on record that it came late", async || {
        records.find_one(late.clone()).await.unwrap().is_some()
    })
    .await;
    stage.look(&["quarantine", "list", "games", "--late"]).await;
    stage.operate(&["verify", "games"]).await;
}

/// A collection that existed before, of which the operator is granted to read it.
async fn imported(stage: &Stage) {
    let old = stage.secured.db.collection::<Document>("old");
    old.insert_many((0..10).map(|id| doc! { "_id": id, "v": 7, "gold": id })).await.unwrap();
    let resource = doc! { "db": DATABASE, "collection": "old" };
    let privilege = doc! { "resource": resource, "actions": ["find"] };
    let role = doc! { "createRole": "old", "privileges": [privilege], "roles": [] };
    stage.secured.admin.run_command(role).await.unwrap();
    let grant = doc! { "grantRolesToUser": "operator", "roles": ["old"] };
    stage.secured.admin.run_command(grant).await.unwrap();
    let import = ["--from", "old", "--client", "import"];
    stage.operate(&[&["import", "boats"], &import[..], &["--version-field", "v"]].concat()).await;
    stage.operate(&[&["import", "games"], &import[..], &["--deletes"]].concat()).await;
    let boats = stage.secured.db.collection::<Document>("boats");
    let at_seven = doc! { "version": 7 };
    wait_until("what was imported is projected", async || {
        boats.count_documents(at_seven.clone()).await.unwrap() == 10
    })
    .await;
}

/// How a collection is shared and stopped, on record in the database and over HTTP.
async fn steered(stage: &Stage, daemon: &Daemon) {
    let leases = stage.secured.db.collection::<Document>("alluvium.leases");
    for parts in ["2", "1"] {
        stage.operate(&["parts", "games", parts]).await;
        let of = doc! { "_id.c": "games", "_id.of": { "$ne": parts.parse::<i64>().unwrap() } };
        wait_until("the other division has gone", async || {
            leases.count_documents(of.clone()).await.unwrap() == 0
        })
        .await;
        stage.look(&["parts", "games"]).await;
    }
    for what in [&["games"][..], &["games", "--compaction"]] {
        stage.operate(&[&["pause"], what].concat()).await;
        stage.operate(&[&["resume"], what].concat()).await;
    }
    let post =
        |path: &str| daemon.post(&format!("/v1/collections/games/{path}"), &serde_json::json!({}));
    for (path, expected) in [("pause", 200), ("resume", 200), ("verify", 202)] {
        let (status, answer) = post(path);
        assert_eq!(status, expected, "{path}: {answer}");
    }
    assert!([200, 201].contains(&post("documents/d5/snapshot").0));
    let (_, status) = wait_for("the oplog is looked at", async || {
        let (_, status) = daemon.get("/v1/status");
        let known = status["collections"][0]["oplog_headroom_seconds"].is_number();
        known.then_some((200, status))
    })
    .await;
    assert!(status["collections"][0]["last_error"].is_null(), "{status}");
}

/// What a program does that appends events.
async fn written(stage: &Stage) {
    let options = WriterOptions { cache_bytes: 0, ..WriterOptions::default() };
    let games = EventSourced::<Document>::with_options(&stage.scene.db, "games", options);
    let id = DocumentId::Integer(100);
    games.create(&id, "writer", &doc! { "gold": 1 }).await.unwrap();
    let change = |game: &mut Document| game.extend(doc! { "gold": 2 });
    assert_eq!(games.update(&id, "writer", change).await.unwrap().version, 2);
    assert_eq!(games.get(&id).await.unwrap().unwrap().state, doc! { "gold": 2 });
    assert_eq!(games.at_version(&id, 1).await.unwrap().unwrap().state, doc! { "gold": 1 });
    assert_eq!(games.history(&id, 0, 10).await.unwrap().events.len(), 2);
    let missing = games.missing_events(&id, &Clock::new()).await.unwrap();
    assert_eq!(missing.events.len(), 2);
    let state = ["append", "games", "by hand", "--client", "me", "--op", "create", "--state", "{}"];
    let appended = stage.secured.run(&stage.scene.uri, &stage.collections, &state).await;
    assert_eq!(appended.code, Some(0), "{appended:?}");
    stage.operate(&["append", "games", "by hand", "--client", "me", "--op", "delete"]).await;
    stage.look(&["get", "games", "by hand"]).await;
    stage.look(&["history", "games", "by hand"]).await;
    stage.look(&["missing", "games", "by hand", "--clock", "{}"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_are_enough_for_everything_that_is_done_with_them() {
    let stage = Stage::new().await;
    let made = stage.operate(&["init"]).await;
    assert!(made.out.contains("created games.events"), "{made:?}");
    let without = doc! { "collMod": "games.events", "validator": {} };
    stage.secured.db.run_command(without).await.unwrap();
    let mended = stage.operate(&["init"]).await;
    assert!(mended.out.contains("updated the validator"), "{mended:?}");
    // The daemon makes what is missing as well.
    for name in ["boats", "boats.events", "boats.snapshots"] {
        stage.secured.db.collection::<Document>(name).drop().await.unwrap();
    }
    stage.cancel().await;
    stage.scene.write_on(10, 1..=10).await;
    let mut daemon = stage.start().await;
    stage.scene.write_on(10, 11..=20).await;
    stage.seen().level("games").await;
    waiting(&stage).await;
    written(&stage).await;
    touched(&stage).await;
    compacted(&stage).await;
    imported(&stage).await;
    steered(&stage, &daemon).await;
    wait_until("all is well", async || {
        let told = stage.secured.run(&stage.reader, &stage.collections, &["status"]).await;
        told.code == Some(0)
    })
    .await;

    // Another one ends what it has left behind, and goes on.
    daemon.kill();
    let mut next = stage.start().await;
    stage.scene.append([event("d6", 21)]).await;
    stage.seen().reached("d6", 21).await;
    assert!(!next.log().contains("could not be ended"), "{}", next.log());
    stage.operate(&["verify", "games"]).await;
    assert_eq!(next.stop().await.code(), Some(0));
    stage.seen().judged().await;
    assert_eq!(stage.secured.refused(), Vec::<String>::new());
    stage.and_it_would_have_been_noted().await;
}
