//! The real daemon as a process: started with a configuration, its log captured, killed when the
//! test drops it or is itself killed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use super::{guarded::Guarded, wait_for, wait_until};

/// A daemon process.
#[derive(Debug)]
pub struct Daemon {
    guarded: Guarded,
    log: Arc<Mutex<String>>,
    listen: Option<String>,
    _folder: TempDir,
}

/// A port on 127.0.0.1 that was free a moment ago, for `listen`. None of those that the kernel gives to whoever connects, and
/// none twice: else another test has it by the time that the daemon listens.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 20_000 + (std::process::id() % 40) as u16 * 250;
    let mut ports = std::iter::repeat_with(|| begin + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

impl Daemon {
    /// Starts `alluvium run` with this configuration (TOML).
    pub fn start(config: &str) -> Daemon {
        Self::under(&[], config, &[])
    }

    /// Starts `run` of another build.
    pub fn of(program: &str, config: &str) -> Daemon {
        Self::line(&[program], config, &[])
    }

    /// Starts it under a program that is given the command line to run, with further arguments.
    pub fn under(wrapper: &[&str], config: &str, arguments: &[&str]) -> Daemon {
        Self::line(&[wrapper, &[env!("CARGO_BIN_EXE_alluvium")]].concat(), config, arguments)
    }

    fn line(program: &[&str], config: &str, arguments: &[&str]) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alluvium.toml");
        fs::write(&file, config).unwrap();
        let line = [program, &["run", "--config"]].concat();
        let process = Command::new(line[0])
            .args(&line[1..])
            .arg(&file)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut guarded = Guarded::new(process);
        let log = Arc::new(Mutex::new(String::new()));
        collect(guarded.process.stdout.take().unwrap(), &log);
        collect(guarded.process.stderr.take().unwrap(), &log);
        let table: toml::Table = toml::from_str(config).expect("the configuration is TOML");
        let listen = table.get("http").and_then(|http| http.get("listen"));
        let listen = listen.and_then(|listen| listen.as_str()).map(str::to_owned);
        Daemon { guarded, log, listen, _folder: folder }
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Panics
    /// With the log when it ends instead, or does not get ready.
    pub async fn ready(&mut self) {
        wait_until("the daemon is ready", async || {
            if let Some(status) = self.guarded.process.try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            self.listen.is_some() && self.reachable() && self.get("/readyz").0 == 200
        })
        .await;
    }

    fn reachable(&self) -> bool {
        std::net::TcpStream::connect(self.listen.as_deref().unwrap_or_default()).is_ok()
    }

    /// What it has printed until now, both streams.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.guarded.process.id()
    }

    /// The address of a path of its HTTP interface.
    pub fn url(&self, path: &str) -> String {
        let listen = self.listen.as_deref().expect("the configuration has `http.listen`");
        format!("http://{listen}{path}")
    }

    /// Asks with GET: the status code and the body (as a string where it is not JSON).
    pub fn get(&self, path: &str) -> (u16, Value) {
        answer(agent().get(self.url(path)).call())
    }

    /// Asks with POST and a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(agent().post(self.url(path)).send_json(body))
    }

    /// Sends a signal by its name: `TERM`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.guarded.process.id().to_string();
        let arguments = ["-c", "kill -s \"$1\" \"$2\"", "signal", name, &pid];
        assert!(Command::new("/bin/sh").args(arguments).status().unwrap().success());
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        self.guarded.process.kill().unwrap();
        self.guarded.process.wait().unwrap();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        let process = &mut self.guarded.process;
        wait_for("the daemon has ended", async || process.try_wait().unwrap()).await
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.guarded.end();
        if thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
    }
}

fn collect(stream: impl Read + Send + 'static, log: &Arc<Mutex<String>>) {
    let log = log.clone();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn answer(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut answer = answer.unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (answer.status().as_u16(), body)
}
