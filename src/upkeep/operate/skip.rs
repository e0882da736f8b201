//! Skipping the event at which a document is parked. The record of the skip and the row that has moved over the event
//! are written together, so a leader that comes late can neither apply the event nor skip one that was applied.

use std::{slice, time::Duration};

use super::{OperateError, Result};
use crate::{
    database::Error,
    log::{EventLog, LogSource, history},
    model::{
        document::{Document, Quarantine},
        event::EventKey,
        id::DocumentId,
        skip::{Remains, Skip, SkippedEvent},
    },
    store::{QuarantineRow, RowWrite, SkipOutcome, Store},
    time::Time,
};

/// How often it is tried. The record of a parked document is there a little before its row.
const ATTEMPTS: u32 = 25;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The version that is skipped now.
    pub version: i64,
    /// The client under which the event counts; `None` if it had been skipped before.
    pub client: Option<String>,
}

/// Skips the event at `version` of a document that is parked there.
///
/// # Errors
/// [`OperateError`]: the document is not parked there. After one that came from the database, try again.
pub async fn skip<S: LogSource>(
    source: &S,
    log: &S::Log,
    store: &impl Store,
    time: &impl Time,
    (id, version): (&DocumentId, i64),
) -> Result<Skipped> {
    let mut attempts = 0;
    loop {
        // An earlier attempt may have succeeded, and the document be parked at a later version by now.
        if store.load_skips_of(id, None).await?.contains(version) {
            return Ok(Skipped { version, client: None });
        }
        super::parked_at(store, id, Some(version)).await?;
        let error = match attempt(source, log, store, time, (id, version)).await {
            Err(error @ OperateError::Elsewhere { .. }) => error,
            other => return other,
        };
        attempts += 1;
        if attempts == ATTEMPTS {
            return Err(error);
        }
        time.sleep(PAUSE).await;
    }
}

async fn attempt<S: LogSource>(
    source: &S,
    log: &S::Log,
    store: &impl Store,
    time: &impl Time,
    (id, version): (&DocumentId, i64),
) -> Result<Skipped> {
    let Some(QuarantineRow { mark: Quarantine { class, reason, .. }, .. }) =
        store.load_quarantine_of(id).await?
    else {
        return Err(OperateError::NotWaiting(id.clone()));
    };
    let row = store.load(slice::from_ref(id)).await?.into_iter().next();
    let row = row.as_deref().map(Document::from_raw).transpose();
    let row = row.map_err(|error| Error::damaged(format!("the row of document {id}: {error}")))?;
    let mut document = row.unwrap_or_else(|| history::start(id));
    let expected = document.version;
    let elsewhere =
        || OperateError::Elsewhere { id: id.clone(), waits: version, version: expected };
    if expected != version - 1 {
        return Err(elsewhere());
    }
    let at_least = source.now().await?;
    let batch = log.read(id, expected, 1, Some(at_least)).await?;
    let event = batch.documents()?.next().transpose()?;
    let is_it = |event: &&bson::RawDocument| {
        EventKey::from_event(event).is_ok_and(|key| key.version == version)
    };
    let Some(event) = event.filter(is_it) else {
        return Err(OperateError::NoEvent { id: id.clone(), version });
    };
    let remains = Remains::of(event);
    document.quarantine = None;
    document.skip(version, remains);
    let client = remains.client.to_owned();
    let seq = document.clock.get(&client);
    let key = EventKey { document: id.clone(), version };
    let told = vec![SkippedEvent { version, client: client.clone(), seq }];
    let skip = Skip { key, through: version, told, class, reason, skipped_at: time.wall() };
    let write = RowWrite::new(id.clone(), (expected, version), document.to_raw());
    match store.skip(&skip, &write).await? {
        SkipOutcome::Done => Ok(Skipped { version, client: Some(client) }),
        SkipOutcome::Existed => Ok(Skipped { version, client: None }),
        SkipOutcome::Stale => Err(elsewhere()),
        SkipOutcome::Rejected { code, reason } => {
            Err(OperateError::Rejected { id: id.clone(), code, reason })
        }
    }
}
