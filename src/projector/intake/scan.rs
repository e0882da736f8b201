//! Catching up from the log itself: an ordered walk over all events beside one over the versions of all
//! rows. It finds every document that is behind, loads none that is not, and notices one that is ahead.
//!
//! The stream goes on meanwhile. What it brings of a document that the walk has yet to come to is not folded: the walk
//! will see it. Once the walk has passed the document, it is looked at again; the log is read only where something is
//! still missing then, because the walk read that place a moment earlier.

use std::{collections::BTreeMap, slice, time::Duration};

use bson::{RawDocumentBuf, Timestamp};
use futures::{FutureExt, future::BoxFuture};

use crate::{
    database::{Error, Result},
    log::{Batch, EventLog, Scan},
    model::{
        document::Document,
        event::{EventKey, is_base},
        id::{DocumentId, integral},
        skip::counts_fillers,
    },
    projector::{
        documents::{Documents, memory::Arrival},
        rows::Rows,
    },
    retry::limited,
    store::{self, Extent, RowVersion, Store},
    time::Time,
};

/// How many bytes of documents' ids are kept of which the stream has brought something ahead of the walk. What there is
/// no room for is folded at once, which takes longer.
const AHEAD_BYTES_MAX: usize = 16 << 20;

type Next<S> = BoxFuture<'static, (Option<S>, Result<Option<Batch>>)>;

/// A walk under way.
pub(in crate::projector) struct Walk<L: EventLog, D: store::Documents> {
    next: Option<Next<L::Scan>>,
    rows: Rows<D>,
    /// Everything before this time is seen.
    at: Timestamp,
    /// The last event that was looked at: where to begin again.
    last: Option<EventKey>,
    /// The row of that event's document, if it has one.
    row: Option<RowVersion>,
    /// Up to where its base says that no event is left; 0 if it has none.
    pruned: i64,
    /// Whether that document has news.
    has_news: bool,
    /// What the stream has brought of documents that the walk has yet to come to: the newest version of each.
    ahead: BTreeMap<DocumentId, i64>,
    ahead_bytes: usize,
}

impl<L: EventLog, D: Store> Walk<L, D> {
    /// A walk over everything that was there before `at`, which begins by bringing so much of each row.
    pub(in crate::projector) fn new(at: Timestamp, extent: Extent) -> Self {
        Self {
            next: None,
            rows: Rows::new(extent),
            at,
            last: None,
            row: None,
            pruned: 0,
            has_news: false,
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
        }
    }

    /// Begins again at the beginning, and sees everything before `at` this time.
    pub(in crate::projector) fn restart(&mut self, at: Timestamp) {
        let Self { ahead, ahead_bytes, .. } =
            std::mem::replace(self, Self::new(at, Extent::Version));
        (self.ahead, self.ahead_bytes) = (ahead, ahead_bytes);
    }

    /// Takes note of an event of the stream whose document the walk has yet to come to; whether it is one.
    pub(in crate::projector) fn comes_to(&mut self, key: &EventKey) -> bool {
        if self.last.as_ref().is_some_and(|last| key.document < last.document) {
            return false;
        }
        if let Some(known) = self.ahead.get_mut(&key.document) {
            *known = key.version.max(*known);
            return true;
        }
        let bytes = ahead_bytes(&key.document);
        let has_room = self.ahead_bytes + bytes <= AHEAD_BYTES_MAX;
        if has_room {
            self.ahead_bytes += bytes;
            self.ahead.insert(key.document.clone(), key.version);
        }
        has_room
    }

    /// The next batch, or `None` at the end; after an error, begins again behind the last key. Can be dropped and
    /// called again without losing one: what is under way goes on, the opening too.
    pub(in crate::projector) async fn next(
        &mut self,
        log: &L,
        (time, limit): (&impl Time, Duration),
    ) -> Result<Option<Batch>> {
        let (last, at) = (self.last.clone(), self.at);
        let next = self.next.get_or_insert_with(|| {
            let (log, time) = (log.clone(), time.clone());
            async move {
                match limited(&time, limit, log.scan(last.as_ref(), at)).await {
                    Ok(scan) => fetch(scan, time, limit).await,
                    Err(error) => (None, Err(error)),
                }
            }
            .boxed()
        });
        let (scan, batch) = next.await;
        let scan = scan.filter(|_| matches!(batch, Ok(Some(_))));
        self.next = scan.map(|scan| fetch(scan, time.clone(), limit));
        batch
    }

    /// Picks out what a chunk of the walk has news of, until there is no more room for documents; what it has not come to
    /// is given back as well.
    ///
    /// # Errors
    /// When a document is ahead of its log, or the database refuses.
    pub(in crate::projector) async fn pick<'a, T: Time>(
        &mut self,
        documents: &mut Documents<L, D, T>,
        chunk: Vec<Arrival<'a>>,
    ) -> Result<(Vec<Arrival<'a>>, Vec<Arrival<'a>>)> {
        let mut news = Vec::with_capacity(chunk.len());
        let mut chunk = chunk.into_iter();
        for arrival in chunk.by_ref() {
            documents.memory.counts.scanned += 1;
            let key = &arrival.key;
            match &mut self.last {
                Some(last) if last.document == key.document => last.version = key.version,
                _ => {
                    self.leave_document(documents, Some(&key.document)).await?;
                    self.enter_document(documents, &key.document).await?;
                    self.last = Some(key.clone());
                    self.pruned = pruned_of(&arrival);
                }
            }
            if (2..=self.pruned).contains(&arrival.key.version) {
                documents.memory.suspects.note(&arrival.key.document);
            }
            if self.passes_over(documents, &arrival.key) {
                documents.memory.counts.replayed += 1;
            } else {
                self.meet(documents);
                news.push(arrival);
                if documents.memory.cache.is_full() {
                    break;
                }
            }
        }
        Ok((news, chunk.collect()))
    }

    /// The walk over the log is over: so is its last document, and rows that are left have no events.
    ///
    /// # Errors
    /// As [`Walk::pick`].
    pub(in crate::projector) async fn finish<T: Time>(
        mut self,
        documents: &mut Documents<L, D, T>,
    ) -> Result<()> {
        self.leave_document(documents, None).await?;
        while let Some(row) = documents.ask.next_row(&mut self.rows, None).await? {
            check_not_ahead(documents, &row, 0).await?;
        }
        Ok(())
    }

    /// The document that was entered has news: it is brought into memory, if its row is at hand.
    fn meet<T: Time>(&mut self, documents: &mut Documents<L, D, T>) {
        let Some(row) = self.row.as_mut().filter(|_| !self.has_news) else { return };
        self.has_news = true;
        self.rows.is_behind();
        // What bears a mark is loaded together with its record, and what counts fillers together with its skips.
        let is_held = documents.memory.cache.holds(&row.id);
        let fits = |whole: &RawDocumentBuf| !row.marked && !is_held && !counts_fillers(whole);
        if let Some(whole) = row.row.take().filter(fits) {
            documents.memory.admit_row(&whole);
        }
    }

    /// Whether the row holds the event, and nothing else makes the document worth a look.
    fn passes_over<T: Time>(&self, documents: &Documents<L, D, T>, key: &EventKey) -> bool {
        let (cache, waiting) = (&documents.memory.cache, &documents.memory.waiting);
        let held = self.row.as_ref().is_some_and(|row| !row.marked && row.version >= key.version);
        held && !cache.holds(&key.document) && !waiting.waits(&key.document)
    }

    /// Goes on to the row of `document`. The rows on the way have no events.
    async fn enter_document<T: Time>(
        &mut self,
        documents: &mut Documents<L, D, T>,
        document: &DocumentId,
    ) -> Result<()> {
        (self.row, self.has_news) = (None, false);
        while let Some(row) = documents.ask.next_row(&mut self.rows, Some(document)).await? {
            if row.id == *document {
                self.row = Some(row);
                return Ok(());
            }
            check_not_ahead(documents, &row, 0).await?;
        }
        Ok(())
    }

    /// The last document that was entered has no more events before those of `next`, or at all.
    async fn leave_document<T: Time>(
        &mut self,
        documents: &mut Documents<L, D, T>,
        next: Option<&DocumentId>,
    ) -> Result<()> {
        while let Some(entry) = self.ahead.first_entry()
            && next.is_none_or(|next| entry.key() < next)
        {
            let (id, known) = entry.remove_entry();
            self.ahead_bytes -= ahead_bytes(&id);
            documents.memory.left_out(&id, known);
        }
        match (&self.row, &self.last) {
            (Some(row), Some(last)) => check_not_ahead(documents, row, last.version).await,
            _ => Ok(()),
        }
    }
}

/// Up to where an event, if it is a base, says that none is left behind it.
fn pruned_of(arrival: &Arrival<'_>) -> i64 {
    let pruned = arrival.event.get("pruned").ok().flatten().and_then(integral);
    pruned.filter(|_| arrival.key.version == 1 && is_base(arrival.event)).unwrap_or_default()
}

fn ahead_bytes(id: &DocumentId) -> usize {
    id.heap_bytes() + size_of::<(DocumentId, i64)>()
}

fn fetch<S: Scan + 'static>(mut scan: S, time: impl Time, limit: Duration) -> Next<S> {
    async move {
        let batch = limited(&time, limit, scan.next()).await;
        (Some(scan), batch)
    }
    .boxed()
}

/// `end` is the version of the last event of the row's document that the walk saw, 0 if it saw none. A row above it
/// was moved by the stream meanwhile, or is ahead of its log: the log decides. A log that was restored from an older backup
/// looks like that, and taking its next events for replays would lose them without a word.
async fn check_not_ahead<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
    row: &RowVersion,
    end: i64,
) -> Result<()> {
    let RowVersion { id, version, .. } = row;
    if *version <= end || !documents.part.holds(id) {
        return Ok(());
    }
    let found = documents.ask.read(id, version - 1).await?;
    if found.documents()?.next().is_some() || !is_sound(documents, id).await? {
        return Ok(());
    }
    let what = match end {
        0 => format!("document {id} is projected, but its log is empty"),
        _ => format!("document {id} is at version {version}, but its log ends at {end}"),
    };
    Err(Error::stop(
        format!("{what}: the log was restored from an older backup, or events were deleted"),
        "restore the log, or delete the documents that are ahead so that they are folded again from the log as it is",
    ))
}

/// Whether the row of a document is one that a projection could have written. Any other row says nothing of the log: the
/// document is folded again if it has events, and the row is somebody else's if it has none.
async fn is_sound<L: EventLog, D: Store, T: Time>(
    documents: &mut Documents<L, D, T>,
    id: &DocumentId,
) -> Result<bool> {
    let (rows, _) = documents.ask.load_some(slice::from_ref(id)).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let is_sound = Document::from_raw(row).is_ok();
    if !is_sound {
        documents.memory.rechecks.afresh(id, 1);
    }
    Ok(is_sound)
}
