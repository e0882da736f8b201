//! What operators read is true of the program: every command in deploy/README.md is one that it takes, and every phase and every
//! class of error has an entry in the runbook.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use alluvium::{database, status::Phase};

/// A server that does not answer, which commands need not wait for.
const NOWHERE: &str = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50&directConnection=true";

/// Commands that would go on for long: only their options are looked at.
const LONG: [&str; 4] = ["bench", "demo", "dev", "run"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn readme() -> String {
    fs::read_to_string(path("deploy/README.md")).unwrap()
}

/// What stands between backticks, and the lines of fenced blocks, where they are commands of this program.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, block) in text.split("```").enumerate() {
        let pieces: Vec<&str> = match at % 2 {
            0 => block.split('`').skip(1).step_by(2).collect(),
            _ => block.lines().collect(),
        };
        let commands = pieces.into_iter().filter(|piece| piece.starts_with("alluvium "));
        found.extend(commands.map(|piece| piece.split(" #").next().unwrap().trim().to_owned()));
    }
    found
}

/// The words of a command as they can be run here.
fn words(command: &str) -> Vec<String> {
    let mut words: Vec<String> = command
        .split_whitespace()
        .skip(1)
        .map(|word| match word {
            "N" => "4".to_owned(),
            word => word.trim_matches(['[', ']']).to_owned(),
        })
        .collect();
    if let Some(at) = words.iter().position(|word| word == "--config") {
        words[at + 1] = path("deploy/alluvium.toml").to_str().unwrap().to_owned();
    }
    if words[0] == "erase" && words.len() > 1 {
        // Nobody is at a terminal.
        words.push("--yes".into());
    }
    let is_a_name = words.len() == 1 && !["status", "health", "init"].contains(&words[0].as_str());
    match is_a_name || LONG.contains(&words[0].as_str()) {
        true => words.push("--help".into()),
        false => words.extend(["--uri", NOWHERE, "--database", "game"].map(str::to_owned)),
    }
    words
}

#[test]
fn every_command_that_is_told_is_one_that_the_program_takes() {
    let commands = commands(&readme());
    assert!(commands.len() > 40, "{commands:?}");
    let folder = tempfile::tempdir().unwrap();
    let refused: Vec<String> = commands
        .iter()
        .filter_map(|command| {
            let mut run = Command::new(env!("CARGO_BIN_EXE_alluvium"));
            let run = run.args(words(command)).current_dir(folder.path()).stdin(Stdio::null());
            let output = run.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.code() == Some(2)).then(|| format!("{command}: {said}"))
        })
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn every_phase_and_every_class_of_error_has_its_entry() {
    let text = readme();
    let runbook = text.split("## Runbook").nth(1).unwrap().split("\n## ").next().unwrap();
    let phases = [
        Phase::StandingBy,
        Phase::Tailing,
        Phase::Scanning,
        Phase::Starting,
        Phase::Paused,
        Phase::Refused,
    ];
    let names = phases.map(Phase::name).into_iter().chain(database::Error::CLASSES);
    for name in names.chain(["oplog_headroom", "bad_row"]) {
        assert!(runbook.contains(&format!("\n| `{name}` |")), "the runbook lacks {name}");
    }
}
