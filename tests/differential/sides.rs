//! The two sides of the comparison: this crate, and a real server's update command.

use alluvium::embedded::{Mongod, Options};
use alluvium::model::patch::apply;
use alluvium::model::state::{Limits, State};
use bson::{
    Bson, DateTime, Document, RawArray, RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, doc,
};
use futures::TryStreamExt;
use mongodb::error::ErrorKind;
use mongodb::{Client, Database};

use crate::generate::Case;

/// The time of every event, which `$currentDate` writes.
const AT: DateTime = DateTime::from_millis(4_000_000_000_000);

/// What became of a case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The state afterwards, as bytes.
    State(RawDocumentBuf),
    /// A refusal, with its reason. Reasons are not compared.
    Refused(String),
    /// The server did not survive the question. Nothing can be compared then.
    Crashed,
}

impl Outcome {
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::State(left), Self::State(right)) => left == right,
            (Self::Refused(_), Self::Refused(_)) | (_, Self::Crashed) => true,
            _ => false,
        }
    }
}

/// What this crate makes of a case.
pub(crate) fn ours(case: &Case) -> Outcome {
    let before = RawDocumentBuf::try_from(&case.state).unwrap();
    let patch = RawDocumentBuf::try_from(&case.patch).unwrap();
    let filters = case.filters.iter().map(|filter| RawDocumentBuf::try_from(filter).unwrap());
    let filters = RawArrayBuf::from_iter(filters);
    let filters = if case.filters.is_empty() { None } else { Some(&*filters) };
    applied(&before, &patch, filters)
}

/// What this crate makes of a patch of a state.
pub(crate) fn applied(
    before: &RawDocumentBuf,
    patch: &RawDocument,
    filters: Option<&RawArray>,
) -> Outcome {
    let limits = Limits { depth_max: 180, ..Limits::default() };
    let mut state = State::from_raw(before).unwrap();
    let result = apply(&mut state, patch, filters, AT, &limits);
    let after = state.to_raw();
    assert_eq!(after.as_bytes().len(), state.bytes(), "wrong size after {patch:?}");
    match result {
        Ok(()) => Outcome::State(after),
        Err(error) => {
            assert_eq!(after, *before, "a refused patch left a trace: {patch:?}");
            Outcome::Refused(error.to_string())
        }
    }
}

/// A real server, which is started anew when a case makes it crash.
pub(crate) struct Server {
    mongod: Mongod,
    database: Database,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let mongod = Mongod::start(Options::default()).await.unwrap();
        let client = Client::with_uri_str(mongod.uri()).await.unwrap();
        Self { mongod, database: client.database("differential") }
    }

    /// What the server makes of cases, all at once, or fewer at once until it is clear which of them
    /// it cannot survive.
    pub(crate) async fn outcomes(&mut self, cases: &[Case]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(cases.len());
        let mut stack = vec![cases];
        while let Some(batch) = stack.pop() {
            match ask(&self.database, batch).await {
                Ok(answers) => outcomes.extend(answers),
                Err(error) if matches!(*error.kind, ErrorKind::Command(_)) => {
                    panic!("the server refused a whole batch: {error}");
                }
                Err(_) => {
                    self.mongod.kill().await.unwrap();
                    *self = Self::start().await;
                    if let [_] = batch {
                        outcomes.push(Outcome::Crashed);
                    } else {
                        let (first, second) = batch.split_at(batch.len() / 2);
                        stack.extend([second, first]);
                    }
                }
            }
        }
        outcomes
    }
}

async fn ask(database: &Database, cases: &[Case]) -> Result<Vec<Outcome>, mongodb::error::Error> {
    let collection = database.collection::<RawDocumentBuf>("cases");
    collection.drop().await?;
    let rows = cases.iter().enumerate().map(|(id, case)| {
        let mut row = doc! {"_id": id as i32};
        row.extend(case.state.clone());
        RawDocumentBuf::try_from(&row).unwrap()
    });
    collection.insert_many(rows).ordered(false).await?;
    let updates: Vec<Bson> = cases.iter().enumerate().map(|(id, case)| update(id, case)).collect();
    let command = doc! {"update": "cases", "updates": updates, "ordered": false};
    let reply = database.run_command(command).await?;
    let rows = collection.find(doc! {}).sort(doc! {"_id": 1}).await?;
    let mut outcomes: Vec<_> =
        rows.map_ok(|row| Outcome::State(without_id(&row))).try_collect().await?;
    assert_eq!(outcomes.len(), cases.len(), "the server lost a row");
    if let Ok(errors) = reply.get_array("writeErrors") {
        for error in errors.iter().filter_map(Bson::as_document) {
            let id = usize::try_from(error.get_i32("index").unwrap()).unwrap();
            let reason = error.get_str("errmsg").unwrap_or("no reason given").to_owned();
            outcomes[id] = Outcome::Refused(reason);
        }
    }
    Ok(outcomes)
}

fn update(id: usize, case: &Case) -> Bson {
    let mut update = doc! {"q": {"_id": id as i32}, "u": case.patch.clone()};
    if !case.filters.is_empty() {
        update.insert("arrayFilters", case.filters.clone());
    }
    update.into()
}

/// The row without its `_id`, and with our time where the server wrote its own.
fn without_id(row: &RawDocumentBuf) -> RawDocumentBuf {
    // Type, "_id", a zero and an int take nine bytes, after the document's length.
    let bytes = row.as_bytes();
    let mut state = ((bytes.len() - 9) as u32).to_le_bytes().to_vec();
    state.extend_from_slice(&bytes[13..]);
    let state = RawDocumentBuf::from_bytes(state).unwrap();
    let mut decoded = match Document::try_from(&*state) {
        Ok(decoded) => decoded,
        Err(_) => return state,
    };
    if decoded.iter_mut().fold(false, |changed, (_, value)| set_time(value) || changed) {
        return RawDocumentBuf::try_from(&decoded).unwrap();
    }
    state
}

/// Generated dates lie around 1970, so any date of this century is the server's clock.
fn set_time(value: &mut Bson) -> bool {
    match value {
        Bson::DateTime(time) if time.timestamp_millis() > 1_000_000_000_000 => *time = AT,
        Bson::Timestamp(time) if time.time > 1_000_000_000 && time.time < 3_000_000_000 => {
            *time = Timestamp { time: 4_000_000_000, increment: 0 };
        }
        Bson::Document(fields) => {
            let mut changed = false;
            fields.iter_mut().for_each(|(_, value)| changed |= set_time(value));
            return changed;
        }
        Bson::Array(items) => {
            let mut changed = false;
            items.iter_mut().for_each(|value| changed |= set_time(value));
            return changed;
        }
        _ => return false,
    }
    true
}
