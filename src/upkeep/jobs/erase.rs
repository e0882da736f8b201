//! `erase`, of one document: its content goes for good. It is deleted, unless it is; that is projected; a base takes the
//! place of everything before, which is pruned at once; and whatever else holds content forgets it, the archive last.
//! Remembers at which version it is deleted: what is written above that is a new life of the document, and stays.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};

use super::{Done, Performance, Tally, Undone, count};
use crate::{
    archive::{Archive, ArchiveError},
    log::{EventLog, LogSource, Mend},
    model::{
        event::EventKey,
        id::DocumentId,
        new_event::{NewChange, NewEvent},
        position::LogId,
        skip::FILLER_CLIENT,
    },
    planted::{Bug, planted},
    store::{Bases, Jobs, MarkRows, Snapshots, Store},
    time::Time,
    upkeep::{
        compact::{Clear, Compactor, Erasing, is_bare_delete},
        operate,
        snapshot::version_of,
    },
};

/// The pause before it is looked again whether the deletion is projected.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a step may come to nothing because others write there.
const IDLE_MAX: u32 = 100;

/// What it remembers and counts.
#[derive(Default)]
struct Begun {
    /// The version at which the document is deleted; 0 before that is known.
    version: i64,
    /// Whether the deletion stands there.
    is_deleted: bool,
    /// Events that are gone from the log.
    events: i64,
    /// Segments of the archive that were written anew.
    segments: i64,
}

impl Tally for Begun {
    fn to_bson(&self) -> Document {
        doc! {
            "version": self.version, "is_deleted": i32::from(self.is_deleted), "events": self.events,
            "segments": self.segments,
        }
    }

    fn from_bson(saved: &Document) -> Self {
        let is_deleted = count(saved, "is_deleted") == 1;
        let (events, segments) = (count(saved, "events"), count(saved, "segments"));
        Self { version: count(saved, "version"), is_deleted, events, segments }
    }
}

type Step<T> = std::result::Result<T, Undone>;

impl<'a, J: Jobs, S: LogSource, D, T: Time> Performance<'a, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    pub(super) async fn erase(&mut self, id: &DocumentId) -> Done {
        let ward = self.snapshotter();
        let (mut begun, mut clear): (Begun, _) = (self.tally(), Clear::default());
        self.at.place = Some(id.clone());
        let log = operate::open(&ward.source, &ward.collection, &ward.store).await?;
        let archive = self.archive_of(log.id(), id).await?;
        while !begun.is_deleted {
            self.may_compact(&mut clear).await?;
            self.delete(&log, id, &mut begun).await?;
            self.save(&begun).await?;
        }
        self.erase_log(&log, id, &mut begun).await?;
        let gone = ward.store.forget(id, begun.version).await?;
        if let Some(archive) = archive.filter(|_| !planted(Bug::ErasureForgetsSegments)) {
            self.erase_archived(archive, (log.id(), id), &mut begun).await?;
        }
        (self.at.done, self.at.total) = (1, Some(1));
        self.save(&begun).await?;
        Ok(doc! {
            "version": begun.version, "events": begun.events, "snapshots": gone.snapshots,
            "records": gone.records, "skips": gone.skips, "jobs": gone.jobs, "segments": begun.segments,
        })
    }

    /// The archive. Where it holds something of the document it has to be there before anything is erased.
    async fn archive_of(&self, log: LogId, id: &DocumentId) -> Step<Option<&'a Archive>> {
        let store = &self.snapshotter().store;
        let archive = self.ward.compaction.archive.as_ref();
        let archived = store.archived(std::slice::from_ref(id)).await?;
        let Some(row) = archived.first() else { return Ok(archive) };
        let Some(archive) = archive else {
            let why = format!(
                "the segment `{}` holds events of it, and `{}` has no archive: set `archive` in its \
                 [collections.compaction] again",
                row.segment, self.ward.collection
            );
            return Err(refused(id, &why));
        };
        match archive.claim(store, log).await {
            Ok(()) => Ok(Some(archive)),
            Err(ArchiveError::Database(error)) => Err(error.into()),
            Err(error) => Err(refused(id, &error.to_string())),
        }
    }

    /// Leaves nothing of the document in its log but the deletion, and what was written after that.
    async fn erase_log(&mut self, log: &S::Log, id: &DocumentId, begun: &mut Begun) -> Step<()> {
        let (ward, retention) = (self.snapshotter(), self.ward.compaction.retention);
        let (source, store) = (&ward.source, &ward.store);
        let compactor = Compactor { source, log, store, retention, archive: None, is_asked: true };
        let (mut idle, mut clear) = (0, Clear::default());
        loop {
            self.may_compact(&mut clear).await?;
            match compactor.erase(id, begun.version).await? {
                Erasing::Gone => return Ok(()),
                Erasing::Wrong(why) => return Err(refused(id, &why)),
                Erasing::Going(0) if idle == IDLE_MAX => {
                    return Err(refused(id, "others keep writing to its log; try again"));
                }
                Erasing::Going(0) => idle += 1,
                Erasing::Going(events) => (begun.events, idle) = (begun.events + events, 0),
            }
            self.save(begun).await?;
        }
    }

    /// Takes what was erased out of the archive, segment by segment.
    async fn erase_archived(
        &mut self,
        archive: &Archive,
        (log, id): (LogId, &DocumentId),
        begun: &mut Begun,
    ) -> Step<()> {
        let store = &self.snapshotter().store;
        let mut idle = 0;
        loop {
            match archive.erase_next(store, log, id).await {
                Ok(None) => return Ok(()),
                Ok(Some(erased)) => {
                    (begun.segments, idle) = (begun.segments + erased.segments, 0);
                }
                Err(ArchiveError::Database(error)) => return Err(error.into()),
                Err(ArchiveError::Moved(_)) if idle < IDLE_MAX => idle += 1,
                Err(error) => {
                    return Err(Undone::Failed(format!(
                        "document {id} is erased in the database, and not yet in its archive: {error}. Once that is over \
                         erase it again: it goes on from there"
                    )));
                }
            }
            // This also finds out whether the job was cancelled.
            self.save(begun).await?;
        }
    }

    /// Sees to it that the document is deleted, and finds out where. Each call comes nearer to that, or waits a while.
    async fn delete(&self, log: &S::Log, id: &DocumentId, begun: &mut Begun) -> Step<()> {
        let store = &self.snapshotter().store;
        let Some(row) = store.load(std::slice::from_ref(id)).await?.pop() else {
            return Err(refused(id, "nothing was ever written of it"));
        };
        let version = version_of(&row);
        let record = store.load_quarantine_of(id).await?.map(|record| record.mark);
        if let Some(mark) = record.filter(|mark| mark.version > version) {
            let (class, at) = (mark.class.name(), mark.version);
            let why =
                format!("it waits for version {at} as `{class}`; close that first, then erase it");
            return Err(refused(id, &why));
        }
        let is_deleted = row.get_bool("deleted").unwrap_or_default();
        if begun.version == 0 {
            let is_done = is_deleted && self.is_bare(log, id, version).await?;
            begun.version = match is_done {
                true => version,
                // Where it is deleted by an event that says more, only a new life can be deleted.
                false => version + 1 + i64::from(is_deleted),
            };
            begun.is_deleted = is_done;
            return Ok(());
        }
        if version >= begun.version {
            match self.is_bare(log, id, begun.version).await? {
                true => begun.is_deleted = true,
                // Another writer has taken that place.
                false => begun.version = 0,
            }
            return Ok(());
        }
        let change = match is_deleted {
            true => NewChange::Create { state: RawDocumentBuf::new() },
            false => NewChange::Delete,
        };
        let event = NewEvent::new(FILLER_CLIENT, change, store.server_time().await?);
        let key = EventKey { document: id.clone(), version: version + 1 };
        log.insert(&[event.encode(&key)]).await?;
        self.time.sleep(PAUSE).await;
        Ok(())
    }

    /// Whether the event at `version` is a deletion and says nothing more.
    async fn is_bare(&self, log: &S::Log, id: &DocumentId, version: i64) -> Step<bool> {
        let (source, store) = (&self.snapshotter().source, &self.snapshotter().store);
        let at_least = source.now().await?;
        let skips = store.load_skips_of(id, Some(at_least)).await?;
        let found = log.read(id, version - 1, 1, Some(at_least)).await?;
        let event = found.documents()?.next().transpose()?;
        let is_it = |event: &&bson::RawDocument| {
            EventKey::from_event(event).is_ok_and(|key| key.version == version)
        };
        Ok(event.filter(is_it).is_some_and(|event| is_bare_delete(event, &skips)))
    }
}

fn refused(id: &DocumentId, why: &str) -> Undone {
    Undone::Failed(format!("document {id} is not erased: {why}"))
}
