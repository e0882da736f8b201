//! The server's clock.

use bson::{DateTime, doc};
use mongodb::Database;

use super::{Error, Result};

/// What the clock of the primary shows now.
///
/// # Errors
/// When it cannot be reached.
pub async fn server_time(database: &Database) -> Result<DateTime> {
    let hello = database.run_command(doc! { "hello": 1 }).await?;
    hello
        .get_datetime("localTime")
        .copied()
        .map_err(|_| Error::damaged("the server does not tell its time (`hello.localTime`)"))
}
