//! Folding the log for a reader: the same fold as the projection's, stopped where the reader wants it
//! or where the document itself would stop.

use bson::{DateTime, RawDocument};

use super::{error::Result, moment::Events};
use crate::model::{
    document::{Document, FoldLimits, Outcome, Quarantine},
    event::EventKey,
};

/// How far to fold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Until {
    /// As far as the log goes.
    End,
    /// To this version.
    Version(i64),
    /// As long as no event is younger than this, by its writer's clock.
    Time(DateTime),
}

/// Why a fold stopped.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stop {
    /// It has come where it was meant to.
    Reached,
    /// The log has no further event of the document.
    End,
    /// The next event is missing while later ones exist.
    Gap,
    /// The document is parked, or the next event would park it.
    Poison(Quarantine),
}

/// Folds `events` (ascending, beginning right after the document's version) into `document`.
pub(super) async fn fold(
    document: &mut Document,
    events: &mut Events<'_>,
    until: Until,
    limits: &FoldLimits,
) -> Result<Stop> {
    loop {
        if until == Until::Version(document.version) {
            return Ok(Stop::Reached);
        }
        if let Some(mark) = &document.quarantine {
            return Ok(Stop::Poison(mark.clone()));
        }
        let Some((raw, is_skipped)) = events.next_to_fold(&document.id).await? else {
            return Ok(Stop::End);
        };
        if let Some(stop) = step(document, raw, is_skipped, until, limits) {
            return Ok(stop);
        }
    }
}

pub(super) fn step(
    document: &mut Document,
    raw: &RawDocument,
    is_skipped: bool,
    until: Until,
    limits: &FoldLimits,
) -> Option<Stop> {
    // What has no readable key belongs to no document, whatever range it sorts into.
    let key = EventKey::from_event(raw).ok()?;
    if let (Until::Time(limit), Ok(at)) = (until, raw.get_datetime("at"))
        && at > limit
        && key.version == document.version + 1
    {
        return Some(Stop::Reached);
    }
    match document.offer(&key, raw, is_skipped, limits) {
        Outcome::Applied(_) | Outcome::Based | Outcome::Skipped | Outcome::Replay => None,
        Outcome::Gap { .. } => Some(Stop::Gap),
        Outcome::Poison(mark) => Some(Stop::Poison(mark)),
        Outcome::Parked => document.quarantine.clone().map(Stop::Poison),
    }
}
