//! The systemd unit and what belongs to it.

use std::{fs, process::Command, time::Duration};

use alluvium::config::DaemonConfig;

use crate::{path, run};

fn unit() -> String {
    fs::read_to_string(path("deploy/systemd/alluvium.service")).unwrap()
}

fn setting<'a>(unit: &'a str, key: &str) -> &'a str {
    let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("the unit has no {key}"))
}

#[test]
fn the_unit_leaves_little_to_whoever_takes_the_process_over() {
    let arguments = ["security", "--offline=true", "--threshold=20", "--no-pager"];
    let mut command = Command::new("systemd-analyze");
    run(command.args(arguments).arg(path("deploy/systemd/alluvium.service")));
}

#[test]
fn systemd_has_nothing_to_say_against_the_unit() {
    let program = "/usr/bin/alluvium";
    let unit = unit();
    assert!(unit.contains(program));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alluvium.service");
    fs::write(&file, unit.replace(program, env!("CARGO_BIN_EXE_alluvium"))).unwrap();
    let (said, complaints) = run(Command::new("systemd-analyze").arg("verify").arg(file));
    assert_eq!(said + &complaints, "");
}

#[test]
fn a_stop_is_given_more_time_than_it_takes() {
    let time = humantime::parse_duration(setting(&unit(), "TimeoutStopSec")).unwrap();
    assert!(time >= DaemonConfig::default().shutdown_timeout + Duration::from_secs(10));
}

#[test]
fn the_user_of_the_unit_is_made() {
    let user = format!("Creating user '{}'", setting(&unit(), "User"));
    let mut command = Command::new("systemd-sysusers");
    let (said, complaints) = run(command
        .args(["--dry-run", "--root=/nonexistent"])
        .arg(path("deploy/systemd/alluvium.sysusers")));
    assert!((said + &complaints).contains(&user));
}
