//! Projected documents on MongoDB: new ones inserted, others replaced where their version still is
//! what was read.

use std::collections::HashMap;

use bson::{Bson, Document, RawArrayBuf, RawDocument, RawDocumentBuf, doc, rawdoc};
use futures::{StreamExt, TryStreamExt, stream};
use mongodb::options::ReadConcern;

use super::{MongoStore, MongoVersions, update_statement};
use crate::{
    database::{Error, Result},
    model::id::{DocumentId, IdError, integral},
    store::{Documents, RowOutcome, RowWrite},
};

/// The most rows in one command.
const STATEMENTS_MAX: usize = 1_000;
/// The most bytes of rows in one command: below the 16 MB of a message, with room for the filters. One
/// larger row still goes alone.
const STATEMENT_BYTES_MAX: usize = 8 << 20;
/// How many commands are under way at once. Two and more let the server work on both sides of a
/// round trip; beyond four nothing is gained (benches/README.md).
const CONNECTIONS: usize = 4;

/// The server's code for a key that exists.
pub(super) const DUPLICATE_KEY: i32 = 11000;

/// Codes under which the server refuses one row for good, whatever is tried: a unique index of the user's, a
/// validator, a text, geo or wildcard index, a state nested too deeply, a row too large.
const REFUSALS: [i32; 8] = [DUPLICATE_KEY, 121, 171, 16755, 15, 10334, 17280, 17419];

impl Documents for MongoStore {
    type Versions = MongoVersions;

    async fn versions(&self, after: Option<&DocumentId>) -> Result<MongoVersions> {
        self.walk_versions(after).await
    }

    async fn load(&self, ids: &[DocumentId]) -> Result<Vec<RawDocumentBuf>> {
        let ids: Vec<Bson> = ids.iter().map(DocumentId::to_bson).collect();
        let rows = self
            .documents
            .find(doc! { "_id": { "$in": ids } })
            .read_concern(ReadConcern::majority())
            .await?;
        Ok(rows.try_collect().await?)
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

/// One command's share of the writes, by index.
struct Command {
    insert: bool,
    writes: Vec<usize>,
}

fn commands(writes: &[RowWrite]) -> Vec<Command> {
    let mut commands = Vec::new();
    for insert in [true, false] {
        let mut bytes = 0;
        let mut share = Vec::new();
        for (index, write) in writes.iter().enumerate().filter(|(_, w)| (w.expected == 0) == insert)
        {
            let size = write.row.as_bytes().len();
            if !share.is_empty()
                && (share.len() == STATEMENTS_MAX || bytes + size > STATEMENT_BYTES_MAX)
            {
                commands.push(Command { insert, writes: std::mem::take(&mut share) });
                bytes = 0;
            }
            bytes += size;
            share.push(index);
        }
        if !share.is_empty() {
            commands.push(Command { insert, writes: share });
        }
    }
    commands
}

impl MongoStore {
    /// Carries out one command. Not as a transaction, although the server would spend less on each row:
    /// one that a killed daemon leaves open holds its rows for a minute.
    async fn run(&self, writes: &[RowWrite], command: Command) -> Result<Vec<(usize, RowOutcome)>> {
        let Command { insert, writes: indexes } = command;
        let mut outcomes = HashMap::new();
        let rows = indexes.iter().map(|index| &writes[*index]);
        let reply = if insert {
            let statements = rows.map(|write| write.row.clone()).collect();
            self.bulk("insert", &self.collection, "documents", statements).await?
        } else {
            let statements: RawArrayBuf = rows.map(replacement).collect();
            self.bulk("update", &self.collection, "updates", statements).await?
        };
        for (at, error) in write_errors(&reply) {
            if let Some(outcome) = judge(error)? {
                outcomes.insert(indexes[at], outcome);
            }
        }
        // A count that is short does not say which statement missed, and an error of a key that exists may be
        // our own earlier attempt: the rows themselves tell.
        let written = usize::try_from(reply.get_i32("n").unwrap_or_default()).unwrap_or_default();
        if written + outcomes.len() < indexes.len() {
            self.compare(writes, &indexes, &mut outcomes).await?;
        }
        let outcome = |index| (index, outcomes.remove(&index).unwrap_or(RowOutcome::Written));
        Ok(indexes.into_iter().map(outcome).collect())
    }

    /// Reads the rows again: those that have not the version and the mark that were written are stale.
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

fn replacement(write: &RowWrite) -> RawDocumentBuf {
    let mut filter = rawdoc! {};
    filter.append(bson::raw::cstr!("_id"), write.id.as_raw());
    filter.append(bson::raw::cstr!("version"), write.expected);
    update_statement(filter, write.row.clone(), false)
}

fn write_errors(reply: &Document) -> impl Iterator<Item = (usize, &Document)> {
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(Bson::as_document).filter_map(|error| {
        let at = error.get_i32("index").ok()?;
        Some((usize::try_from(at).ok()?, error))
    })
}

/// What a write error says of its row; `None` when the row was merely there already.
///
/// # Errors
/// When it says nothing about the row: the server was stepping down, say.
fn judge(error: &Document) -> Result<Option<RowOutcome>> {
    let code = error.get_i32("code").unwrap_or_default();
    let reason = error.get_str("errmsg").unwrap_or("the server refused the row").to_owned();
    let key = error.get_document("keyPattern");
    if code == DUPLICATE_KEY && key.is_ok_and(|key| key.len() == 1 && key.contains_key("_id")) {
        Ok(None)
    } else if REFUSALS.contains(&code) {
        Ok(Some(RowOutcome::Rejected { code, reason }))
    } else {
        Err(Error::server(code, reason))
    }
}
