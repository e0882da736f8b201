//! What a client is missing, exactly and of one moment. The log is walked backwards from the newest
//! version over keys and clients only, until every client's count is met; then the oldest page of what
//! was found is read whole. Memory is bounded by the page, however much is missing.

use std::collections::VecDeque;

use bson::{RawDocument, RawDocumentBuf};
use mongodb::options::ReadConcern;

use super::{
    Reader,
    error::{ReadError, Result},
    moment::{Moment, Pick, at_one_moment, by_id},
};
use crate::model::{
    clock::{Clock, is_client_name},
    document::Document,
    event::EventKey,
    id::DocumentId,
    missing::Missing as Walk,
    position::LogId,
};

/// The most versions that one step of the walk asks for at once.
const SPAN_MAX: i64 = 1 << 17;

/// Known events between two missing ones are read along when they are at most this many: about what a
/// round trip costs.
const ALONG_MAX: i64 = 128;

/// How a skipped event without a usable client counts.
const NAMELESS: &str = "?";

/// What a client asks.
#[derive(Clone, Debug, Default)]
pub struct MissingQuery {
    /// What it has seen.
    pub clock: Clock,
    /// The most events it wants at once.
    pub limit: u32,
    /// The log that its clock belongs to, if it remembers.
    pub log: Option<LogId>,
}

/// What a client is missing.
#[derive(Clone, Debug)]
pub struct Missing {
    /// The log that the answer was read from.
    pub log: LogId,
    /// The document's version at the answer's moment.
    pub version: i64,
    /// Its clock at that moment.
    pub clock: Clock,
    /// Set when events alone cannot bring the client up to date: it replaces what it has by this.
    pub snapshot: Option<Document>,
    /// The oldest of the missing events, oldest first; with a snapshot, those after it.
    pub events: Vec<MissingEvent>,
    /// The client's clock once it has taken this answer in.
    pub next_clock: Clock,
    /// Whether `next_clock` still lacks something.
    pub more: bool,
}

/// An event that the client lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct MissingEvent {
    /// The document's version after it.
    pub version: i64,
    /// Its client, as it counts in the clock.
    pub client: String,
    /// Its rank among its client's events in this document.
    pub seq: i64,
    /// Its bytes.
    pub raw: RawDocumentBuf,
}

/// The place of a missing event, before its body is read.
#[derive(Clone, Copy)]
struct Place {
    version: i64,
    seq: i64,
}

impl Reader {
    /// The events that a client with `query.clock` lacks, the oldest `query.limit` of them, or a
    /// snapshot where events cannot do: when the clock belongs to another log, or the log no longer
    /// reaches back. `None` for a document that was never written.
    ///
    /// # Errors
    /// [`ReadError::ClockAhead`] when the clock claims more than exists, also after waiting for all that
    /// the primary had accepted; [`ReadError::NoLog`] when there is no log.
    pub async fn missing(&self, id: &DocumentId, query: &MissingQuery) -> Result<Option<Missing>> {
        let ahead = |answer: &Result<Option<Missing>>| {
            matches!(answer, Err(ReadError::ClockAhead(_)))
                || matches!(answer, Ok(None) if query.clock.total() > 0)
        };
        let answer = at_one_moment(|| self.missing_now(id, query)).await;
        if !ahead(&answer) {
            return answer;
        }
        self.await_accepted(id).await?;
        at_one_moment(|| self.missing_now(id, query)).await
    }

    /// Waits until the majority holds everything that the primary has accepted up to now. A client may
    /// know of an event that was acknowledged to it by the primary alone.
    async fn await_accepted(&self, id: &DocumentId) -> Result<()> {
        let mut session = self.database.client().start_session().causal_consistency(true).await?;
        self.database.run_command(bson::doc! { "ping": 1 }).session(&mut session).await?;
        let read = self.documents.find_one(by_id(id)).projection(bson::doc! { "_id": 1 });
        read.read_concern(ReadConcern::majority()).session(&mut session).await?;
        Ok(())
    }

    async fn missing_now(&self, id: &DocumentId, query: &MissingQuery) -> Result<Option<Missing>> {
        let mut moment = Moment::open(self).await?;
        // The order matters: see `Moment::log`.
        let row = moment.document(id).await?;
        let log = moment.log().await?;
        let Some(current) = self.with_tail(&mut moment, id, row).await? else { return Ok(None) };
        let document = current.document;
        if query.log.is_some_and(|known| known != log) {
            return Ok(Some(snapshot(log, document)));
        }
        let limit = query.limit.clamp(1, self.limits.events_max);
        let Some(places) = oldest(&mut moment, &document, &query.clock, limit).await? else {
            return Ok(Some(snapshot(log, document)));
        };
        let Some(events) = self.bodies(&mut moment, id, &places).await? else {
            return Ok(Some(snapshot(log, document)));
        };
        let mut next_clock = query.clock.clone();
        events.iter().for_each(|event| next_clock.set(&event.client, event.seq));
        let more = next_clock != document.clock;
        let Document { version, clock, .. } = document;
        Ok(Some(Missing { log, version, clock, snapshot: None, events, next_clock, more }))
    }

    /// The events at `places` (ascending), as many as fit into one answer. `None` if one is not there.
    async fn bodies(
        &self,
        moment: &mut Moment<'_>,
        id: &DocumentId,
        places: &[Place],
    ) -> Result<Option<Vec<MissingEvent>>> {
        let mut events: Vec<MissingEvent> = Vec::with_capacity(places.len());
        let mut bytes = 0;
        for run in places.chunk_by(|a, b| b.version - a.version <= ALONG_MAX + 1) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let range = first.version..=last.version;
            let span = last.version - first.version + 1;
            let mut wanted = run.iter().peekable();
            let mut log = moment.events(id, range, Pick::Events, span).await?;
            while let Some(raw) = log.next().await? {
                let Ok(key) = EventKey::from_event(raw) else { continue };
                let Some(place) = wanted.next_if(|place| place.version == key.version) else {
                    continue;
                };
                bytes += raw.as_bytes().len();
                if bytes > self.limits.bytes_max && !events.is_empty() {
                    return Ok(Some(events));
                }
                events.push(MissingEvent {
                    version: key.version,
                    client: client_of(raw).to_owned(),
                    seq: place.seq,
                    raw: raw.to_owned(),
                });
            }
            if wanted.peek().is_some() {
                return Ok(None);
            }
        }
        Ok(Some(events))
    }
}

/// The answer that needs no events: the document itself.
fn snapshot(log: LogId, document: Document) -> Missing {
    Missing {
        log,
        version: document.version,
        clock: document.clock.clone(),
        next_clock: document.clock.clone(),
        snapshot: Some(document),
        events: Vec::new(),
        more: false,
    }
}

/// The places of the oldest `limit` events that `client` lacks, ascending. `None` if the log has lost
/// an event that would have to be looked at.
async fn oldest(
    moment: &mut Moment<'_>,
    document: &Document,
    client: &Clock,
    limit: u32,
) -> Result<Option<Vec<Place>>> {
    let walk = Walk::new(&document.clock, client)?;
    if walk.remaining() == 0 {
        return Ok(Some(Vec::new()));
    }
    // A clock that is a prefix of the history is met from the front after `total` events, from the back
    // after `remaining`. For any other clock the front costs at most twice what the back would.
    if client.total() + i64::from(limit) < walk.remaining()
        && let Some(places) = from_the_front(moment, document, client, limit).await?
    {
        return Ok(Some(places));
    }
    from_the_back(moment, document, walk, limit).await
}

async fn from_the_front(
    moment: &mut Moment<'_>,
    document: &Document,
    client: &Clock,
    limit: u32,
) -> Result<Option<Vec<Place>>> {
    let mut at = Clock::new();
    let mut version = 0;
    let mut places = Vec::new();
    let range = 1..=document.version;
    let expected = client.total() + i64::from(limit);
    let mut events = moment.events(&document.id, range, Pick::Clients, expected).await?;
    while let Some(raw) = events.next().await? {
        let Ok(key) = EventKey::from_event(raw) else { continue };
        version += 1;
        if key.version != version {
            return Ok(None);
        }
        let name = client_of(raw);
        let seq = at.increment(name);
        if seq > client.get(name) {
            places.push(Place { version, seq });
        }
        if places.len() == limit as usize {
            return Ok(Some(places));
        }
    }
    Ok((version == document.version).then_some(places))
}

async fn from_the_back(
    moment: &mut Moment<'_>,
    document: &Document,
    mut walk: Walk,
    limit: u32,
) -> Result<Option<Vec<Place>>> {
    // Newest first; what is met last is the oldest, so the newest fall out at the front.
    let mut found: VecDeque<Place> = VecDeque::new();
    let mut next = document.version;
    let mut span = walk.remaining();
    while walk.remaining() > 0 {
        let low = (next - span + 1).max(1);
        let range = low..=next;
        let mut events = moment.events(&document.id, range, Pick::ClientsBackwards, span).await?;
        while let Some(raw) = events.next().await? {
            let Ok(key) = EventKey::from_event(raw) else { continue };
            if key.version != next {
                return Ok(None);
            }
            if let Some(seq) = walk.step(client_of(raw)) {
                if found.len() == limit as usize {
                    found.pop_front();
                }
                found.push_back(Place { version: next, seq });
            }
            next -= 1;
            if walk.remaining() == 0 {
                break;
            }
        }
        if walk.remaining() > 0 && (next >= low || next == 0) {
            return Ok(None);
        }
        span = walk.remaining().max(span * 2).min(SPAN_MAX);
    }
    Ok(Some(found.into_iter().rev().collect()))
}

/// The client under which an event counts in its document's clock.
fn client_of(raw: &RawDocument) -> &str {
    raw.get_str("client").ok().filter(|name| is_client_name(name)).unwrap_or(NAMELESS)
}
