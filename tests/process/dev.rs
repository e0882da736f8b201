//! `alluvium dev`: every line that it prints works when it is pasted.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

use crate::common::{free_port, wait_for, wait_until};

/// Killed with the test.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn paste(line: &str) -> Output {
    // Nothing but the line itself says where anything is.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", line]).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    shell.current_dir("/").output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_printed_line_works_when_it_is_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("a folder");
    let alluvium = env!("CARGO_BIN_EXE_alluvium");
    let process = Command::new(alluvium)
        .args(["dev", "--data"])
        .arg(&data)
        .env("ALLUVIUM_HTTP__LISTEN", format!("127.0.0.1:{}", free_port()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut dev = Dev(process);
    let printed = BufReader::new(dev.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut commands = Vec::new();
    for line in printed {
        if line.starts_with("Ctrl-C") {
            break;
        }
        commands.extend(line.contains("--config").then_some(line));
    }
    assert_eq!(commands.len(), 6, "{commands:?}");
    for line in &commands {
        assert!(line.starts_with(alluvium), "{line}");
        wait_until(line, async || {
            let ended = paste(line);
            // The daemon may not have come as far yet.
            let is_status = line.contains(" status ");
            assert!(is_status || ended.status.success(), "{line}: {ended:?}");
            ended.status.success()
        })
        .await;
    }
    let health = format!("'{alluvium}' health --config '{}/alluvium.toml'", data.display());
    assert!(paste(&health).status.success());
    let pid = dev.0.id().to_string();
    assert!(
        Command::new("/bin/sh")
            .args(["-c", &format!("kill -s INT {pid}")])
            .status()
            .unwrap()
            .success()
    );
    let status = wait_for("dev has ended", async || dev.0.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
}
