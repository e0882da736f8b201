//! Who may come in: what each role may do, where, and what is told to whoever may not. No secret is ever printed.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use bson::{DateTime, Document, doc};
use serde_json::Value;

use crate::{
    common::{Daemon, TestDatabase, database, free_port, wait_until},
    config,
};

fn alluvium(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_alluvium")).args(arguments).output().unwrap()
}

/// A new token: its secret, and the lines of the file.
fn minted(name: &str, role: &str, more: &[&str]) -> (String, String) {
    let arguments = [&["token", "new", name, "--role", role, "--json"], more].concat();
    let made = alluvium(&arguments);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    (made["token"].as_str().unwrap().to_owned(), made["lines"].as_str().unwrap().to_owned())
}

/// A daemon of two collections that listens everywhere.
fn open_to_all(db: &TestDatabase, port: u16, tokens: &Path) -> String {
    let keys = format!("tokens_file = \"{}\"\nmetrics_token = true", tokens.display());
    let config = config(db, port, &keys);
    let config = config.replace("listen = \"127.0.0.1:", "listen = \"0.0.0.0:");
    format!("{config}[[collections]]\nname = \"others\"\n")
}

/// Asks with a token: the status code, the header that says how to come in, and the body.
fn ask(daemon: &Daemon, token: &str, method: &str, path: &str) -> (u16, Option<String>, Value) {
    let request = ureq::http::Request::builder().method(method).uri(daemon.url(path));
    let request = request.header("authorization", format!("Bearer {token}")).body(()).unwrap();
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.run(request).unwrap();
    let how = answer.headers().get("www-authenticate").map(|how| how.to_str().unwrap().to_owned());
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), how, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_may_do_what_its_role_allows_in_its_collections_and_no_secret_is_printed() {
    let db = database().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let (reader, reads) = minted("reader", "read", &["--collections", "games"]);
    let (admin, administers) = minted("chief", "admin", &[]);
    fs::write(&file, format!("{reads}{administers}")).unwrap();
    let port = free_port();
    let mut daemon = Daemon::start(&open_to_all(&db, port, &file));
    daemon.ready().await;
    let status = |token: &str, method: &str, path: &str| ask(&daemon, token, method, path).0;

    // Health is open, the metrics are not here, and nothing else is.
    let (code, how, problem) = ask(&daemon, "alluvium_wrong", "GET", "/v1/status");
    assert_eq!((code, how.as_deref()), (401, Some("Bearer")));
    assert_eq!(problem["type"], "urn:alluvium:problem:unauthorized");
    assert_eq!(daemon.get("/healthz").0, 200);
    assert_eq!(daemon.get("/metrics").0, 401);
    assert_eq!(daemon.get("/v1/jobs").0, 401);
    assert_eq!(status(&reader, "GET", "/metrics"), 200);

    // The commands that ask over HTTP: health needs no token, everything else the file, the option or the variable.
    let own = folder.path().join("alluvium.toml");
    fs::write(&own, open_to_all(&db, port, &file)).unwrap();
    let secret = folder.path().join("token");
    fs::write(&secret, format!("{admin}\n")).unwrap();
    let (own, secret) = (own.to_str().unwrap(), secret.to_str().unwrap());
    let asked = |arguments: &[&str]| {
        let ended = alluvium(&[arguments, &["--config", own]].concat());
        (ended.status.code(), String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap())
    };
    assert_eq!(asked(&["health"]), (Some(0), "ready\n".into()));
    assert_eq!(asked(&["top", "--once", "--token-file", secret]).0, Some(0));
    assert_eq!(asked(&["top", "--once", "--token", &reader]).0, Some(0));
    for (arguments, wanted) in [
        (&[][..], "it asks for a token"),
        (&["--token-file", "/nowhere"], "--token-file: /nowhere cannot be read"),
        (&["--token-file", "/dev/null"], "is empty"),
        (&["--token", "another"], "it does not know this token"),
    ] {
        let (code, said) = asked(&[&["top", "--once"], arguments].concat());
        assert!(code == Some(1) && said.contains(wanted), "{said}");
    }

    // The reader sees one collection, and changes nothing.
    let shown = |token: &str| ask(&daemon, token, "GET", "/v1/status").2["collections"].clone();
    assert_eq!(shown(&reader).as_array().unwrap().len(), 1);
    assert_eq!(shown(&admin).as_array().unwrap().len(), 2);
    let (code, _, problem) = ask(&daemon, &reader, "POST", "/v1/collections/games/pause");
    assert_eq!((code, &problem["type"]), (403, &"urn:alluvium:problem:forbidden".into()));
    assert_eq!(status(&reader, "GET", "/v1/collections/others/gaps"), 403);
    assert_eq!(status(&reader, "GET", "/v1/collections/oth%65rs/gaps"), 403);
    assert_eq!(status(&reader, "GET", "/v1/collections/games/gaps"), 200);

    // The admin does, in both. The reader sees only the job of its own collection.
    assert_eq!(status(&admin, "POST", "/v1/collections/games/verify"), 202);
    let job = ask(&daemon, &admin, "POST", "/v1/collections/others/verify").2;
    let job = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(status(&reader, "GET", &job), 403);
    assert_eq!(status(&reader, "DELETE", &job), 403);
    assert_eq!(status(&admin, "GET", &job), 200);
    let jobs = |token: &str| ask(&daemon, token, "GET", "/v1/jobs").2["jobs"].clone();
    assert_eq!(jobs(&reader).as_array().unwrap().len(), 1);
    assert_eq!(jobs(&admin).as_array().unwrap().len(), 2);
    assert_eq!(status(&reader, "GET", "/v1/jobs?collection=others"), 403);

    // What was changed is on record, also what was refused, to whomever.
    assert_eq!(status("alluvium_wrong", "POST", "/v1/collections/games/pause"), 401);
    let unknown = |line: &str| line.contains("alluvium::audit") && line.contains("\"status\":401");
    // Lines come a moment after the answer.
    wait_until("who is unknown is on record", async || daemon.log().lines().any(unknown)).await;
    let log = daemon.log();
    let record =
        |by: &str| log.lines().any(|line| line.contains("alluvium::audit") && line.contains(by));
    assert!(record("chief") && record("reader"), "{log}");
    // And what nobody waits for: who has hung up may have changed something.
    let hang_up = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let resume = "POST /v1/collections/games/resume HTTP/1.1\r\nhost: localhost";
        write!(stream, "{resume}\r\nauthorization: Bearer {admin}\r\n\r\n").unwrap();
    };
    // Some are gone before anybody has read what they ask for.
    wait_until("it is on record", async || {
        hang_up();
        let is_record = |line: &str| line.contains("alluvium::audit") && line.contains("/resume");
        let hung_up = |line: &str| is_record(line) && !line.contains("\"status\"");
        daemon.log().lines().any(hung_up)
    })
    .await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    for secret in [&reader, &admin] {
        assert!(!daemon.log().contains(secret.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_change_while_it_runs_and_an_unusable_file_is_told_and_changes_nothing() {
    let db = database().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let (first, lines) = minted("first", "read", &[]);
    fs::write(&file, lines).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let port = free_port();
    let mut daemon = Daemon::start(&open_to_all(&db, port, &file));
    daemon.ready().await;
    fs::write(&file, "").unwrap();
    wait_until("the empty file is told", async || {
        let said = ask(&daemon, &first, "GET", "/v1/status").2;
        said["last_error"]["message"].as_str().is_some_and(|message| message.contains("is empty"))
    })
    .await;
    let (second, lines) = minted("second", "read", &[]);
    let other = folder.path().join("other");
    fs::write(&other, lines).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(&other, &file).unwrap();
    wait_until("the new token opens", async || ask(&daemon, &second, "GET", "/v1/status").0 == 200)
        .await;
    assert_eq!(ask(&daemon, &first, "GET", "/v1/status").0, 401);
    assert_eq!(ask(&daemon, &second, "GET", "/v1/status").2["last_error"], Value::Null);
    let open_to_all = daemon.log().matches("can be read by everybody on this machine").count();
    assert_eq!(open_to_all, 2, "at the start, and when it was read again");

    // Whose token is taken away while he waits is told nothing any more.
    let mut waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let wait = "GET /v1/collections/games/documents/late?min_version=1&wait=30s HTTP/1.1";
    let head = "host: localhost\r\nconnection: close";
    write!(waiting, "{wait}\r\n{head}\r\nauthorization: Bearer {second}\r\n\r\n").unwrap();
    fs::write(&file, minted("third", "read", &[]).1).unwrap();
    wait_until("it is gone", async || ask(&daemon, &second, "GET", "/v1/status").0 == 401).await;
    let key = doc! { "d": "late", "s": 1_i64 };
    let event =
        doc! { "_id": key, "client": "x", "op": "create", "state": {}, "at": DateTime::now() };
    db.db.collection("games.events").insert_one(event).await.unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    daemon.stop().await;
}

#[test]
fn a_start_without_usable_tokens_is_refused_in_a_sentence_by_check_and_run_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (file, tokens) = (folder.path().join("alluvium.toml"), folder.path().join("tokens.toml"));
    fs::write(&tokens, "marker").unwrap();
    let text = |http: &str| {
        format!(
            "[mongodb]\nuri = \"mongodb://127.0.0.1:{}/\"\ndatabase = \"game\"\n[http]\nlisten = \"0.0.0.0:{}\"\n\
             {http}\n[[collections]]\nname = \"games\"\n",
            free_port(),
            free_port()
        )
    };
    let unusable = format!("tokens_file = \"{}\"", tokens.display());
    for (http, wanted) in
        [("", "set http.tokens_file"), (unusable.as_str(), "is no list of [[tokens]]")]
    {
        fs::write(&file, text(http)).unwrap();
        let config = ["--config", file.to_str().unwrap()];
        for command in [&["config", "check"][..], &["run"]] {
            let ended = alluvium(&[command, &config].concat());
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(1), "{said}");
            assert!(said.contains(wanted) && !said.contains("marker"), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_metrics_alone_are_open_at_an_address_of_their_own() {
    let (db, port) = (database().await, free_port());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let (token, lines) = minted("scraper", "read", &[]);
    fs::write(&file, lines).unwrap();
    let guarded = format!("tokens_file = \"{}\"\nmetrics_token = true", file.display());
    for (keys, metrics) in [("", 200), (guarded.as_str(), 401)] {
        let keys = format!("health_listen = \"0.0.0.0:{port}\"\n{keys}");
        let mut daemon = Daemon::start(&config(&db, free_port(), &keys));
        daemon.ready().await;
        // Whoever asks names it as they know it: a kubelet by the pod's address, Prometheus by a name.
        let ask = |method: &str, path: &str, token: &str| {
            let request = ureq::http::Request::builder().method(method);
            let request = request.uri(format!("http://127.0.0.1:{port}{path}"));
            let request = request.header("host", "alluvium.monitoring.svc:8751");
            let request = request.header("authorization", format!("Bearer {token}"));
            let agent = ureq::Agent::config_builder().http_status_as_error(false).build();
            let answer = ureq::Agent::from(agent).run(request.body(()).unwrap()).unwrap();
            answer.status().as_u16()
        };
        assert_eq!((ask("GET", "/healthz", ""), ask("GET", "/readyz", "")), (200, 200));
        assert_eq!((ask("GET", "/metrics", ""), ask("GET", "/metrics", &token)), (metrics, 200));
        for (method, path) in [
            ("GET", "/v1/status"),
            ("POST", "/v1/collections/games/pause"),
            ("GET", "/v1/collections/games/documents/a"),
            ("GET", "/healthz/"),
        ] {
            assert_eq!(ask(method, path, &token), 404, "{path}");
        }
        let url = format!("http://127.0.0.1:{port}");
        let top = std::process::Command::new(env!("CARGO_BIN_EXE_alluvium"))
            .args(["top", "--once", "--url", &url, "--token", &token])
            .output()
            .unwrap();
        let said = String::from_utf8(top.stderr).unwrap();
        assert!(said.contains("give the address of `http.listen`"), "{said}");
        assert_eq!(daemon.get("/healthz").0, 200, "they are at the other one too");
        assert_eq!(daemon.stop().await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_something_changed_is_on_record_in_the_job_and_in_the_log() {
    let db = database().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let (chief, lines) = minted("chief", "admin", &[]);
    fs::write(&file, lines).unwrap();
    let keys = format!("tokens_file = \"{}\"", file.display());
    let text = config(&db, free_port(), &keys);
    let path = folder.path().join("alluvium.toml");
    fs::write(&path, &text).unwrap();
    let mut daemon = Daemon::start(&text);
    daemon.ready().await;
    let event = |s: i64, op: &str, more: Document| {
        let mut event = doc! {
            "_id": { "d": "a", "s": s }, "client": "me", "op": op, "at": DateTime::now(),
        };
        event.extend(more);
        event
    };
    let broken = event(2, "update", doc! { "patch": { "$inc": { "name": 1 } } });
    let events = [event(1, "create", doc! { "state": { "name": "one" } }), broken];
    db.db.collection("games.events").insert_many(events).await.unwrap();

    // By a token over HTTP.
    let mut skipped = Value::Null;
    wait_until("it is parked, and then skipped", async || {
        let (code, _, said) =
            ask(&daemon, &chief, "POST", "/v1/collections/games/quarantine/a/skip");
        skipped = said;
        code == 200
    })
    .await;
    assert_eq!((&skipped["kind"], &skipped["by"]), (&"skip".into(), &"chief".into()), "{skipped}");
    let job = ask(&daemon, &chief, "POST", "/v1/collections/games/compact").2;
    assert_eq!(job["by"], "chief", "{job}");

    // By the command line.
    let by_hand = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        let command = command.args(arguments).arg("--config").arg(&path);
        let ended = command.env("USER", "ops").env("HOSTNAME", "desk").output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).unwrap()
    };
    by_hand(&["verify", "games"]);
    let listed = by_hand(&["jobs", "list"]);
    let of =
        |kind: &str, by: &str| listed.lines().any(|job| job.contains(kind) && job.contains(by));
    assert!(of("verify", "cli:ops@desk") && of("skip", "chief"), "{listed}");
    by_hand(&["pause", "games"]);
    by_hand(&["parts", "games", "2"]);
    let meta = db.db.collection::<Document>("alluvium.meta");
    for id in [doc! { "pause": "games" }, doc! { "parts": "games" }] {
        let row = meta.find_one(doc! { "_id": &id }).await.unwrap().unwrap();
        assert_eq!(row.get_str("by").unwrap(), "cli:ops@desk", "{id}");
    }
    let is_told = |by: &str, what: &[(&str, &str)]| {
        daemon.log().lines().any(|line| {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            let has = |(field, value): &(&str, &str)| line[field] == *value;
            line["target"] == "alluvium::audit" && line["by"] == by && what.iter().all(has)
        })
    };
    let skip = [("kind", "skip"), ("document", "a"), ("outcome", "done"), ("collection", "games")];
    for (by, what) in [
        ("chief", &skip[..]),
        ("chief", &[("method", "POST"), ("document", "a")]),
        ("chief", &[("kind", "compact"), ("collection", "games")]),
        ("cli:ops@desk", &[("kind", "verify"), ("outcome", "done")]),
        ("cli:ops@desk", &[("message", "paused by an operator"), ("collection", "games")]),
        ("cli:ops@desk", &[("message", "divided anew by an operator"), ("collection", "games")]),
    ] {
        wait_until(&format!("{by} {what:?} is on record"), async || is_told(by, what)).await;
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
}
