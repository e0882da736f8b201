//! The guard: a tiny shell process between us and the server, so that a killed process leaves
//! neither a server nor a temporary folder behind. It holds the reading end of a pipe; the kernel
//! closes our end when we are gone, whatever the reason, and the guard cleans up.
//!
//! Both live in a process group of their own: Ctrl-C reaches the daemon only, which drains and
//! then stops its server.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

const SCRIPT: &str = include_str!("guard.sh");

/// What the guard can be asked to send to the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    Terminate,
    Kill,
    Pause,
    Continue,
}

/// One run of one server, under guard.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    output: ChildStderr,
}

impl Guard {
    /// Begins to guard `folder` (removed at the end) and a server that is not started yet.
    pub(super) fn spawn<A: AsRef<OsStr>>(
        folder: Option<&Path>,
        program: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> io::Result<Guard> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "alluvium-guard"])
            .arg(folder.unwrap_or(Path::new("")))
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(commands), Some(answers), Some(output)) = pipes else {
            return Err(io::Error::other("the guard process has no pipes"));
        };
        Ok(Guard { child, commands, answers: BufReader::new(answers).lines(), output })
    }

    /// Starts the server and answers with its process id.
    pub(super) async fn start(&mut self) -> io::Result<u32> {
        parse(&self.ask("start").await?)
    }

    /// Sends a signal to the server; it has been sent when this returns.
    pub(super) async fn signal(&mut self, signal: Signal) -> io::Result<()> {
        let name = match signal {
            Signal::Terminate => "TERM",
            Signal::Kill => "KILL",
            Signal::Pause => "STOP",
            Signal::Continue => "CONT",
        };
        self.ask(name).await.map(drop)
    }

    /// Waits for the server's end: its exit code, and what it printed outside its log.
    pub(super) async fn exited(&mut self) -> io::Result<(i32, String)> {
        let mut printed = Vec::new();
        self.output.read_to_end(&mut printed).await?;
        let code = parse(&self.ask("status").await?)?;
        Ok((code, String::from_utf8_lossy(&printed).trim().to_owned()))
    }

    /// Ends the guard: it ends the server if there still is one, and removes the folder.
    pub(super) async fn finish(self) -> io::Result<()> {
        let Guard { mut child, commands, .. } = self;
        drop(commands);
        child.wait().await.map(drop)
    }

    /// Ends the guard without touching the folder: another one guards it now.
    pub(super) async fn release(mut self) -> io::Result<()> {
        self.commands.write_all(b"release\n").await?;
        self.child.wait().await.map(drop)
    }

    async fn ask(&mut self, command: &str) -> io::Result<String> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await?;
        let answer = self.answers.next_line().await?;
        answer.ok_or_else(|| io::Error::other("the guard process is gone"))
    }
}

fn parse<T: std::str::FromStr>(answer: &str) -> io::Result<T> {
    answer.parse().map_err(|_| io::Error::other(format!("the guard answered {answer:?}")))
}
