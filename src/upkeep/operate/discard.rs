//! Discarding what stands above a hole: kept in quarantine at majority, and only then deleted from the log, the oldest
//! first, since nothing above a hole is ever projected.

use bson::{RawDocumentBuf, Timestamp};

use super::{OperateError, READ_EVENTS_MAX, Result};
use crate::{
    log::{EventLog, LogSource, Mend},
    model::{event::EventKey, id::DocumentId},
    store::{Discarded, Store},
    time::Time,
};

/// Takes everything above the missing version `hole` of a document out of the log; how many events that were.
///
/// # Errors
/// [`OperateError::Arrived`] when the missing event is there. After an error that came from the database, try again.
pub async fn discard<S: LogSource>(
    source: &S,
    log: &S::Log,
    store: &impl Store,
    time: &impl Time,
    (id, hole): (&DocumentId, i64),
) -> Result<i64>
where
    S::Log: Mend,
{
    let mut discarded = 0;
    loop {
        let at_least = source.now().await?;
        let mut events =
            above(log, (id, hole), at_least).await.map_err(|error| told(error, discarded))?;
        // The first goes alone: once it is gone, what is left stays above a hole whatever arrives.
        if discarded == 0 {
            events.truncate(1);
        }
        let Some(first) = events.first().cloned() else { return Ok(discarded) };
        let reason = format!("discarded by an operator: version {hole} was missing");
        let since = time.wall();
        let kept = events.iter().map(|event| {
            let key = EventKey::from_event(event)
                .unwrap_or(EventKey { document: id.clone(), version: hole });
            Discarded { key, event: event.clone(), reason: reason.clone(), since }
        });
        store.keep_discarded(&kept.collect::<Vec<_>>()).await?;
        log.delete(&events).await?;
        if discarded == 0
            && let Err(error) = above(log, (id, hole), source.now().await?).await
        {
            if matches!(error, OperateError::Arrived { .. }) {
                log.insert(&[first]).await?;
            }
            return Err(error);
        }
        discarded += i64::try_from(events.len()).unwrap_or(i64::MAX);
    }
}

fn told(error: OperateError, discarded: i64) -> OperateError {
    match error {
        OperateError::Arrived { id, version, .. } => {
            OperateError::Arrived { id, version, discarded }
        }
        other => other,
    }
}

/// Some events above the hole.
async fn above(
    log: &impl EventLog,
    (id, hole): (&DocumentId, i64),
    at_least: Timestamp,
) -> Result<Vec<RawDocumentBuf>> {
    let batch = log.read(id, hole - 1, READ_EVENTS_MAX, Some(at_least)).await?;
    let mut events = Vec::new();
    for event in batch.documents()? {
        let event = event?;
        let version = EventKey::from_event(event).map_or(hole, |key| key.version);
        if version == hole {
            return Err(OperateError::Arrived { id: id.clone(), version, discarded: 0 });
        }
        events.push(event.to_owned());
    }
    Ok(events)
}
