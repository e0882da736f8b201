//! Which log an answer is of. It is looked up once, and again where a read was not sure of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bson::doc;
use futures::TryStreamExt;

use super::{
    Reader,
    error::{ReadError, Result},
};
use crate::model::position::LogId;

/// The identity that was found last. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct LastFound(Arc<Mutex<Option<LogId>>>);

impl LastFound {
    fn get(&self) -> MutexGuard<'_, Option<LogId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The identity that the log had when it was last looked up. It may have been replaced since: whoever
    /// answers with it makes the server check it in the very read of the log.
    pub(super) async fn known_log(&self) -> Result<LogId> {
        let known = *self.log.get();
        match known {
            Some(log) => Ok(log),
            None => self.look_up_log().await,
        }
    }

    /// The identity of the log. To be asked after the first read of a moment and before the last of
    /// the log: a log that was replaced in between makes that last read fail.
    pub(super) async fn look_up_log(&self) -> Result<LogId> {
        let name = self.events.name();
        let mut found = self.database.list_collections().filter(doc! { "name": name }).await?;
        let uuid = found.try_next().await?.and_then(|collection| collection.info.uuid);
        let uuid = uuid.and_then(|uuid| uuid.to_uuid().ok());
        let log = LogId(uuid.ok_or_else(|| ReadError::NoLog(name.to_owned()))?);
        *self.log.get() = Some(log);
        Ok(log)
    }
}
