//! A walk over a collection's rows and its log together, in the order of the ids: every document is folded
//! anew, up to the version of its row. The projection may go on meanwhile: a row is read before its
//! events are folded, and what the scan had passed before is read again.

mod seen;

use std::{
    collections::{BTreeMap, VecDeque},
    slice,
};

use bson::{Bson, RawDocument, RawDocumentBuf};
use futures::future::try_join_all;

use seen::SeenBase;

use super::{
    fold::{READ_EVENTS_MAX, Stop, offer, read_on},
    snapshot::{difference, version_of},
};
use crate::{
    database::{Error, Result},
    log::{EventLog, LogSource, Reading, Scan, history},
    model::{
        document::Document,
        event::{EventError, EventKey, claimed_version, is_base},
        id::{DocumentId, INTEGER_MAX},
        shown::shown,
        skip::{Skips, is_filler},
    },
    store::{Documents, Extent, SkipRows, Versions},
};

/// How many rows are compared at once. The place of a job is saved after as many.
const ROWS_MAX: usize = 256;
/// How many bytes of rows: a step has them in memory, and the documents that are folded beside them. One larger row
/// still goes alone.
const ROW_BYTES_MAX: usize = 4 << 20;
/// How many rows one query loads.
const LOAD_MAX: usize = 64;
/// The most documents in one step, those without a row among them.
const DOCUMENTS_MAX: usize = 1_024;

/// How many events without a readable key are told of in one step.
const STRAYS_MAX: usize = 1_000;

/// One document as it is stored, and as its log makes it.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    /// The row, if there is one.
    pub(super) row: Option<RawDocumentBuf>,
    /// Folded from the first event to the version of the row; without a row, of the first event alone.
    pub(super) folded: Document,
    /// Why the fold ended.
    pub(super) stop: Stop,
    /// The version of the last event that the walk saw of it.
    pub(super) last: i64,
    /// What was seen of the base of its log, and below that.
    base: Option<SeenBase>,
    /// The version that it goes to.
    until: i64,
}

impl Checked {
    fn new(id: DocumentId, row: Option<RawDocumentBuf>) -> Self {
        let until = row.as_deref().map_or(1, version_of);
        Self { row, folded: history::start(&id), stop: Stop::End, last: 0, base: None, until }
    }

    /// Whether the walk met a base at the beginning of its log.
    pub(super) fn begins_with_base(&self) -> bool {
        self.base.is_some()
    }

    /// What is wrong with the base of its log, or below that.
    pub(super) fn wrong_base(&self) -> Option<String> {
        self.base.and_then(|base| base.problem())
    }

    /// Why the row is not what its log makes of it, apart from what came late.
    pub(super) fn unsound(&self) -> Option<String> {
        let difference = self.row.as_deref().map(|row| difference(row, &self.folded, &self.stop));
        difference.flatten().or_else(|| self.base.and_then(|base| base.lost()))
    }

    /// The walk has come to its next event.
    fn meet(&mut self, (key, event): (EventKey, &RawDocument), skips: &Skips) {
        self.last = key.version;
        match &mut self.base {
            base if key.version == 1 => *base = is_base(event).then(|| SeenBase::of(event)),
            Some(base) => base.take(key.version),
            None => {}
        }
        if self.stop == Stop::End {
            if self.row.is_none() && key.version == 1 && is_base(event) {
                self.until = claimed_version(event);
            }
            let skips = skips.of(&key.document);
            let stop = offer(&mut self.folded, (key, event), self.until, skips);
            self.stop = stop.unwrap_or(Stop::End);
        }
    }

    /// The version of the row; 0 if there is none.
    pub(super) fn version(&self) -> i64 {
        self.row.as_deref().map_or(0, version_of)
    }

    /// One document by itself.
    ///
    /// # Errors
    /// When the database refuses or is away.
    pub(super) async fn look<L: EventLog>(
        source: &impl LogSource<Log = L>,
        (log, store): (&L, &(impl Documents + SkipRows)),
        id: &DocumentId,
    ) -> Result<Self> {
        let row = load(store, slice::from_ref(id)).await?.pop().map(|(_, row)| row);
        let mut checked = Self::new(id.clone(), row);
        let now = source.now().await?;
        checked.stop = read_on(log, store, &mut checked.folded, checked.until, now).await?;
        checked.base = SeenBase::look(log, id, source.now().await?).await?;
        checked.last = checked.folded.version;
        loop {
            let batch = log.read(id, checked.last, READ_EVENTS_MAX, Some(now)).await?;
            let Some(event) = batch.documents()?.last().transpose()? else { return Ok(checked) };
            let key = EventKey::from_event(event);
            checked.last = key.map_err(|error| Error::damaged(error.to_string()))?.version;
        }
    }
}

/// See the module.
pub(super) struct Walk<L: EventLog, D: Documents> {
    log: L,
    store: D,
    versions: Option<D::Versions>,
    rows: VecDeque<(DocumentId, RawDocumentBuf)>,
    scan: Option<L::Scan>,
    events: Option<Reading>,
    after: Option<DocumentId>,
    /// What is said of events without a readable key that were met.
    strays: Vec<String>,
}

impl<L: EventLog, D: Documents + SkipRows> Walk<L, D> {
    /// A walk that begins behind `after`.
    ///
    /// # Errors
    /// When the database refuses or is away.
    pub(super) async fn begin<S: LogSource<Log = L>>(
        source: &S,
        log: &L,
        store: &D,
        after: Option<DocumentId>,
    ) -> Result<Self> {
        let behind = after
            .as_ref()
            .map(|document| EventKey { document: document.clone(), version: INTEGER_MAX });
        let versions = store.versions(after.as_ref(), Extent::Whole).await?;
        let scan = log.scan(behind.as_ref(), source.now().await?).await?;
        Ok(Self {
            log: log.clone(),
            store: store.clone(),
            versions: Some(versions),
            rows: VecDeque::new(),
            scan: Some(scan),
            events: None,
            after,
            strays: Vec::new(),
        })
    }

    /// The next documents in the order of their ids, or `None` at the end.
    ///
    /// # Errors
    /// The walk is then over; another may begin behind the last document that was given.
    pub(super) async fn next(
        &mut self,
        source: &impl LogSource<Log = L>,
    ) -> Result<Option<Vec<Checked>>> {
        loop {
            let rows = self.next_rows().await?;
            let end = match self.rows.is_empty() && self.versions.is_none() {
                true => None,
                false => rows.last().map(|(id, _)| id.clone()),
            };
            let rows = rows.into_iter();
            let mut step: BTreeMap<DocumentId, Checked> =
                rows.map(|(id, row)| (id.clone(), Checked::new(id, Some(row)))).collect();
            // After the rows, which move over an event together with the record.
            let mut skips = self.store.load_skips().await?;
            self.fold(&mut step, end.as_ref(), &mut skips).await?;
            load_new(&self.store, &mut step).await?;
            complete(&self.log, &self.store, &mut step, source).await?;
            let is_over = end.is_none() && self.scan.is_none() && self.rows.is_empty();
            if let Some(last) = step.keys().next_back().or(end.as_ref()) {
                self.after = Some(last.clone());
            }
            if !step.is_empty() {
                return Ok(Some(step.into_values().collect()));
            }
            if is_over {
                return Ok(None);
            }
        }
    }

    /// What is said of the events without a readable key that were met since this was asked last.
    pub(super) fn take_strays(&mut self) -> Vec<String> {
        std::mem::take(&mut self.strays)
    }

    async fn next_rows(&mut self) -> Result<Vec<(DocumentId, RawDocumentBuf)>> {
        while self.rows.len() < ROWS_MAX
            && let Some(versions) = &mut self.versions
        {
            match versions.next().await? {
                Some(rows) => {
                    let after = self.after.as_ref();
                    let new = rows.into_iter().filter(|row| after.is_none_or(|id| row.id > *id));
                    self.rows.extend(new.filter_map(|row| Some((row.id, row.row?))));
                    self.strays.extend(versions.take_foreign());
                }
                None => self.versions = None,
            }
        }
        let mut bytes = 0;
        let fits = |(_, row): &&(DocumentId, RawDocumentBuf)| {
            bytes += row.as_bytes().len();
            bytes <= ROW_BYTES_MAX
        };
        let count = self.rows.iter().take(ROWS_MAX).take_while(fits).count();
        Ok(self.rows.drain(..count.max(1).min(self.rows.len())).collect())
    }

    /// Folds the events of the documents up to `end`; of all that are left, if there is none.
    async fn fold(
        &mut self,
        step: &mut BTreeMap<DocumentId, Checked>,
        end: Option<&DocumentId>,
        skips: &mut Skips,
    ) -> Result<()> {
        // The document of the last event. It is not among the others meanwhile, so as not to be looked for each time.
        let mut current: Option<Checked> = None;
        // The document whose skips were read after the batch was.
        let mut renewed: Option<DocumentId> = None;
        loop {
            let Some(events) = &mut self.events else {
                renewed = None;
                if self.fetch().await? {
                    continue;
                }
                break;
            };
            let Some((event, behind)) = events.peek()? else {
                self.events = None;
                continue;
            };
            let near = current.as_ref().map(|current| &current.folded.id);
            let key = match EventKey::from_event_near(event, near) {
                Ok(key) => key,
                Err(error) => {
                    note_stray(&mut self.strays, event, &error);
                    events.pass(behind);
                    continue;
                }
            };
            if current.as_ref().is_none_or(|current| current.folded.id != key.document) {
                step.extend(current.take().map(|left| (left.folded.id.clone(), left)));
                if end.is_some_and(|end| key.document > *end) {
                    return Ok(());
                }
                if step.len() >= DOCUMENTS_MAX && !step.contains_key(&key.document) {
                    // The rows behind this document come with the next step.
                    let later = step.split_off(&key.document);
                    let later = later.into_iter().rev();
                    for (id, row) in later.filter_map(|(id, checked)| Some((id, checked.row?))) {
                        self.rows.push_front((id, row));
                    }
                    return Ok(());
                }
                let known = step.remove(&key.document);
                current = known.or_else(|| Some(Checked::new(key.document.clone(), None)));
            }
            if is_filler(event) && renewed.as_ref() != Some(&key.document) {
                // Together with such an event everything above it may have been skipped.
                let read_at = events.read_at();
                skips.replace(
                    &key.document,
                    self.store.load_skips_of(&key.document, read_at).await?,
                );
                renewed = Some(key.document.clone());
            }
            if let Some(checked) = &mut current {
                checked.meet((key, event), skips);
            }
            events.pass(behind);
        }
        step.extend(current.map(|left| (left.folded.id.clone(), left)));
        Ok(())
    }

    /// Gets the next batch; false at the end of the log.
    async fn fetch(&mut self) -> Result<bool> {
        let Some(scan) = &mut self.scan else { return Ok(false) };
        self.events = scan.next().await?.map(Reading::new).transpose()?;
        if self.events.is_none() {
            self.scan = None;
        }
        Ok(self.events.is_some())
    }
}

/// Notes what is said of an event that belongs to no document, whatever range it sorts into.
fn note_stray(strays: &mut Vec<String>, event: &RawDocument, error: &EventError) {
    if strays.len() == STRAYS_MAX {
        return;
    }
    let key = event.get("_id").ok().flatten();
    let key = key.and_then(|key| Bson::try_from(key).ok());
    let key = key.map_or_else(|| "unreadable".to_owned(), |key| shown(key.to_string().as_bytes()));
    strays.push(format!("the log has an event of no document, with `_id` {key}: {error}"));
}

async fn load<D: Documents>(
    store: &D,
    ids: &[DocumentId],
) -> Result<Vec<(DocumentId, RawDocumentBuf)>> {
    let loaded = try_join_all(ids.chunks(LOAD_MAX).map(|ids| store.load(ids))).await?;
    let with_id = |row: RawDocumentBuf| {
        let id = row.get("_id")?.ok_or_else(|| Error::damaged("a row without `_id`"))?;
        let id = DocumentId::from_raw(id).map_err(|error| Error::damaged(error.to_string()))?;
        Ok((id, row))
    };
    loaded.into_iter().flatten().map(with_id).collect()
}

/// Loads the rows that have come since the walk passed.
async fn load_new<D: Documents>(store: &D, step: &mut BTreeMap<DocumentId, Checked>) -> Result<()> {
    let without = step.values().filter(|checked| checked.row.is_none());
    let without: Vec<DocumentId> = without.map(|checked| checked.folded.id.clone()).collect();
    for (id, row) in load(store, &without).await? {
        if let Some(checked) = step.get_mut(&id) {
            // It is folded anew, under the skips of this moment.
            let (last, base) = (checked.last, checked.base);
            *checked = Checked { last, base, ..Checked::new(id, Some(row)) };
        }
    }
    Ok(())
}

/// Reads the events that came after the scan had passed, and those that were skipped since.
async fn complete<L: EventLog>(
    log: &L,
    store: &(impl Documents + SkipRows),
    step: &mut BTreeMap<DocumentId, Checked>,
    source: &impl LogSource<Log = L>,
) -> Result<()> {
    for checked in step.values_mut() {
        if let Some(base) = checked.base.as_mut().filter(|base| !base.is_whole()) {
            base.look_again(log, &checked.folded.id, source.now().await?).await?;
        }
    }
    let is_short =
        |checked: &&mut Checked| checked.row.is_some() && checked.folded.version < checked.until;
    let mut short = step.values_mut().filter(is_short).peekable();
    if short.peek().is_none() {
        return Ok(());
    }
    // Everything that the rows were made of is in the log by now.
    let now = source.now().await?;
    for checked in short {
        let until = checked.until;
        checked.stop = read_on(log, store, &mut checked.folded, until, now).await?;
        if let Stop::Base(_) = checked.stop {
            // Its row was read before the base was written, which stands for the newer one.
            let row = store.load(slice::from_ref(&checked.folded.id)).await?.pop();
            let (last, base) = (checked.last, checked.base);
            *checked = Checked { last, base, ..Checked::new(checked.folded.id.clone(), row) };
            let until = checked.until;
            checked.stop = read_on(log, store, &mut checked.folded, until, now).await?;
        }
    }
    Ok(())
}
