//! Printing: results on standard output, failures on standard error. Unlike `println!` it survives a
//! reader that has seen enough.

use std::{
    error::Error,
    io::{self, Write},
};

use bson::Bson;
use serde_json::{Value, json};

use super::Globals;
use crate::{
    database::{self, Verdict},
    import::ImportError,
    log::append::AppendError,
    model::{document::Quarantine, id::DocumentId},
    read::ReadError,
    writer::WriteError,
};

/// Prints a line.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn line(text: impl AsRef<str>) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", text.as_ref())
}

/// Prints a value as indented JSON.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn json(value: &Value) -> io::Result<()> {
    line(format!("{value:#}"))
}

/// Whether the error is that the reader of standard output has gone (`| head`).
pub(super) fn is_closed(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Says why a command failed.
pub(super) fn fail(globals: &Globals, error: &(dyn Error + 'static)) {
    let mut stderr = io::stderr().lock();
    let message = match of_database(error).map(database::Error::verdict) {
        Some(Verdict::Stop(advice)) => format!("{error}; {advice}"),
        _ => error.to_string(),
    };
    // With standard error gone there is nobody left to tell.
    drop(if globals.json {
        writeln!(stderr, "{}", json!({ "error": message }))
    } else {
        writeln!(stderr, "error: {message}")
    });
}

/// What the database has said, if that is why a command failed.
fn of_database<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a database::Error> {
    if let Some(error) = error.downcast_ref::<ImportError>() {
        return match error {
            ImportError::Database(error) => Some(error),
            ImportError::Read(error) => of_database(error),
            ImportError::Append(error) => of_database(error),
            _ => None,
        };
    }
    match error.downcast_ref::<WriteError>() {
        Some(WriteError::Append(error)) => return of_database(error),
        Some(WriteError::Read(error)) => return of_database(error),
        _ => {}
    }
    match (error.downcast_ref::<ReadError>(), error.downcast_ref::<AppendError>()) {
        (Some(ReadError::Database(error)), _) | (_, Some(AppendError::Database(error))) => {
            Some(error)
        }
        _ => error.downcast_ref::<database::Error>(),
    }
}

/// Says something beside the result, on standard error.
pub(super) fn note(text: impl AsRef<str>) {
    // With standard error gone there is nobody left to tell.
    drop(writeln!(io::stderr().lock(), "{}", text.as_ref()));
}

/// A JSON string without its quotes; anything else as JSON.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The id of a document in an answer, as every command takes it; nothing where there is none.
pub(super) fn document(told: &Value) -> String {
    let Some(value) = told.get("document").filter(|value| !value.is_null()) else {
        return String::new();
    };
    let id = Bson::try_from(value.clone()).ok().and_then(|id| DocumentId::from_bson(&id).ok());
    id.map_or_else(|| plain(value), |id| id.to_string())
}

/// Prints what a document waits for.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn waits(mark: &Quarantine) -> io::Result<()> {
    let (class, version, reason) = (mark.class.name(), mark.version, &mark.reason);
    line(format!("waits    for version {version}: {class}: {reason}"))
}

/// Prints an event, as the API writes it, in one line: version, time, client, operation, content.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn event(event: &Value) -> io::Result<()> {
    let field = |name: &str| event.get(name).map(plain).unwrap_or_default();
    let content = ["state", "patch", "merge"].into_iter().find_map(|name| event.get(name));
    let content = content.map(Value::to_string).unwrap_or_default();
    let (version, at, client, op) = (field("version"), field("at"), field("client"), field("op"));
    let skipped = if event.get("skipped").is_some() { "(skipped) " } else { "" };
    line(format!("{version:>6}  {at:<24}  {client:<16}  {op:<6}  {skipped}{content}").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_as_every_command_takes_it() {
        let oid = "507f1f77bcf86cd799439011";
        for (id, shown) in [
            (json!(7), r#"{"$numberLong":"7"}"#),
            (json!("7"), "7"),
            (json!({ "$oid": oid }), oid),
            (json!(null), ""),
        ] {
            let text = document(&json!({ "document": id }));
            assert_eq!(text, shown);
            let read = DocumentId::from_text(&text).map(|id| id.to_string());
            assert!(text.is_empty() || read.unwrap() == text);
        }
    }
}
