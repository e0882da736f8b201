//! The event log on MongoDB. Change streams and scans are read as raw batches: one buffer per reply,
//! decoded in place. Resuming is ours and not the driver's, since a checkpoint has to know every place.

mod known;
mod log;
mod named;
mod tail;

use bson::Timestamp;
use mongodb::Database;

use super::{Bodies, LogSource, Start};
use crate::database::{Result, operation_time};
pub use known::KnownLog;
pub use log::{MongoLog, MongoScan};
pub use named::NamedLog;
pub(super) use named::majority;
pub use tail::MongoTail;

/// The logs of one MongoDB database.
#[derive(Clone, Debug)]
pub struct MongoSource {
    database: Database,
}

impl MongoSource {
    /// The logs of `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

impl LogSource for MongoSource {
    type Tail = MongoTail;
    type Log = MongoLog;

    async fn now(&self) -> Result<Timestamp> {
        operation_time(&self.database).await
    }

    async fn tail(
        &self,
        collections: &[String],
        start: &Start,
        bodies: Bodies,
    ) -> Result<MongoTail> {
        MongoTail::open(&self.database, collections, start, bodies).await
    }

    async fn open(&self, collection: &str) -> Result<Option<MongoLog>> {
        let log = NamedLog::open(&self.database, collection).await?;
        Ok(log.map(MongoLog::new))
    }
}
