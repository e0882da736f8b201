//! Folding the log anew, independently of what the projection has stored: the same fold, up to a
//! version that is known to have been reached.

use bson::{RawDocument, RawDocumentBuf, Timestamp};

use crate::{
    database::Result,
    log::{Batch, EventLog},
    model::{
        document::{Document, FoldLimits, Outcome, Quarantine},
        event::{EventKey, claimed_version, is_base},
        id::DocumentId,
        skip::{SkippedVersions, is_filler},
        state::Limits,
    },
    store::SkipRows,
};

/// How many events of one document are asked for at once.
pub(super) const READ_EVENTS_MAX: u32 = 1_000;

/// Why a fold stopped.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stop {
    /// It has come to the version that was asked for.
    Reached,
    /// The log has no further event of the document.
    End,
    /// The next event is missing while later ones exist.
    Gap,
    /// The log begins with a base of this version, above what was asked for.
    Base(i64),
    /// The next event cannot be applied.
    Poison(Quarantine),
}

/// A document was projected under the limits of its time. A limit only ever refuses an event, so what
/// has been applied is folded without any.
const WIDEST: FoldLimits = FoldLimits {
    state: Limits {
        state_bytes_max: usize::MAX / 4,
        depth_max: 179,
        padding_max: 1_500_000,
        steps_max: usize::MAX,
    },
    clients_max: usize::MAX,
    event_bytes_max: usize::MAX,
};

/// Offers the document an event that should be its next. `None` when it was, or had been applied before,
/// or is beyond `until`.
pub(super) fn offer(
    document: &mut Document,
    (key, raw): (EventKey, &RawDocument),
    until: i64,
    skips: Option<&SkippedVersions>,
) -> Option<Stop> {
    let version = key.version;
    if version == 1 && is_base(raw) {
        let base = claimed_version(raw);
        return match base > document.version && base > until {
            true => Some(Stop::Base(base)),
            false => poison(document.offer(&key, raw, false, &WIDEST), document),
        };
    }
    if version <= document.version || version > until {
        return None;
    }
    if version != document.version + 1 {
        return Some(Stop::Gap);
    }
    let is_skipped = skips.is_some_and(|skips| skips.contains(version));
    poison(document.offer(&key, raw, is_skipped, &WIDEST), document)
}

/// Why a fold stops after this outcome, if it does.
fn poison(outcome: Outcome, document: &Document) -> Option<Stop> {
    match outcome {
        Outcome::Applied(_) | Outcome::Based | Outcome::Skipped | Outcome::Replay => None,
        Outcome::Gap { .. } => Some(Stop::Gap),
        Outcome::Poison(mark) => Some(Stop::Poison(mark)),
        Outcome::Parked => document.quarantine.clone().map(Stop::Poison),
    }
}

/// Folds what the log holds of the document above its version, up to `until`, under the skips that are on record
/// by now: to be called after its row was read, which moves over an event together with the record. Sees every event that was
/// majority-committed before `at_least`.
///
/// # Errors
/// When the database refuses or is away.
pub(super) async fn read_on(
    log: &impl EventLog,
    store: &impl SkipRows,
    document: &mut Document,
    until: i64,
    at_least: Timestamp,
) -> Result<Stop> {
    if document.version >= until {
        return Ok(Stop::Reached);
    }
    let mut skips = store.load_skips_of(&document.id, Some(at_least)).await?;
    while document.version < until {
        let before = document.version;
        let page = (&document.id, before);
        let batch = page_above((log, store), page, &mut skips, at_least).await?;
        for event in batch.documents()? {
            let event = event?;
            // What has no readable key belongs to no document.
            let Ok(key) = EventKey::from_event(event) else { continue };
            match offer(document, (key, event), until, Some(&skips)) {
                None => {}
                // A base may stand for what is missing.
                Some(Stop::Gap) => match take_base(log, document, until, at_least).await? {
                    Some(stop) => return Ok(stop),
                    None => break,
                },
                Some(stop) => return Ok(stop),
            }
        }
        if document.version == before {
            return Ok(Stop::End);
        }
    }
    Ok(Stop::Reached)
}

/// Reads what stands above a version of a document, and what is on record as skipped where that may have changed with it.
///
/// # Errors
/// When the database refuses or is away.
pub(super) async fn page_above(
    (log, store): (&impl EventLog, &impl SkipRows),
    (id, version): (&DocumentId, i64),
    skips: &mut SkippedVersions,
    at_least: Timestamp,
) -> Result<Batch> {
    let page = log.read(id, version, READ_EVENTS_MAX, Some(at_least)).await?;
    if page.documents()?.flatten().any(is_filler) {
        // Together with such an event everything above it may have been skipped.
        let read_at = page.read_at().max(Some(at_least));
        *skips = store.load_skips_of(id, read_at).await?;
    }
    Ok(page)
}

/// What stands first in the log of a document: its first event, or a base.
///
/// # Errors
/// When the database refuses or is away.
pub(super) async fn first_of(
    log: &impl EventLog,
    id: &DocumentId,
    at_least: Timestamp,
) -> Result<Option<RawDocumentBuf>> {
    let first = log.first(id, Some(at_least)).await?;
    Ok(first.documents()?.next().transpose()?.map(ToOwned::to_owned))
}

/// The base with which the log of a document begins, if it does.
///
/// # Errors
/// When the database refuses or is away.
pub(super) async fn base_of(
    log: &impl EventLog,
    id: &DocumentId,
    at_least: Timestamp,
) -> Result<Option<RawDocumentBuf>> {
    Ok(first_of(log, id, at_least).await?.filter(|first| is_base(first)))
}

/// Goes on from the base of the log, which stands for what looks like a gap; why the fold stops, if there is no such base.
async fn take_base(
    log: &impl EventLog,
    document: &mut Document,
    until: i64,
    at_least: Timestamp,
) -> Result<Option<Stop>> {
    let Some(base) = base_of(log, &document.id, at_least).await? else {
        return Ok(Some(Stop::Gap));
    };
    let (reached, key) = (document.version, EventKey { document: document.id.clone(), version: 1 });
    match offer(document, (key, &base), until, None) {
        None if document.version == reached => Ok(Some(Stop::Gap)),
        stop => Ok(stop),
    }
}
