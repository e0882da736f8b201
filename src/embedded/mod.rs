//! A private MongoDB server for `dev`, `demo` and the tests: found or fetched, started on a free
//! port of 127.0.0.1, ready when [`Mongod::start`] returns, and gone when its owner is gone,
//! even after SIGKILL.

mod binary;
mod error;
mod fetch;
mod guard;
mod journal;
mod options;
mod setup;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use binary::PATH_VARIABLE;
pub use error::EmbeddedError;
use guard::{Guard, Signal};
use journal::Journal;
pub use options::{Login, Options};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How often another free port is tried when somebody was quicker.
const PORT_TRIES: usize = 10;
/// The exit codes of mongod that mean something to us.
const ADDRESS_IN_USE: i32 = 48;
const DATA_IN_USE: i32 = 100;

/// A running private server. Dropping it kills the server (a kept one is shut down cleanly) and
/// removes a temporary folder, a moment later; [`Mongod::stop`] waits for both.
#[derive(Debug)]
pub struct Mongod {
    options: Options,
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    uri: String,
    guard: Guard,
    pid: Option<u32>,
}

impl Mongod {
    /// Finds (or fetches) a server binary, starts it and waits until it takes writes.
    ///
    /// # Errors
    /// When no binary can be had, the port or the data folder is in use, or the server ends or is
    /// not ready within a minute; the error carries the lines of its log that matter.
    pub async fn start(options: Options) -> Result<Mongod, EmbeddedError> {
        let program = binary::find(options.path.as_deref()).await?;
        let kept = options.data_dir.clone();
        let mut tries = 0;
        loop {
            let folder = kept.clone().unwrap_or_else(temporary_folder);
            let port = choose_port(options.port, &folder)?;
            match launch(&options, &program, &folder, port).await {
                Err(EmbeddedError::PortInUse { .. })
                    if options.port.is_none() && tries < PORT_TRIES =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error),
                Ok((guard, pid)) => {
                    let uri = options.uri(port);
                    let pid = Some(pid);
                    return Ok(Mongod { options, program, folder, port, uri, guard, pid });
                }
            }
        }
    }

    /// The connection string, with the replica set's name and the login if there are any.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id, or `None` between [`Mongod::kill`] and [`Mongod::restart`].
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The folder with the data and the log `mongod.log`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Shuts the server down cleanly (by SIGKILL after 30 s) and removes a temporary folder.
    ///
    /// # Errors
    /// When the guard process does not answer.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        if self.pid.is_some() {
            self.end(Signal::Terminate).await?;
        }
        self.guard.finish().await.map_err(EmbeddedError::io("end the guard of mongod"))
    }

    /// Kills the server with SIGKILL and waits for its end. Its data stays.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<(), EmbeddedError> {
        self.end(Signal::Kill).await
    }

    /// Starts the server again on the same data and port, after a clean shutdown if it runs.
    ///
    /// # Errors
    /// As [`Mongod::start`]; after an error the server does not run.
    pub async fn restart(&mut self) -> Result<(), EmbeddedError> {
        if self.pid.is_some() {
            self.end(Signal::Terminate).await?;
        }
        let (guard, pid) = launch(&self.options, &self.program, &self.folder, self.port).await?;
        let former = std::mem::replace(&mut self.guard, guard);
        self.pid = Some(pid);
        former.release().await.map_err(EmbeddedError::io("release the former guard of mongod"))
    }

    /// Freezes the server with SIGSTOP: connections stay open and nothing answers. The signal has
    /// been sent when this returns; the kernel stops the last thread a moment later.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn pause(&mut self) -> Result<(), EmbeddedError> {
        self.signal(Signal::Pause).await
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn resume(&mut self) -> Result<(), EmbeddedError> {
        self.signal(Signal::Continue).await
    }

    async fn signal(&mut self, signal: Signal) -> Result<(), EmbeddedError> {
        if self.pid.is_none() {
            return Err(EmbeddedError::NotRunning);
        }
        self.guard.signal(signal).await.map_err(EmbeddedError::io("send a signal to mongod"))
    }

    async fn end(&mut self, signal: Signal) -> Result<(), EmbeddedError> {
        self.signal(signal).await?;
        // A paused server sees a signal other than SIGKILL only when it goes on.
        self.signal(Signal::Continue).await?;
        let action = || EmbeddedError::io("wait for the end of mongod");
        let ended = tokio::time::timeout(STOP_LIMIT, self.guard.exited()).await;
        if ended.is_err() {
            self.signal(Signal::Kill).await?;
            self.guard.exited().await.map_err(action())?;
        } else if let Ok(result) = ended {
            result.map_err(action())?;
        }
        self.pid = None;
        Ok(())
    }
}

/// One attempt on one port. On any failure nothing of it stays, except a kept folder.
async fn launch(
    options: &Options,
    program: &Path,
    folder: &Path,
    port: u16,
) -> Result<(Guard, u32), EmbeddedError> {
    let doomed = options.data_dir.is_none().then_some(folder);
    let mut guard = Guard::spawn(doomed, program, options.arguments(folder, port))
        .map_err(EmbeddedError::io("start /bin/sh as the guard of mongod"))?;
    match bring_up(&mut guard, options, folder, port).await {
        Ok(pid) => Ok((guard, pid)),
        Err(error) => {
            guard.finish().await.map_err(EmbeddedError::io("end the guard of mongod"))?;
            Err(error)
        }
    }
}

async fn bring_up(
    guard: &mut Guard,
    options: &Options,
    folder: &Path,
    port: u16,
) -> Result<u32, EmbeddedError> {
    // The folder is made only now, because from here on it is guarded.
    let prior = options.prepare(folder)?;
    let journal = Journal::from_now(folder).map_err(EmbeddedError::io("read the log"))?;
    let pid = guard.start().await.map_err(EmbeddedError::io("start mongod"))?;
    let ready = async {
        journal.until_listening().await.map_err(EmbeddedError::io("read the log"))?;
        setup::until_writable(options, port, prior).await?;
        options::remember_port(folder, port).map_err(EmbeddedError::io("remember the port"))
    };
    let first = async {
        tokio::select! {
            ready = ready => ready,
            ended = guard.exited() => {
                let (code, printed) = ended.map_err(EmbeddedError::io("wait for mongod"))?;
                Err(failed_start(code, printed, &journal, options, folder, port))
            }
        }
    };
    match tokio::time::timeout(START_LIMIT, first).await {
        Ok(result) => result.map(|()| pid),
        Err(_) => {
            let (seconds, log) = (START_LIMIT.as_secs(), journal.summary().unwrap_or_default());
            Err(EmbeddedError::NotReady { seconds, log })
        }
    }
}

fn failed_start(
    code: i32,
    printed: String,
    journal: &Journal,
    options: &Options,
    folder: &Path,
    port: u16,
) -> EmbeddedError {
    match code {
        ADDRESS_IN_USE => EmbeddedError::PortInUse { port },
        DATA_IN_USE => EmbeddedError::DataInUse { path: folder.to_path_buf() },
        _ => {
            let log = [printed, journal.summary().unwrap_or_default()].join("\n");
            let path = options.data_dir.is_some().then(|| folder.join(journal::FILE));
            EmbeddedError::Start { code, log: log.trim().to_owned(), path }
        }
    }
}

fn temporary_folder() -> PathBuf {
    std::env::temp_dir().join(format!("alluvium-{:016x}", fastrand::u64(..)))
}

/// The asked port, else the one this data folder had before if it is free, else any free one.
fn choose_port(asked: Option<u16>, folder: &Path) -> Result<u16, EmbeddedError> {
    if let Some(port) = asked {
        return Ok(port);
    }
    let bind = |port| TcpListener::bind(("127.0.0.1", port));
    let former = options::former_port(folder).and_then(|port| bind(port).ok());
    let listener = former.map_or_else(|| bind(0), Ok);
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address.map_err(EmbeddedError::io("find a free port on 127.0.0.1"))?.port())
}
