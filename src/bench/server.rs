//! The private server of a benchmark, with a fresh database for every measurement.

use std::path::{Path, PathBuf};

use bson::{Timestamp, doc};
use mongodb::{Client, Database};

use super::{
    daemon::{COLLECTION, Daemon, Tuning},
    error::{BenchError, Result},
    process,
};
use crate::{
    config::CollectionConfig,
    database::Error,
    embedded::{Mongod, Options},
    log::{Bodies, EventLog, LogSource, Start, Tail, create::Differing, mongo::MongoSource},
    model::{
        part::Part,
        position::{Checkpoint, Position},
    },
    setup::prepare,
    store::{Checkpoints, mongo::MongoStore},
};

/// The server's cache and oplog, in MiB: large enough that no measurement is about its disk.
const CACHE_MIB: u32 = 2_048;
const OPLOG_MIB: u32 = 4_096;

/// See the module.
pub(super) struct Server {
    mongod: Mongod,
    /// The program whose `run` is the daemon.
    program: PathBuf,
    client: Client,
    databases: usize,
}

/// A place in a log to tail from.
pub(super) struct Place {
    pub(super) position: Position,
    /// How many events precede it.
    events: u64,
}

/// How a daemon catches up from a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As it chooses: the checkpoint is as a daemon saved it that was caught up there.
    Chosen,
    /// Through the stream, whatever is quicker: the checkpoint does not say how many events precede it.
    StreamAlone,
}

/// A fresh database and the time before anything was in it.
pub(super) struct Fresh {
    pub(super) database: Database,
    pub(super) start: Timestamp,
}

impl Server {
    /// Starts it. The daemon is this program, or another.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) async fn start(daemon: Option<&Path>) -> Result<Self> {
        let this = || std::env::current_exe().map_err(BenchError::io("find this program"));
        let program = daemon.map_or_else(this, |path| Ok(path.to_owned()))?;
        let options = Options { cache_mib: CACHE_MIB, oplog_mib: OPLOG_MIB, ..Options::default() };
        let mongod = Mongod::start(options).await?;
        let client = Client::with_uri_str(mongod.uri()).await?;
        Ok(Self { mongod, program, client, databases: 0 })
    }

    /// Stops it and removes its data.
    ///
    /// # Errors
    /// When its guard does not answer.
    pub(super) async fn stop(self) -> Result<()> {
        Ok(self.mongod.stop().await?)
    }

    /// Ends it cleanly and starts it again: what it still keeps of rows that were deleted has gone then, and its cache is empty.
    ///
    /// # Errors
    /// When it cannot be started again.
    pub(super) async fn restart(&mut self) -> Result<()> {
        self.mongod.restart().await?;
        self.client.database("admin").run_command(doc! { "ping": 1 }).await?;
        Ok(())
    }

    /// A database with an empty log; the one before is dropped.
    ///
    /// # Errors
    /// When the server refuses.
    pub(super) async fn fresh(&mut self) -> Result<Fresh> {
        self.client.database(&format!("bench{}", self.databases)).drop().await?;
        self.databases += 1;
        let database = self.client.database(&format!("bench{}", self.databases));
        let collections = [CollectionConfig::new(COLLECTION)];
        prepare(&database, &collections, Differing::Warn).await?;
        let start = MongoSource::new(database.clone()).now().await?;
        Ok(Fresh { database, start })
    }

    /// Starts a daemon on this database.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(super) fn daemon(&self, database: &Database, tuning: &Tuning) -> Result<Daemon> {
        Daemon::start(&self.program, self.mongod.uri(), database.name(), tuning)
    }

    /// The CPU time that the server has used, in seconds.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn cpu(&self) -> Result<f64> {
        process::cpu_seconds(self.mongod.pid().unwrap_or_default())
    }
}

/// The present end of the log, as a place to tail from.
///
/// # Errors
/// When the server refuses.
pub(super) async fn end_of_log(database: &Database) -> Result<Place> {
    let source = MongoSource::new(database.clone());
    let now = source.now().await?;
    let mut tail = source.tail(&[COLLECTION.to_owned()], &Start::At(now), Bodies::All).await?;
    let events = source.open_existing(COLLECTION).await?.estimated_events().await?;
    Ok(Place { position: tail.next().await?.position, events })
}

/// Saves a checkpoint, in place of one that is there, so that a daemon that starts now goes on from this place.
///
/// # Errors
/// When the server refuses.
pub(super) async fn save_checkpoint(database: &Database, place: Place, way: Way) -> Result<()> {
    let log = MongoSource::new(database.clone()).open_existing(COLLECTION).await?.id();
    let store = MongoStore::new(database, COLLECTION, Part::WHOLE);
    let passed_events = Some(place.events).filter(|_| way == Way::Chosen);
    let position = Some(place.position);
    let saved = store.load_checkpoints().await?;
    let epoch = saved.iter().map(|(_, saved)| saved.epoch).max().unwrap_or_default();
    match store
        .save_checkpoint(&Checkpoint { position, log, rows: None, epoch, passed_events })
        .await?
    {
        true => Ok(()),
        false => Err(Error::damaged("a checkpoint of a later epoch is in the way").into()),
    }
}
