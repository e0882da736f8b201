//! Making a log: a collection clustered on its events' keys, which therefore needs no index, with the validator.

use bson::{Document, doc};
use mongodb::Database;

use super::{events_collection, mongo::NamedLog, validator::validator};
use crate::database::{
    Error,
    create::{CreateError, Ensured, Report, clustered, ensure},
};

/// What to do with a log whose validator is not this version's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differing {
    /// Say so.
    Warn,
    /// Replace it.
    Replace,
}

/// Makes the log of `collection` unless it exists, and looks at it if it does. Then makes sure that commands can name it.
///
/// # Errors
/// [`CreateError`] when it exists and cannot serve, or the server refuses.
pub async fn create_log(
    database: &Database,
    collection: &str,
    max_event_bytes: u64,
    differing: Differing,
    report: &mut Report,
) -> Result<(), CreateError> {
    ensure_log(database, collection, max_event_bytes, differing, report).await?;
    NamedLog::check(database, collection).await.map_err(|reason| CreateError::Unnamed {
        collection: events_collection(collection),
        reason,
    })
}

async fn ensure_log(
    database: &Database,
    collection: &str,
    max_event_bytes: u64,
    differing: Differing,
    report: &mut Report,
) -> Result<(), CreateError> {
    let name = events_collection(collection);
    let validator = validator(max_event_bytes);
    let mut options = clustered();
    options.insert("validator", validator.clone());
    let found = match ensure(database, &name, options).await? {
        Ensured::Created => {
            report.created.push(name);
            return Ok(());
        }
        Ensured::Existed(options) => options,
    };
    if !found.contains_key("clusteredIndex") {
        report.warnings.push(format!(
            "`{name}` is not clustered: everything works, more slowly and with a larger index; a \
             new log would be clustered"
        ));
    }
    if is_in_force(&found, &validator) {
        return Ok(());
    }
    match differing {
        Differing::Replace => {
            let command = doc! {
                "collMod": &name,
                "validator": validator,
                "validationLevel": "strict",
                "validationAction": "error",
                "writeConcern": { "w": "majority" },
            };
            let outcome = database.run_command(command).await.map_err(Error::from);
            outcome.map_err(CreateError::on(&name))?;
            report.updated.push(name);
        }
        Differing::Warn => report.warnings.push(format!(
            "`{name}` has another validator than this configuration asks for, or none: malformed \
             events can get in, and would park their documents; run `alluvium init` to set it"
        )),
    }
    Ok(())
}

fn is_in_force(options: &Document, validator: &Document) -> bool {
    let default = |key: &str, value: &str| options.get_str(key).unwrap_or(value) == value;
    options.get_document("validator").is_ok_and(|found| found == validator)
        && default("validationLevel", "strict")
        && default("validationAction", "error")
}
