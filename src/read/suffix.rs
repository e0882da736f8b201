//! The common answer, for the cost of one read of the log: a client that was up to date and went away lacks
//! the last events and no others. Whether it is one of those is seen from their clients' counts.

use super::{
    error::Result,
    missing::MissingEvent,
    moment::{Moment, Pick},
};
use crate::model::{
    clock::Clock,
    document::Document,
    event::EventKey,
    id::{DocumentId, INTEGER_MAX},
    skip::client_of,
};

/// Beyond so many, keys are looked at before bodies are read.
const EVENTS_MAX: i64 = 1_000;

/// The events that `client` lacks, oldest first, if they are the last of a log that ends where the
/// projected document does. `None` where it takes a closer look: for other clocks, for more than
/// `events_max` events or `bytes_max` bytes, and where the log goes on.
pub(super) async fn suffix(
    moment: &mut Moment<'_>,
    id: &DocumentId,
    document: &Document,
    client: &Clock,
    events_max: u32,
    bytes_max: usize,
) -> Result<Option<Vec<MissingEvent>>> {
    let lacking = document.clock.total() - client.total();
    if !(0..=EVENTS_MAX.min(i64::from(events_max))).contains(&lacking) {
        return Ok(None);
    }
    let mut version = document.version - lacking;
    let range = version + 1..=INTEGER_MAX;
    let mut log = moment.events(id, range, Pick::Events, lacking).await?;
    let mut clock = client.clone();
    let (mut events, mut bytes) = (Vec::new(), 0);
    while let Some(raw) = log.next().await? {
        version += 1;
        bytes += raw.as_bytes().len();
        let name = client_of(raw);
        let seq = clock.increment(name);
        let is_next = EventKey::from_event(raw).is_ok_and(|key| key.version == version);
        let is_lacking = version <= document.version && seq <= document.clock.get(name);
        if !is_next || !is_lacking || bytes > bytes_max {
            return Ok(None);
        }
        events.push(MissingEvent {
            version,
            client: name.to_owned(),
            seq,
            is_skipped: false,
            raw: raw.to_owned(),
        });
    }
    Ok((clock == document.clock).then_some(events))
}
