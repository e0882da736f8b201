//! Documents as the server sends them, many in one buffer: decoded one by one, in place, by whoever
//! needs them, since decoding everything costs a quarter of the throughput.

use std::ops::Range;

use bson::{DateTime, RawArray, RawArrayBuf, RawBsonRef, RawDocument, Timestamp};
use mongodb::raw_batch_cursor::RawBatch;

use crate::{
    database::{Error, Result},
    model::{
        event::EventKey,
        state::{
            Malformed,
            raw::{Element, Elements, tag},
        },
    },
};

/// Documents in one buffer: events of a scan, or changes of a tail.
#[derive(Clone, Debug)]
pub struct Batch {
    bytes: Bytes,
    read_at: Option<Timestamp>,
    is_cut: bool,
}

#[derive(Clone, Debug)]
enum Bytes {
    Reply(RawBatch),
    Array(RawArrayBuf),
}

impl Batch {
    /// The documents, in order.
    ///
    /// # Errors
    /// When the reply is not what a cursor replies.
    pub fn documents(&self) -> Result<impl Iterator<Item = Result<&RawDocument>>> {
        let mut elements = self.elements()?;
        Ok(std::iter::from_fn(move || next(&mut elements).transpose()).fuse())
    }

    fn elements(&self) -> Result<Elements<'_>> {
        Elements::new(self.array()?.as_bytes()).map_err(damaged)
    }

    fn array(&self) -> Result<&RawArray> {
        match &self.bytes {
            Bytes::Reply(batch) => Ok(batch.doc_slices()?),
            Bytes::Array(array) => Ok(array),
        }
    }

    /// The whole buffer.
    fn buffer(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Reply(batch) => batch.as_raw_document().as_bytes(),
            Bytes::Array(array) => array.as_bytes(),
        }
    }

    /// The server's reply that carried them, where a server did.
    pub fn reply(&self) -> Option<&RawDocument> {
        match &self.bytes {
            Bytes::Reply(batch) => Some(batch.as_raw_document()),
            Bytes::Array(_) => None,
        }
    }

    /// The cluster time of the answer, where it is known: everything in it was there by then.
    pub fn read_at(&self) -> Option<Timestamp> {
        match &self.bytes {
            Bytes::Reply(batch) => batch.as_raw_document().get_timestamp("operationTime").ok(),
            Bytes::Array(_) => self.read_at,
        }
    }

    /// The same, of an answer of that time.
    #[must_use]
    pub fn of_time(self, time: Timestamp) -> Self {
        Self { read_at: Some(time), ..self }
    }

    /// Whether this is not all that was asked for, because one reply holds no more than 16 MB: what follows has to be
    /// asked for again. There is at least one document in it then.
    pub fn is_cut(&self) -> bool {
        match &self.bytes {
            Bytes::Reply(batch) => {
                let cursor = batch.as_raw_document().get_document("cursor");
                cursor.and_then(|cursor| cursor.get_i64("id")).is_ok_and(|id| id != 0)
            }
            Bytes::Array(_) => self.is_cut,
        }
    }

    /// The same, of an answer that was cut.
    #[must_use]
    pub fn cut(self, is_cut: bool) -> Self {
        Self { is_cut, ..self }
    }

    /// The same without the events that have no readable key, which belong to no document whatever range they sort into;
    /// `None` if there are none of these.
    ///
    /// # Errors
    /// When the reply is not what a cursor replies.
    pub fn without_strays(&self) -> Result<Option<Self>> {
        let mut near = None;
        let mut is_stray =
            |event: &RawDocument| match EventKey::from_event_near(event, near.as_ref()) {
                Ok(key) => {
                    near = Some(key.document);
                    false
                }
                Err(_) => true,
            };
        let mut has_strays = false;
        for event in self.documents()? {
            has_strays |= is_stray(event?);
        }
        if !has_strays {
            return Ok(None);
        }
        let mut events = RawArrayBuf::new();
        for event in self.documents()? {
            let event = event?;
            if !is_stray(event) {
                events.push(event.to_owned());
            }
        }
        let is_cut = self.is_cut();
        Ok(Some(Self { bytes: Bytes::Array(events), read_at: self.read_at(), is_cut }))
    }

    /// The size of the buffer in bytes.
    pub fn bytes(&self) -> usize {
        self.buffer().len()
    }
}

/// A batch that is read piece by piece.
#[derive(Clone, Debug)]
pub struct Reading {
    batch: Batch,
    /// Where the documents are in its buffer: to find them takes longer than to read one.
    array: Range<usize>,
    place: usize,
}

impl Reading {
    /// The batch from its beginning.
    ///
    /// # Errors
    /// When the reply is not what a cursor replies.
    pub fn new(batch: Batch) -> Result<Self> {
        let array = batch.array()?.as_bytes();
        // It is a part of the buffer.
        let begin = array.as_ptr().addr() - batch.buffer().as_ptr().addr();
        let array = begin..begin + array.len();
        Ok(Self { batch, array, place: 0 })
    }

    /// The next document, and the place behind it, for [`Reading::pass`]; `None` at the end.
    ///
    /// # Errors
    /// When the reply is not what a cursor replies.
    pub fn peek(&self) -> Result<Option<(&RawDocument, usize)>> {
        let array = self.batch.buffer().get(self.array.clone()).unwrap_or_default();
        let mut elements = Elements::new(array).map_err(damaged)?.skipping_to(self.place);
        Ok(next(&mut elements)?.map(|document| (document, elements.place())))
    }

    /// When it was read: see [`Batch::read_at`].
    pub fn read_at(&self) -> Option<Timestamp> {
        self.batch.read_at()
    }

    /// Goes on to a place.
    pub fn pass(&mut self, place: usize) {
        self.place = place;
    }
}

fn next<'a>(elements: &mut Elements<'a>) -> Result<Option<&'a RawDocument>> {
    match elements.next().map_err(damaged)? {
        Some(Element { value, .. }) if value.tag == tag::DOCUMENT => {
            Ok(Some(RawDocument::from_bytes(value.bytes)?))
        }
        Some(Element { value, .. }) => {
            Err(Error::damaged(format!("a batch holds a value of type {}", value.tag)))
        }
        None => Ok(None),
    }
}

fn damaged(error: Malformed) -> Error {
    Error::damaged(format!("a batch: {error}"))
}

impl From<RawBatch> for Batch {
    fn from(batch: RawBatch) -> Self {
        Self { bytes: Bytes::Reply(batch), read_at: None, is_cut: false }
    }
}

impl From<RawArrayBuf> for Batch {
    fn from(array: RawArrayBuf) -> Self {
        Self { bytes: Bytes::Array(array), read_at: None, is_cut: false }
    }
}

/// One change of a tail.
#[derive(Clone, Copy, Debug)]
pub enum TailItem<'a> {
    /// An event was appended.
    Event {
        /// The MongoDB collection, with the suffix of logs.
        events: &'a str,
        /// The event.
        event: &'a RawDocument,
        /// When.
        cluster_time: Timestamp,
        /// The server's wall clock at that time, where it tells.
        wall_time: Option<DateTime>,
    },
    /// An event was appended whose body the stream left out: fetch it by its key.
    Bodiless {
        /// The MongoDB collection.
        events: &'a str,
        /// The event's `_id`.
        key: &'a RawDocument,
    },
    /// The log, or the rows, are gone: dropped, or renamed, or with the whole database. `None` means all collections of
    /// the database.
    Gone {
        /// The MongoDB collection.
        events: Option<&'a str>,
    },
    /// A collection came to this name by a rename.
    Arrived {
        /// The MongoDB collection.
        events: &'a str,
    },
    /// A projected row was deleted.
    Deleted {
        /// The MongoDB collection.
        rows: &'a str,
        /// The row's `_id`.
        id: RawBsonRef<'a>,
    },
    /// Something that does not concern the projection (an update by hand, say).
    Other,
}

impl<'a> TailItem<'a> {
    /// Reads a change as the server sends it:
    /// <https://www.mongodb.com/docs/v6.0/reference/change-events/>. A rename gives up to two items: this
    /// reads the name that was left when `watched` holds it, and else the name that was taken.
    ///
    /// # Errors
    /// When a field that every change has is missing.
    pub fn decode(change: &'a RawDocument, watched: impl Fn(&str) -> bool) -> Result<Self> {
        let mut fields = ChangeFields::default();
        for element in change {
            let (key, value) = element?;
            fields.take(key.as_str(), value);
        }
        let damaged =
            |what: &str| Error::damaged(format!("a change of the stream has no `{what}`"));
        let events = fields.collection.ok_or_else(|| damaged("ns.coll"));
        match fields.operation.ok_or_else(|| damaged("operationType"))? {
            "insert" => {
                let cluster_time = fields.cluster_time.ok_or_else(|| damaged("clusterTime"))?;
                let events = events?;
                match (fields.full_document, fields.id) {
                    (Some(event), _) => {
                        Ok(Self::Event { events, event, cluster_time, wall_time: fields.wall_time })
                    }
                    (None, Some(RawBsonRef::Document(key))) => Ok(Self::Bodiless { events, key }),
                    (None, _) => Err(damaged("fullDocument")),
                }
            }
            "delete" => {
                let id = fields.id.ok_or_else(|| damaged("documentKey"))?;
                Ok(Self::Deleted { rows: events?, id })
            }
            "drop" => Ok(Self::Gone { events: Some(events?) }),
            "rename" => match (events?, fields.renamed_to) {
                (events, _) if watched(events) => Ok(Self::Gone { events: Some(events) }),
                (_, Some(to)) => Ok(Self::Arrived { events: to }),
                (_, None) => Err(damaged("to.coll")),
            },
            "dropDatabase" | "invalidate" => Ok(Self::Gone { events: None }),
            _ => Ok(Self::Other),
        }
    }
}

impl TailItem<'_> {
    /// Whether it takes a collection away from its name, or another one to it.
    pub fn moves(&self, collection: &str) -> bool {
        match self {
            Self::Gone { events: None } => true,
            Self::Gone { events: Some(name) } | Self::Arrived { events: name } => {
                *name == collection
            }
            _ => false,
        }
    }
}

#[derive(Default)]
struct ChangeFields<'a> {
    operation: Option<&'a str>,
    collection: Option<&'a str>,
    renamed_to: Option<&'a str>,
    full_document: Option<&'a RawDocument>,
    id: Option<RawBsonRef<'a>>,
    cluster_time: Option<Timestamp>,
    wall_time: Option<DateTime>,
}

impl<'a> ChangeFields<'a> {
    fn take(&mut self, key: &str, value: RawBsonRef<'a>) {
        match (key, value) {
            ("operationType", RawBsonRef::String(operation)) => self.operation = Some(operation),
            ("ns", RawBsonRef::Document(ns)) => self.collection = ns.get_str("coll").ok(),
            ("to", RawBsonRef::Document(ns)) => self.renamed_to = ns.get_str("coll").ok(),
            ("fullDocument", RawBsonRef::Document(event)) => self.full_document = Some(event),
            ("documentKey", RawBsonRef::Document(key)) => self.id = key.get("_id").ok().flatten(),
            ("clusterTime", RawBsonRef::Timestamp(time)) => self.cluster_time = Some(time),
            ("wallTime", RawBsonRef::DateTime(time)) => self.wall_time = Some(time),
            _ => {}
        }
    }
}
