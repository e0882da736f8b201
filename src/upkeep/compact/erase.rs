//! Erasing one document: a base that stands for its deletion, and at once nothing below that. The same fold proves it that
//! proves any base.

use bson::{RawDocument, Timestamp};

use super::{Compactor, Pacing};
use crate::{
    database::Result,
    log::{EventLog, LogSource},
    model::{
        base::Base,
        compaction::Plan,
        event::{EventKey, is_base},
        id::DocumentId,
        skip::SkippedVersions,
    },
    planted::{Bug, planted},
    store::{Bases, Documents, Over, QuarantineRows, SkipRows},
    upkeep::{fold::first_of, snapshot::version_of},
};

/// How many late events are taken out at once.
const LATE_MAX: u32 = 100;

/// What a step of an erasure has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Erasing {
    /// So many events went; there may be more to do.
    Going(i64),
    /// Nothing is left in the log below the deletion.
    Gone,
    /// It cannot be done, for this reason.
    Wrong(String),
}

impl<S: LogSource, D, P: Pacing> Compactor<'_, S, D, P>
where
    D: Documents + SkipRows + QuarantineRows + Bases,
{
    /// Takes the next step of erasing a document up to `version`, where it was deleted and its row has been.
    ///
    /// # Errors
    /// When the database refuses or is away: the same step may be taken again.
    pub(crate) async fn erase(&self, id: &DocumentId, version: i64) -> Result<Erasing> {
        let Some(row) = self.store.load(std::slice::from_ref(id)).await?.pop() else {
            return Ok(Erasing::Wrong("its row is gone".into()));
        };
        let at_least = self.source.now().await?;
        let Some(first) = first_of(self.log, id, at_least).await? else {
            return Ok(Erasing::Wrong("its log is empty".into()));
        };
        let base = match is_base(&first).then(|| Base::from_raw(&first)).transpose() {
            Ok(base) => base,
            Err(error) => return Ok(Erasing::Wrong(error.to_string())),
        };
        match base {
            // One that stands at the deletion or above it needs no proof: it has one.
            Some(base) if base.version >= version && base.erased_through < version => {
                let over = Over::Base((&base).into());
                self.write(&base.erased(version), &over).await?;
                Ok(Erasing::Going(0))
            }
            Some(base) if !base.is_pruned() => {
                let pruned = self.prune_all(vec![base]).await?;
                let wrong = pruned.findings.into_iter().next();
                Ok(wrong
                    .map_or(Erasing::Going(pruned.events), |wrong| Erasing::Wrong(wrong.problem)))
            }
            Some(base) if base.version >= version => self.erase_late(&base, at_least).await,
            base => self.erase_above((&row, &first, base.as_ref()), (id, version), at_least).await,
        }
    }

    async fn erase_late(&self, base: &Base, at_least: Timestamp) -> Result<Erasing> {
        if base.pruned < 2 {
            return Ok(Erasing::Gone);
        }
        let late = self.store.late(self.log.id(), base, LATE_MAX, at_least).await?;
        let late: Vec<_> = late.into_iter().map(|event| (base.clone(), event)).collect();
        match self.remove_late(&late).await? {
            _ if late.is_empty() => Ok(Erasing::Gone),
            removed => Ok(Erasing::Going(removed)),
        }
    }

    /// Proves and writes the base at the deletion.
    async fn erase_above(
        &self,
        (row, first, old): (&RawDocument, &RawDocument, Option<&Base>),
        (id, version): (&DocumentId, i64),
        at_least: Timestamp,
    ) -> Result<Erasing> {
        if version_of(row) < version {
            return Ok(Erasing::Wrong(format!("its row is not at version {version}")));
        }
        let plan = Plan::at(version);
        let fold = match self.fold(id, (row, first, old), &plan, at_least).await? {
            Ok(fold) => fold,
            Err(problem) => {
                let found = first_of(self.log, id, self.source.now().await?).await?;
                return Ok(match found.as_deref() == Some(first) {
                    true => Erasing::Wrong(format!(
                        "its row is not what its log makes of it ({problem}): `alluvium verify --repair` makes it again"
                    )),
                    // Another instance was quicker.
                    false => Erasing::Going(0),
                });
            }
        };
        let now = self.store.server_time().await?;
        let base = fold.candidate.and_then(|candidate| Base::of(&candidate, first, now));
        let Some(base) = base.filter(|base| base.version == version) else {
            return Ok(Erasing::Wrong(format!("no base can stand at version {version}")));
        };
        if base.state.is_some() && !planted(Bug::ErasedWithoutDelete) {
            return Ok(Erasing::Wrong(format!("it is not deleted at version {version}")));
        }
        let over = old.map_or(Over::Create, |old| Over::Base(old.into()));
        self.write(&base.erased(version), &over).await?;
        Ok(Erasing::Going(0))
    }
}

/// Whether an event is nothing but a deletion: an erasure may leave it.
pub(crate) fn is_bare_delete(event: &RawDocument, skips: &SkippedVersions) -> bool {
    const FIELDS: [&str; 5] = ["_id", "client", "op", "at", "seen"];
    let is_bare = event.iter().all(|field| match field {
        Ok((name, value)) => match name.as_str() {
            // A mark that was drawn by lot is no content; a text may be.
            "id" => {
                value.as_object_id().is_some()
                    || value.as_binary().is_some_and(|id| id.bytes.len() == 16)
            }
            name => FIELDS.contains(&name),
        },
        Err(_) => false,
    });
    let version = EventKey::from_event(event).map_or(0, |key| key.version);
    is_bare && event.get_str("op").ok() == Some("delete") && !skips.contains(version)
}
