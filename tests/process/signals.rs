//! A signal stops the service in order, at any moment of its life, also as the first process of a container.

use std::{
    fs,
    net::TcpListener,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bson::{DateTime, doc};

use crate::{
    at,
    common::{Daemon, database, free_port, wait_for},
    config, is_given_back, listens,
};

const STOPPING: [u32; 3] = [1, 2, 15];

/// Far less than an attempt to connect may take.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The process that a wrapper has started, which is process 1 of its own world.
async fn child_of(pid: u32) -> u32 {
    let children = format!("/proc/{pid}/task/{pid}/children");
    let child = wait_for("the wrapped process", async || {
        let child: u32 = fs::read_to_string(&children).ok()?.trim().parse().ok()?;
        let program = fs::read_link(format!("/proc/{child}/exe")).ok()?;
        program.ends_with("alluvium").then_some(child)
    });
    child.await
}

fn send(signal: &str, pid: u32) {
    let arguments = ["-c", "kill -s \"$1\" \"$2\"", "signal", signal, &pid.to_string()];
    assert!(Command::new("/bin/sh").args(arguments).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_process_1_it_hears_a_signal_while_the_database_does_not_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("mongodb://{}/?serverSelectionTimeoutMS=60000", silent.local_addr().unwrap());
    for signal in ["TERM", "INT", "HUP"] {
        let alone = ["unshare", "-r", "-p", "-f", "--mount-proc", "--kill-child"];
        let mut daemon = Daemon::under(&alone, &at(&uri, "game", free_port(), ""), &[]);
        let first = child_of(daemon.pid()).await;
        listens(first, &STOPPING).await;
        let start = Instant::now();
        send(signal, first);
        assert_eq!(daemon.ended().await.code(), Some(0), "{signal}");
        assert!(start.elapsed() < AT_ONCE, "{signal} took {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_are_listened_to_before_the_configuration_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("config.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut process = Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(["run", "--config"])
        .arg(&pipe)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Nobody writes to the pipe, so that it waits for its configuration meanwhile.
    listens(process.id(), &STOPPING).await;
    send("TERM", process.id());
    let uri = format!("mongodb://127.0.0.1:{}/", free_port());
    fs::write(&pipe, at(&uri, "game", free_port(), "")).unwrap();
    let status = wait_for("it has ended", async || process.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_signal_flushes_and_gives_the_lease_back() {
    for signal in ["HUP", "INT", "TERM"] {
        let db = database().await;
        let mut daemon = Daemon::start(&config(&db, free_port(), ""));
        daemon.ready().await;
        daemon.signal(signal);
        assert_eq!(daemon.ended().await.code(), Some(0), "{signal}: {}", daemon.log());
        assert!(daemon.log().contains(&format!("SIG{signal}")), "{}", daemon.log());
        assert!(is_given_back(&db).await, "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_turns_red_before_anything_is_saved_and_given_back() {
    let db = database().await;
    let mut daemon = Daemon::start(&config(&db, free_port(), ""));
    daemon.ready().await;
    // Rows take their time, so that the stop does.
    let slow = doc! {
        "failCommands": ["insert", "update"], "namespace": format!("{}.games", db.name),
        "blockConnection": true, "blockTimeMS": 2_000,
    };
    let command = doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": slow };
    let admin = db.client.database("admin");
    let before = admin.run_command(command).await.unwrap().get_i32("count").unwrap();
    let event = doc! {
        "_id": { "d": "a", "s": 1 }, "client": "me", "op": "create", "at": DateTime::now(), "state": {},
    };
    db.db.collection("games.events").insert_one(event).await.unwrap();
    let held_up = doc! {
        "waitForFailPoint": "failCommand", "timesEntered": before + 1, "maxTimeMS": 60_000,
    };
    admin.run_command(held_up).await.unwrap();
    daemon.signal("TERM");
    let said = wait_for("it is not ready", async || {
        let (status, said) = daemon.get("/readyz");
        (status == 503).then_some(said)
    })
    .await;
    assert_eq!(said["reasons"], serde_json::json!(["the daemon is stopping"]));
    assert_eq!(daemon.get("/healthz").0, 200);
    assert_eq!(daemon.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_a_signal_ends_says_so_by_its_exit_code() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("mongodb://{}/", silent.local_addr().unwrap());
    for (signal, code) in [("HUP", 129), ("INT", 130), ("TERM", 143)] {
        let mut process = Command::new(env!("CARGO_BIN_EXE_alluvium"))
            .args(["get", "games", "a", "--database", "game", "--uri", &uri])
            .spawn()
            .unwrap();
        listens(process.id(), &STOPPING).await;
        send(signal, process.id());
        let start = Instant::now();
        let status = wait_for("it has ended", async || process.try_wait().unwrap()).await;
        assert_eq!(status.code(), Some(code), "{signal}");
        assert!(start.elapsed() < AT_ONCE, "{signal} took {:?}", start.elapsed());
    }
}
