//! Commands on a log, built in one place. Each of them says with `collectionUUID` which collection it means, and not only
//! what that is called: the server refuses it while the log has another name, when it was dropped, and when another one
//! has its name. `count`, `collMod`, `create` and change streams do not take the field.

use bson::{
    Document, RawBson, RawDocumentBuf, Timestamp, Uuid, doc,
    raw::{CStr, cstr},
    rawdoc,
};
use futures::TryStreamExt;
use mongodb::{
    ClientSession, Database,
    options::{ReadPreference, SelectionCriteria},
    raw_batch_cursor::{RawBatchCursor, SessionRawBatchCursor},
};

use crate::{
    database::{Error, Result, code, is_retryable_read, reply_of},
    log::events_collection,
    model::position::LogId,
};

/// How often a read is sent, if the first attempt met a broken connection or a server that is no longer the primary. The
/// driver does the same for reads that it builds itself.
const READ_ATTEMPTS: usize = 2;

/// One log, and how to name it in a command. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NamedLog {
    database: Database,
    events: String,
    id: LogId,
}

impl NamedLog {
    /// The log that `collection` has now, or `None` if there is no such collection.
    ///
    /// # Errors
    /// When the database refuses, or the collection is a view.
    pub async fn open(database: &Database, collection: &str) -> Result<Option<Self>> {
        let events = events_collection(collection);
        let look = database.list_collections().filter(doc! { "name": &events });
        let Some(spec) = look.await?.try_next().await? else { return Ok(None) };
        match spec.info.uuid.map(|binary| binary.to_uuid()) {
            Some(Ok(uuid)) => {
                Ok(Some(Self { database: database.clone(), events, id: LogId(uuid) }))
            }
            _ => Err(Error::damaged(format!("`{events}` has no UUID: is it a view?"))),
        }
    }

    /// Makes sure that the server looks at the identity in a command, by a read that names another one.
    ///
    /// # Errors
    /// What the server said instead of refusing it.
    pub async fn check(database: &Database, collection: &str) -> Result<(), String> {
        let events = events_collection(collection);
        let nobody = Self { database: database.clone(), events, id: LogId(Uuid::new()) };
        let find = rawdoc! { "limit": 1, "singleBatch": true };
        match nobody.cursor(cstr!("find"), &find, 1).await {
            Err(error) if error.code() == Some(code::LOG_MISMATCH) => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("it found a collection of another UUID".into()),
        }
    }

    /// Which log it is.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The name of the collection when it was opened.
    pub fn events(&self) -> &str {
        &self.events
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// A command on this log: `verb`, then `fields`.
    fn command(&self, verb: &CStr, fields: &RawDocumentBuf) -> Result<RawDocumentBuf> {
        let mut command = RawDocumentBuf::new();
        command.append(verb, self.events.as_str());
        for field in fields {
            let (name, value) = field?;
            command.append(name, value);
        }
        command.append(cstr!("collectionUUID"), RawBson::Binary(self.id.0.into()));
        Ok(command)
    }

    /// Runs a command that answers with a cursor, whose later batches have at most `batch` documents.
    ///
    /// # Errors
    /// Code [`code::LOG_MISMATCH`] when the log is away, gone, or another one.
    pub async fn cursor(
        &self,
        verb: &CStr,
        fields: &RawDocumentBuf,
        batch: u32,
    ) -> Result<RawBatchCursor> {
        let command = self.command(verb, fields)?;
        let mut attempts = 1;
        loop {
            let run = self.database.run_raw_cursor_command(command.clone());
            match run.selection_criteria(primary()).batch_size(batch).batch().await {
                Err(error) if attempts < READ_ATTEMPTS && is_retryable_read(&error) => {
                    attempts += 1
                }
                opened => return opened.map_err(|error| self.told(error)),
            }
        }
    }

    /// The same in a session. One for reads of one moment says itself what is read; in one that is causally consistent
    /// the command has to say after what, since the driver does so only for commands of its own.
    ///
    /// # Errors
    /// Code [`code::LOG_MISMATCH`] when the log is away, gone, or another one.
    pub async fn cursor_in(
        &self,
        session: &mut ClientSession,
        verb: &CStr,
        fields: &RawDocumentBuf,
        batch: u32,
    ) -> Result<SessionRawBatchCursor> {
        let command = self.command(verb, fields)?;
        let mut attempts = 1;
        loop {
            let run = self.database.run_raw_cursor_command(command.clone()).batch_size(batch);
            match run.selection_criteria(primary()).session(&mut *session).batch().await {
                Err(error) if attempts < READ_ATTEMPTS && is_retryable_read(&error) => {
                    attempts += 1;
                }
                opened => return opened.map_err(|error| self.told(error)),
            }
        }
    }

    /// Runs a command in a session, and gives the reply: what it says of single statements is left to the caller.
    ///
    /// # Errors
    /// Code [`code::LOG_MISMATCH`] when the log is away, gone, or another one.
    pub async fn run_in(
        &self,
        session: &mut ClientSession,
        verb: &CStr,
        fields: &RawDocumentBuf,
    ) -> Result<Document> {
        let command = self.command(verb, fields)?;
        let run = self.database.run_raw_command(command).session(session);
        let reply = reply_of(run).await.map_err(|error| self.told(error))?;
        // A write is refused in the part of its reply that is about single statements.
        match first_error(&reply, |_| false) {
            Some(error) if error.code() == Some(code::LOG_MISMATCH) => Err(self.told(error)),
            _ => Ok(reply),
        }
    }

    /// Runs a write command at majority. Errors of single statements that are `expected` are none.
    ///
    /// # Errors
    /// Code [`code::LOG_MISMATCH`] when the log is away, gone, or another one.
    pub async fn write(
        &self,
        verb: &CStr,
        mut fields: RawDocumentBuf,
        expected: fn(&Document) -> bool,
    ) -> Result<()> {
        fields.append(cstr!("writeConcern"), rawdoc! { "w": "majority" });
        let command = self.command(verb, &fields)?;
        let reply = reply_of(self.database.run_raw_command(command)).await;
        match first_error(&reply.map_err(|error| self.told(error))?, expected) {
            Some(error) => Err(self.told(error)),
            None => Ok(()),
        }
    }

    /// The error, in words of ours where it says that this log is not there under its name.
    pub(in crate::log) fn told(&self, error: impl Into<Error>) -> Error {
        let error = error.into();
        match error.code() {
            Some(code::LOG_MISMATCH) => Error::log_mismatch(&self.events, self.id),
            _ => error,
        }
    }
}

/// The first error in the reply to a write.
fn first_error(reply: &Document, expected: fn(&Document) -> bool) -> Option<Error> {
    let code = |error: &Document| error.get_i32("code").unwrap_or_default();
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let errors = errors.iter().filter_map(bson::Bson::as_document);
    let errors = errors.filter(|error| !expected(error));
    let refused = reply.get_document("writeConcernError").ok();
    let error = errors.chain(refused).next()?;
    Some(Error::server(code(error), error.get_str("errmsg").unwrap_or("a write failed")))
}

/// A read concern: majority, and not older than `at_least`.
pub(in crate::log) fn majority(at_least: Option<Timestamp>) -> RawDocumentBuf {
    let mut concern = rawdoc! { "level": "majority" };
    if let Some(time) = at_least {
        concern.append(cstr!("afterClusterTime"), time);
    }
    concern
}

fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}
