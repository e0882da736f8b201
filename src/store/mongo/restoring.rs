//! Putting events back below a base, and holding what was put back.

use std::collections::HashSet;

use bson::{Bson, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use futures::TryStreamExt;
use mongodb::{ClientSession, options::ReadConcern};

use super::{
    MongoStore,
    bases::{document_of, which_base},
    collection_key, no_write_errors,
    statements::{is_there_already, write_errors},
};
use crate::{
    database::{Result, reply_of},
    model::{event::EventKey, id::DocumentId, position::LogId},
    store::{MARKS_COLLECTION, Restore},
};

impl MongoStore {
    pub(super) async fn restore_in(
        &self,
        session: &mut ClientSession,
        log: LogId,
        step: &Restore,
    ) -> Result<bool> {
        let key = EventKey { document: step.id.clone(), version: 1 }.to_raw();
        let first = step.events.first().filter(|_| step.pruned == 0);
        let change = match first {
            Some(first) => first.clone(),
            None => rawdoc! { "$set": { "pruned": step.pruned } },
        };
        let touch = rawdoc! { "q": which_base(key, &step.base), "u": change };
        let update = self.on_log("update", log, rawdoc! { "updates": [touch] })?;
        if self.write_in(session, update).await? != 1 {
            return Ok(false);
        }
        let rest: RawArrayBuf =
            step.events.iter().skip(usize::from(first.is_some())).cloned().collect();
        if rest.is_empty() {
            return Ok(true);
        }
        let insert = self.on_log("insert", log, rawdoc! { "documents": rest })?;
        let reply = reply_of(self.database.run_raw_command(insert).session(&mut *session)).await?;
        // Something came late there; or the server refuses the event, as it does for an index of somebody's.
        if write_errors(&reply).next().is_some_and(|(_, error)| is_there_already(error)) {
            return Ok(false);
        }
        no_write_errors(&reply)?;
        Ok(true)
    }

    pub(super) async fn put_hold(&self, log: LogId, id: &DocumentId, is_held: bool) -> Result<()> {
        let log = bson::RawBson::Binary(log.0.into());
        let filter = rawdoc! { "_id": collection_key(&self.collection, id) };
        // The time at which it is looked at again goes as well: nothing is due for it.
        let update = match is_held {
            true => rawdoc! { "$set": { "hold": log }, "$unset": { "due": "", "pending": "" } },
            false => rawdoc! { "$unset": { "hold": "" } },
        };
        let statement = rawdoc! { "q": filter, "u": update, "upsert": is_held };
        let statements = RawArrayBuf::from_iter([statement]);
        let reply = self.bulk("update", MARKS_COLLECTION, "updates", statements).await?;
        no_write_errors(&reply)
    }

    pub(super) async fn find_held(
        &self,
        log: LogId,
        ids: &[DocumentId],
    ) -> Result<HashSet<DocumentId>> {
        let key = |id: &DocumentId| doc! { "c": &self.collection, "d": id.to_bson() };
        let keys: Vec<Bson> = ids.iter().map(|id| key(id).into()).collect();
        let marks = self.database.collection::<RawDocumentBuf>(MARKS_COLLECTION);
        let found = marks.find(doc! { "_id": { "$in": keys }, "hold": log.0 });
        let found = found.projection(doc! { "_id": 1 }).read_concern(ReadConcern::majority());
        let rows: Vec<RawDocumentBuf> = found.await?.try_collect().await?;
        Ok(rows.iter().filter_map(|row| document_of(row)).collect())
    }
}
