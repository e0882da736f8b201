//! Catching up from the log itself: an ordered walk over all events beside one over the versions of all
//! rows. It finds every document that is behind, loads none that is not, and notices one that is ahead.

use std::time::Duration;

use bson::{RawDocument, RawDocumentBuf, Timestamp};
use futures::{FutureExt, future::BoxFuture};

use super::{
    away::still_followed,
    rows::Rows,
    work::{Arrival, Work, drive},
};
use crate::{
    database::{Result, Verdict},
    log::{Batch, EventLog, Scan},
    model::{event::EventKey, id::DocumentId, position::LogId, skip::FILLER_CLIENT},
    retry::limited,
    store::{Documents, Extent, RowVersion, Store},
    time::Time,
};

type Next<S> = BoxFuture<'static, (Option<Opened<S>>, Result<Option<Batch>>)>;

/// A cursor, and when the log was seen to have its name after that was opened.
struct Opened<S> {
    scan: S,
    seen_at: Timestamp,
}

/// A walk under way.
pub(super) struct Walk<L: EventLog, D: Documents> {
    next: Option<Next<L::Scan>>,
    rows: Rows<D>,
    /// Everything before this time is seen.
    pub(super) at: Timestamp,
    /// The last event that was looked at: where to begin again.
    last: Option<EventKey>,
    /// The row of that event's document, if it has one.
    row: Option<RowVersion>,
    /// Whether that document has news.
    has_news: bool,
    followed: LogId,
    /// When the log was last seen to have its name, of all the times that a cursor was opened.
    pub(super) seen_at: Option<Timestamp>,
}

impl<L: EventLog, D: Documents> Walk<L, D> {
    pub(super) fn new(at: Timestamp, followed: LogId, extent: Extent) -> Self {
        Self {
            next: None,
            rows: Rows::new(extent),
            at,
            last: None,
            row: None,
            has_news: false,
            followed,
            seen_at: None,
        }
    }

    /// The next batch, or `None` at the end; after an error, begins again behind the last key. Can be dropped and
    /// called again without losing one: what is under way goes on, the opening too.
    pub(super) async fn next(
        &mut self,
        log: &L,
        (time, limit): (&impl Time, Duration),
    ) -> Result<Option<Batch>> {
        let (last, at, followed) = (self.last.clone(), self.at, self.followed);
        let next = self.next.get_or_insert_with(|| {
            let (log, time) = (log.clone(), time.clone());
            async move {
                let opening = async {
                    let scan = log.scan(last.as_ref(), at).await?;
                    let seen_at = still_followed(&log, followed).await?;
                    Ok(Opened { scan, seen_at })
                };
                match limited(&time, limit, opening).await {
                    Ok(opened) => fetch(opened, time, limit).await,
                    Err(error) => (None, Err(error)),
                }
            }
            .boxed()
        });
        let (opened, batch) = next.await;
        self.seen_at = self.seen_at.max(opened.as_ref().map(|opened| opened.seen_at));
        let opened = opened.filter(|_| matches!(batch, Ok(Some(_))));
        self.next = opened.map(|opened| fetch(opened, time.clone(), limit));
        batch
    }
}

fn fetch<S: Scan + 'static>(mut opened: Opened<S>, time: impl Time, limit: Duration) -> Next<S> {
    async move {
        let batch = limited(&time, limit, opened.scan.next()).await;
        (Some(opened), batch)
    }
    .boxed()
}

impl<L: EventLog, D: Store, T: Time> Work<L, D, T> {
    /// Folds what a chunk of a walk has news of, and refuses the collection when a document is ahead of
    /// its log.
    pub(super) async fn fold_scanned(
        &mut self,
        walk: &mut Walk<L, D>,
        chunk: Vec<Arrival<'_>>,
    ) -> Result<()> {
        self.counts.scanned += chunk.len() as u64;
        let mut news = Vec::with_capacity(chunk.len());
        for arrival in chunk {
            let key = &arrival.key;
            match &mut walk.last {
                Some(last) if last.document == key.document => last.version = key.version,
                _ => {
                    self.leave_document(walk).await?;
                    self.enter_document(walk, &key.document).await?;
                    walk.last = Some(key.clone());
                }
            }
            if self.is_passed_over(walk, &arrival.key) {
                self.counts.replayed += 1;
            } else {
                self.meet(walk)?;
                news.push(arrival);
            }
        }
        self.fold(&news).await
    }

    /// The walk over the log is over: so is its last document, and rows that are left have no events.
    pub(super) async fn finish_scan(&mut self, mut walk: Walk<L, D>) -> Result<()> {
        self.leave_document(&mut walk).await?;
        while let Some(row) = self.next_row(&mut walk, None).await? {
            self.check_not_ahead(&row, 0).await?;
        }
        Ok(())
    }

    /// The document that was entered has news: it is brought into memory, if its row is at hand.
    fn meet(&mut self, walk: &mut Walk<L, D>) -> Result<()> {
        let Some(row) = walk.row.as_mut().filter(|_| !walk.has_news) else { return Ok(()) };
        walk.has_news = true;
        walk.rows.is_behind();
        // What bears a mark is loaded together with its record, and what counts fillers together with its skips.
        let fits = |whole: &RawDocumentBuf| !row.marked && !counts_fillers(whole);
        let whole = row.row.take().filter(fits).filter(|_| !self.cache.holds(&row.id));
        match whole {
            Some(whole) => self.admit_row(&whole),
            None => Ok(()),
        }
    }

    /// Whether the row holds the event, and nothing else makes the document worth a look.
    fn is_passed_over(&self, walk: &Walk<L, D>, key: &EventKey) -> bool {
        let held = walk.row.as_ref().is_some_and(|row| !row.marked && row.version >= key.version);
        held && !self.cache.holds(&key.document) && !self.waiting.waits(&key.document)
    }

    /// Goes on to the row of `document`. The rows on the way have no events.
    async fn enter_document(&mut self, walk: &mut Walk<L, D>, document: &DocumentId) -> Result<()> {
        (walk.row, walk.has_news) = (None, false);
        while let Some(row) = self.next_row(walk, Some(document)).await? {
            if row.id == *document {
                walk.row = Some(row);
                return Ok(());
            }
            self.check_not_ahead(&row, 0).await?;
        }
        Ok(())
    }

    /// The last document that was entered has no more events.
    async fn leave_document(&mut self, walk: &mut Walk<L, D>) -> Result<()> {
        match (&walk.row, &walk.last) {
            (Some(row), Some(last)) => self.check_not_ahead(row, last.version).await,
            _ => Ok(()),
        }
    }

    /// The next row of the walk up to `end`, however long the database is away.
    async fn next_row(
        &mut self,
        walk: &mut Walk<L, D>,
        end: Option<&DocumentId>,
    ) -> Result<Option<RowVersion>> {
        loop {
            let Self { store, settings, time, .. } = self;
            let next = limited(time, settings.backoff.attempt_limit, walk.rows.next(store, end));
            match drive(&mut self.flush, &mut self.flushed, next).await {
                Err(error) if error.verdict() == Verdict::Retry => {
                    self.observer.tried(&error, &self.time);
                    self.time.sleep(self.settings.backoff.shortest).await;
                }
                other => return other,
            }
        }
    }
}

/// Whether gaps of the document of a row were filled.
fn counts_fillers(row: &RawDocument) -> bool {
    row.get_document("clock")
        .is_ok_and(|clock| clock.get(FILLER_CLIENT).is_ok_and(|count| count.is_some()))
}
