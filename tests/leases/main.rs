//! Who leads, with real processes: they are killed, stopped, frozen for longer than the lease, and started at
//! once; another one goes on, nothing is lost or doubled, and one that comes late steps down.

#[path = "../common/mod.rs"]
mod common;
#[path = "../judge/mod.rs"]
mod judge;
#[path = "../common/scene.rs"]
mod scene;

mod updates;

use alluvium::store::format::FORMAT;
use bson::doc;
use common::{Daemon, free_port, wait_until};
use scene::{Scene, event};

/// How often two daemons are started at once.
const STARTS: i64 = 50;
/// At every so many-th of them there is nothing in the database yet.
const STARTS_PER_DATABASE: i64 = 10;

/// A daemon of `games`.
fn daemon(scene: &Scene, lease_time: &str) -> Daemon {
    Daemon::start(&config(scene, lease_time))
}

fn config(scene: &Scene, lease_time: &str) -> String {
    format!(
        r#"
        [mongodb]
        uri = "{}"
        database = "{}"
        [http]
        listen = "127.0.0.1:{}"
        [daemon]
        lease_time = "{lease_time}"
        [[collections]]
        name = "games"
        "#,
        scene.uri,
        scene.db.name(),
        free_port()
    )
}

/// Whether a daemon that is ready leads.
fn leads(daemon: &Daemon) -> bool {
    let (_, status) = daemon.get("/v1/status");
    let role = &status["collections"][0]["role"];
    assert!(role == "leader" || role == "standby", "{status}");
    role == "leader"
}

async fn becomes(daemon: &Daemon, leader: bool) {
    wait_until(&format!("leader is {leader}"), async || {
        daemon.get("/readyz").0 == 200 && leads(daemon) == leader
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_goes_on_after_a_leader_that_was_killed_and_after_one_that_was_stopped() {
    let scene = Scene::new().await;
    let mut first = daemon(&scene, "5s");
    first.ready().await;
    becomes(&first, true).await;
    let mut second = daemon(&scene, "5s");
    second.ready().await;
    scene.write_on(5, 1..=10).await;
    scene.level("games").await;
    becomes(&second, false).await;
    first.kill();
    scene.write_on(5, 11..=20).await;
    scene.level("games").await;
    becomes(&second, true).await;
    let mut third = daemon(&scene, "5s");
    third.ready().await;
    becomes(&third, false).await;
    assert!(second.stop().await.success());
    scene.write_on(5, 21..=30).await;
    scene.level("games").await;
    becomes(&third, true).await;
    assert!(third.stop().await.success());
    assert_eq!(scene.judged().await.events, 150);
}

/// Whether a transaction is open in one of the sessions that an instance shows.
async fn writes_in_a_transaction(scene: &Scene) -> bool {
    let leases = scene.collection("alluvium.leases");
    let row = leases.find_one(doc! { "_id.i": { "$exists": true } }).await.unwrap();
    let Some(row) = row else { return false };
    let Ok(sessions) = row.get_array("sessions") else { return false };
    let ids: Vec<_> = sessions.iter().map(|id| id.as_document().unwrap()["id"].clone()).collect();
    let open = [
        doc! { "$currentOp": { "allUsers": true, "idleSessions": true } },
        doc! { "$match": { "lsid.id": { "$in": ids }, "transaction.parameters.autocommit": false } },
    ];
    let admin = scene.db.client().database("admin");
    let mut open = admin.aggregate(open).await.unwrap();
    open.advance().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_killed_leader_was_writing_do_not_keep_the_next_one_waiting() {
    let scene = Scene::new().await;
    let admin = scene.db.client().database("admin");
    // Nothing else ends a transaction during the test.
    let forever = doc! { "setParameter": 1, "transactionLifetimeLimitSeconds": 86_400 };
    admin.run_command(forever).await.unwrap();
    let mut named = scene.clone();
    named.uri = format!("{}&appName=first", scene.uri);
    scene.write_on(150, 1..=1).await;
    let mut first = daemon(&named, "3s");
    first.ready().await;
    scene.level("games").await;
    let commands = ["commitTransaction", "abortTransaction"];
    let data = doc! { "failCommands": commands, "closeConnection": true, "appName": "first" };
    let fail = doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data };
    admin.run_command(fail).await.unwrap();
    scene.write_on(150, 2..=2).await;
    wait_until("it was stopped in a transaction", async || {
        first.signal("STOP");
        let stopped_in_time = writes_in_a_transaction(&scene).await;
        if !stopped_in_time {
            first.signal("CONT");
        }
        stopped_in_time
    })
    .await;
    first.kill();
    let off = doc! { "configureFailPoint": "failCommand", "mode": "off" };
    admin.run_command(off).await.unwrap();
    assert!(writes_in_a_transaction(&scene).await);
    let mut second = daemon(&scene, "3s");
    second.ready().await;
    scene.level("games").await;
    assert!(second.stop().await.success());
    assert_eq!(scene.judged().await.events, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_for_longer_than_its_lease_steps_down_when_it_wakes() {
    let scene = Scene::new().await;
    let mut first = daemon(&scene, "3s");
    first.ready().await;
    becomes(&first, true).await;
    let mut second = daemon(&scene, "3s");
    second.ready().await;
    for round in 0..3 {
        scene.write_on(5, round * 20 + 1..=round * 20 + 5).await;
        scene.level("games").await;
        // In the middle of its work.
        scene.write_on(5, round * 20 + 6..=round * 20 + 10).await;
        first.signal("STOP");
        scene.write_on(5, round * 20 + 11..=round * 20 + 15).await;
        becomes(&second, true).await;
        scene.level("games").await;
        first.signal("CONT");
        scene.write_on(5, round * 20 + 16..=round * 20 + 20).await;
        becomes(&first, false).await;
        assert!(leads(&second), "the one that woke up took the lease back");
        scene.level("games").await;
        std::mem::swap(&mut first, &mut second);
    }
    for mut daemon in [first, second] {
        assert!(daemon.stop().await.success(), "{}", daemon.log());
    }
    assert_eq!(scene.judged().await.events, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_that_start_at_once_one_leads_each_time() {
    let scene = Scene::new().await;
    for start in 0..STARTS {
        let version = start % STARTS_PER_DATABASE + 1;
        if version == 1 {
            scene.db.drop().await.unwrap();
        }
        let (mut one, mut other) = (daemon(&scene, "600s"), daemon(&scene, "600s"));
        tokio::join!(one.ready(), other.ready());
        scene.append([event("a", version)]).await;
        scene.reached("a", version).await;
        assert_eq!([&one, &other].map(leads).iter().filter(|leads| **leads).count(), 1, "{start}");
        let leases = scene.collection("alluvium.leases");
        assert_eq!(leases.count_documents(doc! { "_id.c": "games" }).await.unwrap(), 1);
        let (one, other) = tokio::join!(one.stop(), other.stop());
        assert!(one.success() && other.success());
        if version == STARTS_PER_DATABASE {
            assert_eq!(scene.judged().await.events, STARTS_PER_DATABASE);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_ends_with_a_sentence_when_a_later_version_takes_the_data_over() {
    let scene = Scene::new().await;
    let mut old = daemon(&scene, "5s");
    old.ready().await;
    becomes(&old, true).await;
    let mut standby = daemon(&scene, "5s");
    standby.ready().await;
    let leases = scene.collection("alluvium.leases");
    let mut presences = 0;
    let mut found = leases.find(doc! { "_id.i": { "$exists": true } }).await.unwrap();
    while found.advance().await.unwrap() {
        assert_eq!(found.current().get_i64("format").unwrap(), FORMAT);
        presences += 1;
    }
    assert_eq!(presences, 2);
    let newer = doc! { "$set": { "version": FORMAT + 1 } };
    scene.collection("alluvium.meta").update_one(doc! { "_id": "format" }, newer).await.unwrap();
    for daemon in [&mut old, &mut standby] {
        assert_eq!(daemon.ended().await.code(), Some(1));
        let log = daemon.log();
        let format = format!("the data is in format {}", FORMAT + 1);
        for words in [format.as_str(), "install the version of alluvium that wrote it"] {
            assert!(log.contains(words), "{words}: {log}");
        }
    }
    // Whoever wrote the newer format takes over once the lease has run out; nothing was given back.
    let row = leases.find_one(doc! { "_id.c": "games" }).await.unwrap().unwrap();
    assert!(row.get_str("holder").is_ok(), "{row}");
}
