//! What an answer of the server says of an insert: refused, taken, or nothing certain.

use crate::database::{
    self, Verdict,
    code::{DUPLICATE_KEY, VALIDATION_FAILED},
};
use bson::{Bson, Document};

/// Why one attempt did not end with a proof.
pub(super) enum Failure {
    /// The validator refuses the event at this place of what was sent.
    Refused { at: usize, reason: String },
    /// Trying again cannot help.
    Final(database::Error),
    /// It may or may not have happened.
    Unproven(database::Error),
}

impl From<database::Error> for Failure {
    fn from(error: database::Error) -> Self {
        match error.verdict() {
            Verdict::Stop(_) | Verdict::Oversized => Self::Final(error),
            _ => Self::Unproven(error),
        }
    }
}

/// What became of one insert that was not plainly acknowledged.
pub(super) enum Insert {
    /// The version exists already.
    Taken,
    /// It failed otherwise.
    Failed(Failure),
}

impl From<database::Error> for Insert {
    fn from(error: database::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Judges the reply to an insert.
pub(super) fn judge(reply: &Document) -> Result<(), Insert> {
    let first = reply.get_array("writeErrors").ok().and_then(|errors| errors.first());
    let error = |error: &Document| {
        let message = error.get_str("errmsg").unwrap_or("the insert failed");
        database::Error::server(error.get_i32("code").unwrap_or_default(), message)
    };
    if let Some(write) = first.and_then(Bson::as_document) {
        return Err(match write.get_i32("code") {
            Ok(DUPLICATE_KEY) => Insert::Taken,
            Ok(VALIDATION_FAILED) => {
                let at = write.get_i32("index").ok().and_then(|at| usize::try_from(at).ok());
                let message = write.get_str("errmsg").unwrap_or_default();
                let reason = refusal(message, write.get_document("errInfo").ok());
                Insert::Failed(Failure::Refused { at: at.unwrap_or_default(), reason })
            }
            _ => error(write).into(),
        });
    }
    match reply.get_document("writeConcernError") {
        Ok(concern) => Err(error(concern).into()),
        Err(_) => Ok(()),
    }
}

/// The server's words and, from its details, which rules were broken: the descriptions that the
/// validator gives them, or all of it where there are none.
fn refusal(message: &str, details: Option<&Document>) -> String {
    const SHOWN_BYTES_MAX: usize = 1_000;
    let Some(details) = details.and_then(|details| details.get("details")) else {
        return message.to_owned();
    };
    let mut rules = Vec::new();
    descriptions(details, &mut rules);
    let mut text = match rules.as_slice() {
        [] => details.clone().into_relaxed_extjson().to_string(),
        rules => rules.join("; "),
    };
    text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
    format!("{message}: {text}")
}

fn descriptions<'a>(details: &'a Bson, found: &mut Vec<&'a str>) {
    match details {
        Bson::Document(details) => {
            found.extend(details.get_str("description").ok());
            details.values().for_each(|value| descriptions(value, found));
        }
        Bson::Array(details) => details.iter().for_each(|value| descriptions(value, found)),
        _ => {}
    }
}
