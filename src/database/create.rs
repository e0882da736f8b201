//! Making collections that are missing, and refusing existing ones that cannot serve. Safe when
//! several processes do it at once: whoever comes second finds the collection and checks it.

use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::Database;

use super::{Error, Result, Verdict, code};

/// What was done, and what an operator should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The collections that were made.
    pub created: Vec<String>,
    /// The collections whose validator was replaced.
    pub updated: Vec<String>,
    /// Sentences, each with what to do.
    pub warnings: Vec<String>,
}

/// Why the collections cannot be used. Each message says what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    /// A collection of the name exists and is of a kind that cannot serve.
    #[error(
        "`{collection}` is {kind}, which cannot be used; rename it, drop it, or give the collection \
         another name in the configuration"
    )]
    Kind {
        /// The MongoDB collection.
        collection: String,
        /// What it is.
        kind: &'static str,
    },
    /// The collection holds documents of somebody else.
    #[error(
        "`{collection}` holds documents that alluvium did not write (one has the _id {id}); rename \
         that collection, or give the projection another name in the configuration"
    )]
    Foreign {
        /// The MongoDB collection.
        collection: String,
        /// The `_id` of such a document.
        id: String,
    },
    /// The data was written by a later version of the program.
    #[error(transparent)]
    Newer(#[from] NewerFormat),
    /// The server lets no command say which collection it means.
    #[error(
        "the server does not check `collectionUUID` in a command on `{collection}` ({reason}), and without that a log \
         that is renamed or dropped would read as empty; use MongoDB 6.0 or later, and leave out apiStrict"
    )]
    Unnamed {
        /// The MongoDB collection.
        collection: String,
        /// What the server said to such a command.
        reason: String,
    },
    /// A command failed.
    #[error("`{collection}`: {error}; {}", .error.advice())]
    Database {
        /// The MongoDB collection.
        collection: String,
        /// What failed.
        error: Error,
    },
}

/// The data is in a format that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the data is in format {found}, and this version knows formats up to {known}; install the \
     version of alluvium that wrote it, or a later one"
)]
pub struct NewerFormat {
    /// The format found.
    pub found: i64,
    /// The latest format that this version knows.
    pub known: i64,
}

impl CreateError {
    /// Whether it may pass by itself, so that waiting is of use.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Database { error, .. } => error.verdict() == Verdict::Retry,
            Self::Kind { .. }
            | Self::Foreign { .. }
            | Self::Newer { .. }
            | Self::Unnamed { .. } => false,
        }
    }

    /// Makes a database error one that names the collection.
    pub fn on<E: Into<Error>>(collection: &str) -> impl Fn(E) -> Self {
        move |error| Self::Database { collection: collection.to_owned(), error: error.into() }
    }
}

/// What became of a collection.
#[derive(Clone, Debug, PartialEq)]
pub enum Ensured {
    /// It was missing and has been made.
    Created,
    /// It was there, with these options.
    Existed(Document),
}

/// Refuses a collection that exists and cannot serve; gives the options of one that can, `None` when there is none.
///
/// # Errors
/// [`CreateError::Kind`] for a view, a time-series or capped collection, and one with a collation.
pub async fn inspect(database: &Database, name: &str) -> Result<Option<Document>, CreateError> {
    let found = describe(database, name).await.map_err(CreateError::on(name))?;
    let Some((kind, options)) = found else { return Ok(None) };
    let kind = match kind.as_str() {
        "view" => "a view",
        "timeseries" => "a time-series collection",
        _ if options.get_bool("capped").unwrap_or(false) => "a capped collection",
        _ if options.contains_key("collation") => "a collection with a collation",
        _ => return Ok(Some(options)),
    };
    Err(CreateError::Kind { collection: name.to_owned(), kind })
}

/// Makes a collection with these options unless it exists.
///
/// # Errors
/// [`CreateError`] when it exists and cannot serve, or the server refuses.
pub async fn ensure(
    database: &Database,
    name: &str,
    options: Document,
) -> Result<Ensured, CreateError> {
    if let Some(options) = inspect(database, name).await? {
        return Ok(Ensured::Existed(options));
    }
    let mut command = doc! { "create": name };
    command.extend(options);
    command.insert("writeConcern", doc! { "w": "majority" });
    match database.run_command(command).await.map_err(Error::from) {
        Ok(_) => Ok(Ensured::Created),
        Err(error) if error.code() == Some(code::NAMESPACE_EXISTS) => {
            match inspect(database, name).await? {
                Some(options) => Ok(Ensured::Existed(options)),
                None => Err(CreateError::Database { collection: name.to_owned(), error }),
            }
        }
        Err(error) => Err(CreateError::Database { collection: name.to_owned(), error }),
    }
}

/// The options of a collection that is clustered on `_id`.
pub fn clustered() -> Document {
    doc! { "clusteredIndex": { "key": { "_id": 1 }, "unique": true, "name": "_id" } }
}

/// The type and options of a collection.
async fn describe(database: &Database, name: &str) -> Result<Option<(String, Document)>> {
    let list = doc! { "listCollections": 1, "filter": { "name": name } };
    let mut cursor = database.run_cursor_command(list).await?;
    let Some(entry) = cursor.try_next().await? else { return Ok(None) };
    let kind = entry.get_str("type").unwrap_or("collection").to_owned();
    Ok(Some((kind, entry.get_document("options").cloned().unwrap_or_default())))
}
