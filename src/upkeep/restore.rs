//! Putting back what compaction has taken out: pruning backwards, from the archive, in steps of one transaction each. The
//! base says in each how far it is; the last step puts the first event in its place. Each step may be interrupted, and
//! the next restore goes on from there.

use bson::RawDocumentBuf;

use super::fold::base_of;
use crate::{
    archive::{Archive, ArchiveError, LastRead, holding},
    database,
    log::{EventLog, LogSource},
    model::{base::Base, id::DocumentId},
    planted::{Bug, planted},
    store::{Bases, Restore, Which},
};

/// How many events one transaction puts back at most, and how many bytes of them unless it is one.
const EVENTS_MAX: usize = 1_000;
const BYTES_MAX: usize = 8 << 20;
/// How many late events are taken out at once where others are to be put back.
const LATE_MAX: u32 = 1_000;
/// How often in a row a step may find that another one was at work.
const TRIES_MAX: u32 = 20;

/// Puts events back into one log.
pub(crate) struct Restorer<'a, S: LogSource, D> {
    pub(crate) source: &'a S,
    pub(crate) log: &'a S::Log,
    pub(crate) store: &'a D,
    pub(crate) archive: &'a Archive,
    /// What was read of the archive for the documents before.
    pub(crate) last: LastRead,
}

/// Why a document is not restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// The archive does not hold an event that is gone.
    #[error("version {version} is in no segment: it was pruned without an archive")]
    NotArchived {
        /// The event.
        version: i64,
    },
    /// The content was erased for good.
    #[error("its content was erased; that cannot be undone")]
    Erased,
    /// Others keep writing where events are to be put back.
    #[error("others keep writing below its base; try again")]
    Busy,
    /// The server refuses what is to be put back, for somebody's index on the log, say.
    #[error("the server refuses its events: {0}")]
    Refused(database::Error),
    /// What stands first in the log cannot be used.
    #[error("{0}")]
    Base(String),
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(ArchiveError),
    /// The database refused or is away.
    #[error(transparent)]
    Database(#[from] database::Error),
}

impl From<ArchiveError> for RestoreError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Database(error) => Self::Database(error),
            error => Self::Archive(error),
        }
    }
}

type Result<T> = std::result::Result<T, RestoreError>;

impl<S: LogSource, D: Bases> Restorer<'_, S, D> {
    /// Takes one step for a document; how many events are back by it, or `None` when all are. It is held before its first
    /// event is back, or a pass would take that out again; `is_held` says that it is.
    ///
    /// # Errors
    /// [`RestoreError`]; what was put back stays.
    pub(crate) async fn step(&self, id: &DocumentId, is_held: &mut bool) -> Result<Option<i64>> {
        let mut is_held_by_this = false;
        for _ in 0..TRIES_MAX {
            let Some(base) = self.base(id).await? else { return Ok(None) };
            let erased = match planted(Bug::ErasedIsRestored) {
                true => 0,
                false => base.erased_through,
            };
            if erased == base.version {
                return Err(RestoreError::Erased);
            }
            // What lies above an erasure is a new life, whose base stays.
            if base.pruned <= erased {
                return Ok(None);
            }
            let mut events = match self.missing(&base, erased).await {
                Err(RestoreError::Archive(ArchiveError::Moved(_))) => continue,
                events => events?,
            };
            let count = events.len() as i64;
            let pruned = base.pruned - count;
            if planted(Bug::RestoredTooFar) && count > 1 {
                events.remove(1);
            }
            let step = Restore { id: id.clone(), base: Which::from(&base), pruned, events };
            is_held_by_this |= !self.hold(id, is_held).await?;
            match self.store.restore(self.log.id(), &step).await {
                Ok(true) => return Ok(Some(count)),
                Ok(false) => {}
                Err(error) if error.may_be_of_what_was_sent() => {
                    if is_held_by_this {
                        *is_held = false;
                        self.store.hold(self.log.id(), id, false).await?;
                    }
                    return Err(RestoreError::Refused(error));
                }
                Err(error) => return Err(error.into()),
            }
            let at_least = self.source.now().await?;
            for late in self.store.late(self.log.id(), &base, LATE_MAX, at_least).await? {
                self.store.remove_late(self.log.id(), &base, &late).await?;
            }
        }
        Err(RestoreError::Busy)
    }

    /// Whether it was held before.
    async fn hold(&self, id: &DocumentId, is_held: &mut bool) -> Result<bool> {
        let log = self.log.id();
        if *is_held || self.store.held(log, std::slice::from_ref(id)).await?.contains(id) {
            *is_held = true;
            return Ok(true);
        }
        self.store.hold(log, id, true).await?;
        *is_held = true;
        Ok(false)
    }

    /// The base of a document's log.
    async fn base(&self, id: &DocumentId) -> Result<Option<Base>> {
        let base = base_of(self.log, id, self.source.now().await?).await?;
        let base = base.map(|base| Base::from_raw(&base)).transpose();
        base.map_err(|error| RestoreError::Base(error.to_string()))
    }

    /// The last of the events above `after` that are gone, as many as one step puts back. The first event of all is gone by
    /// its base.
    async fn missing(&self, base: &Base, after: i64) -> Result<Vec<RawDocumentBuf>> {
        let rows = self.store.archived(std::slice::from_ref(&base.id)).await?;
        let row = holding(&rows, self.log.id(), base.pruned)
            .ok_or(RestoreError::NotArchived { version: base.pruned })?;
        let mut events = self.archive.events_with(row, &self.last).await?;
        events.truncate(usize::try_from(base.pruned - row.from + 1).unwrap_or_default());
        let mut bytes = 0;
        let from_the_end = events.iter().rev().take(EVENTS_MAX).take_while(|event| {
            bytes += event.as_bytes().len();
            bytes <= BYTES_MAX
        });
        let above = usize::try_from(base.pruned - after).unwrap_or(usize::MAX);
        let count = from_the_end.count().max(1).min(above).min(events.len());
        Ok(events.split_off(events.len() - count))
    }
}
