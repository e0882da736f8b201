//! What a client is missing, exactly and of one moment. First the places of the oldest missing events are
//! found by their keys and clients alone ([`super::walk`]), then those events are read whole. Memory is bounded
//! by the page, however much is missing. A client that lacks just the last events gets them for one command
//! ([`super::suffix`]).

use mongodb::options::ReadConcern;

use super::{
    Current, Reader,
    archived::Page,
    error::{ReadError, Result},
    from_base,
    moment::{Moment, Pick, ToldSkips, by_id},
    suffix::{MissingEvent, suffix},
    walk::{Place, oldest},
};
use crate::model::{
    base::Base,
    clock::Clock,
    document::{Document, Quarantine},
    event::EventKey,
    id::DocumentId,
    missing::Missing as Walk,
    position::LogId,
    skip::{SkippedEvent, client_of},
};

/// Known events between two missing ones are read along when they are at most this many: about what a
/// round trip costs.
const ALONG_MAX: i64 = 128;

/// What a client asks.
#[derive(Clone, Debug, Default)]
pub struct MissingQuery {
    /// What it has seen.
    pub clock: Clock,
    /// The most events it wants at once.
    pub limit: u32,
    /// The log that its clock belongs to, if it remembers.
    pub log: Option<LogId>,
    /// Whether it takes the state anew, whatever it has seen: it has applied an event that is skipped, say.
    pub reset: bool,
    /// Whether it wants every event, also those that only the archive still has, and no base in their place.
    pub archive: bool,
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
    /// Whether the content of that was erased.
    pub erased: bool,
    /// The oldest of the missing events, oldest first; with a snapshot, those after it.
    pub events: Vec<MissingEvent>,
    /// The client's clock once it has taken this answer in.
    pub next_clock: Clock,
    /// Whether `next_clock` still lacks something.
    pub more: bool,
    /// What is skipped of the whole document, ascending, the newest [`crate::model::skip::TOLD_MAX`]: also what the client's clock counts. If
    /// the client has applied one of these events it has to take the state anew.
    pub skips: Vec<SkippedEvent>,
    /// How many events of the document are skipped.
    pub skips_total: i64,
    /// What the document waits for, if it is parked or behind a gap.
    pub waits: Option<Quarantine>,
}

impl Reader {
    /// The events that a client with `query.clock` lacks, the oldest `query.limit` of them, or a
    /// snapshot where events cannot do: when the clock belongs to another log, or the log no longer
    /// reaches back (nor the archive, if that may be read). `None` for a document that was never written.
    ///
    /// # Errors
    /// [`ReadError::ClockAhead`] when the clock claims more than exists, also after waiting for all that
    /// the primary had accepted; [`ReadError::NoLog`] when there is no log; [`ReadError::Archive`] when the archive is to be
    /// read, and cannot be.
    pub async fn missing(&self, id: &DocumentId, query: &MissingQuery) -> Result<Option<Missing>> {
        self.check_format().await?;
        let ahead = |answer: &Result<Option<Missing>>| {
            matches!(answer, Err(ReadError::ClockAhead(_)))
                || matches!(answer, Ok(None) if query.clock.total() > 0 && !query.reset)
        };
        let answer = self.at_one_moment(|| self.missing_now(id, query)).await;
        if !ahead(&answer) {
            return answer;
        }
        self.await_accepted(id).await?;
        self.at_one_moment(|| self.missing_now(id, query)).await
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
        let limit = query.limit.clamp(1, self.limits.events_max);
        let log = self.known_log().await?;
        if !query.reset
            && query.log.is_none_or(|known| known == log.id())
            && let Some(found) = suffix(self, id, &log, &query.clock, limit).await?
        {
            // The log ends where the document is, so that it waits for nothing.
            let (version, clock) = (found.version, found.clock);
            let standing =
                Standing { log: log.id(), version, clock, skips: found.skips, waits: None };
            return Ok(Some(standing.answer(query, found.events)));
        }
        let mut moment = Moment::open(self).await?;
        let row = moment.document(id).await?;
        let log = moment.log();
        let is_other = query.log.is_some_and(|known| known != log);
        let Some(current) = self.with_tail(&mut moment, id, row).await? else { return Ok(None) };
        let Current { document, waits, .. } = current;
        let skips = moment.told_skips(id).await?;
        let (version, clock) = (document.version, document.clock.clone());
        let standing = Standing { log, version, clock, skips, waits };
        if is_other || query.reset {
            let erased = is_erased(&mut moment, &document).await?;
            return Ok(Some(Missing { erased, ..standing.snapshot(document) }));
        }
        // A clock that is ahead is told so before anything else.
        Walk::new(&document.clock, &query.clock)?;
        let base = moment.base(id).await?;
        let mut page = Page::default();
        if let Some(base) = base.as_ref().filter(|base| !query.clock.includes(&base.clock)) {
            let below = match query.archive {
                true => self.missing_below(&mut moment, (base, &query.clock), limit).await?,
                false => None,
            };
            match below {
                Some(below) => page = below,
                None => {
                    return self.above_base(&mut moment, standing, base, limit).await.map(Some);
                }
            }
        }
        let known = clock_after(&query.clock, &page.events);
        let room = limit - u32::try_from(page.events.len()).unwrap_or(limit);
        let mut places = Some(Vec::new());
        if room > 0 && !page.is_full {
            let asked = (&document, base.as_ref());
            places = oldest(&mut moment, asked, &known, room).await?;
        }
        let Some(places) = places else { return Ok(Some(standing.snapshot(document))) };
        let Some(mut events) = self.bodies(&mut moment, id, (page, &places)).await? else {
            return Ok(Some(standing.snapshot(document)));
        };
        // So that a client passes them over as the projection did.
        for event in &mut events {
            event.is_skipped = standing.skips.versions.contains(event.version);
        }
        Ok(Some(standing.answer(query, events)))
    }

    /// The answer to a client that the base has passed: the base, and what follows it.
    async fn above_base(
        &self,
        moment: &mut Moment<'_>,
        standing: Standing,
        base: &Base,
        limit: u32,
    ) -> Result<Missing> {
        let mut clock = base.clock.clone();
        let mut events: Vec<MissingEvent> = Vec::new();
        let (mut bytes, end) = (0, standing.version.min(base.version + i64::from(limit)));
        if base.version < end {
            let range = base.version + 1..=end;
            let mut log = moment.events(&base.id, range, Pick::Events, end - base.version).await?;
            while let Some(raw) = log.next().await? {
                let Ok(key) = EventKey::from_event(raw) else { continue };
                bytes += raw.as_bytes().len();
                if bytes > self.limits.bytes_max && !events.is_empty() {
                    break;
                }
                let client = client_of(raw);
                events.push(MissingEvent {
                    version: key.version,
                    client: client.to_owned(),
                    seq: clock.increment(client),
                    is_skipped: standing.skips.versions.contains(key.version),
                    raw: raw.to_owned(),
                });
            }
        }
        let more = clock != standing.clock;
        let erased = base.is_erased();
        let answer = standing.with(Some(from_base(base)?), events, (clock, more));
        Ok(Missing { erased, ..answer })
    }

    /// The events of a page and those at `places` (ascending) behind them, as many as fit into one answer. `None` if one is
    /// not there.
    async fn bodies(
        &self,
        moment: &mut Moment<'_>,
        id: &DocumentId,
        (page, places): (Page, &[Place]),
    ) -> Result<Option<Vec<MissingEvent>>> {
        let Page { events, mut bytes, .. } = page;
        let mut events = Vec::from(events);
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
                    is_skipped: false,
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

/// Whether what a document was is erased, and nothing was written of it since.
async fn is_erased(moment: &mut Moment<'_>, document: &Document) -> Result<bool> {
    if document.state().is_some() {
        return Ok(false);
    }
    match moment.base(&document.id).await {
        // The row is there whatever the base is.
        Err(ReadError::Base { .. }) => Ok(false),
        base => Ok(base?.is_some_and(|base| base.is_erased() && base.version == document.version)),
    }
}

/// A client's clock once it has taken events in.
fn clock_after<'e>(clock: &Clock, events: impl IntoIterator<Item = &'e MissingEvent>) -> Clock {
    let mut clock = clock.clone();
    events.into_iter().for_each(|event| clock.set(&event.client, event.seq));
    clock
}

/// Where a document stands at the moment of an answer.
struct Standing {
    log: LogId,
    version: i64,
    clock: Clock,
    skips: ToldSkips,
    waits: Option<Quarantine>,
}

impl Standing {
    /// The answer of these events.
    fn answer(self, query: &MissingQuery, events: Vec<MissingEvent>) -> Missing {
        let next_clock = clock_after(&query.clock, &events);
        let more = next_clock != self.clock;
        self.with(None, events, (next_clock, more))
    }

    /// The answer that needs no events: the document itself.
    fn snapshot(self, document: Document) -> Missing {
        let next_clock = self.clock.clone();
        self.with(Some(document), Vec::new(), (next_clock, false))
    }

    fn with(
        self,
        snapshot: Option<Document>,
        events: Vec<MissingEvent>,
        (next_clock, more): (Clock, bool),
    ) -> Missing {
        let Self { log, version, clock, skips, waits } = self;
        let skips_total = skips.versions.count();
        let mut skips = skips.newest;
        skips.reverse();
        Missing {
            log,
            version,
            clock,
            snapshot,
            erased: false,
            events,
            next_clock,
            more,
            skips,
            skips_total,
            waits,
        }
    }
}
