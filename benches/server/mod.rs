//! What a benchmark costs the server, told by the CPU time of the one thread of it that serves us, or of all of
//! them: a busy machine spoils rates, but hardly that. Needs Linux.

use std::{fs, path::PathBuf, time::Duration};

use alluvium::embedded::Mongod;
use bson::doc;
use mongodb::{Client, Database, options::ClientOptions};

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The server, and the file that tells how long its thread for our connection has run.
pub(crate) struct Server {
    /// A database, through the one connection.
    pub(crate) database: Database,
    thread: PathBuf,
    process: PathBuf,
}

impl Server {
    /// Connects with one connection, so that one thread of the server does it all.
    pub(crate) async fn connect(mongod: &Mongod) -> Outcome<Self> {
        let mut options = ClientOptions::parse(mongod.uri()).await?;
        options.max_pool_size = Some(1);
        let database = Client::with_options(options)?.database("bench");
        let process = mongod.pid().ok_or("the server is not running")?;
        let hello = database.run_command(doc! { "hello": 1 }).await?;
        let name = format!("conn{}", hello.get_i32("connectionId")?);
        let process = PathBuf::from(format!("/proc/{process}"));
        for thread in fs::read_dir(process.join("task"))? {
            let thread = thread?.path();
            if fs::read_to_string(thread.join("comm"))?.trim() == name {
                return Ok(Self { database, thread: thread.join("schedstat"), process });
            }
        }
        Err(format!("the server has no thread {name}").into())
    }

    /// The CPU time that the thread has used.
    #[allow(dead_code, reason = "every benchmark uses a part of this")]
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        let text = fs::read_to_string(&self.thread)?;
        Ok(Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?))
    }

    /// The CPU time that all threads together have used, those that have ended too; in hundredths of a second.
    #[allow(dead_code, reason = "every benchmark uses a part of this")]
    pub(crate) fn cpu_of_all(&self) -> Outcome<Duration> {
        let text = fs::read_to_string(self.process.join("stat"))?;
        // See proc_pid_stat(5). The second field is a name, which may hold anything but ends with a parenthesis.
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: Vec<u64> = fields.skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
        Ok(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
    }
}
