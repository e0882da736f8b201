//! Logging is best effort: whatever becomes of the log, the daemon goes on, stops in order, and counts what
//! could not be said.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    common::{Daemon, TestDatabase, database, free_port, wait_until},
    config, is_given_back,
};

/// Standard error goes to the file that is named first.
const LOG_TO: [&str; 3] = ["sh", "-c", "log=$0; exec \"$@\" 2>\"$log\""];

async fn stops_in_order(daemon: &mut Daemon, db: &TestDatabase) {
    assert_eq!(daemon.stop().await.code(), Some(0));
    assert!(is_given_back(db).await);
}

fn lines_lost(daemon: &Daemon) -> u64 {
    let (_, metrics) = daemon.get("/metrics");
    let line =
        metrics.as_str().unwrap().lines().find_map(|line| {
            line.strip_prefix("alluvium_log_lines_lost_total ").map(str::to_owned)
        });
    line.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_the_log_stops_nothing_and_what_is_lost_is_counted() {
    let db = database().await;
    let wrapper = [&LOG_TO[..], &["/dev/full"]].concat();
    let mut daemon = Daemon::under(&wrapper, &config(&db, free_port(), ""), &[]);
    daemon.ready().await;
    wait_until("lost lines are counted", async || lines_lost(&daemon) > 0).await;
    stops_in_order(&mut daemon, &db).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_the_log_that_goes_away_stops_nothing() {
    let db = database().await;
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let wrapper = [&LOG_TO[..], &[pipe.to_str().unwrap()]].concat();
    let mut daemon = Daemon::under(&wrapper, &config(&db, free_port(), ""), &[]);
    let mut line = String::new();
    BufReader::new(File::open(&pipe).unwrap()).read_line(&mut line).unwrap();
    let first: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(first["message"], "serving HTTP");
    // The reader has gone with its first line.
    daemon.ready().await;
    wait_until("lost lines are counted", async || lines_lost(&daemon) > 0).await;
    stops_in_order(&mut daemon, &db).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_the_log_that_is_stuck_holds_nothing_up() {
    let db = database().await;
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Fills the pipe before the daemon says its first word, and then never reads.
    let fill = "log=$0; exec 2<>\"$log\"; dd if=/dev/zero of=\"$log\" bs=65536 count=1 2>/dev/null; exec \"$@\"";
    let wrapper = ["sh", "-c", fill, pipe.to_str().unwrap()];
    let mut daemon = Daemon::under(&wrapper, &config(&db, free_port(), ""), &[]);
    daemon.ready().await;
    stops_in_order(&mut daemon, &db).await;
}

#[tokio::test]
async fn a_command_whose_readers_have_gone_ends_in_order() {
    let db = database().await;
    let alluvium = env!("CARGO_BIN_EXE_alluvium");
    for (line, code) in [
        ("\"$0\" config check --json --uri mongodb://h/ --database game --config \"$1\"", 0),
        ("\"$0\" config check --json --uri nonsense --database game --config \"$1\"", 1),
        ("\"$0\" --help", 0),
        ("\"$0\" nonsense", 2),
        ("\"$0\" append games a --client me --op create --state '{}' --uri \"$2\" --database d", 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alluvium.toml");
        std::fs::write(&file, "[[collections]]\nname = \"games\"\n").unwrap();
        // Whoever reads both streams has gone before the command begins.
        let line = format!("trap '' PIPE; {{ {line}; echo $? >\"$3\"; }} 2>&1 | true");
        let code_file = folder.path().join("code");
        let status = Command::new("sh")
            .args(["-c", &line, alluvium])
            .arg(&file)
            .arg(&db.uri)
            .arg(&code_file)
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let mut found = String::new();
        wait_until("its exit code", async || {
            found = std::fs::read_to_string(&code_file).unwrap_or_default();
            found.ends_with('\n')
        })
        .await;
        assert_eq!(found.trim(), code.to_string(), "{line}");
    }
}
