//! The common answer, for the cost of one command: a client that was up to date and went away lacks the last
//! events and no others. Their versions follow from its clock alone, so they need not wait for the document:
//! one aggregation over the log gives them, the document's version and clock, and what of them is skipped, all
//! of one moment. Whether the client is one of those is then seen from their clients' counts.

use bson::{RawBsonRef, RawDocument, RawDocumentBuf, raw::cstr, rawdoc};
use futures::TryStreamExt;

use super::{Reader, error::Result, moment::ToldSkips};
use crate::{
    database,
    log::{Batch, history, mongo::NamedLog},
    model::{
        clock::Clock,
        event::{BASE_OP, EventKey, claimed_version, is_base},
        id::{DocumentId, integral},
        skip::client_of,
    },
    store::mongo::{events_of, place_of_skip, told_of},
};

/// Beyond so many, keys are looked at before bodies are read.
const EVENTS_MAX: u32 = 1_000;

/// The most documents that one reply is asked for. They always come with the first, if they fit.
const BATCH_MAX: u32 = 10_000;

/// An event that the client lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct MissingEvent {
    /// The document's version after it.
    pub version: i64,
    /// Its client, as it counts in the clock.
    pub client: String,
    /// Its rank among its client's events in this document.
    pub seq: i64,
    /// Whether an operator has skipped it: it counts, and changes nothing.
    pub is_skipped: bool,
    /// Its bytes.
    pub raw: RawDocumentBuf,
}

/// What a client lacks of a log that ends where the projected document does.
pub(super) struct Suffix {
    /// The document's version.
    pub(super) version: i64,
    /// Its clock.
    pub(super) clock: Clock,
    /// The events, oldest first.
    pub(super) events: Vec<MissingEvent>,
    /// What is skipped of the document.
    pub(super) skips: ToldSkips,
}

/// The events that `client` lacks if they are the last of the log, and that is `log`. `None` where it takes a
/// closer look: for other clocks, for more than `events_max` events or too many bytes, where the log goes on
/// behind the document or is another one, and where the server gave no answer to this form of the question.
///
/// # Errors
/// When there is no server to ask.
pub(super) async fn suffix(
    reader: &Reader,
    id: &DocumentId,
    log: &NamedLog,
    client: &Clock,
    events_max: u32,
) -> Result<Option<Suffix>> {
    let events_max = events_max.min(EVENTS_MAX);
    let question = question(reader, (id, log), client.total(), events_max)?;
    let mut batches = match log.cursor(cstr!("aggregate"), &question, BATCH_MAX).await {
        Ok(batches) => batches,
        Err(error) if error.code().is_none() => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    let mut found = Found::after(client.clone());
    loop {
        let batch = match batches.try_next().await {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(found.suffix()),
            Err(_) => return Ok(None),
        };
        let fits = found.take(&batch.into())?
            && found.events.len() <= events_max as usize
            && found.bytes <= reader.limits.bytes_max;
        if !fits {
            return Ok(None);
        }
    }
}

/// The aggregation. The range is read in the order of the keys, as the hint says, and that is checked: to ask for the order as well, or for
/// two fields of the row instead of leaving out the large one, costs the server a tenth of the whole.
fn question(
    reader: &Reader,
    (id, log): (&DocumentId, &NamedLog),
    after: i64,
    events_max: u32,
) -> Result<RawDocumentBuf> {
    let versions = history::range(id, &history::above(after));
    let row = rawdoc! {
        "coll": reader.documents.name(),
        "pipeline": [{ "$match": { "_id": id.as_raw() } }, { "$unset": "state" }],
    };
    let skips = RawDocumentBuf::try_from(events_of(reader.collection(), id))?;
    // What stands below a base, and looks like the events that a client lacks, may have come late.
    let base = rawdoc! {
        "coll": log.events(),
        "pipeline": [
            { "$match": history::range(id, &(1..=1)) },
            // So that nobody walks over what was pruned behind it.
            { "$limit": 1 },
            { "$match": { "op": BASE_OP } },
            { "$project": { "op": 1, "version": 1 } },
        ],
    };
    let newest_first = rawdoc! { "$sort": { "_id": -1 } };
    let skips = rawdoc! {
        "coll": reader.skips.name(), "pipeline": [{ "$match": skips }, newest_first],
    };
    Ok(rawdoc! {
        "pipeline": [
            { "$match": versions },
            { "$limit": i64::from(events_max) + 1 },
            { "$unionWith": row },
            { "$unionWith": skips },
            { "$unionWith": base },
        ],
        "hint": { "_id": 1 },
        "cursor": { "batchSize": i64::from(BATCH_MAX) },
        "readConcern": { "level": "snapshot" },
    })
}

/// What has come so far. The three kinds are told apart by their `_id`: `{d, s}` of an event, `{c, d, s}` of a
/// skip, and no document at all of a row.
struct Found {
    /// What the client has.
    after: i64,
    version: i64,
    clock: Clock,
    events: Vec<MissingEvent>,
    bytes: usize,
    row: Option<(i64, Clock)>,
    skips: ToldSkips,
}

impl Found {
    fn after(clock: Clock) -> Self {
        Self {
            after: clock.total(),
            version: clock.total(),
            clock,
            events: Vec::new(),
            bytes: 0,
            row: None,
            skips: ToldSkips::default(),
        }
    }

    /// Takes a reply in; false if there is something in it that does not belong to such an answer.
    fn take(&mut self, batch: &Batch) -> database::Result<bool> {
        for raw in batch.documents()? {
            let raw = raw?;
            let fits = match raw.get("_id")? {
                Some(RawBsonRef::Document(key)) if names(key, "c") => {
                    self.bytes += raw.as_bytes().len();
                    let (key, through) = place_of_skip(raw)?;
                    self.skips.versions.insert(key.version, through);
                    self.skips.add_older(told_of(raw)?);
                    true
                }
                Some(RawBsonRef::Document(key)) => self.event(key, raw),
                _ => self.row(raw),
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn event(&mut self, key: &RawDocument, raw: &RawDocument) -> bool {
        if is_base(raw) {
            return claimed_version(raw) <= self.after;
        }
        self.version += 1;
        self.bytes += raw.as_bytes().len();
        let client = client_of(raw);
        self.events.push(MissingEvent {
            version: self.version,
            client: client.to_owned(),
            seq: self.clock.increment(client),
            is_skipped: false,
            raw: raw.to_owned(),
        });
        EventKey::from_raw(key).is_ok_and(|key| key.version == self.version)
    }

    fn row(&mut self, raw: &RawDocument) -> bool {
        let version = raw.get("version").ok().flatten().and_then(integral);
        let clock = raw.get_document("clock").ok().and_then(|clock| Clock::from_raw(clock).ok());
        self.row = version.zip(clock);
        self.row.is_some()
    }

    fn suffix(mut self) -> Option<Suffix> {
        let (version, clock) = self.row?;
        if version != self.version || clock != self.clock {
            return None;
        }
        for event in &mut self.events {
            event.is_skipped = self.skips.versions.contains(event.version);
        }
        Some(Suffix { version, clock, events: self.events, skips: self.skips })
    }
}

/// Whether the first field of `key` is `name`.
fn names(key: &RawDocument, name: &str) -> bool {
    matches!(key.iter().next(), Some(Ok((first, _))) if first == name)
}
