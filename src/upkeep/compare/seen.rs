//! What a walk over a log sees of a base, and below that.

use bson::{RawDocument, Timestamp};

use crate::{
    database::{Error, Result},
    log::EventLog,
    model::{
        event::{EventKey, claimed_version},
        id::{DocumentId, integral},
    },
    upkeep::fold::{READ_EVENTS_MAX, base_of, first_of},
};

/// What a walk has seen of a base.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeenBase {
    version: i64,
    pruned: i64,
    /// Whether its own event is there, which is never pruned.
    has_own: bool,
    /// How many events stand where it says that none is left.
    late: i64,
    /// How many events wait to be pruned.
    left: i64,
}

impl SeenBase {
    pub(super) fn of(base: &RawDocument) -> Self {
        let version = claimed_version(base);
        Self { version, pruned: pruned(base), has_own: false, late: 0, left: 0 }
    }

    pub(super) fn take(&mut self, version: i64) {
        self.has_own |= version == self.version;
        self.late += i64::from((2..=self.pruned).contains(&version));
        self.left += i64::from((self.pruned + 1..self.version).contains(&version));
    }

    /// How many events have to be left to be pruned.
    fn expected(&self) -> i64 {
        self.version - 1 - self.pruned
    }

    /// Whether all is there that has to be.
    pub(super) fn is_whole(&self) -> bool {
        self.has_own && self.left == self.expected()
    }

    /// Sees by itself what the log of a document has of a base and below.
    ///
    /// # Errors
    /// When the database refuses or is away.
    pub(super) async fn look(
        log: &impl EventLog,
        id: &DocumentId,
        at_least: Timestamp,
    ) -> Result<Option<Self>> {
        let base = base_of(log, id, at_least).await?;
        let Some(mut seen) = base.as_deref().map(Self::of) else { return Ok(None) };
        let mut last = 1;
        while last < seen.version {
            let batch = log.read(id, last, READ_EVENTS_MAX, Some(at_least)).await?;
            let before = last;
            for event in batch.documents()? {
                let key = EventKey::from_event(event?);
                last = key.map_err(|error| Error::damaged(error.to_string()))?.version;
                seen.take(last);
            }
            if last == before {
                break;
            }
        }
        if !seen.is_whole() {
            seen.look_again(log, id, at_least).await?;
        }
        Ok(Some(seen))
    }

    /// What is missing was taken out rightly if the base has been written anew since, or says by now that more is pruned.
    ///
    /// # Errors
    /// When the database refuses or is away.
    pub(super) async fn look_again(
        &mut self,
        log: &impl EventLog,
        id: &DocumentId,
        at_least: Timestamp,
    ) -> Result<()> {
        let first = first_of(log, id, at_least).await?;
        let is_same = first.is_some_and(|first| {
            claimed_version(&first) == self.version && pruned(&first) == self.pruned
        });
        if !is_same {
            (self.has_own, self.left) = (true, self.expected());
        }
        Ok(())
    }

    /// What is wrong with it, or below it.
    pub(super) fn problem(&self) -> Option<String> {
        let Self { version, late, .. } = *self;
        let is_late = || {
            format!(
                "{late} events stand below its base, at version {version}, where none is left: they came late. \
                 `alluvium compact` puts them on record"
            )
        };
        self.lost().or_else(|| (late > 0).then(is_late))
    }

    /// What is missing that has to be there.
    pub(super) fn lost(&self) -> Option<String> {
        let Self { version, pruned, has_own, left, .. } = *self;
        if !has_own {
            return Some(format!("the event of its base, at version {version}, is missing"));
        }
        (left != self.expected()).then(|| {
            format!(
                "below its base, at version {version}, {left} events wait to be pruned where `pruned`, {pruned}, says that \
                 there are {}: somebody has deleted some, or changed `pruned`",
                self.expected()
            )
        })
    }
}

fn pruned(base: &RawDocument) -> i64 {
    base.get("pruned").ok().flatten().and_then(integral).unwrap_or(1)
}
