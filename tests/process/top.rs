//! `alluvium top` against a real daemon: one frame without a terminal, a live view in one that it gives back, and a
//! plain word where nobody answers.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::{
    common::{Daemon, database, free_port},
    config,
};

fn top(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    let Output { status, stdout, stderr } = command.arg("top").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_frame_as_text_and_as_json_and_a_live_view_that_gives_the_terminal_back() {
    let test = database().await;
    let mut daemon = Daemon::start(&config(&test, free_port(), ""));
    daemon.ready().await;
    let url = daemon.url("");
    let (code, frame, note) = top(&["--url", &url, "--interval", "200ms"]);
    assert_eq!((code, note.as_str()), (0, "this is no terminal: one frame, as with --once\n"));
    assert!(frame.contains("COLLECTION") && frame.contains("games"), "{frame}");
    assert!(frame.contains("tailing"), "{frame}");
    let (code, _, note) = top(&["--url", &url, "--once", "--interval", "200ms"]);
    assert_eq!((code, note.as_str()), (0, ""));
    let (_, json, _) = top(&["--url", &url, "--json", "--interval", "200ms"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let games = &json["instances"][0]["collections"][0];
    assert_eq!((&games["name"], &games["role"]), (&"games".into(), &"leader".into()), "{json}");
    assert_eq!(games["applied_per_second"], 0.0, "{json}");

    for end in ["q", "TERM"] {
        // `script` makes a terminal. The command ends by a key, or by a signal.
        let top = format!("{} top --url {url}", env!("CARGO_BIN_EXE_alluvium"));
        let line = match end {
            "q" => format!("stty rows 24 cols 60; {top}; echo code $?; stty -a"),
            _ => format!("stty rows 24 cols 60; timeout -s {end} --foreground 2 {top}; stty -a"),
        };
        let mut script = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        if end == "q" {
            std::io::Write::write_all(&mut script.stdin.as_mut().unwrap(), b"q").unwrap();
        }
        let shown = script.wait_with_output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        // The other screen was entered, and left; and the terminal reads lines and echoes again.
        let (entered, left) = (shown.find("\u{1b}[?1049h"), shown.rfind("\u{1b}[?1049l"));
        assert!(entered.is_some() && entered < left, "{shown:?}");
        let settings = shown.rsplit("speed").next().unwrap();
        assert!(settings.contains(" icanon") && settings.contains(" echo "), "{shown:?}");
        assert!(end != "q" || shown.contains("code 0"), "{shown:?}");
    }
    assert!(daemon.stop().await.success());
}

#[test]
fn a_daemon_that_is_away_is_named_with_what_to_do() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let (code, frame, complaint) = top(&["--url", &url, "--once"]);
    assert_eq!(code, 1);
    assert!(frame.contains("does not answer"), "{frame}");
    let wanted = format!("error: no daemon answers: {url} (");
    assert!(complaint.starts_with(&wanted) && complaint.contains("--url"), "{complaint}");
    let (code, _, complaint) = top(&["--url", "ftp://a", "--once"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("http://"), "{complaint}");
}
