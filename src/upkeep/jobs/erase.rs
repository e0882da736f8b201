//! `erase`, of one document: its content goes for good. It is deleted, unless it is; that is projected; a base takes the
//! place of everything before, which is pruned at once; and whatever else holds content forgets it. Remembers at which
//! version it is deleted: what is written above that is a new life of the document, and stays.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};

use super::{Done, Performance, Tally, Undone, count};
use crate::{
    log::{EventLog, LogSource, Mend},
    model::{
        event::EventKey,
        id::DocumentId,
        new_event::{NewChange, NewEvent},
        skip::FILLER_CLIENT,
    },
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
    events: i64,
}

impl Tally for Begun {
    fn to_bson(&self) -> Document {
        doc! { "version": self.version, "is_deleted": i32::from(self.is_deleted), "events": self.events }
    }

    fn from_bson(saved: &Document) -> Self {
        let is_deleted = count(saved, "is_deleted") == 1;
        Self { version: count(saved, "version"), is_deleted, events: count(saved, "events") }
    }
}

type Step<T> = std::result::Result<T, Undone>;

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    pub(super) async fn erase(&mut self, id: &DocumentId) -> Done {
        let ward = self.snapshotter();
        let (mut begun, mut clear): (Begun, _) = (self.tally(), Clear::default());
        self.at.place = Some(id.clone());
        let log = operate::open(&ward.source, &ward.collection, &ward.store).await?;
        while !begun.is_deleted {
            self.may_compact(&mut clear).await?;
            self.delete(&log, id, &mut begun).await?;
            self.save(&begun).await?;
        }
        let (source, store) = (&ward.source, &ward.store);
        let compactor = Compactor {
            source,
            log: &log,
            store,
            retention: self.ward.compaction.retention,
            archive: None,
            is_asked: true,
        };
        let mut idle = 0;
        loop {
            self.may_compact(&mut clear).await?;
            match compactor.erase(id, begun.version).await? {
                Erasing::Gone => break,
                Erasing::Wrong(why) => return Err(refused(id, &why)),
                Erasing::Going(0) if idle == IDLE_MAX => {
                    return Err(refused(id, "others keep writing to its log; try again"));
                }
                Erasing::Going(0) => idle += 1,
                Erasing::Going(events) => (begun.events, idle) = (begun.events + events, 0),
            }
            self.save(&begun).await?;
        }
        let gone = ward.store.forget(id, begun.version).await?;
        self.forget_archived(id, begun.version).await?;
        (self.at.done, self.at.total) = (1, Some(1));
        self.save(&begun).await?;
        Ok(doc! {
            "version": begun.version, "events": begun.events, "snapshots": gone.snapshots,
            "records": gone.records, "skips": gone.skips, "jobs": gone.jobs,
        })
    }

    /// SEAM: the archive. The segments that hold events of the document up to `through` are written anew without them,
    /// here, before the job is done.
    async fn forget_archived(&self, _id: &DocumentId, _through: i64) -> Step<()> {
        Ok(())
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
