//! What is never said: passwords, tokens and the data of users stand in no log, metric, status or job, and in no error
//! that somebody else's request or document has caused. A daemon that tells everything down to `debug` goes through
//! its jobs and through what can go wrong, and all that it has said is searched.

use std::{fs, path::PathBuf, process::Command};

use alluvium::embedded::{Login, Mongod, Options};
use bson::{Bson, DateTime, Document, doc};
use futures::TryStreamExt;
use mongodb::{Client, Database, IndexModel, options::IndexOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Daemon, free_port, wait_for, wait_until};

/// Of a password: what is left of it however it is encoded.
const PASSWORD: &str = "markerofapassword";
/// Of a password and of a token that are wrong.
const WRONG: &str = "markerofwrong";
/// Of states, patches and what else stands in events.
const DATA: &str = "markerofdata";
/// Of ids, which tell what a line or a job is about, in a field of their own.
const ID: &str = "markerofid";

struct Scene {
    mongod: Mongod,
    game: Database,
    daemon: Daemon,
    token: String,
    folder: TempDir,
    /// What was said, and where.
    said: Vec<(String, String)>,
}

impl Scene {
    async fn new() -> Scene {
        let login = Login { user: "root".into(), password: format!("p@ss:/{PASSWORD}%") };
        let mongod = Mongod::start(Options { login: Some(login), ..Options::default() });
        let mongod = mongod.await.unwrap();
        let game = Client::with_uri_str(mongod.uri()).await.unwrap().database("game");
        let folder = tempfile::tempdir().unwrap();
        let (token, lines) = minted();
        let tokens = folder.path().join("tokens.toml");
        fs::write(&tokens, lines).unwrap();
        let text = format!(
            "[mongodb]\nuri = {:?}\ndatabase = \"game\"\n[http]\nlisten = \"127.0.0.1:{}\"\ntokens_file = {tokens:?}\n\
             [[collections]]\nname = \"games\"\ngap_grace = \"0s\"\n[collections.snapshots]\nevery_events = 2\n\
             [collections.compaction]\nmin_age = \"0s\"\nkeep_events = 0\narchive = \"file://{}\"\n",
            mongod.uri(),
            free_port(),
            folder.path().join("archive").display(),
        );
        fs::write(folder.path().join("alluvium.toml"), &text).unwrap();
        let mut daemon = Daemon::under(&[], &text, &["--log-level", "debug"]);
        daemon.ready().await;
        Scene { mongod, game, daemon, token, folder, said: Vec::new() }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("alluvium.toml")
    }

    /// Runs a command; what it said, which nobody's secrets may stand in.
    fn run(&mut self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        let command = command.args(arguments).arg("--config").arg(self.config());
        let ended = command.args(["--log-level", "debug"]).output().unwrap();
        let text = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        self.said.push((format!("alluvium {}", arguments.join(" ")), text.clone()));
        text
    }

    /// Asks over HTTP with the token, or with another one; the status code and the answer. An error is kept.
    fn ask(&mut self, token: Option<&str>, method: &str, path: &str, body: &str) -> (u16, Value) {
        let token = token.unwrap_or(&self.token);
        let request = ureq::http::Request::builder().method(method).uri(self.daemon.url(path));
        let request = request.header("authorization", format!("Bearer {token}"));
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build();
        let mut answer =
            ureq::Agent::from(agent).run(request.body(body.to_owned()).unwrap()).unwrap();
        let (status, text) =
            (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap());
        if status >= 400 || ["/metrics", "/v1/status", "/readyz"].contains(&path) {
            self.said.push((format!("{method} {path}"), text.clone()));
        }
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn insert(&self, events: impl IntoIterator<Item = Document>) {
        let log = self.game.collection::<Document>("games.events");
        log.insert_many(events).bypass_document_validation(true).await.unwrap();
    }

    /// Has a job done over HTTP.
    async fn job(&mut self, path: &str, body: &str) {
        let (status, job) = self.ask(None, "POST", path, body);
        assert_eq!(status, 202, "{path}: {job}");
        let job = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
        wait_until(path, async || {
            let ended = self.ask(None, "GET", &job, "").1;
            ["done", "failed"].contains(&ended["state"].as_str().unwrap())
        })
        .await;
    }

    /// Everything in which a marker stands, and where.
    fn found(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (place, text) in &self.said {
            for line in text.lines() {
                let unsaid = [PASSWORD, WRONG, DATA, &self.token];
                if unsaid.iter().any(|marker| line.contains(marker)) {
                    found.push(format!("{place}: {line}"));
                }
            }
        }
        found
    }
}

fn minted() -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    let made = command.args(["token", "new", "chief", "--role", "admin", "--json"]).output();
    let made: Value = serde_json::from_slice(&made.unwrap().stdout).unwrap();
    (made["token"].as_str().unwrap().to_owned(), made["lines"].as_str().unwrap().to_owned())
}

fn id(name: &str) -> String {
    format!("{ID}-{name}")
}

fn event(name: &str, version: i64, more: Document) -> Document {
    let mut event = doc! {
        "_id": { "d": id(name), "s": version }, "client": "me", "op": "update", "at": DateTime::now(),
        "id": format!("{DATA}-{version}"), "type": DATA, "meta": { "by": DATA },
    };
    event.extend(more);
    event
}

fn create(name: &str, state: Document) -> Document {
    event(name, 1, doc! { "op": "create", "state": state })
}

/// What cannot be applied, after a create. Each has the data in what is wrong with it.
fn poisons() -> Vec<Document> {
    let patch = |patch: Document| doc! { "patch": patch };
    let filtered = |filters: Bson| {
        doc! { "patch": { "$set": { "tags.$[t]": DATA } }, "array_filters": filters }
    };
    vec![
        patch(doc! { "$inc": { "name": 1 } }),
        patch(doc! { "$inc": { "gold": DATA } }),
        patch(doc! { "$push": { "name": DATA } }),
        patch(doc! { "$push": { "tags": { "$each": DATA } } }),
        patch(doc! { "$push": { "tags": { "$each": [DATA], "$sort": DATA } } }),
        patch(doc! { "$pull": { "tags": { "$regex": format!("[{DATA}") } } }),
        patch(doc! { "$pull": { "tags": { "$in": DATA } } }),
        patch(doc! { "$pullAll": { "tags": DATA } }),
        patch(doc! { "$pop": { "tags": DATA } }),
        patch(doc! { "$bit": { "gold": { "and": DATA } } }),
        patch(doc! { "$rename": { "name": 5 } }),
        patch(doc! { "$currentDate": { "at": DATA } }),
        patch(doc! { "$currentDate": { "at": { "$type": DATA } } }),
        patch(doc! { "$mul": { "name": 2 } }),
        patch(doc! { "$set": DATA }),
        patch(doc! { "$set": { "name.deeper": DATA } }),
        filtered(Bson::from(DATA)),
        filtered(Bson::Array(vec![DATA.into()])),
        filtered(Bson::Array(vec![doc! { "t": { "$regex": format!("({DATA}") } }.into()])),
        filtered(Bson::Array(vec![doc! { "t": { "$type": DATA } }.into()])),
        doc! { "patch": DATA },
        doc! { "merge": DATA },
        doc! { "merge": { "a": DATA }, "patch": {} },
        doc! { "op": DATA },
        doc! { "at": DATA, "op": "delete" },
        doc! { "op": "create", "state": DATA },
        doc! { "op": "delete", "seen": { "a": DATA } },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_and_no_users_data_stand_in_what_is_said() {
    let mut scene = Scene::new().await;
    let rows = scene.game.collection::<Document>("games");
    let unique = IndexModel::builder().keys(doc! { "state.mail": 1 });
    let once = IndexOptions::builder().unique(true).sparse(true).build();
    rows.create_index(unique.options(once).build()).await.unwrap();
    let place = IndexModel::builder().keys(doc! { "state.place": "2dsphere" });
    rows.create_index(place.build()).await.unwrap();

    documents_that_wait(&mut scene).await;
    jobs(&mut scene).await;
    requests(&mut scene);
    trouble(&mut scene).await;

    for path in ["/metrics", "/v1/status", "/readyz"] {
        assert_eq!(scene.ask(None, "GET", path, "").0, 200, "{path}");
    }
    let (_, metrics) = scene.said.iter().rfind(|(place, _)| place == "GET /metrics").unwrap();
    assert!(!metrics.contains(ID), "{metrics}");
    let jobs: Vec<Document> = scene
        .game
        .collection("alluvium.jobs")
        .find(doc! {})
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert!(jobs.len() > 8, "{jobs:?}");
    scene.said.extend(jobs.iter().map(|job| ("a job".to_owned(), job.to_string())));
    assert_eq!(scene.daemon.stop().await.code(), Some(0));
    let log = scene.daemon.log();
    assert!(log.contains("\"DEBUG\"") && log.contains("parked") && log.contains(ID));
    for line in log.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        // The error of a job is for whoever has asked for it, and may name what they named.
        (line["document"], line["error"]) = (Value::Null, Value::Null);
        let line = line.to_string();
        assert!(!line.contains(ID), "an id stands outside the field for it: {line}");
    }
    scene.said.push(("the log".into(), log));
    let found = scene.found();
    assert!(found.is_empty(), "{} times:\n{}", found.len(), found.join("\n"));
}

/// Poison of every kind, rows that the server refuses, a gap, and rows that somebody else has written.
async fn documents_that_wait(scene: &mut Scene) {
    let state = || doc! { "name": DATA, "gold": 1, "tags": [DATA] };
    let poisons = poisons();
    let count = poisons.len();
    for (at, poison) in poisons.into_iter().enumerate() {
        let name = format!("poison{at}");
        scene.insert([create(&name, state()), event(&name, 2, poison)]).await;
    }
    let mail = || doc! { "mail": format!("{DATA}@example.org") };
    let place = doc! { "place": { "type": "Point", "coordinates": [DATA, DATA] } };
    let gap = [create("gap", state()), event("gap", 3, doc! { "patch": {} })];
    scene.insert([create("first", mail())]).await;
    scene.insert([create("second", mail()), create("place", place)]).await;
    scene.insert(gap).await;
    scene.insert([doc! { "_id": { "d": { "x": ID }, "s": 1 }, "client": "me" }]).await;
    let waiting = scene.game.collection::<Document>("alluvium.quarantine");
    wait_for("they wait", async || {
        let all = waiting.count_documents(doc! {}).await.unwrap();
        (all == count as u64 + 3).then_some(())
    })
    .await;
    let rows = scene.game.collection::<Document>("games");
    rows.insert_one(doc! { "_id": id("unreadable"), "version": DATA }).await.unwrap();
    let changed = doc! { "$set": { "state.name": format!("{DATA} too") } };
    rows.update_one(doc! { "_id": id("poison0") }, changed).await.unwrap();
    scene.insert([create("unreadable", state())]).await;
}

async fn jobs(scene: &mut Scene) {
    const GAMES: &str = "/v1/collections/games";
    scene.job(&format!("{GAMES}/verify"), "").await;
    scene.job(&format!("{GAMES}/verify"), &json!({ "repair": true }).to_string()).await;
    scene.job(&format!("{GAMES}/snapshot"), "").await;
    let path = |kind: &str, name: &str, what: &str| format!("{GAMES}/{kind}/{}{what}", id(name));
    // Some of these are refused: nothing has changed, or it is not that which is waited for.
    for (path, wanted) in [
        (path("quarantine", "second", "/retry"), 200),
        (path("quarantine", "poison0", "/skip"), 200),
        (path("quarantine", "poison1", "/skip?version=7"), 409),
        (path("gaps", "gap", "/fill?skip_above=true"), 200),
        (path("gaps", "poison2", "/fill"), 409),
        (path("documents", "first", "/snapshot"), 200),
    ] {
        let (status, answer) = scene.ask(None, "POST", &path, "");
        assert_eq!(status, wanted, "{path}: {answer}");
    }
    for kind in ["compact", "restore", "archive/check", "rebuild"] {
        scene.job(&format!("{GAMES}/{kind}"), "").await;
    }
    scene.run(&["quarantine", "retry", "games"]);
    scene.run(&["verify", "games", &id("first")]);
    scene.run(&["jobs", "list"]);
}

/// Requests that are refused: what they bring is nobody else's affair.
fn requests(scene: &mut Scene) {
    let wrong = format!("alluvium_{WRONG}");
    let first = format!("/v1/collections/games/documents/{}", id("first"));
    for (token, path, wanted) in [
        (Some(wrong.as_str()), "/v1/status".to_owned(), 401),
        (None, format!("{first}?at_version=9"), 409),
        (None, format!("{first}/missing?clock=%7B%22me%22:9%7D"), 409),
        (None, format!("{first}?wait=soon&min_version=1"), 400),
        (None, "/v1/collections/others/gaps".to_owned(), 404),
    ] {
        assert_eq!(scene.ask(token, "GET", &path, "").0, wanted, "{path}");
    }
    assert_eq!(scene.ask(None, "POST", &format!("{first}/missing"), "{").0, 400);
}

/// A server that goes and comes back, and logins that are refused.
async fn trouble(scene: &mut Scene) {
    scene.mongod.kill().await.unwrap();
    wait_until("it is not ready", async || scene.ask(None, "GET", "/readyz", "").0 == 503).await;
    scene.ask(None, "GET", &format!("/v1/collections/games/documents/{}", id("first")), "");
    scene.ask(None, "GET", "/v1/status", "");
    scene.mongod.restart().await.unwrap();
    wait_until("it is ready again", async || scene.ask(None, "GET", "/readyz", "").0 == 200).await;
    scene.insert([create("last", doc! { "name": DATA })]).await;
    let port = scene.mongod.port();
    let uri = |login: &str| format!("mongodb://{login}@127.0.0.1:{port}/?replicaSet=rs0");
    for uri in
        [uri(&format!("root:{WRONG}")), uri(&format!("root:{WRONG}@")), format!("root:{WRONG}")]
    {
        for command in ["run", "status"] {
            let mut process = Command::new(env!("CARGO_BIN_EXE_alluvium"));
            let process =
                process.args([command, "--log-level", "debug", "--uri", &uri, "--config"]);
            let ended = process.arg(scene.config()).output().unwrap();
            assert_eq!(ended.status.code(), Some(1), "{command} {uri}");
            let text = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
            scene.said.push((format!("alluvium {command} --uri"), text));
        }
    }
}
