//! Replay on a real server: the state is a document of a collection of the judge's own, and every patch
//! is a plain `updateOne` on it. So what a patch means is what the server says it means.

use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use mongodb::{
    Collection, Database,
    options::{Acknowledgment, CollectionOptions, WriteConcern},
};

use super::replay::Replay;

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
