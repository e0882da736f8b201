//! Marks: how large documents were, and when, by the database's clock. They make the age of events known, since a
//! writer's clock must not decide what goes, and they tell which documents are worth a look.

use std::{future::Future, time::Duration};

use bson::DateTime;

use crate::{
    database::Result,
    model::{id::DocumentId, position::LogId},
};

/// When a document is to be looked at again.
#[derive(Clone, Debug, PartialEq)]
pub struct NextLook {
    /// The document.
    pub id: DocumentId,
    /// When; `None` once it has grown.
    pub at: Option<DateTime>,
    /// Whether there is something to finish: a base below which events are left.
    pub pending: bool,
}

/// The marks of one collection.
pub trait MarkRows: Clone + Send + Sync + 'static {
    /// Notes that documents have grown to these versions, each unless it was noted less than `spacing` ago; the newest ten
    /// notes of each are kept. A document of which nothing is to be looked at is looked at when its note is `min_age` old.
    fn put_marks(
        &self,
        log: LogId,
        grown: &[(DocumentId, i64)],
        ages: (Duration, Duration),
    ) -> impl Future<Output = Result<()>> + Send;

    /// Documents that are to be looked at by now, at most `limit`; only those with something to finish, if so wanted.
    fn due(
        &self,
        log: LogId,
        pending_only: bool,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<DocumentId>>> + Send;

    /// When these documents are to be looked at again.
    fn set_due(&self, log: LogId, next: &[NextLook]) -> impl Future<Output = Result<()>> + Send;
}
