//! What is said, and how soon, when the program is pointed at something that it cannot work with: the
//! real binary against real servers. What needs a mongos or an old server is judged by pure functions,
//! beside `connect`.

mod common;

use std::{
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    time::{Duration, Instant},
};

use alluvium::{
    database::create::{CreateError, Report},
    embedded::{Login, Mongod, Options},
    log::create::{Differing, create_log},
    model::{clock::Clock, id::DocumentId},
    writer::{EventSourced, WriterOptions},
};
use bson::{Document, doc};
use common::{TestDatabase, database, free_port, wait_until};
use mongodb::{
    Client, Database,
    error::ErrorKind,
    options::{ClientOptions, ServerApi, ServerApiVersion},
};

/// The bound that is promised, and what starting a process may take on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(10 + 2);

const GAMES: &str = "[[collections]]\nname = \"games\"\n";

struct Ended {
    output: Output,
    time: Duration,
}

impl Ended {
    fn out(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    fn all(&self) -> String {
        self.out() + &String::from_utf8_lossy(&self.output.stderr)
    }
}

/// Runs `alluvium init` to its end.
async fn init(uri: &str, database: &str, arguments: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alluvium.toml");
    std::fs::write(&file, GAMES).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    command.args(["init", "--uri", uri, "--database", database, "--config"]).arg(&file);
    command.args(arguments);
    let start = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    Ended { output, time: start.elapsed() }
}

/// It must end in time, with exit code 1 and a sentence that has these parts.
async fn refused(uri: &str, database: &str, parts: &[&str]) {
    let ended = init(uri, database, &[]).await;
    let all = ended.all();
    assert_eq!(ended.output.status.code(), Some(1), "{all}");
    assert!(ended.time < TIME_MAX, "it took {:?}: {all}", ended.time);
    for part in parts {
        assert!(all.contains(part), "`{all}` does not say `{part}`");
    }
}

#[tokio::test]
async fn a_host_where_nothing_listens() {
    let port = free_port();
    let uri = format!("mongodb://127.0.0.1:{port}/?replicaSet=rs0");
    let at = format!("MongoDB at 127.0.0.1:{port} cannot be reached: Connection refused");
    refused(&uri, "game", &[&at, "check that it runs"]).await;
}

#[tokio::test]
async fn a_host_that_does_not_exist() {
    let parts = ["MongoDB at nowhere.invalid:27017 cannot be reached"];
    refused("mongodb://nowhere.invalid/", "game", &parts).await;
}

#[tokio::test]
async fn a_host_that_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri =
        format!("mongodb://{}/?serverSelectionTimeoutMS=60000", listener.local_addr().unwrap());
    refused(&uri, "game", &["cannot be reached"]).await;
}

#[tokio::test]
async fn a_standalone_server() {
    let mut mongod =
        Mongod::start(Options { replica_set: None, ..Options::default() }).await.unwrap();
    let parts = ["is a standalone server", "--replSet rs0", "rs.initiate()"];
    refused(mongod.uri(), "game", &parts).await;
    let asked = format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", mongod.port());
    refused(&asked, "game", &parts).await;
    mongod.kill().await.unwrap();
}

#[tokio::test]
async fn a_replica_set_that_was_never_initiated() {
    let args = ["--replSet", "rs0"].map(str::to_owned).to_vec();
    let port = free_port();
    let options = Options { replica_set: None, port: Some(port), args, ..Options::default() };
    let looked_at = async {
        let address = ("127.0.0.1", port);
        wait_until("it listens", async || TcpStream::connect(address).is_ok()).await;
        let parts = ["has not been initiated", "rs.initiate()"];
        refused(&format!("mongodb://127.0.0.1:{port}/?replicaSet=rs0"), "game", &parts).await;
    };
    // It never gets ready, so the start goes on until it is dropped.
    tokio::select! {
        started = Mongod::start(options) => panic!("{started:?}"),
        () = looked_at => {}
    }
}

#[tokio::test]
async fn a_replica_set_of_another_name() {
    let db = database().await;
    let uri = db.uri.replace("replicaSet=rs0", "replicaSet=other");
    refused(&uri, &db.name, &["the replica set `rs0`", "replicaSet=other"]).await;
}

#[tokio::test]
async fn a_login_that_is_wrong_or_missing() {
    let mongod = with_login().await;
    let uri = mongod.uri().replace("correct", "mistaken");
    refused(&uri, "game", &["refuses the login", "check user name, password"]).await;
    assert!(!init(&uri, "game", &[]).await.all().contains("mistaken"));
    let uri = mongod.uri().replace("root:correct@", "");
    refused(&uri, "game", &["forbids what is needed", "--roles"]).await;
}

#[tokio::test]
async fn games_that_is_a_view() {
    let db = database().await;
    db.db.run_command(doc! { "create": "games", "viewOn": "x", "pipeline": [] }).await.unwrap();
    refused(&db.uri, &db.name, &["`games` is a view", "rename it"]).await;
    assert_eq!(names(&db).await, ["games", "system.views"]);
}

#[tokio::test]
async fn an_existing_collection_of_the_wrong_kind() {
    for (name, options, kind) in [
        ("games", doc! { "capped": true, "size": 4096 }, "a capped collection"),
        ("games", doc! { "collation": { "locale": "de" } }, "a collection with a collation"),
        ("games", doc! { "timeseries": { "timeField": "at" } }, "a time-series collection"),
        ("games.events", doc! { "capped": true, "size": 4096 }, "a capped collection"),
        ("games.snapshots", doc! { "collation": { "locale": "de" } }, "with a collation"),
    ] {
        let db = database().await;
        let mut create = doc! { "create": name };
        create.extend(options);
        db.db.run_command(create).await.unwrap();
        refused(&db.uri, &db.name, &[&format!("`{name}` is "), kind]).await;
    }
}

#[tokio::test]
async fn games_with_documents_of_somebody_else() {
    let db = database().await;
    let games = db.db.collection::<Document>("games");
    games.insert_one(doc! { "_id": 7, "version": 1, "score": 5 }).await.unwrap();
    let parts = ["`games` holds documents that alluvium did not write", "_id 7"];
    refused(&db.uri, &db.name, &parts).await;
    assert_eq!(names(&db).await, ["games"], "a refused start must leave nothing behind");
}

#[tokio::test]
async fn data_of_a_later_version() {
    let db = database().await;
    let meta = db.db.collection::<Document>("alluvium.meta");
    meta.insert_one(doc! { "_id": "format", "version": 3 }).await.unwrap();
    refused(&db.uri, &db.name, &["is in format 3", "install the version"]).await;
}

#[tokio::test]
async fn what_is_missing_is_made_once_however_many_do_it() {
    let db = database().await;
    let (a, b, c) = tokio::join!(
        init(&db.uri, &db.name, &[]),
        init(&db.uri, &db.name, &[]),
        init(&db.uri, &db.name, &[])
    );
    for ended in [a, b, c] {
        assert!(ended.output.status.success(), "{}", ended.all());
    }
    let made = [
        "alluvium.archive",
        "alluvium.clients",
        "alluvium.jobs",
        "alluvium.marks",
        "alluvium.meta",
        "alluvium.skips",
        "games",
        "games.events",
        "games.snapshots",
    ];
    assert_eq!(names(&db).await, made);
    let again = init(&db.uri, &db.name, &["--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&again.out()).unwrap();
    assert_eq!(report, serde_json::json!({ "created": [], "updated": [], "warnings": [] }));
}

#[tokio::test]
async fn a_plain_log_is_taken_with_a_warning_and_gets_the_validator() {
    let db = database().await;
    db.db.create_collection("games.events").await.unwrap();
    let first = init(&db.uri, &db.name, &[]).await;
    assert!(first.output.status.success(), "{}", first.all());
    assert!(first.out().contains("warning: `games.events` is not clustered"), "{}", first.out());
    assert!(first.out().contains("updated the validator of games.events"), "{}", first.out());
    let events = db.db.collection::<Document>("games.events");
    let error = events.insert_one(doc! { "x": 1 }).await.unwrap_err();
    assert!(error.to_string().contains("121"), "{error}");
    let second = init(&db.uri, &db.name, &[]).await;
    assert!(!second.out().contains("updated"), "{}", second.out());
}

#[tokio::test]
async fn the_printed_roles_are_enough_and_no_more() {
    let mongod = with_login().await;
    let printed = init(mongod.uri(), "game", &["--roles", "--json"]).await;
    let commands: Vec<serde_json::Value> = serde_json::from_str(&printed.out()).unwrap();
    let admin = Client::with_uri_str(mongod.uri()).await.unwrap().database("admin");
    for command in &commands {
        let command = bson::serialize_to_document(command).unwrap();
        admin.run_command(command).await.unwrap();
    }
    for name in ["daemon", "writer"] {
        let role = format!("alluvium-game-{name}");
        let user = doc! { "createUser": name, "pwd": "pw", "roles": [role] };
        admin.run_command(user).await.unwrap();
    }
    let daemon = mongod.uri().replace("root:correct@", "daemon:pw@");
    let ended = init(&daemon, "game", &[]).await;
    assert!(ended.output.status.success(), "{}", ended.all());
    the_daemon_cannot_drop_a_log(&daemon).await;

    let writer = mongod.uri().replace("root:correct@", "writer:pw@");
    let writer = Client::with_uri_str(writer).await.unwrap().database("game");
    let events = writer.collection::<Document>("games.events");
    let event = doc! {
        "_id": { "d": "a", "s": 1 }, "client": "writer", "op": "create", "state": {},
        "at": bson::DateTime::now(),
    };
    events.insert_one(event).await.unwrap();
    events.find_one(doc! {}).await.unwrap().unwrap();
    the_typed_writer_can_do_all_it_does(&writer).await;
    writer.collection::<Document>("games").find_one(doc! {}).await.unwrap();
    forbidden(events.update_one(doc! {}, doc! { "$set": { "client": "b" } }).await);
    forbidden(events.delete_one(doc! {}).await);
    forbidden(writer.collection::<Document>("games").insert_one(doc! {}).await);
    let meta = writer.collection::<Document>("alluvium.meta");
    meta.find_one(doc! {}).await.unwrap().unwrap();
    forbidden(meta.insert_one(doc! {}).await);
    forbidden(writer.collection::<Document>("alluvium.leases").find_one(doc! {}).await);
}

async fn the_daemon_cannot_drop_a_log(uri: &str) {
    let daemon = Client::with_uri_str(uri).await.unwrap().database("game");
    forbidden(daemon.collection::<Document>("games.events").drop().await);
}

async fn the_typed_writer_can_do_all_it_does(writer: &Database) {
    let options = WriterOptions { cache_bytes: 0, ..WriterOptions::default() };
    let games = EventSourced::<Document>::with_options(writer, "games", options);
    let id = DocumentId::Integer(1);
    games.create(&id, "writer", &doc! { "gold": 1 }).await.unwrap();
    let change = |game: &mut Document| game.extend(doc! { "gold": 2 });
    assert_eq!(games.update(&id, "writer", change).await.unwrap().version, 2);
    assert_eq!(games.get(&id).await.unwrap().unwrap().state, doc! { "gold": 2 });
    assert_eq!(games.at_version(&id, 1).await.unwrap().unwrap().state, doc! { "gold": 1 });
    assert_eq!(games.history(&id, 0, 10).await.unwrap().events.len(), 2);
    let missing = games.missing_events(&id, &Clock::new()).await.unwrap();
    assert_eq!(missing.events.len(), 2);
}

fn forbidden<T: std::fmt::Debug>(result: mongodb::error::Result<T>) {
    let error = result.unwrap_err();
    let code = match *error.kind {
        ErrorKind::Command(ref command) => command.code,
        ref other => panic!("{other}"),
    };
    assert_eq!(code, 13, "{error}");
}

async fn with_login() -> Mongod {
    let login = Login { user: "root".into(), password: "correct".into() };
    Mongod::start(Options { login: Some(login), ..Options::default() }).await.unwrap()
}

async fn names(db: &TestDatabase) -> Vec<String> {
    let mut names = db.db.list_collection_names().await.unwrap();
    names.sort();
    names
}

/// The driver takes no `apiStrict` from a connection string, so only a program that sets it by itself meets this.
#[tokio::test]
async fn a_server_that_lets_no_command_name_its_collection() {
    let test = database().await;
    let mut options = ClientOptions::parse(&test.uri).await.unwrap();
    options.server_api =
        Some(ServerApi::builder().version(ServerApiVersion::V1).strict(true).build());
    let strict = Client::with_options(options).unwrap().database(&test.name);
    let mut report = Report::default();
    let warn = Differing::Warn;
    create_log(&test.db, "games", 1 << 20, warn, &mut report).await.unwrap();
    let error = create_log(&strict, "games", 1 << 20, warn, &mut report).await.unwrap_err();
    assert!(matches!(error, CreateError::Unnamed { .. }), "{error}");
    for part in ["`collectionUUID`", "`games.events`", "apiStrict", "code 323"] {
        assert!(error.to_string().contains(part), "`{error}` does not say {part}");
    }
}
