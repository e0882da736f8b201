//! What a writer reads back: the same consistent reads as everybody's, as values of its type.

use serde::{Serialize, de::DeserializeOwned};

use super::{EventSourced, Result, Versioned, WriteError, from_raw};
use crate::{
    model::{clock::Clock, document::Document, id::DocumentId},
    read::{History, Missing, MissingQuery},
};

impl<T: Serialize + DeserializeOwned> EventSourced<T> {
    /// The document as all of its majority-committed events make it, projected or not. `None` if it was
    /// never created or is deleted.
    ///
    /// # Errors
    /// [`WriteError::State`] when the state does not fit the type, and what any read may meet.
    pub async fn get(&self, id: &DocumentId) -> Result<Option<Versioned<T>>> {
        let current = self.decider.reader.current(id).await?;
        current.map_or(Ok(None), |current| versioned(&current.document))
    }

    /// The document as it was at `version` (from 1). `None` if it was deleted then, or never created.
    ///
    /// # Errors
    /// As [`EventSourced::get`], and for a version that does not exist or lies below the log's floor.
    pub async fn at_version(&self, id: &DocumentId, version: i64) -> Result<Option<Versioned<T>>> {
        let document = self.decider.reader.at_version(id, version).await?;
        document.map_or(Ok(None), |document| versioned(&document))
    }

    /// The document's events above version `after`, oldest first, at most `limit`, exactly as stored. Without `after` from
    /// the beginning, which may be a base.
    ///
    /// # Errors
    /// What any read may meet.
    pub async fn history(
        &self,
        id: &DocumentId,
        after: impl Into<Option<i64>>,
        limit: u32,
    ) -> Result<History> {
        Ok(self.decider.reader.history(id, after, limit).await?)
    }

    /// Precisely the events that a replica with this clock lacks, oldest first. Where `more` is set, ask
    /// again with `next_clock`. A replica that has applied one of the answer's `skips` as if it were not skipped takes
    /// the state anew, with [`EventSourced::get`].
    ///
    /// # Errors
    /// [`WriteError::NotFound`] for a document that was never written, and what any read may meet, such
    /// as a clock that claims more than exists.
    pub async fn missing_events(&self, id: &DocumentId, clock: &Clock) -> Result<Missing> {
        let reader = &self.decider.reader;
        let limit = reader.limits().events_max;
        let query = MissingQuery { clock: clock.clone(), limit, ..MissingQuery::default() };
        let missing = reader.missing(id, &query).await?;
        missing.ok_or_else(|| WriteError::NotFound { id: id.clone() })
    }
}

fn versioned<T: DeserializeOwned>(document: &Document) -> Result<Option<Versioned<T>>> {
    let Some(state) = document.state() else { return Ok(None) };
    let state = from_raw(&state.to_raw())?;
    Ok(Some(Versioned { state, version: document.version, clock: document.clock.clone() }))
}
