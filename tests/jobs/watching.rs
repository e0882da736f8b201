//! Watching a job: its progress in its row, over HTTP, on a terminal and in the metrics, its heartbeat, its end.

use std::process::Command;

use alluvium::{log::create::Differing, setup::prepare};
use bson::{Document, doc};
use futures::TryStreamExt;

use crate::{
    ask, became,
    common::{wait_for, wait_until},
    count, documents,
    doing::Hindered,
    insert, job,
    scene::Scene,
    snapshots,
};

/// How many documents are snapshotted, unless `ALLUVIUM_DOCUMENTS` says so.
const DOCUMENTS: usize = 3_000;

fn number_of_documents() -> usize {
    let Ok(text) = std::env::var("ALLUVIUM_DOCUMENTS") else { return DOCUMENTS };
    text.parse().unwrap_or_else(|_| panic!("ALLUVIUM_DOCUMENTS must be a number, not `{text}`"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_many_documents_shows_its_progress_and_can_be_cancelled() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    let number = number_of_documents();
    documents(&scene, number, 1).await;
    let slow = Hindered::slow(&scene, 100).await;
    let asked = ask(&daemon, "POST", "/v1/collections/games/snapshot").await;
    let mut seen = Vec::new();
    wait_until("the progress was seen at three places", async || {
        let job = ask(&daemon, "GET", &asked.location).await.json;
        let done = job["progress"]["done"].as_u64().unwrap();
        if done > 0 && seen.last() != Some(&done) {
            assert_eq!(job["state"], "running", "{job}");
            assert_eq!(job["progress"]["total"], number, "{job}");
            assert!(seen.last() < Some(&done), "{seen:?} and then {done}");
            seen.push(done);
        }
        seen.len() == 3
    })
    .await;
    assert_eq!(daemon.metric("jobs_running", ""), Some(1.0));
    let cancelled = ask(&daemon, "DELETE", &asked.location).await;
    assert_eq!((cancelled.status, &cancelled.json["state"]), (200, &"cancelled".into()));
    slow.over().await;
    wait_until("it is left", async || daemon.metric("jobs_running", "") == Some(0.0)).await;
    let taken = snapshots(&scene).await;
    assert!(taken >= *seen.last().unwrap() && taken < number as u64, "{taken}");
    let metric = "kind=\"snapshot\",outcome=\"cancelled\"";
    wait_until("it is counted", async || daemon.metric("jobs_finished_total", metric) == Some(1.0))
        .await;

    // What it had done stays, and the next one does the rest.
    let whole = insert(&scene, doc! { "kind": "snapshot", "collection": "games" }).await;
    let begun = std::time::Instant::now();
    let ended = became(&scene, &whole, "done").await;
    println!("{number} documents in {:.1} s", begun.elapsed().as_secs_f64());
    let result = ended.get_document("result").unwrap();
    let (new, existed) = (count(result, "taken"), count(result, "existed"));
    assert_eq!((new + existed, existed), (number as i64, taken as i64));
    assert_eq!(snapshots(&scene).await, number as u64);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_says_who_is_at_it_and_beats_with_every_step() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 2_000, 1).await;
    let slow = Hindered::slow(&scene, 100).await;
    let id = insert(&scene, doc! { "kind": "snapshot", "collection": "games" }).await;
    let first = became(&scene, &id, "running").await;
    let beat = |row: &Document| (count(row, "beat"), *row.get_datetime("beat_at").unwrap());
    let later = wait_for("it beats", async || {
        let row = job(&scene, &id).await;
        (beat(&row).0 > beat(&first).0 + 1).then_some(row)
    })
    .await;
    assert!(beat(&later).1 > beat(&first).1, "{later}");
    let leases = scene.collection("alluvium.leases");
    let lease = leases.find_one(doc! { "_id.c": "games" }).await.unwrap().unwrap();
    assert_eq!(later.get("owner"), lease.get("holder"));
    assert_eq!(later.get("epoch"), lease.get("epoch"));
    slow.over().await;
    became(&scene, &id, "done").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_on_a_terminal_draws_how_far_its_job_is() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 2_000, 1).await;
    let slow = Hindered::slow(&scene, 200).await;
    let arguments = format!(
        "{} snapshot games --uri '{}' --database {}",
        env!("CARGO_BIN_EXE_alluvium"),
        scene.uri,
        scene.db.name()
    );
    // A terminal of its own.
    let mut command = Command::new("script");
    command.args(["-qec", &arguments, "/dev/null"]).env("TERM", "xterm");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    slow.over().await;
    let drawn = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{drawn}");
    for part in
        ["snapshot ", "/2,000 documents, ", " left", "2000 snapshots taken, 0 were there already"]
    {
        assert!(drawn.contains(part), "{drawn} does not show `{part}`");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_kept_for_a_week() {
    let scene = Scene::new().await;
    prepare(&scene.db, &scene.collections, Differing::Warn).await.unwrap();
    let indexes = scene.collection("alluvium.jobs").list_indexes().await.unwrap();
    let indexes: Vec<_> = indexes.try_collect().await.unwrap();
    let week = std::time::Duration::from_secs(7 * 86_400);
    assert!(
        indexes.iter().any(|index| {
            let expires = index.options.as_ref().and_then(|options| options.expire_after);
            index.keys == doc! { "finished_at": 1 } && expires == Some(week)
        }),
        "{indexes:?}"
    );
}
