//! The server's clock, and its place in the oplog.

use bson::{DateTime, Timestamp, doc};
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

/// The newest operation that the primary knows. A majority read that is to be no older sees everything that was acknowledged
/// before this call.
///
/// # Errors
/// When it cannot be reached.
pub async fn operation_time(database: &Database) -> Result<Timestamp> {
    let mut session = database.client().start_session().causal_consistency(true).await?;
    database.run_command(doc! { "ping": 1 }).session(&mut session).await?;
    session.operation_time().ok_or_else(|| {
        Error::damaged("the server answers without an operationTime: it is no replica set member")
    })
}
