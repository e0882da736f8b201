//! Projected documents on MongoDB: new ones inserted, others replaced where their version still is
//! what was read.

use std::{collections::HashMap, slice};

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::{StreamExt, TryStreamExt, stream};
use mongodb::options::ReadConcern;
use tracing::debug;

use super::{
    MongoStore, MongoVersions,
    loading::load_some,
    statements::{judge, rejected, replacement, replacement_of_many, write_errors},
    write_command,
};
use crate::{
    database::{Error, Result},
    model::{id::DocumentId, position::RowsId},
    store::{Documents, Extent, Loaded, RowOutcome, RowWrite},
};

/// The most rows in one command.
const STATEMENTS_MAX: usize = 1_000;
/// The most bytes of rows in one command. A command exists in a few copies until it is sent. A larger
/// row goes alone.
const STATEMENT_BYTES_MAX: usize = 2 << 20;
/// The most rows of one statement: each row is looked up among them.
const TOGETHER_ROWS_MAX: usize = 64;
/// The largest row that shares a statement.
const TOGETHER_BYTES_MAX: usize = 1 << 20;
/// The fewest rows that are written in a transaction, which takes one more round trip.
const TRANSACTION_ROWS_MIN: usize = 100;
/// How many commands are under way at once. Two and more let the server work on both sides of a
/// round trip; beyond four nothing is gained (benches/README.md).
const CONNECTIONS: usize = 4;

impl Documents for MongoStore {
    type Versions = MongoVersions;

    async fn versions(&self, after: Option<&DocumentId>, extent: Extent) -> Result<MongoVersions> {
        self.walk_versions(after, extent).await
    }

    async fn rows_id(&self) -> Result<Option<RowsId>> {
        let look = self.database.list_collections().filter(doc! { "name": &self.collection });
        let found = look.await?.try_next().await?;
        let uuid = found.and_then(|found| found.info.uuid?.to_uuid().ok());
        Ok(uuid.map(RowsId))
    }

    async fn load(&self, ids: &[DocumentId]) -> Result<Vec<RawDocumentBuf>> {
        let ids: Vec<Bson> = ids.iter().map(DocumentId::to_bson).collect();
        let mut session = self.causal.session().await?;
        let mut rows = self
            .documents
            .find(doc! { "_id": { "$in": ids } })
            .read_concern(ReadConcern::majority())
            .session(&mut session)
            .await?;
        let rows = rows.stream(&mut session).try_collect().await?;
        self.causal.observe(&session);
        Ok(rows)
    }

    async fn load_some(&self, ids: &[DocumentId]) -> Result<Loaded> {
        load_some(&self.documents, &self.causal, ids).await
    }

    async fn write(&self, writes: &[RowWrite]) -> Result<Vec<RowOutcome>> {
        let mut outcomes = vec![RowOutcome::Stale; writes.len()];
        let mut done = stream::iter(commands(writes))
            .map(|command| async move { self.run(writes, command).await })
            .buffer_unordered(CONNECTIONS);
        while let Some(result) = done.next().await {
            for (index, outcome) in result? {
                outcomes[index] = outcome;
            }
        }
        drop(done);
        for (write, outcome) in writes.iter().zip(&mut outcomes) {
            if write.is_unsound {
                *outcome = self.write_anew(write).await?;
            }
        }
        self.try_again(writes, &mut outcomes).await?;
        Ok(outcomes)
    }
}

/// How the rows of a command are written.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// There is no row yet.
    Insert,
    /// Many rows by one statement.
    Together,
    /// A statement for each row: for large ones, and to learn which one the server refuses.
    OneByOne,
}

/// One command's share of the writes, by index.
pub(super) struct Command {
    pub(super) form: Form,
    pub(super) writes: Vec<usize>,
}

impl Command {
    /// The same rows in two commands, if there is more than one.
    fn halves(mut self) -> Result<[Self; 2], usize> {
        match *self.writes.as_slice() {
            [only] => Err(only),
            _ => {
                let upper = self.writes.split_off(self.writes.len() / 2);
                Ok([Self { form: self.form, writes: upper }, self])
            }
        }
    }
}

/// Divides the writes among commands.
fn commands(writes: &[RowWrite]) -> Vec<Command> {
    // What must not be replaced is written by itself.
    let indexes = (0..writes.len()).filter(|index| !writes[*index].is_unsound);
    commands_of(writes, indexes, |write| match write.row.as_bytes().len() {
        _ if write.expected == 0 => Form::Insert,
        ..=TOGETHER_BYTES_MAX => Form::Together,
        _ => Form::OneByOne,
    })
}

/// Divides those writes among commands in which they keep their order.
pub(super) fn commands_of(
    writes: &[RowWrite],
    indexes: impl IntoIterator<Item = usize> + Clone,
    form: impl Fn(&RowWrite) -> Form,
) -> Vec<Command> {
    let mut commands = Vec::new();
    for kind in [Form::Insert, Form::Together, Form::OneByOne] {
        let mut bytes = 0;
        let mut share = Vec::new();
        for index in indexes.clone().into_iter().filter(|index| form(&writes[*index]) == kind) {
            let size = writes[index].row.as_bytes().len();
            if !share.is_empty()
                && (share.len() == STATEMENTS_MAX || bytes + size > STATEMENT_BYTES_MAX)
            {
                commands.push(Command { form: kind, writes: std::mem::take(&mut share) });
                bytes = 0;
            }
            bytes += size;
            share.push(index);
        }
        if !share.is_empty() {
            commands.push(Command { form: kind, writes: share });
        }
    }
    commands
}

impl MongoStore {
    /// Carries out one command. One that fails as a whole because of what it brings is divided, until the row is found
    /// that makes it fail.
    pub(super) async fn run(
        &self,
        writes: &[RowWrite],
        command: Command,
    ) -> Result<Vec<(usize, RowOutcome)>> {
        let (mut commands, mut outcomes) = (vec![command], Vec::new());
        while let Some(command) = commands.pop() {
            let rows: Vec<&RowWrite> = command.writes.iter().map(|index| &writes[*index]).collect();
            match self.send(&rows, command.form).await {
                Ok((reply, counted)) => {
                    outcomes.extend(self.outcomes(writes, command.writes, &reply, counted).await?);
                }
                Err(error) if !error.may_be_of_what_was_sent() => return Err(error),
                Err(error) => match command.halves() {
                    Ok(halves) => commands.extend(halves),
                    Err(only) => {
                        outcomes.push((only, self.judge_alone(&writes[only], error).await?))
                    }
                },
            }
        }
        Ok(outcomes)
    }

    /// Sends rows; the reply, and the field of it that has the number of those that were written.
    async fn send(&self, rows: &[&RowWrite], form: Form) -> Result<(Document, &'static str)> {
        if form == Form::Together {
            if let Some(reply) = self.replace_in_transaction(rows).await? {
                return Ok((reply, "nModified"));
            }
            let statements = rows.chunks(TOGETHER_ROWS_MAX).map(replacement_of_many).collect();
            let reply = self.bulk("update", &self.collection, "updates", statements).await?;
            // An error ends its statement, and does not say at which of the rows: write them one by one
            // below.
            if write_errors(&reply).next().is_none() {
                return Ok((reply, "nModified"));
            }
        }
        self.send_one_by_one(rows, form == Form::Insert).await
    }

    /// Sends rows, each as a statement of its own.
    async fn send_one_by_one(
        &self,
        rows: &[&RowWrite],
        are_new: bool,
    ) -> Result<(Document, &'static str)> {
        let reply = if are_new {
            let statements = rows.iter().map(|write| write.row.clone()).collect();
            self.bulk("insert", &self.collection, "documents", statements).await?
        } else {
            let statements = rows.iter().map(|write| replacement(write)).collect();
            self.bulk("update", &self.collection, "updates", statements).await?
        };
        Ok((reply, "n"))
    }

    /// What becomes of a row with which alone a command failed as a whole: it is refused if another write of the same
    /// kind passes, and the row fails once more after that.
    ///
    /// # Errors
    /// When no other write passes either: it is the collection's trouble, and no row is refused for it.
    async fn judge_alone(&self, write: &RowWrite, failed: Error) -> Result<RowOutcome> {
        if let Err(error) = self.probe(write.expected == 0).await {
            debug!(%error, "nothing can be written");
            return Err(failed.of_collection());
        }
        match self.send_one_by_one(&[write], write.expected == 0).await {
            Ok((reply, counted)) => {
                let judged =
                    self.outcomes(slice::from_ref(write), vec![0], &reply, counted).await?;
                Ok(judged.into_iter().next().map_or(RowOutcome::Stale, |(_, outcome)| outcome))
            }
            Err(error) if error.may_be_of_what_was_sent() => Ok(rejected(&error)),
            Err(error) => Err(error),
        }
    }

    /// Replaces rows in a transaction, unless there are too few for that, or the server refuses it.
    async fn replace_in_transaction(&self, rows: &[&RowWrite]) -> Result<Option<Document>> {
        let Some(transactions) = &self.transactions else { return Ok(None) };
        if rows.len() < TRANSACTION_ROWS_MIN {
            return Ok(None);
        }
        let statements = rows.chunks(TOGETHER_ROWS_MAX).map(replacement_of_many).collect();
        let command = write_command("update", &self.collection, "updates", statements)?;
        transactions.run(&self.database, command).await
    }

    /// Finds out from a reply what became of each row. `counted` names the field with the number of
    /// rows that were written.
    async fn outcomes(
        &self,
        writes: &[RowWrite],
        indexes: Vec<usize>,
        reply: &Document,
        counted: &str,
    ) -> Result<Vec<(usize, RowOutcome)>> {
        let mut outcomes = HashMap::new();
        for (at, error) in write_errors(reply) {
            if let Some(outcome) = judge(error)? {
                outcomes.insert(indexes[at], outcome);
            }
        }
        // When fewer rows were written than sent, the reply does not say which. And a key that exists
        // may come from our own earlier attempt. So read the rows again.
        let written = usize::try_from(reply.get_i32(counted).unwrap_or_default());
        if written.unwrap_or_default() + outcomes.len() < indexes.len() {
            self.compare(writes, &indexes, &mut outcomes).await?;
        }
        let outcome = |index| (index, outcomes.remove(&index).unwrap_or(RowOutcome::Written));
        Ok(indexes.into_iter().map(outcome).collect())
    }

    /// What became of a row that was not written because another one is stored.
    pub(super) async fn compare_one(&self, write: &RowWrite) -> Result<RowOutcome> {
        let mut outcomes = HashMap::new();
        self.compare(slice::from_ref(write), &[0], &mut outcomes).await?;
        Ok(outcomes.remove(&0).unwrap_or(RowOutcome::Stale))
    }

    /// Reads the rows again of which nothing is known. A row that is not, byte for byte, what was to be written is stale:
    /// another one may have its version.
    async fn compare(
        &self,
        writes: &[RowWrite],
        indexes: &[usize],
        outcomes: &mut HashMap<usize, RowOutcome>,
    ) -> Result<()> {
        let open = indexes.iter().filter(|index| !outcomes.contains_key(index));
        let open: HashMap<DocumentId, usize> =
            open.map(|index| (writes[*index].id.clone(), *index)).collect();
        outcomes.extend(open.values().map(|index| (*index, RowOutcome::Stale)));
        let ids: Vec<Bson> = open.keys().map(DocumentId::to_bson).collect();
        let find = self.documents.find(doc! { "_id": { "$in": ids } });
        let mut rows = find.read_concern(ReadConcern::majority()).await?;
        while let Some(row) = rows.try_next().await? {
            let id = row.get("_id")?.and_then(|id| DocumentId::from_raw(id).ok());
            let Some(index) = id.and_then(|id| open.get(&id)) else { continue };
            if row.as_bytes() == writes[*index].row.as_bytes() {
                outcomes.insert(*index, RowOutcome::Written);
            }
        }
        Ok(())
    }
}
