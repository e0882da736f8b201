//! Replies to writes, read as bytes. The server cuts a long message between two bytes, at times in the middle of a
//! character, and the driver does not read such a reply.

use bson::{Document, Utf8Lossy};
use mongodb::error::{Error as DriverError, ErrorKind, Result as DriverResult};

use super::Result;

/// The reply to a command that writes. What is not text in it is replaced.
///
/// # Errors
/// When the command failed as a whole, or was not answered.
pub async fn reply_of(run: impl IntoFuture<Output = DriverResult<Document>>) -> Result<Document> {
    let error = match run.await {
        Ok(reply) => return Ok(reply),
        Err(error) => error,
    };
    match unread(&error) {
        Some(reply) if !is_failure(&reply) => Ok(reply),
        _ => Err(error.into()),
    }
}

/// The failure that the server answered in a reply that the driver could not read: its code and what it says.
pub(super) fn failure(error: &DriverError) -> Option<(i32, String)> {
    let reply = unread(error).filter(is_failure)?;
    Some((reply.get_i32("code").ok()?, reply.get_str("errmsg").unwrap_or_default().to_owned()))
}

fn unread(error: &DriverError) -> Option<Document> {
    if !is_unread(error) {
        return None;
    }
    Utf8Lossy::<Document>::try_from(&**error.server_response()?).ok().map(|Utf8Lossy(reply)| reply)
}

/// Whether the driver could not read what the server answered.
pub(super) fn is_unread(error: &DriverError) -> bool {
    matches!(
        *error.kind,
        ErrorKind::Bson(_) | ErrorKind::BsonDeserialization(_) | ErrorKind::InvalidResponse { .. }
    )
}

fn is_failure(reply: &Document) -> bool {
    match reply.get("ok") {
        Some(bson::Bson::Double(ok)) => *ok != 1.0,
        Some(bson::Bson::Int32(ok)) => *ok != 1,
        _ => true,
    }
}
