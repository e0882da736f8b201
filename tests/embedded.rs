//! The private server: ready when it says so, and gone when its owner is gone.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use alluvium::embedded::{EmbeddedError, Login, Mongod, Options};
use bson::{Document, doc};
use mongodb::Client;

mod common;
use common::wait_until;

/// Set in the processes that these tests start and kill: where to keep the data, or nothing.
const OWNER: &str = "ALLUVIUM_TEST_OWNER";

async fn insert(mongod: &Mongod, id: i32) {
    let client = Client::with_uri_str(mongod.uri()).await.unwrap();
    client.database("t").collection("c").insert_one(doc! {"_id": id}).await.unwrap();
}

async fn count(mongod: &Mongod) -> u64 {
    let client = Client::with_uri_str(mongod.uri()).await.unwrap();
    client.database("t").collection::<Document>("c").count_documents(doc! {}).await.unwrap()
}

fn runs(pid: u32) -> bool {
    // Not reaped yet is as good as gone.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn takes_writes_at_once_and_is_gone_after_stop() {
    let mongod = Mongod::start(Options::default()).await.unwrap();
    insert(&mongod, 1).await;
    let (pid, folder) = (mongod.pid().unwrap(), mongod.folder().to_path_buf());
    assert!(runs(pid) && folder.exists());
    mongod.stop().await.unwrap();
    assert!(!runs(pid) && !folder.exists());
}

#[tokio::test]
async fn a_dropped_server_goes_by_itself() {
    let mongod = Mongod::start(Options::default()).await.unwrap();
    let (pid, folder) = (mongod.pid().unwrap(), mongod.folder().to_path_buf());
    drop(mongod);
    wait_until("server and folder are gone", async || !runs(pid) && !folder.exists()).await;
}

#[tokio::test]
async fn majority_written_data_survives_a_kill() {
    let mut mongod = Mongod::start(Options::default()).await.unwrap();
    insert(&mongod, 1).await;
    let (port, former) = (mongod.port(), mongod.pid().unwrap());
    mongod.kill().await.unwrap();
    assert_eq!(mongod.pid(), None);
    assert!(!runs(former));
    assert!(matches!(mongod.pause().await, Err(EmbeddedError::NotRunning)));
    mongod.restart().await.unwrap();
    assert_eq!((mongod.port(), count(&mongod).await), (port, 1));
    let folder = mongod.folder().to_path_buf();
    mongod.restart().await.unwrap();
    assert_eq!(count(&mongod).await, 1);
    mongod.stop().await.unwrap();
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_folder_whose_server_was_killed_goes_with_its_owner() {
    let mut mongod = Mongod::start(Options::default()).await.unwrap();
    let folder = mongod.folder().to_path_buf();
    mongod.kill().await.unwrap();
    assert!(folder.exists());
    drop(mongod);
    wait_until("the folder is gone", async || !folder.exists()).await;
}

#[tokio::test]
async fn a_paused_server_answers_again_after_resume() {
    let mut mongod = Mongod::start(Options::default()).await.unwrap();
    mongod.pause().await.unwrap();
    let stat = format!("/proc/{}/stat", mongod.pid().unwrap());
    wait_until("it is stopped", async || fs::read_to_string(&stat).unwrap().contains(") T ")).await;
    mongod.resume().await.unwrap();
    insert(&mongod, 1).await;
    mongod.pause().await.unwrap();
    mongod.stop().await.unwrap();
}

#[tokio::test]
async fn kept_data_keeps_its_port_if_it_can_and_moves_if_not() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { data_dir: Some(folder.path().to_owned()), ..Options::default() };
    let mongod = Mongod::start(options()).await.unwrap();
    let port = mongod.port();
    insert(&mongod, 1).await;

    let twice = Mongod::start(options()).await.unwrap_err();
    assert!(matches!(twice, EmbeddedError::DataInUse { .. }), "{twice}");
    mongod.stop().await.unwrap();

    let mongod = Mongod::start(options()).await.unwrap();
    assert_eq!((mongod.port(), count(&mongod).await), (port, 1));
    mongod.stop().await.unwrap();

    let other = Options { port: Some(port), replica_set: None, ..Options::default() };
    let other = Mongod::start(other).await.unwrap();
    let mongod = Mongod::start(options()).await.unwrap();
    assert_ne!(mongod.port(), port);
    insert(&mongod, 2).await;
    assert_eq!(count(&mongod).await, 2);
    mongod.stop().await.unwrap();

    let asked = Options { port: Some(port), ..options() };
    let error = Mongod::start(asked).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::PortInUse { .. }), "{error}");
    other.stop().await.unwrap();
}

#[tokio::test]
async fn with_a_login_nobody_else_gets_in() {
    let login = Login { user: "owner".to_owned(), password: "p@ss:w/rd".to_owned() };
    let options = Options { login: Some(login), ..Options::default() };
    let mut mongod = Mongod::start(options).await.unwrap();
    insert(&mongod, 1).await;
    mongod.restart().await.unwrap();
    assert_eq!(count(&mongod).await, 1);
    let stranger = mongod.uri().replace("owner:", "stranger:");
    let client = Client::with_uri_str(stranger).await.unwrap();
    client.list_database_names().await.unwrap_err();
    mongod.stop().await.unwrap();
}

#[tokio::test]
async fn can_stand_alone() {
    let options = Options { replica_set: None, ..Options::default() };
    let mongod = Mongod::start(options).await.unwrap();
    insert(&mongod, 1).await;
    let client = Client::with_uri_str(mongod.uri()).await.unwrap();
    let hello = client.database("admin").run_command(doc! {"hello": 1}).await.unwrap();
    assert!(!hello.contains_key("setName"), "{hello}");
    mongod.stop().await.unwrap();
}

#[tokio::test]
async fn a_failed_start_says_why_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (args, complaint) in [
        (vec!["--no-such-option"], "unrecognised option"),
        (vec!["--setParameter", "noSuchParameter=1"], "noSuchParameter"),
    ] {
        let args = args.into_iter().map(str::to_owned).collect();
        let data_dir = Some(folder.path().to_owned());
        let error = Mongod::start(Options { args, data_dir, ..Options::default() }).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }
    fs::write(folder.path().join("data/WiredTiger"), "junk").unwrap();
    fs::write(folder.path().join("data/WiredTiger.turtle"), "junk").unwrap();
    let data_dir = Some(folder.path().to_owned());
    let error = Mongod::start(Options { data_dir, ..Options::default() }).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Start { .. }), "{error}");
    assert!(error.to_string().contains("WiredTiger"), "{error}");
}

/// A process that owns a server, run from this very binary.
struct Owner {
    process: Child,
    mongod: u32,
    folder: PathBuf,
}

impl Owner {
    fn start(test: &str, data: &Path) -> Owner {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(OWNER, data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let found = lines.find_map(|line| {
            let line = line.unwrap();
            let (pid, folder) = line.strip_prefix("server ")?.split_once(' ')?;
            Some((pid.parse().unwrap(), PathBuf::from(folder)))
        });
        let (mongod, folder) = found.expect("the process says where its server is");
        Owner { process, mongod, folder }
    }
}

/// In a process started by [`Owner::start`]: owns a server until killed. Elsewhere: nothing.
async fn own_a_server_if_asked() {
    let Some(data) = std::env::var_os(OWNER) else { return };
    let data_dir = Some(PathBuf::from(data)).filter(|path| !path.as_os_str().is_empty());
    let mongod = Mongod::start(Options { data_dir, ..Options::default() }).await.unwrap();
    println!("\nserver {} {}", mongod.pid().unwrap(), mongod.folder().display());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_owner_leaves_neither_server_nor_folder() {
    own_a_server_if_asked().await;
    let test = "a_killed_owner_leaves_neither_server_nor_folder";
    let mut owner = Owner::start(test, Path::new(""));
    assert!(runs(owner.mongod) && owner.folder.exists());
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    wait_until("server and folder are gone", async || {
        !runs(owner.mongod) && !owner.folder.exists()
    })
    .await;
}

#[tokio::test]
async fn a_killed_owner_of_kept_data_leaves_the_data_and_no_server() {
    own_a_server_if_asked().await;
    let test = "a_killed_owner_of_kept_data_leaves_the_data_and_no_server";
    let folder = tempfile::tempdir().unwrap();
    let mut owner = Owner::start(test, folder.path());
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    wait_until("the server is gone", async || !runs(owner.mongod)).await;
    let data_dir = Some(folder.path().to_owned());
    let mongod = Mongod::start(Options { data_dir, ..Options::default() }).await.unwrap();
    mongod.stop().await.unwrap();
}

/// Ctrl-C in a terminal goes to a whole process group, and must reach the owner only.
#[tokio::test]
async fn the_server_is_in_another_process_group() {
    let group = |pid: &str| -> u32 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(2).unwrap().parse().unwrap()
    };
    let mongod = Mongod::start(Options::default()).await.unwrap();
    assert_ne!(group(&mongod.pid().unwrap().to_string()), group("self"));
    mongod.stop().await.unwrap();
}

#[tokio::test]
async fn tests_share_a_server_and_no_database() {
    let (one, two) = (common::database().await, common::database().await);
    assert_eq!(one.uri, two.uri);
    one.db.collection("c").insert_one(doc! {"_id": 1}).await.unwrap();
    assert_eq!(two.db.collection::<Document>("c").count_documents(doc! {}).await.unwrap(), 0);
}
