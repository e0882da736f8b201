//! What an answer of the server says of an insert: refused, taken, or nothing certain.

use bson::{Bson, Document};
use mongodb::error::{ErrorKind, WriteFailure};

use crate::database::{
    self, Verdict,
    code::{DUPLICATE_KEY, VALIDATION_FAILED},
};

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

impl From<mongodb::error::Error> for Insert {
    fn from(error: mongodb::error::Error) -> Self {
        let refused = |at, message: &str, details: &Option<Document>| {
            Self::Failed(Failure::Refused { at, reason: refusal(message, details.as_ref()) })
        };
        match &*error.kind {
            ErrorKind::Write(WriteFailure::WriteError(write)) => match write.code {
                DUPLICATE_KEY => return Self::Taken,
                VALIDATION_FAILED => return refused(0, &write.message, &write.details),
                _ => {}
            },
            ErrorKind::InsertMany(insert) => {
                match insert.write_errors.as_ref().and_then(|errors| errors.first()) {
                    Some(write) if write.code == DUPLICATE_KEY => return Self::Taken,
                    Some(write) if write.code == VALIDATION_FAILED => {
                        return refused(write.index, &write.message, &write.details);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        database::Error::from(error).into()
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
