//! The start: a database that is away is waited for, alive and not ready; what is wrong for good ends it.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use alluvium::embedded::{Mongod, Options};

use crate::{
    at,
    common::{Daemon, free_port, wait_until},
};

/// The bound that is promised, and what starting a process may take on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(10 + 2);

fn reachable(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_waited_for_alive_and_not_ready() {
    let (port, away) = (free_port(), free_port());
    let uri = format!("mongodb://127.0.0.1:{away}/?replicaSet=rs0");
    let mut daemon = Daemon::start(&at(&uri, "game", port, ""));
    wait_until("it listens", async || reachable(port)).await;
    let says = format!("MongoDB at 127.0.0.1:{away} cannot be reached: Connection refused");
    wait_until("it says why it is not ready", async || {
        let (status, body) = daemon.get("/readyz");
        assert_eq!(status, 503, "{body}");
        body["reasons"][0].as_str().unwrap().contains(&says)
    })
    .await;
    assert_eq!(daemon.get("/healthz").0, 200);
    assert!(daemon.get("/metrics").1.as_str().unwrap().contains("alluvium_build_info"));
    let (_, status) = daemon.get("/v1/status");
    let games = &status["collections"][0];
    assert_eq!((&games["name"], &games["phase"]), (&"games".into(), &"starting".into()));
    assert!(games["last_error"]["message"].as_str().unwrap().contains(&says), "{games}");
    let (code, problem) = daemon.get("/v1/collections/games/documents/a");
    assert_eq!((code, &problem["type"]), (503, &"urn:alluvium:problem:database-away".into()));
    assert!(daemon.log().contains("waiting for MongoDB"), "{}", daemon.log());

    let options = Options { port: Some(away), ..Options::default() };
    let mongod = Mongod::start(options).await.unwrap();
    daemon.ready().await;
    assert_eq!(daemon.get("/v1/collections/games/documents/a").0, 404);
    assert_eq!(daemon.stop().await.code(), Some(0));
    mongod.stop().await.unwrap();
}

/// Runs `alluvium run` to its end, which must come in time with exit code 1; what it said.
async fn ends(uri: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alluvium.toml");
    std::fs::write(&file, at(uri, "game", free_port(), "")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    command.arg("run").arg("--config").arg(&file).args(arguments);
    let start = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(start.elapsed() < TIME_MAX, "it took {:?}: {said}", start.elapsed());
    said
}

#[test]
fn an_address_that_is_in_use_ends_it_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alluvium.toml");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let used = taken.local_addr().unwrap().port();
    let uri = format!("mongodb://127.0.0.1:{}/", free_port());
    let beside = format!("health_listen = \"127.0.0.1:{used}\"");
    for (port, http, key) in
        [(used, "", "http.listen"), (free_port(), beside.as_str(), "http.health_listen")]
    {
        std::fs::write(&file, at(&uri, "game", port, http)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        let ended = command.args(["run", "--config"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        let sentence = format!(
            "error: cannot listen on 127.0.0.1:{used}: Address already in use (os error 98); choose another `{key}`\n"
        );
        assert_eq!((ended.status.code(), said.as_ref()), (Some(1), sentence.as_str()));
    }
}

#[tokio::test]
async fn who_wants_the_end_gets_it() {
    let uri = format!("mongodb://127.0.0.1:{}/", free_port());
    let said = ends(&uri, &["--require-database"]).await;
    assert!(said.contains("cannot be reached: Connection refused"), "{said}");
}

#[tokio::test]
async fn a_standalone_server_is_wrong_for_good() {
    let mongod = Mongod::start(Options { replica_set: None, ..Options::default() }).await.unwrap();
    assert!(ends(mongod.uri(), &[]).await.contains("is a standalone server"));
    mongod.stop().await.unwrap();
}
