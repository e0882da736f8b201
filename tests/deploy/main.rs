//! What is deployed, judged by the tools that will read it: the systemd unit by systemd-analyze, the manifests by kubectl
//! and kubernetes-validate. Needs all of them on PATH.

#[path = "../common/mod.rs"]
mod common;

mod kubernetes;
mod systemd;

use std::{path::PathBuf, process::Command};

/// A file or folder of the repository.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs a tool that must succeed, and gives what it prints: standard output, and the complaints.
fn run(command: &mut Command) -> (String, String) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| {
        panic!("{command:?} cannot be run ({error}); see .ci/run for how to install it")
    });
    let said = |stream| String::from_utf8_lossy(stream).into_owned();
    let (said, complaints) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{command:?} failed:\n{said}{complaints}");
    (said, complaints)
}
