//! Snapshots on MongoDB, in `games.snapshots`, clustered on `_id: {d, s}`. Reading those of one document
//! is one bounded range of keys.

use std::collections::HashMap;

use bson::{DateTime, Document, RawArrayBuf, RawDocumentBuf, doc, raw::cstr, rawdoc};
use futures::{StreamExt, TryStreamExt, stream};
use mongodb::{
    Collection,
    options::{Hint, ReadConcern},
};

use super::{MongoStore, no_write_errors, no_write_errors_but};
use crate::{
    database::{Error, Result, code::DUPLICATE_KEY, server_time},
    model::{
        id::{DocumentId, INTEGER_MAX, integral},
        snapshot::{FOLD, Snapshot, SnapshotError},
    },
    store::{PutOutcome, Snapshots, StoredSnapshot, snapshots_collection},
};

/// The most snapshots in one command.
const STATEMENTS_MAX: usize = 1_000;
/// The most bytes of snapshots in one command. One larger snapshot still goes alone.
const STATEMENT_BYTES_MAX: usize = 8 << 20;
/// How many documents are looked at at once for what is to be deleted.
const LOOKS_MAX: usize = 4;
/// How many snapshots that are there already are compared at once.
const COMPARED_MAX: usize = 16;
/// How many snapshots of one document one pruning deletes: what is left goes with the next.
const PRUNED_MAX: i64 = 100;

impl Snapshots for MongoStore {
    async fn database_time(&self) -> Result<DateTime> {
        server_time(&self.database).await
    }

    async fn put_snapshots(&self, snapshots: &[Snapshot]) -> Result<Vec<PutOutcome>> {
        let mut outcomes = Vec::with_capacity(snapshots.len());
        let mut rest: &[Snapshot] = snapshots;
        while !rest.is_empty() {
            let mut statements = RawArrayBuf::new();
            let (mut count, mut bytes) = (0, 0);
            for row in rest.iter().take(STATEMENTS_MAX).map(Snapshot::to_raw) {
                bytes += row.as_bytes().len();
                if count > 0 && bytes > STATEMENT_BYTES_MAX {
                    break;
                }
                statements.push(row);
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            let name = snapshots_collection(&self.collection);
            let reply = self.bulk("insert", &name, "documents", statements).await?;
            outcomes.extend(self.judge(now, &reply).await?);
            rest = later;
        }
        let mut stored = Vec::new();
        for (snapshot, outcome) in snapshots.iter().zip(&outcomes) {
            if *outcome == PutOutcome::Stored {
                stored.push(&snapshot.id);
            }
        }
        self.take_back_erased(&stored).await?;
        Ok(outcomes)
    }

    async fn snapshot(&self, id: &DocumentId, version: i64) -> Result<Option<Snapshot>> {
        let key = doc! { "_id": { "d": id.to_bson(), "s": version } };
        let found = self.snapshots().find_one(key).read_concern(ReadConcern::majority()).await?;
        // One that cannot be used is as good as none.
        Ok(found.and_then(|row| Snapshot::from_raw(&row).ok()))
    }

    async fn newest_snapshot(&self, id: &DocumentId, version: i64) -> Result<Option<Snapshot>> {
        let mut filter = keys(id, version);
        filter.insert("fold", FOLD);
        let found = self
            .snapshots()
            .find_one(filter)
            .sort(doc! { "_id": -1 })
            .hint(Hint::Keys(doc! { "_id": 1 }))
            .read_concern(ReadConcern::majority())
            .await?;
        Ok(found.and_then(|row| Snapshot::from_raw(&row).ok()))
    }

    async fn newest_between(
        &self,
        first: &DocumentId,
        last: &DocumentId,
    ) -> Result<HashMap<DocumentId, (i64, DateTime)>> {
        let mut found = self
            .snapshots()
            .find(between(first, last))
            .sort(doc! { "_id": 1 })
            .projection(doc! { "taken_at": 1 })
            .read_concern(ReadConcern::majority())
            .await?;
        let mut newest = HashMap::new();
        while let Some(row) = found.try_next().await? {
            let key = row.get_document("_id")?;
            let id = key.get("d")?.and_then(|id| DocumentId::from_raw(id).ok());
            let version = key.get("s")?.and_then(integral);
            if let (Some(id), Some(version), Ok(at)) = (id, version, row.get_datetime("taken_at")) {
                newest.insert(id, (version, at));
            }
        }
        Ok(newest)
    }

    async fn stored_between(
        &self,
        first: &DocumentId,
        last: &DocumentId,
    ) -> Result<Vec<StoredSnapshot>> {
        let snapshots = self.snapshots();
        let find = snapshots.find(between(first, last)).sort(doc! { "_id": 1 });
        let mut found = find.read_concern(ReadConcern::majority()).await?;
        let mut stored = Vec::new();
        while let Some(row) = found.try_next().await? {
            let key = row.get_document("_id")?.to_owned();
            let id = key.get("d")?.and_then(|id| DocumentId::from_raw(id).ok());
            let version = key.get("s")?.and_then(integral);
            let problem = match Snapshot::from_raw(&row) {
                // It counts for nothing, and is no mistake.
                Err(SnapshotError::Fold { .. }) => continue,
                read => read.err(),
            };
            let (Some(id), Some(version)) = (id, version) else { continue };
            let mut which = rawdoc! { "_id": key };
            if let Some(hash) = row.get("hash")? {
                which.append(cstr!("hash"), hash);
            }
            stored.push(StoredSnapshot { id, version, row: which, problem });
        }
        Ok(stored)
    }

    async fn remove_snapshot(&self, stored: &StoredSnapshot) -> Result<bool> {
        let statements: RawArrayBuf =
            [rawdoc! { "q": stored.row.clone(), "limit": 1 }].into_iter().collect();
        let name = snapshots_collection(&self.collection);
        let reply = self.bulk("delete", &name, "deletes", statements).await?;
        no_write_errors(&reply)?;
        Ok(reply.get_i32("n").is_ok_and(|gone| gone == 1))
    }

    async fn prune_snapshots(&self, ids: &[DocumentId], keep: u32) -> Result<u64> {
        let looks = ids.iter().cloned().map(|id| async move { self.surplus(&id, keep).await });
        let surplus = stream::iter(looks).buffer_unordered(LOOKS_MAX);
        let keys: Vec<Vec<RawDocumentBuf>> = surplus.try_collect().await?;
        let keys: Vec<RawDocumentBuf> = keys.into_iter().flatten().collect();
        let mut pruned = 0;
        for keys in keys.chunks(STATEMENTS_MAX) {
            let statements: RawArrayBuf = keys
                .iter()
                .map(|key| {
                    rawdoc! { "q": { "_id": key.clone() }, "limit": 1 }
                })
                .collect();
            let name = snapshots_collection(&self.collection);
            let reply = self.bulk("delete", &name, "deletes", statements).await?;
            no_write_errors(&reply)?;
            pruned += u64::try_from(reply.get_i32("n").unwrap_or_default()).unwrap_or_default();
        }
        Ok(pruned)
    }

    async fn estimate_documents(&self) -> Result<u64> {
        Ok(self.documents.estimated_document_count().await?)
    }
}

impl MongoStore {
    fn snapshots(&self) -> Collection<RawDocumentBuf> {
        self.database.collection(&snapshots_collection(&self.collection))
    }

    /// What became of snapshots that were inserted. A key may exist already: from our own earlier
    /// attempt, or from another instance. It is the same snapshot if hash and fold are the same.
    async fn judge(&self, snapshots: &[Snapshot], reply: &Document) -> Result<Vec<PutOutcome>> {
        no_write_errors_but(&[DUPLICATE_KEY], reply)?;
        let mut outcomes = vec![PutOutcome::Stored; snapshots.len()];
        let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
        let mut there = Vec::with_capacity(errors.len());
        for error in errors.iter().filter_map(bson::Bson::as_document) {
            let at = error.get_i32("index").ok().and_then(|at| usize::try_from(at).ok());
            let Some((at, snapshot)) = at.and_then(|at| Some((at, snapshots.get(at)?))) else {
                return Err(Error::damaged("a write error without a place"));
            };
            there.push((at, snapshot.key(), snapshot.hash()));
        }
        let looks = there.into_iter().map(|(at, key, hash)| async move {
            self.compare_with_stored(key, hash).await.map(|outcome| (at, outcome))
        });
        let found: Vec<(usize, PutOutcome)> =
            stream::iter(looks).buffer_unordered(COMPARED_MAX).try_collect().await?;
        for (at, outcome) in found {
            outcomes[at] = outcome;
        }
        Ok(outcomes)
    }

    async fn compare_with_stored(&self, key: RawDocumentBuf, hash: [u8; 32]) -> Result<PutOutcome> {
        let stored = self
            .snapshots()
            .find_one(rawdoc! { "_id": key }.try_into()?)
            .read_concern(ReadConcern::majority())
            .await?;
        let Some(stored) = stored else {
            return Err(Error::unreachable("a snapshot that exists has gone again"));
        };
        let fold = stored.get("fold")?.and_then(integral);
        if fold != Some(FOLD) {
            let reason = match fold {
                Some(found) => format!("the stored one was taken under fold {found}, not {FOLD}"),
                None => "the stored one has no `fold`".to_owned(),
            };
            return Ok(PutOutcome::Conflict { reason });
        }
        let same = stored.get_binary("hash").is_ok_and(|stored| stored.bytes == hash);
        Ok(match same {
            true => PutOutcome::Existed,
            false => PutOutcome::Conflict { reason: "the stored one has another hash".to_owned() },
        })
    }

    /// The keys of a document's snapshots that are beyond the newest `keep`.
    async fn surplus(&self, id: &DocumentId, keep: u32) -> Result<Vec<RawDocumentBuf>> {
        let found = self
            .snapshots()
            .find(keys(id, INTEGER_MAX))
            .sort(doc! { "_id": -1 })
            .hint(Hint::Keys(doc! { "_id": 1 }))
            .skip(u64::from(keep))
            .limit(PRUNED_MAX)
            .projection(doc! { "fold": 1 })
            .read_concern(ReadConcern::majority())
            .await?;
        let rows: Vec<RawDocumentBuf> = found.try_collect().await?;
        rows.iter().map(|row| Ok(row.get_document("_id")?.to_owned())).collect()
    }
}

/// The snapshots of the documents from `first` to `last`.
fn between(first: &DocumentId, last: &DocumentId) -> Document {
    let key = |id: &DocumentId, version: i64| doc! { "d": id.to_bson(), "s": version };
    doc! { "_id": { "$gte": key(first, 0), "$lte": key(last, INTEGER_MAX) } }
}

/// The snapshots of one document up to a version.
fn keys(id: &DocumentId, version: i64) -> Document {
    let key = |version: i64| doc! { "d": id.to_bson(), "s": version };
    doc! { "_id": { "$gte": key(0), "$lte": key(version) } }
}
