//! Commands on a log, built in one place. Each of them says with `collectionUUID` which collection it means, and not only
//! what that is called: the server refuses it while the log has another name, when it was dropped, and when another one
//! has its name. `count`, `collMod`, `create` and change streams do not take the field.

use bson::{
    Document, RawBson, RawDocumentBuf, Timestamp, doc,
    raw::{CStr, cstr},
    rawdoc,
};
use futures::TryStreamExt;
use mongodb::{
    Database,
    options::{ReadPreference, SelectionCriteria},
    raw_batch_cursor::RawBatchCursor,
};

use crate::{
    database::{Error, Result, code, is_retryable_read},
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

    /// Runs a write command at majority. Errors of single statements with one of the codes `expected` are none.
    ///
    /// # Errors
    /// Code [`code::LOG_MISMATCH`] when the log is away, gone, or another one.
    pub async fn write(
        &self,
        verb: &CStr,
        mut fields: RawDocumentBuf,
        expected: &[i32],
    ) -> Result<()> {
        fields.append(cstr!("writeConcern"), rawdoc! { "w": "majority" });
        let command = self.command(verb, &fields)?;
        let reply = self.database.run_raw_command(command).await;
        match first_error(&reply.map_err(|error| self.told(error))?, expected) {
            Some(error) => Err(self.told(error)),
            None => Ok(()),
        }
    }

    /// The error, in words of ours where it says that this log is not there under its name.
    fn told(&self, error: impl Into<Error>) -> Error {
        let error = error.into();
        match error.code() {
            Some(code::LOG_MISMATCH) => Error::log_mismatch(&self.events, self.id),
            _ => error,
        }
    }
}

/// The first error in the reply to a write.
fn first_error(reply: &Document, expected: &[i32]) -> Option<Error> {
    let code = |error: &Document| error.get_i32("code").unwrap_or_default();
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let errors = errors.iter().filter_map(bson::Bson::as_document);
    let errors = errors.filter(|error| !expected.contains(&code(error)));
    let refused = reply.get_document("writeConcernError").ok();
    let error = errors.chain(refused).next()?;
    Some(Error::server(code(error), error.get_str("errmsg").unwrap_or("a write failed")))
}

/// A read concern: majority, and not older than `at_least`.
pub(super) fn majority(at_least: Option<Timestamp>) -> RawDocumentBuf {
    let mut concern = rawdoc! { "level": "majority" };
    if let Some(time) = at_least {
        concern.append(cstr!("afterClusterTime"), time);
    }
    concern
}

fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}
