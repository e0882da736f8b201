//! Many rows in one transaction. The server then spends a third of the time on each, since it finds a
//! row by its id alone where the version was compared in the same snapshot; and the whole becomes one
//! entry of the oplog, where our own change stream would otherwise have to pass over each row.
//! Whatever goes wrong, nothing is written, and the rows are written one by one instead.

use std::collections::HashMap;

use bson::{Bson, RawArrayBuf, RawDocumentBuf, doc, raw::cstr, rawdoc};
use mongodb::{
    ClientSession,
    error::{TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::{ReadConcern, WriteConcern},
};

use super::MongoStore;
use crate::{
    database::Result,
    model::id::{DocumentId, integral},
    store::RowWrite,
};

/// Below this a transaction's two more round trips cost more than they save.
pub(super) const ROWS_MIN: usize = 16;

impl MongoStore {
    /// Writes all new rows, or none. `false` when nothing was written.
    ///
    /// # Errors
    /// When it is not known whether they were written.
    pub(super) async fn insert_together(&self, rows: &[&RowWrite]) -> Result<bool> {
        let Ok(mut session) = self.begin().await else { return Ok(false) };
        match self.insert(&mut session, rows).await {
            Ok(inserted) if inserted == rows.len() => commit(&mut session).await,
            _ => Ok(abort(&mut session).await),
        }
    }

    /// Replaces those rows that have the expected version, and gives the others, by their place. `None`
    /// when nothing was written.
    ///
    /// # Errors
    /// When it is not known whether they were written.
    pub(super) async fn replace_together(&self, rows: &[&RowWrite]) -> Result<Option<Vec<usize>>> {
        let Ok(mut session) = self.begin().await else { return Ok(None) };
        let replaced = match self.versions_of(&mut session, rows).await {
            Ok(stored) => {
                let differs = |row: &RowWrite| stored.get(&row.id) != Some(&row.expected);
                let (others, matching): (Vec<_>, Vec<_>) =
                    rows.iter().enumerate().partition(|(_, row)| differs(row));
                let others: Vec<usize> = others.into_iter().map(|(at, _)| at).collect();
                let replaced = self.replace(&mut session, matching.iter().map(|(_, row)| **row));
                replaced.await.ok().filter(|count| *count == matching.len()).map(|_| others)
            }
            Err(_) => None,
        };
        match replaced {
            Some(others) => Ok(commit(&mut session).await?.then_some(others)),
            None => {
                abort(&mut session).await;
                Ok(None)
            }
        }
    }

    async fn begin(&self) -> mongodb::error::Result<ClientSession> {
        let mut session = self.database.client().start_session().await?;
        session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(WriteConcern::majority())
            .await?;
        Ok(session)
    }

    async fn insert(&self, session: &mut ClientSession, rows: &[&RowWrite]) -> Result<usize> {
        let documents: RawArrayBuf = rows.iter().map(|write| write.row.clone()).collect();
        let insert =
            rawdoc! { "insert": self.collection.as_str(), "documents": documents, "ordered": true };
        self.run_in(session, insert).await
    }

    async fn replace<'a>(
        &self,
        session: &mut ClientSession,
        rows: impl Iterator<Item = &'a RowWrite>,
    ) -> Result<usize> {
        let updates: RawArrayBuf = rows
            .map(|write| {
                let mut filter = RawDocumentBuf::new();
                filter.append(cstr!("_id"), write.id.as_raw());
                rawdoc! { "q": filter, "u": write.row.clone() }
            })
            .collect();
        if updates.is_empty() {
            return Ok(0);
        }
        let update =
            rawdoc! { "update": self.collection.as_str(), "updates": updates, "ordered": true };
        self.run_in(session, update).await
    }

    /// The versions of these rows, as the transaction sees them.
    async fn versions_of(
        &self,
        session: &mut ClientSession,
        rows: &[&RowWrite],
    ) -> Result<HashMap<DocumentId, i64>> {
        let ids: Vec<Bson> = rows.iter().map(|write| write.id.to_bson()).collect();
        let mut found = self
            .documents
            .find(doc! { "_id": { "$in": ids } })
            .projection(doc! { "version": 1 })
            .batch_size(u32::try_from(rows.len() + 1).unwrap_or(u32::MAX))
            .session(&mut *session)
            .await?;
        let mut versions = HashMap::with_capacity(rows.len());
        while found.advance(session).await? {
            let row = found.current();
            let id = row.get("_id")?.and_then(|id| DocumentId::from_raw(id).ok());
            let version = row.get("version")?.and_then(integral);
            versions.extend(id.zip(version));
        }
        Ok(versions)
    }

    /// How many rows the command wrote. Any write error has ended the transaction.
    async fn run_in(&self, session: &mut ClientSession, command: RawDocumentBuf) -> Result<usize> {
        let reply = self.database.run_raw_command(command).session(session).await?;
        super::no_write_errors(&reply)?;
        Ok(usize::try_from(reply.get_i32("n").unwrap_or_default()).unwrap_or_default())
    }
}

/// Commits at majority; `false` when the server says that nothing was written.
async fn commit(session: &mut ClientSession) -> Result<bool> {
    match session.commit_transaction().await {
        Ok(()) => Ok(true),
        Err(error)
            if error.contains_label(TRANSIENT_TRANSACTION_ERROR)
                && !error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Ends a transaction that failed. The server ends it by itself if it cannot be told.
async fn abort(session: &mut ClientSession) -> bool {
    let _best_effort = session.abort_transaction().await;
    false
}
