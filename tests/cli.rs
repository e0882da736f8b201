//! The commands as a user meets them: the real program, its output and its exit code.

mod common;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

use common::{database, free_port, wait_for};
use serde_json::{Value, json};

fn alluvium(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    command.args(arguments).stdin(Stdio::null());
    command
}

#[track_caller]
fn done(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaint}{said}", output.status);
    said
}

#[track_caller]
fn refused(output: &Output, part: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains(part), "{complaint} does not say {part}");
}

#[test]
fn the_demonstration_tells_and_checks_its_story() {
    let said = done(&alluvium(&["demo"]).output().unwrap());
    for part in [
        "1. game-server creates the game",
        r#"projected  version 3  clock {"admin-panel":1,"game-server":1,"mobile-client":1}"#,
        r#"the phone's clock     {"game-server":1}"#,
        "so it lacks 1 event of admin-panel and 1 event of mobile-client.",
        "ok: exactly the two events, in order",
        "Everything came out as it must",
    ] {
        assert!(said.contains(part), "{said} does not say {part}");
    }
}

#[test]
fn the_demonstration_speaks_json_too() {
    let facts = done(&alluvium(&["demo", "--json"]).output().unwrap());
    let facts: Value = serde_json::from_str(&facts).unwrap();
    let list = |name: &str| facts[name].as_array().unwrap().clone();
    assert_eq!((list("events").len(), list("documents").len()), (3, 3));
    assert_eq!(list("missing"), list("events")[1..]);
    assert_eq!(list("documents")[2]["state"]["level"], 2);
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    done(&alluvium(&["man", "--out", out]).output().unwrap());
    let help = done(&alluvium(&["--help"]).output().unwrap());
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names.into_iter().filter(|name| *name != "help") {
        let page = std::fs::read_to_string(folder.path().join(format!("alluvium-{name}.1")));
        assert!(page.unwrap_or_default().contains(".SH SYNOPSIS"), "{name}");
    }
    for (page, part) in [
        ("alluvium.1", "`compact` left documents as they are"),
        ("alluvium-compact.1", "decided by the configuration of the daemon"),
        ("alluvium-gap-fill.1", "skip\\-above"),
    ] {
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(part), "{page}: {text}");
    }
    refused(
        &alluvium(&["man", "--out", "/nonexistent"]).output().unwrap(),
        "give a folder to --out",
    );
}

#[test]
fn bash_completes_what_the_completions_say() {
    let script = done(&alluvium(&["completions", "bash"]).output().unwrap());
    let ask = r#"COMP_WORDS=(alluvium gap fill games a --skip-); COMP_CWORD=5
        _alluvium alluvium --skip- a; printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    let said = done(&bash.arg("-c").arg(format!("{script}\n{ask}")).output().unwrap());
    assert_eq!(said, "--skip-above\n");
    for shell in ["zsh", "fish"] {
        assert!(done(&alluvium(&["completions", shell]).output().unwrap()).contains("quarantine"));
    }
}

#[test]
fn a_private_server_cannot_be_another_one() {
    refused(&alluvium(&["demo", "--uri", "mongodb://h/"]).output().unwrap(), "leave out --uri");
    refused(&alluvium(&["dev", "--uri", "mongodb://h/"]).output().unwrap(), "leave out --uri");
    refused(&alluvium(&["demo", "--config", "x"]).output().unwrap(), "leave out --config");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_appended_by_hand() {
    let test = database().await;
    let append = |arguments: &[&str]| {
        let place = ["--uri", &test.uri, "--database", &test.name, "--json"];
        let fixed = ["append", "games", "chess", "--client", "me", "--op"];
        alluvium(&[&fixed, arguments, &place].concat()).output().unwrap()
    };
    refused(&append(&["create", "--state", "{}"]), "`games.events` does not exist");

    let key = mongodb::options::ClusteredIndex::default();
    test.db.create_collection("games.events").clustered_index(key).await.unwrap();
    refused(&append(&["update", "--patch", "{}"]), "begins with a create");
    done(&append(&["create", "--state", r#"{"gold":1}"#]));
    let patch = ["update", "--patch", r#"{"$inc":{"gold":1}}"#, "--if-version", "1"];
    let said: Value = serde_json::from_str(&done(&append(&patch))).unwrap();
    assert_eq!(said, json!({ "version": 2, "clock": { "me": 2 } }));
    refused(&append(&patch), "is at version 2, not at 1");
    refused(&append(&["update", "--patch", "{"]), "--patch is no JSON object");
    refused(&append(&["update", "--patch", r#"{"$inc":{"gold":"x"}}"#]), "gold");
}

/// `alluvium dev` in a folder of its own, killed with the test.
struct Dev {
    process: Child,
    facts: Value,
}

impl Dev {
    fn start(folder: &tempfile::TempDir, port: u16) -> Dev {
        let data = folder.path().join("data");
        let mut process = alluvium(&["dev", "--json", "--data", data.to_str().unwrap()])
            .env("ALLUVIUM_HTTP__LISTEN", format!("127.0.0.1:{port}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut text = String::new();
        for line in lines {
            text.push_str(&line);
            if line == "}" {
                break;
            }
        }
        Dev { process, facts: serde_json::from_str(&text).unwrap() }
    }

    async fn interrupt(mut self) {
        let pid = self.process.id().to_string();
        assert!(
            Command::new("/bin/sh")
                .args(["-c", &format!("kill -s INT {pid}")])
                .status()
                .unwrap()
                .success()
        );
        let process = &mut self.process;
        let status = wait_for("dev has ended", async || process.try_wait().unwrap()).await;
        assert!(status.success(), "{status}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_in_dev_is_there_on_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let dev = Dev::start(&folder, port);
    let uri = dev.facts["uri"].as_str().unwrap().to_owned();
    let place = ["--uri", &uri, "--database", "game"];
    let append = ["append", "games", "chess", "--client", "me", "--op", "create", "--state", "{}"];
    done(&alluvium(&[&append[..], &place[..]].concat()).output().unwrap());
    let document = format!(
        "http://127.0.0.1:{port}/v1/collections/games/documents/chess?min_version=1&wait=20s"
    );
    let read = || -> Value {
        let body = ureq::get(&document).call().unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&body).unwrap()
    };
    assert_eq!(read()["clock"], json!({ "me": 1 }));
    dev.interrupt().await;

    let dev = Dev::start(&folder, port);
    assert_eq!(dev.facts["uri"], json!(uri), "the same address as before");
    assert_eq!(read()["version"], 1);
    dev.interrupt().await;
}
