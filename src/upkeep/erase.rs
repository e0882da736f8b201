//! Erasing one document, step by step: it is deleted, unless it is; that is projected; a base takes the place of everything
//! before, which is pruned at once; and whatever else holds content forgets it, the archive last. Each step may be
//! interrupted anywhere and taken again. What is written above the deletion is a new life of the document, and stays.

use bson::{RawDocumentBuf, Uuid};

use super::{
    compact::{Compactor, Erasing, is_bare_delete},
    compare::Checked,
    snapshot::version_of,
};
use crate::{
    archive::{Archive, ArchiveError, Shredder},
    database,
    log::{EventLog, LogSource, Mend},
    model::{
        compaction::Retention,
        event::EventKey,
        id::DocumentId,
        new_event::{NewChange, NewEvent},
        skip::FILLER_CLIENT,
    },
    planted::{Bug, planted},
    store::{Bases, Documents, Forgotten, QuarantineRows, SkipRows},
};

/// How often a step may come to nothing because others write there.
const IDLE_MAX: u32 = 100;

/// How often it is looked, at intervals of some length, whether the deletion is projected.
const WAITS_MAX: u32 = 600;

/// Erases documents of one log.
pub(crate) struct Eraser<'a, S: LogSource, D> {
    pub(crate) source: &'a S,
    pub(crate) log: &'a S::Log,
    pub(crate) store: &'a D,
    pub(crate) archive: Option<&'a Archive>,
    pub(crate) retention: Retention,
}

/// How far an erasure is, and what it has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Begun {
    /// The version at which the document is deleted; 0 before that is known.
    pub(crate) version: i64,
    /// Whether the deletion stands there.
    pub(crate) is_deleted: bool,
    /// Events that are gone from the log.
    pub(crate) events: i64,
    /// What else is gone from the database.
    pub(crate) gone: Forgotten,
    /// Segments of the archive that were written anew.
    pub(crate) segments: i64,
    /// How many steps in a row have come to nothing.
    pub(crate) idle: u32,
}

/// What a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stepped {
    /// There is more to do.
    Went,
    /// There is more to do once what was written is projected.
    Waits,
    /// Nothing of the content is left.
    Done,
}

/// Why a document is not erased.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EraseError {
    /// It cannot be, for this reason.
    #[error("document {0} is not erased: {1}")]
    Refused(DocumentId, String),
    /// The archive cannot be read or written, after everything else is done.
    #[error(
        "document {0} is erased in the database, and not yet in its archive: {1}. Once that is over erase it again: it \
         goes on from there"
    )]
    NotInArchive(DocumentId, ArchiveError),
    /// The database refused or is away.
    #[error(transparent)]
    Database(#[from] database::Error),
}

type Result<T> = std::result::Result<T, EraseError>;

fn unproven(problem: &str) -> String {
    format!(
        "its row is not what its log makes of it ({problem}): verify it first; nothing was changed"
    )
}

fn refused<T>(id: &DocumentId, why: impl Into<String>) -> Result<T> {
    Err(EraseError::Refused(id.clone(), why.into()))
}

impl<S: LogSource, D> Eraser<'_, S, D>
where
    S::Log: Mend,
    D: Documents + SkipRows + QuarantineRows + Bases,
{
    /// Takes the next step.
    ///
    /// # Errors
    /// [`EraseError`]; what is gone stays gone.
    pub(crate) async fn step(&self, id: &DocumentId, begun: &mut Begun) -> Result<Stepped> {
        match self.go_on(id, begun).await {
            // An index or a validator of somebody, which refuses it the next time as well.
            Err(EraseError::Database(error)) if error.may_be_of_what_was_sent() => {
                refused(id, format!("the server refuses what takes its place: {error}"))
            }
            stepped => stepped,
        }
    }

    async fn go_on(&self, id: &DocumentId, begun: &mut Begun) -> Result<Stepped> {
        if begun.version == 0 {
            self.find_archive(id).await?;
        }
        if !begun.is_deleted {
            return self.delete(id, begun).await;
        }
        let &Self { source, log, store, retention, .. } = self;
        let (is_asked, pace) = (true, ());
        let compactor = Compactor { source, log, store, retention, archive: None, is_asked, pace };
        match compactor.erase(id, begun.version).await? {
            Erasing::Gone => self.forget(id, begun).await,
            Erasing::Wrong(why) => refused(id, why),
            Erasing::Going(0) => self.idle(id, begun),
            Erasing::Going(events) => {
                (begun.events, begun.idle) = (begun.events + events, 0);
                Ok(Stepped::Went)
            }
        }
    }

    fn idle(&self, id: &DocumentId, begun: &mut Begun) -> Result<Stepped> {
        begun.idle += 1;
        match begun.idle > IDLE_MAX {
            true => refused(id, "others keep writing there; try again"),
            false => Ok(Stepped::Went),
        }
    }

    /// Where the archive holds something of the document it has to be there before anything is erased.
    async fn find_archive(&self, id: &DocumentId) -> Result<()> {
        let archived = self.store.archived(std::slice::from_ref(id)).await?;
        let Some(row) = archived.first() else { return Ok(()) };
        let Some(archive) = self.archive else {
            let why = format!(
                "the segment `{}` holds events of it, and there is no archive: set `archive` in [collections.compaction] again",
                row.segment
            );
            return refused(id, why);
        };
        match archive.claim(self.store, self.log.id()).await {
            Ok(()) => Ok(()),
            Err(ArchiveError::Database(error)) => Err(error.into()),
            Err(error) => refused(id, error.to_string()),
        }
    }

    /// Sees to it that the document is deleted, and finds out where.
    async fn delete(&self, id: &DocumentId, begun: &mut Begun) -> Result<Stepped> {
        let row = self.store.load(std::slice::from_ref(id)).await?.pop();
        let version = row.as_deref().map_or(0, version_of);
        let record = self.store.load_quarantine_of(id).await?.map(|record| record.mark);
        if let Some(mark) = record.filter(|mark| mark.version > version) {
            let (class, at) = (mark.class.name(), mark.version);
            let why = format!("it waits for version {at} as `{class}`; close that first");
            return refused(id, why);
        }
        let Some(row) = row else { return refused(id, "nothing was ever written of it") };
        let is_deleted = row.get_bool("deleted").unwrap_or_default();
        if begun.version == 0 {
            begun.is_deleted = is_deleted && self.is_bare(id, version).await?;
            if !begun.is_deleted
                && let Some(problem) = self.problem(id).await?
            {
                // Others may have been at work meanwhile.
                return match self.problem(id).await? {
                    Some(again) if again == problem => refused(id, unproven(&problem)),
                    _ => self.idle(id, begun),
                };
            }
            begun.version = match begun.is_deleted {
                true => version,
                // Where it is deleted by an event that says more, only a new life can be deleted.
                false => version + 1 + i64::from(is_deleted),
            };
            return Ok(Stepped::Went);
        }
        if version >= begun.version {
            match self.is_bare(id, begun.version).await? {
                true => (begun.is_deleted, begun.idle) = (true, 0),
                // Another writer has taken that place.
                false => begun.version = 0,
            }
            return Ok(Stepped::Went);
        }
        let change = match is_deleted {
            true => NewChange::Create { state: RawDocumentBuf::new() },
            false => NewChange::Delete,
        };
        let at = self.store.server_time().await?;
        // With a mark of its own: the log may have a unique index on that.
        let event = NewEvent::new(FILLER_CLIENT, change, at).id(bson::Binary::from(Uuid::new()));
        let key = EventKey { document: id.clone(), version: version + 1 };
        self.log.insert(&[event.encode(&key)]).await?;
        begun.idle += 1;
        match begun.idle > WAITS_MAX {
            true => refused(
                id,
                format!("version {} of it is in the log and not projected", key.version),
            ),
            false => Ok(Stepped::Waits),
        }
    }

    /// Why the row is not what its log makes of it. A deletion over that would take what the row alone still has.
    async fn problem(&self, id: &DocumentId) -> Result<Option<String>> {
        let checked = Checked::look(self.source, (self.log, self.store), id).await?;
        Ok(checked.unsound())
    }

    /// Whether the event at `version` is a deletion and says nothing more.
    async fn is_bare(&self, id: &DocumentId, version: i64) -> Result<bool> {
        let at_least = self.source.now().await?;
        let skips = self.store.load_skips_of(id, Some(at_least)).await?;
        let found = self.log.read(id, version - 1, 1, Some(at_least)).await?;
        let event = found.documents()?.next().transpose()?;
        let is_it = |event: &&bson::RawDocument| {
            EventKey::from_event(event).is_ok_and(|key| key.version == version)
        };
        Ok(event.filter(is_it).is_some_and(|event| is_bare_delete(event, &skips)))
    }

    /// The log holds nothing of it any more; nor does what stands beside it after this, and one more segment.
    async fn forget(&self, id: &DocumentId, begun: &mut Begun) -> Result<Stepped> {
        begun.gone += self.store.forget(id, begun.version).await?;
        // What was put back of it is gone.
        self.store.hold(self.log.id(), id, false).await?;
        let archive = self.archive.filter(|_| !planted(Bug::ErasureForgetsSegments));
        let Some(archive) = archive else { return Ok(Stepped::Done) };
        let shredder = Shredder::new(archive, self.store, self.log.id());
        match shredder.next(id).await {
            Ok(None) => Ok(Stepped::Done),
            Ok(Some(erased)) => {
                (begun.segments, begun.idle) = (begun.segments + erased.segments, 0);
                Ok(Stepped::Went)
            }
            Err(ArchiveError::Database(error)) => Err(error.into()),
            Err(ArchiveError::Moved(_)) => self.idle(id, begun),
            Err(error) => Err(EraseError::NotInArchive(id.clone(), error)),
        }
    }
}
