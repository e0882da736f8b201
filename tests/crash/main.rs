//! The crash test: the real daemon, or the server under it, is killed with SIGKILL at random moments
//! while writers append; afterwards the judge finds every acknowledged event in the log, and every
//! document and clock as a replay of its events on a real server makes them.

#[path = "../common/mod.rs"]
mod common;
#[path = "../judge/mod.rs"]
mod judge;
#[path = "../common/scene.rs"]
mod scene;

mod compacting;
mod erasing;
mod parts;
mod writers;

use alluvium::embedded::{Mongod, Options};
use bson::{Bson, Document, doc};
use common::{Daemon, wait_for, wait_until};
use fastrand::Rng;
use futures::TryStreamExt;
use mongodb::Client;
use scene::Scene;
use writers::Writers;

/// How often the daemon dies in the middle of projecting. Deaths while it starts come on top.
const DAEMON_KILLS: usize = 25;
/// How often the server dies.
const SERVER_KILLS: usize = 10;

/// A server, the logs on it, and how its daemons are configured.
struct Stage {
    mongod: Mongod,
    scene: Scene,
    rng: Rng,
    /// What else the configuration says of `games`.
    policy: &'static str,
}

impl Stage {
    async fn new() -> Stage {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mongod = Mongod::start(Options::default()).await.unwrap();
        let client = Client::with_uri_str(mongod.uri()).await.unwrap();
        let scene = Scene::on(mongod.uri().to_owned(), client.database("crash")).await;
        Stage { mongod, scene, rng: Rng::with_seed(seed), policy: "" }
    }

    fn daemon(&self) -> Daemon {
        Daemon::start(&format!(
            r#"
            [mongodb]
            uri = "{}"
            database = "crash"
            [http]
            listen = "127.0.0.1:0"
            [daemon]
            checkpoint_interval = "100ms"
            lease_time = "60s"
            [[collections]]
            name = "games"
            flush_interval = "20ms"
            cache_bytes = "1MiB"
            {}
            "#,
            self.mongod.uri(),
            self.policy
        ))
    }

    /// Kills a daemon, and starts the next one. The lease of the dead one is thrown away, which only saves
    /// the time until it runs out.
    async fn replace(&self, daemon: &mut Daemon) {
        daemon.kill();
        self.scene.forget_leases().await;
        *daemon = self.daemon();
    }

    /// The sum of all versions that are projected; `None` while the server is away.
    async fn projected(&self) -> Option<i64> {
        let sum = doc! { "$group": { "_id": null, "sum": { "$sum": "$version" } } };
        let mut sums = self.scene.collection("games").aggregate([sum]).await.ok()?;
        let sum = sums.try_next().await.ok()?;
        Some(sum.map_or(0, |sum| sum.get_i64("sum").unwrap_or(0)))
    }

    /// Waits until somebody projects.
    async fn progress(&self) {
        let before = wait_for("the server", async || self.projected().await).await;
        wait_until("something is projected", async || {
            self.projected().await.is_some_and(|now| now > before)
        })
        .await;
    }

    /// Lets the writers end and a last daemon finish, and has everything judged.
    async fn settle(self, mut daemon: Daemon, writers: Writers) {
        let acknowledged = writers.finish().await;
        println!("{} events acknowledged", acknowledged.len());
        self.scene.level("games").await;
        let status = daemon.stop().await;
        assert!(status.success(), "{status}:\n{}", daemon.log());
        assert_eq!(
            self.scene.collection("alluvium.quarantine").count_documents(doc! {}).await.unwrap(),
            0
        );
        let expected = acknowledged.len() as i64;
        let report = self.scene.judged_as("games", acknowledged).await;
        assert!(report.events >= expected, "{report:?}");
        assert!(report.documents > 100, "{report:?}");
        self.mongod.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_moment_leaves_every_document_as_its_events_make_it() {
    let mut stage = Stage::new().await;
    let writers = Writers::start(&stage.scene, stage.rng.fork());
    let mut daemon = stage.daemon();
    for _ in 0..DAEMON_KILLS {
        if stage.rng.u8(0..4) == 0 {
            // Somewhere on the way up.
            writers.wrote(stage.rng.usize(0..400)).await;
            stage.replace(&mut daemon).await;
        }
        stage.progress().await;
        writers.wrote(stage.rng.usize(0..150)).await;
        stage.replace(&mut daemon).await;
    }
    stage.settle(daemon, writers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_under_the_daemon_leaves_every_document_as_its_events_make_it() {
    let mut stage = Stage::new().await;
    let writers = Writers::start(&stage.scene, stage.rng.fork());
    let mut daemon = stage.daemon();
    for _ in 0..SERVER_KILLS {
        stage.progress().await;
        writers.wrote(stage.rng.usize(0..300)).await;
        let both = stage.rng.u8(0..3) == 0;
        stage.mongod.kill().await.unwrap();
        if both {
            daemon.kill();
        }
        stage.mongod.restart().await.unwrap();
        if both {
            stage.scene.forget_leases().await;
            daemon = stage.daemon();
        }
    }
    stage.progress().await;
    stage.settle(daemon, writers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_stopped_and_wakes_up_late_does_no_harm() {
    let mut stage = Stage::new().await;
    let writers = Writers::start(&stage.scene, stage.rng.fork());
    let mut first = stage.daemon();
    for _ in 0..4 {
        stage.progress().await;
        writers.wrote(stage.rng.usize(0..150)).await;
        first.signal("STOP");
        // Another leads before the first one knows.
        stage.scene.forget_leases().await;
        let second = stage.daemon();
        // Only one of them can be the one that goes on.
        stage.progress().await;
        writers.wrote(stage.rng.usize(0..150)).await;
        first.signal("CONT");
        writers.wrote(stage.rng.usize(50..150)).await;
        first.kill();
        first = second;
    }
    stage.settle(first, writers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_saves_everything_and_ends_with_0() {
    let stage = Stage::new().await;
    let writers = Writers::start(&stage.scene, Rng::with_seed(1));
    let mut daemon = stage.daemon();
    for _ in 0..3 {
        stage.progress().await;
        writers.wrote(100).await;
        let status = daemon.stop().await;
        assert!(status.success(), "{status}:\n{}", daemon.log());
        let leases = stage.scene.collection("alluvium.leases");
        let held: Vec<Document> = leases.find(doc! {}).await.unwrap().try_collect().await.unwrap();
        assert!(held.iter().all(|lease| lease.get("holder") == Some(&Bson::Null)), "{held:?}");
        daemon = stage.daemon();
    }
    stage.settle(daemon, writers).await;
}
