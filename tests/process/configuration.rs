//! What the configuration is judged to be: `config check` says what `run` would say.

use std::{
    fs,
    process::{Command, Output},
};

use crate::{
    at,
    common::{Daemon, database, free_port},
    config,
};

fn alluvium(arguments: &[&str], text: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alluvium.toml");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    command.args(arguments).arg("--config").arg(&file).output().unwrap()
}

#[test]
fn check_refuses_what_run_would_refuse_with_the_same_sentence() {
    let long = format!("appName={}", "a".repeat(129));
    for option in ["maxPoolSize=0", "maxPoolSize=1", "loadBalanced=true", &long, "maxConnecting=0"]
    {
        let uri = format!("mongodb://127.0.0.1:{}/?{option}", free_port());
        let text = at(&uri, "game", free_port(), "");
        let [check, run] = [&["config", "check"][..], &["run"]].map(|words| alluvium(words, &text));
        let said = String::from_utf8_lossy(&check.stderr);
        assert_eq!(check.status.code(), Some(1), "{option}");
        assert_eq!(run.status.code(), Some(1), "{option}");
        assert!(said.contains("mongodb.uri: has "), "{said}");
        assert_eq!(said, String::from_utf8_lossy(&run.stderr), "{option}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_pool_is_enough_and_unknown_compressors_are_no_obstacle() {
    let db = database().await;
    let config = config(&db, free_port(), "")
        .replace("replicaSet=rs0", "replicaSet=rs0&maxPoolSize=2&compressors=snappy,zlib");
    let check = alluvium(&["config", "check"], &config);
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(
        said.contains("warning: mongodb.uri asks for compressors") && said.contains("zlib"),
        "{said}"
    );
    let mut daemon = Daemon::start(&config);
    daemon.ready().await;
    assert!(daemon.log().contains("which are left out: zlib"), "{}", daemon.log());
    assert_eq!(daemon.stop().await.code(), Some(0));
}
