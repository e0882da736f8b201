//! Jobs and snapshots over a real server: what anybody asks for by a row is done by whoever leads, survives
//! what a daemon does not, and can be watched and cancelled.

#[path = "../common/mod.rs"]
mod common;
#[path = "../judge/mod.rs"]
mod judge;
#[path = "../common/scene.rs"]
mod scene;

mod archiving;
mod asking;
mod compacting;
mod closing;
mod deep;
mod doing;
mod erasing;
mod erasing_refused;
mod hindered;
mod operating;
mod parts;
mod pausing;
mod repairing;
mod skipping;
mod policy;
mod snapshots;
mod verifying;
mod watching;

use std::process::Command;

use bson::{Bson, Document, doc};
use common::wait_for;
use scene::{Running, Scene, event};
use serde_json::Value;

/// Inserts a job as any driver would; its id.
async fn insert(scene: &Scene, job: Document) -> Bson {
    scene.collection("alluvium.jobs").insert_one(job).await.unwrap().inserted_id
}

/// The row of a job.
async fn job(scene: &Scene, id: &Bson) -> Document {
    scene.collection("alluvium.jobs").find_one(doc! { "_id": id }).await.unwrap().unwrap()
}

/// Waits until a job is in this state, and gives its row.
async fn became(scene: &Scene, id: &Bson, state: &str) -> Document {
    let jobs = scene.collection("alluvium.jobs");
    let wanted = doc! { "_id": id, "state": state };
    wait_for(&format!("{wanted}"), async || jobs.find_one(wanted.clone()).await.ok()?).await
}

/// So many documents `d0000` … of some versions each, all projected.
async fn documents(scene: &Scene, count: usize, versions: i64) {
    let names: Vec<String> = (0..count).map(|number| format!("d{number:04}")).collect();
    for version in 1..=versions {
        scene.append(names.iter().map(|name| event(name.clone(), version))).await;
    }
    scene.level("games").await;
}

/// The number of snapshots of `games`.
async fn snapshots(scene: &Scene) -> u64 {
    scene.collection("games.snapshots").count_documents(doc! {}).await.unwrap()
}

/// An integer of a result, whatever its type.
fn count(result: &Document, field: &str) -> i64 {
    match result.get(field) {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        other => panic!("`{field}` is {other:?} in {result}"),
    }
}

/// An answer of the HTTP API.
#[derive(Debug)]
struct Answer {
    status: u16,
    location: String,
    json: Value,
}

/// Asks a daemon.
async fn ask(daemon: &Running, method: &str, path: &str) -> Answer {
    ask_with(daemon, method, path, "").await
}

/// The same with a body.
async fn ask_with(daemon: &Running, method: &str, path: &str, body: &str) -> Answer {
    let request = ureq::http::Request::builder().method(method);
    let request =
        request.uri(format!("http://{}{path}", daemon.http)).body(body.to_owned()).unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        agent.run(request).unwrap()
    });
    let mut answer = answer.await.unwrap();
    let location = answer.headers().get("location");
    Answer {
        status: answer.status().as_u16(),
        location: location.map_or_else(String::new, |value| value.to_str().unwrap().to_owned()),
        json: serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap(),
    }
}

/// What a command of the real binary ended with.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs a command on the scene's database.
async fn run(scene: &Scene, arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    command.args(arguments).args(["--uri", &scene.uri, "--database", scene.db.name()]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
