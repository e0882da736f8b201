//! A row in the place of one that must not be replaced: the server aborts where it compares a row that has a name twice with
//! the one that follows it. So that is deleted and the new one inserted, in one transaction.

use std::{collections::HashMap, slice};

use bson::{RawArrayBuf, rawdoc};
use mongodb::ClientSession;

use super::{
    MongoStore, no_write_errors,
    statements::{as_read, judge, write_errors},
    write_command,
};
use crate::{
    database::Result,
    store::{RowOutcome, RowWrite},
};

impl MongoStore {
    /// Writes a row in the place of one that must not be replaced.
    ///
    /// # Errors
    /// When the outcome is unknown.
    pub(super) async fn write_anew(&self, write: &RowWrite) -> Result<RowOutcome> {
        let mut held = self.begin().await?;
        let written = self.exchange(held.session(), write).await;
        held.end(&self.database, matches!(written, Ok(Some(RowOutcome::Written)))).await?;
        if let Some(outcome) = written? {
            return Ok(outcome);
        }
        let mut outcomes = HashMap::new();
        self.compare(slice::from_ref(write), &[0], &mut outcomes).await?;
        Ok(outcomes.remove(&0).unwrap_or(RowOutcome::Written))
    }

    /// Deletes and inserts; no outcome where the stored row is another one.
    async fn exchange(
        &self,
        session: &mut ClientSession,
        write: &RowWrite,
    ) -> Result<Option<RowOutcome>> {
        let deletes = RawArrayBuf::from_iter([rawdoc! { "q": as_read(write), "limit": 1 }]);
        let command = write_command("delete", &self.collection, "deletes", deletes)?;
        let reply = self.database.run_raw_command(command).session(&mut *session).await?;
        no_write_errors(&reply)?;
        if reply.get_i32("n").unwrap_or_default() != 1 {
            return Ok(None);
        }
        let rows = RawArrayBuf::from_iter([write.row.clone()]);
        let command = write_command("insert", &self.collection, "documents", rows)?;
        let reply = self.database.run_raw_command(command).session(&mut *session).await?;
        match write_errors(&reply).next() {
            None => Ok(Some(RowOutcome::Written)),
            Some((_, error)) => judge(error),
        }
    }
}
