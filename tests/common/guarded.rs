//! A program that does not outlive its test, also when the test is killed.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

/// A running program.
#[derive(Debug)]
pub struct Guarded {
    pub process: Child,
    /// Kills it when its input ends without a word, which is when the test was killed.
    guard: Child,
}

impl Guarded {
    pub fn new(process: Child) -> Guarded {
        let guard = Command::new("/bin/sh")
            .args(["-c", "read -r word || kill -s KILL \"$1\"", "guard"])
            .arg(process.id().to_string())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Guarded { process, guard }
    }

    /// Kills it, and waits for its end.
    pub fn end(&mut self) {
        // The guard first: it must not kill a process that got the number of this one.
        if let Some(mut word) = self.guard.stdin.take() {
            let _ = word.write_all(b"done\n");
        }
        let _ = self.guard.wait();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.end();
    }
}
