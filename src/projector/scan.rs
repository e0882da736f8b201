//! Catching up from the log itself: the ordered walk over all events that finds every document which
//! is behind, and notices one that is ahead.

use bson::Timestamp;
use futures::{FutureExt, future::BoxFuture};

use super::{
    ahead::Rows,
    begin::still_followed,
    work::{Arrival, Work},
};
use crate::{
    database::Result,
    log::{Batch, EventLog, Scan},
    model::{event::EventKey, position::LogId},
    store::Store,
    time::Time,
};

type Next<S> = BoxFuture<'static, (S, Result<Option<Batch>>)>;

/// A walk under way. The next batch is always being fetched while the last one is folded.
pub(super) struct Walk<L: EventLog> {
    next: Option<Next<L::Scan>>,
    /// Everything before this time is seen.
    pub(super) at: Timestamp,
    /// The last key that was folded: where to begin again.
    last: Option<EventKey>,
    /// The rows that it has not passed.
    rows: Rows,
    followed: LogId,
}

impl<L: EventLog> Walk<L> {
    pub(super) fn new(at: Timestamp, followed: LogId) -> Self {
        Self { next: None, at, last: None, rows: Rows::default(), followed }
    }

    /// The next batch, or `None` at the end; after an error, begins again behind the last key. Can be dropped and called again without losing one.
    pub(super) async fn next(&mut self, log: &L) -> Result<Option<Batch>> {
        if self.next.is_none() {
            let scan = log.scan(self.last.as_ref(), self.at).await?;
            still_followed(log, self.followed).await?;
            self.next = Some(fetch(scan));
        }
        let Some(next) = &mut self.next else { return Ok(None) };
        let (scan, batch) = next.await;
        self.next = matches!(batch, Ok(Some(_))).then(|| fetch(scan));
        batch
    }
}

fn fetch<S: Scan + 'static>(mut scan: S) -> Next<S> {
    async move {
        let batch = scan.next().await;
        (scan, batch)
    }
    .boxed()
}

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// Folds a chunk of a walk, and refuses the collection when a document is ahead of its log.
    pub(super) async fn fold_scanned(
        &mut self,
        walk: &mut Walk<L>,
        chunk: &[Arrival<'_>],
    ) -> Result<()> {
        let Some(last) = chunk.last() else { return Ok(()) };
        self.fold(chunk).await?;
        self.counts.scanned += chunk.len() as u64;
        let ends = walk.last.iter().chain(chunk.iter().map(|arrival| &arrival.key));
        let next = chunk.iter().map(|arrival| &arrival.key);
        let offset = usize::from(walk.last.is_none());
        let ends: Vec<EventKey> = ends
            .zip(next.skip(offset))
            .filter(|(end, next)| end.document != next.document)
            .map(|(end, _)| end.clone())
            .collect();
        for end in &ends {
            self.check_not_ahead(end).await?;
            self.pass_rows(&mut walk.rows, Some(&end.document)).await?;
        }
        self.pass_rows(&mut walk.rows, Some(&last.key.document)).await?;
        walk.last = Some(last.key.clone());
        Ok(())
    }

    /// The walk is over: the last document has no more events, and the rows after it have none.
    pub(super) async fn finish_scan(&mut self, mut walk: Walk<L>) -> Result<()> {
        if let Some(end) = &walk.last {
            self.check_not_ahead(end).await?;
        }
        self.pass_rows(&mut walk.rows, None).await
    }
}
