//! Where the oldest events stand that a client lacks. They are looked for over keys and clients alone, from
//! both ends of the log: from the back the walk is over when every client's count is met, from the front
//! when the page is full. Neither end is known to be nearer, so each gets as much as the other has had, and
//! the cost is a small multiple of the cheaper one.

use std::collections::VecDeque;

use super::{
    error::Result,
    moment::{Moment, Pick},
};
use crate::model::{
    base::Base, clock::Clock, document::Document, event::EventKey, missing::Missing,
    skip::client_of,
};

/// The place of a missing event, before its body is read.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The document's version after it.
    pub(super) version: i64,
    /// Its rank among its client's events.
    pub(super) seq: i64,
}

/// The places of the oldest `limit` events that `client` lacks, ascending, above the base of the log if it has one: then
/// the client has everything up to there. `None` if the log has lost an event that would have to be looked at.
pub(super) async fn oldest(
    moment: &mut Moment<'_>,
    (document, base): (&Document, Option<&Base>),
    client: &Clock,
    limit: u32,
) -> Result<Option<Vec<Place>>> {
    let walk = Missing::new(&document.clock, client)?;
    let remaining = walk.remaining();
    if remaining == 0 {
        return Ok(Some(Vec::new()));
    }
    let page = remaining.min(i64::from(limit));
    // A clock that is a prefix of the history is met from the front after `total` events. The back takes
    // at least `remaining`, of which a quarter is risked on any other clock.
    let above = base.map_or(0, |base| base.version);
    let prefix = client.total() - above + page;
    let mut budget = if prefix < remaining { prefix } else { remaining / 4 };
    let mut back = Back::new(document, walk, limit);
    loop {
        if budget >= page
            && let Some(places) =
                from_the_front(moment, (document, base), client, page, budget).await?
        {
            return Ok(Some(places));
        }
        match back.pass(moment).await? {
            Pass::Done(places) => return Ok(Some(places)),
            Pass::Lost => return Ok(None),
            Pass::NotYet { walked } => budget = walked,
        }
    }
}

/// Looks at the oldest `budget` events for `page` that are missing. `None` if there are not as many, or
/// the log has lost one of them.
async fn from_the_front(
    moment: &mut Moment<'_>,
    (document, base): (&Document, Option<&Base>),
    client: &Clock,
    page: i64,
    budget: i64,
) -> Result<Option<Vec<Place>>> {
    let mut at = base.map_or_else(Clock::new, |base| base.clock.clone());
    let mut version = base.map_or(0, |base| base.version);
    let mut left = page;
    let mut places = Vec::new();
    let range = version + 1..=document.version.min(version + budget);
    let mut events = moment.events(&document.id, range, Pick::Clients, budget).await?;
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
            left -= 1;
        }
        if left == 0 {
            return Ok(Some(places));
        }
    }
    Ok(None)
}

/// The walk from the newest event back to the oldest that is missing, pass by pass.
struct Back<'d> {
    document: &'d Document,
    walk: Missing,
    limit: u32,
    /// Newest first. What is met last is the oldest, so the newest fall out at the front.
    found: VecDeque<Place>,
    /// The version to be met next.
    next: i64,
    /// How many versions the next pass asks for.
    span: i64,
}

/// How a pass ended.
enum Pass {
    /// At the oldest missing event.
    Done(Vec<Place>),
    /// Before it, after so many events in all.
    NotYet { walked: i64 },
    /// At a place where the log has lost an event.
    Lost,
}

impl<'d> Back<'d> {
    fn new(document: &'d Document, walk: Missing, limit: u32) -> Self {
        let (next, span) = (document.version, walk.remaining());
        Self { document, walk, limit, found: VecDeque::new(), next, span }
    }

    async fn pass(&mut self, moment: &mut Moment<'_>) -> Result<Pass> {
        let low = (self.next - self.span + 1).max(1);
        let range = low..=self.next;
        let backwards = Pick::ClientsBackwards;
        let mut events = moment.events(&self.document.id, range, backwards, self.span).await?;
        while self.walk.remaining() > 0
            && let Some(raw) = events.next().await?
        {
            let Ok(key) = EventKey::from_event(raw) else { continue };
            if key.version != self.next {
                return Ok(Pass::Lost);
            }
            if let Some(seq) = self.walk.step(client_of(raw)) {
                if self.found.len() == self.limit as usize {
                    self.found.pop_front();
                }
                self.found.push_back(Place { version: self.next, seq });
            }
            self.next -= 1;
        }
        if self.walk.remaining() == 0 {
            return Ok(Pass::Done(self.found.drain(..).rev().collect()));
        }
        if self.next >= low || self.next == 0 {
            return Ok(Pass::Lost);
        }
        let walked = self.document.version - self.next;
        self.span = walked;
        Ok(Pass::NotYet { walked })
    }
}
