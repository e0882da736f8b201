//! `alluvium append`: one event by hand, with everything that a writer has to observe.

use bson::{Bson, DateTime, Document, RawArrayBuf, RawDocumentBuf};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{CommandResult, Globals, output};
use crate::{
    database::Connected,
    model::{
        id::DocumentId,
        new_event::{NewChange, NewEvent},
    },
    writer::{EventSourced, Written},
};

#[derive(Args, Debug)]
pub(super) struct Append {
    /// The collection (without `.events`)
    collection: String,
    /// The document: a string, 24 hex digits for an ObjectId, or Extended JSON such as {"$numberLong":"5"}
    id: String,
    /// Who writes: one name per replica
    #[arg(long)]
    client: String,
    /// What to do with the document
    #[arg(long)]
    op: Operation,
    /// With create: the whole state, as Extended JSON
    #[arg(long, value_name = "JSON")]
    state: Option<String>,
    /// With update: MongoDB update operators, as Extended JSON
    #[arg(long, value_name = "JSON")]
    patch: Option<String>,
    /// With --patch: the conditions that $[name] in paths refer to, as Extended JSON
    #[arg(long, value_name = "JSON")]
    array_filters: Option<String>,
    /// With update, instead of --patch: a JSON Merge Patch (RFC 7396)
    #[arg(long, value_name = "JSON")]
    merge: Option<String>,
    /// Append only if the document is at this version (0: if it was never written)
    #[arg(long, value_name = "N")]
    if_version: Option<i64>,
    /// The event's name in the words of the domain
    #[arg(long = "type", value_name = "NAME")]
    event_type: Option<String>,
    /// Free metadata, as Extended JSON
    #[arg(long, value_name = "JSON")]
    meta: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Operation {
    Create,
    Update,
    Delete,
}

/// What the options ask for and cannot mean.
#[derive(Debug, thiserror::Error)]
enum AppendError {
    #[error("--{option} is no {expected}: {reason}")]
    Json { option: &'static str, expected: &'static str, reason: String },
    #[error(
        "an event with --op create carries --state, update exactly one of --patch and --merge \
         (--array-filters only with --patch), and delete none of them"
    )]
    Shape,
}

impl Append {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let id = DocumentId::from_text(&self.id)?;
        let event = self.event()?;
        let Connected { database, .. } = globals.connect().await?;
        let writer = EventSourced::<Document>::new(&database, &self.collection);
        let Written { version, clock } = match self.if_version {
            Some(expected) => writer.append_if_version(&id, expected, event).await?,
            None => writer.append(&id, event).await?,
        };
        if globals.json {
            return Ok(output::json(&json!({ "version": version, "clock": clock }))?);
        }
        Ok(output::line(format!("document {id} is at version {version}, clock {clock}"))?)
    }

    fn event(&self) -> Result<NewEvent, AppendError> {
        let Self { state, patch, merge, array_filters, .. } = self;
        let change = match (self.op, state, patch, merge, array_filters) {
            (Operation::Create, Some(state), None, None, None) => {
                NewChange::Create { state: document("state", state)? }
            }
            (Operation::Update, None, Some(patch), None, filters) => NewChange::Patch {
                patch: document("patch", patch)?,
                array_filters: filters.as_deref().map(array).transpose()?,
            },
            (Operation::Update, None, None, Some(merge), None) => {
                NewChange::Merge { merge: document("merge", merge)? }
            }
            (Operation::Delete, None, None, None, None) => NewChange::Delete,
            _ => return Err(AppendError::Shape),
        };
        let mut event = NewEvent::new(&self.client, change, DateTime::now());
        event.event_type.clone_from(&self.event_type);
        event.meta = self.meta.as_deref().map(|meta| document("meta", meta)).transpose()?;
        Ok(event)
    }
}

fn document(option: &'static str, text: &str) -> Result<RawDocumentBuf, AppendError> {
    let fail = |reason: String| AppendError::Json { option, expected: "JSON object", reason };
    match extended_json(text).map_err(fail)? {
        Bson::Document(document) => {
            RawDocumentBuf::try_from(&document).map_err(|error| fail(error.to_string()))
        }
        _ => Err(fail("it is another kind of value".into())),
    }
}

fn array(text: &str) -> Result<RawArrayBuf, AppendError> {
    let fail = |reason: String| AppendError::Json {
        option: "array-filters",
        expected: "JSON array",
        reason,
    };
    match extended_json(text).map_err(fail)? {
        Bson::Array(array) => RawArrayBuf::try_from(array).map_err(|error| fail(error.to_string())),
        _ => Err(fail("it is another kind of value".into())),
    }
}

fn extended_json(text: &str) -> Result<Bson, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Bson::try_from(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        append: Append,
    }

    #[track_caller]
    fn check(options: &[&str], expected: Result<&str, &str>) {
        let fixed = ["append", "games", "chess", "--client", "me", "--op"];
        let line = Line::try_parse_from(fixed.iter().chain(options)).unwrap();
        match (line.append.event(), expected) {
            (Ok(event), Ok(expected)) => assert_eq!(event.change.to_string(), expected),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{error} does not say {part}");
            }
            (found, expected) => panic!("{options:?}: expected {expected:?}, found {found:?}"),
        }
    }

    #[test]
    fn options_become_the_event() {
        check(&["create", "--state", r#"{"b":1,"a":2}"#], Ok(r#"create state {"b":1,"a":2}"#));
        let patch = r#"{"$inc":{"gold":5}}"#;
        check(&["update", "--patch", patch], Ok(r#"update patch {"$inc":{"gold":5}}"#));
        check(&["update", "--merge", r#"{"gold":null}"#], Ok(r#"update merge {"gold":null}"#));
        check(&["delete"], Ok("delete"));
    }

    #[test]
    fn options_that_make_no_event_are_refused() {
        check(&["create"], Err("create carries --state"));
        check(&["update", "--patch", "{}", "--merge", "{}"], Err("exactly one of"));
        check(&["update", "--merge", "{}", "--array-filters", "[]"], Err("only with --patch"));
        check(&["delete", "--state", "{}"], Err("delete none"));
        check(&["create", "--state", "{"], Err("--state is no JSON object"));
        check(&["create", "--state", "[1]"], Err("another kind"));
        check(&["update", "--patch", "{}", "--array-filters", "{}"], Err("--array-filters"));
    }
}
