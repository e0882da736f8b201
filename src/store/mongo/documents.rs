//! Projected documents on MongoDB: new ones inserted, others replaced where their version still is
//! what was read.

use std::collections::HashMap;

use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use futures::{StreamExt, TryStreamExt, stream};
use mongodb::options::ReadConcern;

use super::{
    MongoStore, MongoVersions,
    loading::load_some,
    statements::{judge, replacement, replacement_of_many, write_errors},
    write_command,
};
use crate::{
    database::{Error, Result},
    model::id::{DocumentId, IdError, integral},
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
        Ok(outcomes)
    }
}

/// How the rows of a command are written.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// There is no row yet.
    Insert,
    /// Many rows by one statement.
    Together,
    /// A statement for each row: for large ones, and to learn which one the server refuses.
    OneByOne,
}

/// One command's share of the writes, by index.
struct Command {
    form: Form,
    writes: Vec<usize>,
}

fn commands(writes: &[RowWrite]) -> Vec<Command> {
    let form = |write: &RowWrite| match write.row.as_bytes().len() {
        _ if write.expected == 0 => Form::Insert,
        ..=TOGETHER_BYTES_MAX => Form::Together,
        _ => Form::OneByOne,
    };
    let mut commands = Vec::new();
    for kind in [Form::Insert, Form::Together, Form::OneByOne] {
        let mut bytes = 0;
        let mut share = Vec::new();
        for (index, write) in writes.iter().enumerate().filter(|(_, write)| form(write) == kind) {
            let size = write.row.as_bytes().len();
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
    /// Carries out one command.
    async fn run(&self, writes: &[RowWrite], command: Command) -> Result<Vec<(usize, RowOutcome)>> {
        let Command { form, writes: indexes } = command;
        let rows: Vec<&RowWrite> = indexes.iter().map(|index| &writes[*index]).collect();
        if form == Form::Together {
            if let Some(reply) = self.replace_in_transaction(&rows).await? {
                return self.outcomes(writes, indexes, &reply, "nModified").await;
            }
            let statements = rows.chunks(TOGETHER_ROWS_MAX).map(replacement_of_many).collect();
            let reply = self.bulk("update", &self.collection, "updates", statements).await?;
            // An error ends its statement, and does not say at which of the rows: write them one by one
            // below.
            if write_errors(&reply).next().is_none() {
                return self.outcomes(writes, indexes, &reply, "nModified").await;
            }
        }
        let (reply, counted) = if form == Form::Insert {
            let statements = rows.iter().map(|write| write.row.clone()).collect();
            (self.bulk("insert", &self.collection, "documents", statements).await?, "n")
        } else {
            let statements = rows.iter().map(|write| replacement(write)).collect();
            (self.bulk("update", &self.collection, "updates", statements).await?, "n")
        };
        self.outcomes(writes, indexes, &reply, counted).await
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

    /// Reads the rows again. A row is stale if it does not have the version and the mark that were to
    /// be written.
    async fn compare(
        &self,
        writes: &[RowWrite],
        indexes: &[usize],
        outcomes: &mut HashMap<usize, RowOutcome>,
    ) -> Result<()> {
        let ids: Vec<Bson> = indexes.iter().map(|index| writes[*index].id.to_bson()).collect();
        let rows: Vec<RawDocumentBuf> = self
            .documents
            .find(doc! { "_id": { "$in": ids } })
            .projection(doc! { "version": 1, "quarantine": 1 })
            .read_concern(ReadConcern::majority())
            .await?
            .try_collect()
            .await?;
        let mut found: HashMap<DocumentId, &RawDocument> = HashMap::new();
        for row in &rows {
            let id = row.get("_id")?.and_then(|id| DocumentId::from_raw(id).ok());
            found.extend(id.map(|id| (id, &**row)));
        }
        for index in indexes {
            let write = &writes[*index];
            let same = match found.get(&write.id) {
                Some(row) => {
                    row.get("version")?.and_then(integral) == Some(write.version)
                        && row.get("quarantine")? == write.row.get("quarantine")?
                }
                None => false,
            };
            if !same {
                outcomes.entry(*index).or_insert(RowOutcome::Stale);
            }
        }
        Ok(())
    }
}

pub(super) fn foreign(collection: &str, error: &IdError) -> Error {
    Error::damaged(format!("a row of `{collection}` was not written by this program: {error}"))
}
