//! Which log a collection had when that was last looked up, for those who read often and must not look every time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mongodb::Database;

use super::named::NamedLog;
use crate::{database::Result, log::events_collection, model::position::LogId};

/// See the module. Clones share what is known. It may be outdated, which the server tells of at the next command on
/// the log: then it is to be forgotten, and looked up again.
#[derive(Clone, Debug)]
pub struct KnownLog {
    database: Database,
    collection: String,
    last: Arc<Mutex<Option<NamedLog>>>,
}

impl KnownLog {
    /// The log of `collection`, not looked up yet.
    pub fn new(database: &Database, collection: &str) -> Self {
        let (database, collection) = (database.clone(), collection.to_owned());
        Self { database, collection, last: Arc::default() }
    }

    /// The name of the collection that holds it.
    pub fn events(&self) -> String {
        events_collection(&self.collection)
    }

    /// The log that was found last; looks it up if none is known. `None` if there is none.
    ///
    /// # Errors
    /// When the database refuses or is away.
    pub async fn get(&self) -> Result<Option<NamedLog>> {
        let known = self.last().clone();
        if known.is_some() {
            return Ok(known);
        }
        let found = NamedLog::open(&self.database, &self.collection).await?;
        self.last().clone_from(&found);
        Ok(found)
    }

    /// The log with this identity is not there under its name any more.
    pub fn forget(&self, id: LogId) {
        self.last().take_if(|known| known.id() == id);
    }

    fn last(&self) -> MutexGuard<'_, Option<NamedLog>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
