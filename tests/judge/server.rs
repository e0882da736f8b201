//! Replay on a real server: the state is a document of a collection of the judge's own, and every patch
//! is a plain `updateOne` on it. So what a patch means is what the server says it means.

use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use mongodb::{
    Collection, Database,
    options::{Acknowledgment, CollectionOptions, WriteConcern},
};

use super::replay::{Patch, Replay};

/// The `_id` of the one document, which the judged states do not have.
const ID: &str = "judged";

/// Holds the state of one document on a server.
#[derive(Clone, Debug)]
pub struct ServerReplay {
    judged: Collection<Document>,
}

impl ServerReplay {
    /// Replays in a collection of this database, which nobody else may use.
    pub fn new(database: &Database) -> Self {
        // Nobody but the judge reads it, from the same member: nothing has to reach the disk.
        let write_concern = WriteConcern::builder().w(Acknowledgment::Nodes(1)).build();
        let options = CollectionOptions::builder().write_concern(write_concern).build();
        Self { judged: database.collection_with_options("judge.states", options) }
    }
}

impl ServerReplay {
    /// Runs statements of `updateOne` until one is refused; each has its place.
    async fn update(
        &self,
        statements: Vec<Document>,
        places: &[usize],
    ) -> Result<(), (usize, String)> {
        if statements.is_empty() {
            return Ok(());
        }
        let command = doc! {
            "update": self.judged.name(), "updates": statements, "ordered": true,
            "writeConcern": { "w": 1 },
        };
        let database = self.judged.client().database(&self.judged.namespace().db);
        let reply = database.run_command(command).await.expect("the judge's server");
        let Ok(errors) = reply.get_array("writeErrors") else { return Ok(()) };
        let error = errors[0].as_document().expect("a write error is a document");
        let index = usize::try_from(error.get_i32("index").unwrap()).unwrap();
        Err((places[index], error.get_str("errmsg").unwrap().to_owned()))
    }
}

impl Replay for ServerReplay {
    async fn begin(&mut self, _id: &str) {
        self.judged.delete_one(doc! { "_id": ID }).await.expect("the judge's server");
    }

    async fn put(&mut self, state: &Document) {
        let mut whole = doc! { "_id": ID };
        whole.extend(state.clone());
        let replaced = self.judged.replace_one(doc! { "_id": ID }, whole).upsert(true).await;
        replaced.expect("the judge's server");
    }

    async fn patch(
        &mut self,
        patch: &Document,
        array_filters: Option<&[Bson]>,
        at: DateTime,
    ) -> Result<(), String> {
        let Some(patch) = dated(patch, at)? else { return Ok(()) };
        let mut update = self.judged.update_one(doc! { "_id": ID }, patch);
        if let Some(filters) = array_filters {
            let filters = filters.iter().filter_map(Bson::as_document).cloned();
            update = update.array_filters(filters.collect::<Vec<_>>());
        }
        update.await.map(drop).map_err(|error| error.to_string())
    }

    async fn patches(&mut self, patches: &[Patch<'_>]) -> Result<(), (usize, String)> {
        let mut statements = Vec::new();
        let mut places = Vec::new();
        for (place, Patch { patch, array_filters, at }) in patches.iter().enumerate() {
            let dated = match dated(patch, *at) {
                Ok(Some(dated)) => dated,
                Ok(None) => continue,
                Err(reason) => {
                    // What stands before it comes first.
                    self.update(statements, &places).await?;
                    return Err((place, reason));
                }
            };
            let mut statement = doc! { "q": { "_id": ID }, "u": dated };
            if let Some(filters) = array_filters {
                let filters = filters.iter().filter(|filter| filter.as_document().is_some());
                statement.insert("arrayFilters", filters.cloned().collect::<Vec<_>>());
            }
            statements.push(statement);
            places.push(place);
        }
        self.update(statements, &places).await
    }

    async fn state(&mut self) -> RawDocumentBuf {
        let raw = self.judged.clone_with_type::<RawDocumentBuf>();
        let found = raw.find_one(doc! { "_id": ID }).await.expect("the judge's server");
        let mut state = RawDocumentBuf::new();
        for (key, value) in found.expect("a state was put").iter().flatten() {
            if key != "_id" {
                state.append(key, value);
            }
        }
        state
    }
}

/// The patch with `$currentDate` replaced by the event's own time, which is the one place where an event
/// differs from an update. None if the patch is empty: it changes nothing, and the driver refuses it.
fn dated(patch: &Document, at: DateTime) -> Result<Option<Document>, String> {
    // The driver refuses it; the server would take it for a whole document.
    if patch.keys().next().is_some_and(|first| !first.starts_with('$')) {
        return Err("not update operators".into());
    }
    let mut dated = patch.clone();
    if let Some(dates) = dated.remove("$currentDate") {
        let dates = dates.as_document().ok_or("$currentDate without fields")?.clone();
        let mut set =
            dated.remove("$set").and_then(|set| set.as_document().cloned()).unwrap_or_default();
        for (field, kind) in dates {
            let kind =
                kind.as_document().and_then(|kind| kind.get_str("$type").ok().map(str::to_owned));
            let value = match kind.as_deref() {
                Some("timestamp") => {
                    let time = u32::try_from(at.timestamp_millis() / 1000)
                        .map_err(|error| error.to_string())?;
                    Bson::Timestamp(bson::Timestamp { time, increment: 0 })
                }
                _ => Bson::DateTime(at),
            };
            set.insert(field, value);
        }
        dated.insert("$set", set);
    }
    Ok((!dated.is_empty()).then_some(dated))
}
