//! Rows that a unique index refuses are tried again after the others of their flush: what one document takes, another may
//! have given up. And the write that tells whether a collection can be written at all.

use bson::{RawArrayBuf, RawDocumentBuf, oid::ObjectId, rawdoc};
use mongodb::ClientSession;
use tracing::debug;

use super::{
    MongoStore,
    documents::{Form, commands_of},
    no_write_errors,
    statements::{as_read, judge, rejected, write_errors},
    update_statement, write_command,
};
use crate::{
    database::{Result, code::DUPLICATE_KEY, reply_of},
    store::{RowOutcome, RowWrite},
};

/// How often the rows are gone through again, while that helps any.
const PASSES_MAX: usize = 32;
/// The most rows that are exchanged, and their bytes.
const EXCHANGED_ROWS_MAX: usize = 100;
const EXCHANGED_BYTES_MAX: usize = 8 << 20;

/// What became of an exchange.
enum Exchanged {
    /// All rows are written.
    All,
    /// Nothing is written, because of this row, of which that is to be said.
    Without(usize, RowOutcome),
    /// Nothing is written: a stored row is another than was expected.
    Stale,
}

impl MongoStore {
    /// Tries again what a unique index refused, for as long as that helps.
    pub(super) async fn try_again(
        &self,
        writes: &[RowWrite],
        outcomes: &mut [RowOutcome],
    ) -> Result<()> {
        let mut left: Vec<usize> =
            (0..writes.len()).filter(|index| is_taken(&outcomes[*index])).collect();
        let mut before = writes.len();
        for _ in 0..PASSES_MAX {
            if left.is_empty() || left.len() == before {
                break;
            }
            before = left.len();
            // Values that go from row to row go in this order or in the other one.
            left.reverse();
            let form = |write: &RowWrite| match write.expected {
                0 => Form::Insert,
                _ => Form::OneByOne,
            };
            for command in commands_of(writes, left.iter().copied(), form) {
                for (index, outcome) in self.run(writes, command).await? {
                    outcomes[index] = outcome;
                }
            }
            left.retain(|index| is_taken(&outcomes[*index]));
        }
        self.exchange_some(writes, left, outcomes).await
    }

    /// Rows that wait for each other's values are exchanged: all that are left, then all but one that is refused even so,
    /// until the others pass or none are left.
    async fn exchange_some(
        &self,
        writes: &[RowWrite],
        mut left: Vec<usize>,
        outcomes: &mut [RowOutcome],
    ) -> Result<()> {
        left.truncate(EXCHANGED_ROWS_MAX);
        let mut bytes = 0;
        left.retain(|index| {
            bytes += writes[*index].row.as_bytes().len();
            bytes <= EXCHANGED_BYTES_MAX
        });
        // What is new has nothing to give up.
        while left.len() > 1 && left.iter().any(|index| writes[*index].expected != 0) {
            let rows: Vec<&RowWrite> = left.iter().map(|index| &writes[*index]).collect();
            match self.exchange(&rows).await {
                Ok(Exchanged::All) => {
                    left.iter().for_each(|index| outcomes[*index] = RowOutcome::Written);
                    return Ok(());
                }
                Ok(Exchanged::Without(at, _)) => drop(left.remove(at)),
                Ok(Exchanged::Stale) => return Ok(()),
                Err(error) if error.code().is_some() => {
                    debug!(%error, "rows could not be exchanged");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes a row in the place of one that must not be replaced: the server aborts where it compares a row that has a
    /// name twice with the one that follows it.
    ///
    /// # Errors
    /// When the outcome is unknown, or the collection takes no write.
    pub(super) async fn write_anew(&self, write: &RowWrite) -> Result<RowOutcome> {
        match self.exchange(&[write]).await {
            Ok(Exchanged::All) => Ok(RowOutcome::Written),
            Ok(Exchanged::Without(_, outcome)) => Ok(outcome),
            Ok(Exchanged::Stale) => self.compare_one(write).await,
            Err(error) if error.may_be_of_what_was_sent() => match self.probe(true).await {
                Ok(()) => Ok(rejected(&error)),
                Err(_) => Err(error.of_collection()),
            },
            Err(error) => Err(error),
        }
    }

    /// Deletes the stored rows and inserts the new ones, all of them or none.
    async fn exchange(&self, rows: &[&RowWrite]) -> Result<Exchanged> {
        let mut held = self.begin().await?;
        let exchanged = self.exchange_in(held.session(), rows).await;
        held.end(&self.database, matches!(exchanged, Ok(Exchanged::All))).await?;
        exchanged
    }

    async fn exchange_in(
        &self,
        session: &mut ClientSession,
        rows: &[&RowWrite],
    ) -> Result<Exchanged> {
        let stored = rows.iter().filter(|write| write.expected != 0);
        let deletes: Vec<RawDocumentBuf> =
            stored.map(|write| rawdoc! { "q": as_read(write), "limit": 1 }).collect();
        if !deletes.is_empty() {
            let count = deletes.len();
            let deletes = RawArrayBuf::from_iter(deletes);
            let command = write_command("delete", &self.collection, "deletes", deletes)?;
            let run = self.database.run_raw_command(command).session(&mut *session);
            let reply = reply_of(run).await?;
            no_write_errors(&reply)?;
            if usize::try_from(reply.get_i32("n").unwrap_or_default()) != Ok(count) {
                return Ok(Exchanged::Stale);
            }
        }
        let inserts = RawArrayBuf::from_iter(rows.iter().map(|write| write.row.clone()));
        let command = write_command("insert", &self.collection, "documents", inserts)?;
        let reply = reply_of(self.database.run_raw_command(command).session(&mut *session)).await?;
        match write_errors(&reply).next() {
            None => Ok(Exchanged::All),
            Some((at, error)) => Ok(match judge(error)? {
                Some(outcome) if at < rows.len() => Exchanged::Without(at, outcome),
                _ => Exchanged::Stale,
            }),
        }
    }

    /// Tells whether the collection takes any write of this kind: a row that is nobody's is written and taken back.
    ///
    /// # Errors
    /// When it does not, or is away.
    pub(super) async fn probe(&self, is_insert: bool) -> Result<()> {
        // No document has such an id.
        let row = rawdoc! { "_id": { "probe": ObjectId::new() } };
        let command = match is_insert {
            true => {
                let rows = RawArrayBuf::from_iter([row]);
                write_command("insert", &self.collection, "documents", rows)?
            }
            false => {
                let statement = update_statement(row.clone(), row, true);
                let statements = RawArrayBuf::from_iter([statement]);
                write_command("update", &self.collection, "updates", statements)?
            }
        };
        let mut held = self.begin().await?;
        let reply = reply_of(self.database.run_raw_command(command).session(held.session())).await;
        held.end(&self.database, false).await?;
        match write_errors(&reply?).next() {
            // Refused as a row is: it was looked at.
            Some((_, error)) => judge(error).map(drop),
            None => Ok(()),
        }
    }
}

/// Whether a unique index has refused a row: another row has what it takes.
fn is_taken(outcome: &RowOutcome) -> bool {
    matches!(outcome, RowOutcome::Rejected { code: DUPLICATE_KEY, .. })
}
