//! The typed writer: Rust values in, events out. It is a convenience over the protocol and has no
//! right of its own: everything it does, any driver can do with `find` and `insert`.

mod change;
mod decide;
mod error;
mod reads;

use std::{any::type_name, convert::Infallible, fmt, marker::PhantomData, sync::Arc};

use bson::{DateTime, RawDocument, RawDocumentBuf};
use mongodb::Database;
use serde::{Serialize, de::DeserializeOwned};

use self::decide::{Decider, Decision};
use crate::{
    log::append::AppendLimits,
    model::{
        clock::Clock,
        diff::Order,
        document::{Body, Document, FoldLimits},
        id::DocumentId,
        new_event::{NewChange, NewEvent},
    },
};
pub use error::{Result, UpdateError, WriteError};

/// Writes and reads the documents of one collection as values of `T`. Cheap to clone; clones share
/// one cache.
///
/// Every write is acknowledged by a majority before it returns. It is projected by the daemon a moment
/// later; [`EventSourced::get`] does not wait for that.
pub struct EventSourced<T> {
    decider: Arc<Decider>,
    type_of_state: PhantomData<fn(T) -> T>,
}

/// How the writer behaves.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// How often a write is decided anew when other writers were quicker, at least once.
    pub attempts: usize,
    /// How much memory the remembered documents may take, in bytes. 0 remembers none, and every update
    /// reads the document first.
    pub cache_bytes: u64,
    /// An event records the clock that its writer had seen (`seen`) when it names at most this many clients.
    pub seen_clients_max: usize,
    /// How long and how often one append is tried.
    pub append: AppendLimits,
    /// What a document and an event may become: the same as in the daemon's configuration of the collection
    /// (`max_event_bytes`, say), so that what would park its document is refused instead of appended.
    pub limits: FoldLimits,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            attempts: 10,
            cache_bytes: 16 << 20,
            seen_clients_max: 100,
            append: AppendLimits::default(),
            limits: FoldLimits::default(),
        }
    }
}

/// Who writes, and what the event is called. A plain client name is enough.
#[derive(Clone, Debug)]
pub struct By {
    client: String,
    event_type: Option<String>,
    meta: Option<RawDocumentBuf>,
}

impl By {
    /// Written by `client`: one name per replica, 1 to 128 printable ASCII characters without `.` and `$`.
    pub fn client(client: impl Into<String>) -> Self {
        Self { client: client.into(), event_type: None, meta: None }
    }

    /// Names the event in the words of the domain.
    #[must_use]
    pub fn event_type(mut self, name: impl Into<String>) -> Self {
        self.event_type = Some(name.into());
        self
    }

    /// Attaches free metadata.
    #[must_use]
    pub fn meta(mut self, meta: RawDocumentBuf) -> Self {
        self.meta = Some(meta);
        self
    }

    fn event(&self, change: NewChange) -> NewEvent {
        let mut event = NewEvent::new(self.client.clone(), change, DateTime::now());
        event.event_type.clone_from(&self.event_type);
        event.meta.clone_from(&self.meta);
        event
    }
}

impl From<&str> for By {
    fn from(client: &str) -> Self {
        Self::client(client)
    }
}

impl From<String> for By {
    fn from(client: String) -> Self {
        Self::client(client)
    }
}

/// A document as a value of its type, at a version.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned<T> {
    /// The state.
    pub state: T,
    /// How many events it is made of.
    pub version: i64,
    /// How many of them each client wrote.
    pub clock: Clock,
}

/// What an append led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The document's version after the event.
    pub version: i64,
    /// Its clock after the event.
    pub clock: Clock,
}

/// What an update led to.
#[derive(Clone, Debug)]
pub struct Updated<T> {
    /// The state after the update.
    pub state: T,
    /// The document's version after the update.
    pub version: i64,
    /// Its clock after the update.
    pub clock: Clock,
    /// The difference as it was appended, or `None` when the closure changed nothing: then nothing
    /// was appended.
    pub diff: Option<NewChange>,
    /// How exactly the projected state equals `state`: update operators cannot express every order of
    /// the root's fields. With [`Order::RootFieldsLeft`] the difference was written as a merge.
    pub order: Order,
}

impl<T: Serialize + DeserializeOwned> EventSourced<T> {
    /// A writer of the configured collection `collection` (the name without a suffix).
    pub fn new(database: &Database, collection: &str) -> Self {
        Self::with_options(database, collection, WriterOptions::default())
    }

    /// The same, with options.
    pub fn with_options(database: &Database, collection: &str, options: WriterOptions) -> Self {
        let decider = Arc::new(Decider::new(database, collection, options));
        Self { decider, type_of_state: PhantomData }
    }

    /// Creates a document, also one that was deleted before.
    ///
    /// # Errors
    /// [`WriteError::Exists`], and what any write may meet.
    pub async fn create(&self, id: &DocumentId, by: impl Into<By>, state: &T) -> Result<Written> {
        let (by, state) = (by.into(), to_raw(state)?);
        let decide = |document: &Document| match document.body {
            Body::Live(_) => Err(exists(document)),
            Body::Absent | Body::Deleted => {
                let change = NewChange::Create { state: state.clone() };
                Ok(Decision::append(by.event(change), ()))
            }
        };
        // Most creates are of new documents, and the insert of version 1 proves it: no need to look first.
        let (document, ()) =
            self.decider.decide(id, Some(crate::log::history::start(id)), decide).await?;
        Ok(written(&document))
    }

    /// Reads the document, lets `change` change it, and appends the difference. `change` runs again,
    /// on the newer state, whenever another writer was quicker: it should do nothing but change the state.
    ///
    /// # Errors
    /// [`WriteError::NotFound`], [`WriteError::Deleted`], [`WriteError::Conflict`] when others were
    /// quicker every time, and what any write may meet.
    pub async fn update(
        &self,
        id: &DocumentId,
        by: impl Into<By>,
        mut change: impl FnMut(&mut T),
    ) -> Result<Updated<T>> {
        let change = |state: &mut T| {
            change(state);
            Ok::<(), Infallible>(())
        };
        match self.try_update(id, by, change).await {
            Ok(updated) => Ok(updated),
            Err(UpdateError::Write(error)) => Err(error),
            Err(UpdateError::Declined(never)) => match never {},
        }
    }

    /// The same for a closure with rules of its own: when it declines, nothing is appended. What it
    /// declines is always the newest state.
    ///
    /// # Errors
    /// [`UpdateError::Declined`] with the closure's error, or what [`EventSourced::update`] may meet.
    pub async fn try_update<E>(
        &self,
        id: &DocumentId,
        by: impl Into<By>,
        mut change: impl FnMut(&mut T) -> Result<(), E>,
    ) -> Result<Updated<T>, UpdateError<E>> {
        let by = by.into();
        let decide = |document: &Document| {
            let actual = live(document)?;
            let mut state: T = from_raw(&actual)?;
            let before = to_raw(&state)?;
            if let Err(declined) = change(&mut state) {
                return Ok(Decision::leave(Err(declined)));
            }
            let reread = |raw: &RawDocument| to_raw(&from_raw::<T>(raw).ok()?).ok();
            match change::between(&actual, &before, &to_raw(&state)?, reread)? {
                None => Ok(Decision::leave(Ok((state, None, Order::Exact)))),
                Some((diff, order)) => {
                    let event = by.event(diff.clone());
                    Ok(Decision::append(event, Ok((state, Some(diff), order))))
                }
            }
        };
        let (document, outcome) = self.decider.decide(id, None, decide).await?;
        let (state, diff, order) = outcome.map_err(UpdateError::Declined)?;
        let Written { version, clock } = written(&document);
        Ok(Updated { state, version, clock, diff, order })
    }

    /// Deletes the document. Its row, version, clock and events stay.
    ///
    /// # Errors
    /// [`WriteError::NotFound`], [`WriteError::Deleted`], and what any write may meet.
    pub async fn delete(&self, id: &DocumentId, by: impl Into<By>) -> Result<Written> {
        let by = by.into();
        let decide = |document: &Document| {
            live(document)?;
            Ok(Decision::append(by.event(NewChange::Delete), ()))
        };
        let (document, ()) = self.decider.decide(id, None, decide).await?;
        Ok(written(&document))
    }

    /// Appends a hand-made event to whatever version the document has. An event that could not be
    /// applied is refused instead of appended. `seen` is filled in.
    ///
    /// # Errors
    /// [`WriteError::Unfit`] for an event that could not be applied, and what any write may meet.
    pub async fn append(&self, id: &DocumentId, event: NewEvent) -> Result<Written> {
        self.append_where(id, event, None).await
    }

    /// The same, only if the document is at `version` (0: was never written).
    ///
    /// # Errors
    /// [`WriteError::VersionMismatch`], and as [`EventSourced::append`].
    pub async fn append_if_version(
        &self,
        id: &DocumentId,
        version: i64,
        event: NewEvent,
    ) -> Result<Written> {
        self.append_where(id, event, Some(version)).await
    }

    async fn append_where(
        &self,
        id: &DocumentId,
        event: NewEvent,
        if_version: Option<i64>,
    ) -> Result<Written> {
        let decide = |document: &Document| match if_version {
            Some(expected) if expected != document.version => Err(WriteError::VersionMismatch {
                id: document.id.clone(),
                expected,
                found: document.version,
            }),
            _ => Ok(Decision::append(event.clone(), ())),
        };
        let (document, ()) = self.decider.decide(id, None, decide).await?;
        Ok(written(&document))
    }
}

impl<T> Clone for EventSourced<T> {
    fn clone(&self) -> Self {
        Self { decider: self.decider.clone(), type_of_state: PhantomData }
    }
}

impl<T> fmt::Debug for EventSourced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSourced")
            .field("collection", &self.decider.reader.collection())
            .field("state", &type_name::<T>())
            .finish_non_exhaustive()
    }
}

fn written(document: &Document) -> Written {
    Written { version: document.version, clock: document.clock.clone() }
}

fn exists(document: &Document) -> WriteError {
    WriteError::Exists { id: document.id.clone(), version: document.version }
}

/// The state of a document that lives.
fn live(document: &Document) -> Result<RawDocumentBuf> {
    let (id, version) = (document.id.clone(), document.version);
    match &document.body {
        Body::Live(state) => Ok(state.to_raw()),
        Body::Deleted => Err(WriteError::Deleted { id, version }),
        Body::Absent => Err(WriteError::NotFound { id }),
    }
}

fn to_raw<T: Serialize>(state: &T) -> Result<RawDocumentBuf> {
    bson::serialize_to_raw_document_buf(state).map_err(|error| WriteError::State {
        type_name: type_name::<T>(),
        reason: error.to_string(),
    })
}

fn from_raw<T: DeserializeOwned>(state: &RawDocument) -> Result<T> {
    bson::deserialize_from_slice(state.as_bytes()).map_err(|error| WriteError::State {
        type_name: type_name::<T>(),
        reason: error.to_string(),
    })
}
