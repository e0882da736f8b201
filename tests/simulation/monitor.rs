//! What must hold at every moment, looked at where the daemon's writes take effect. The end of a run is
//! judged as well; this finds a violation where it happens, and not what it led to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use bson::{DateTime, Document, RawDocumentBuf};
use futures::FutureExt;

use super::{
    executor::EPOCH_MILLIS,
    skips::skipped_of,
    store::{log_id, row_of, saved, saved_of, version_of, waiting},
    world::{COLLECTION, Data, EVENTS, Key, Op, State, World},
};
use crate::{
    judge::{Reference, Stop, Walk},
    model::{
        document::Class,
        event::EventKey,
        id::DocumentId,
        part::Part,
        position::{Checkpoint, LogId},
        skip::{Skip, SkippedVersions},
    },
    store::{QuarantineRow, RowWrite},
};

/// How far off a daemon may know the server's clock, in milliseconds: as long as it waits for an answer.
const CLOCK_ERROR_MAX: i64 = 60_000;

/// Watches the daemons' writes.
#[derive(Clone, Default)]
pub(super) struct Monitor {
    inner: Arc<Mutex<Inner>>,
    blind: bool,
}

#[derive(Default)]
struct Inner {
    /// The log that is projected: the first of which anything was written.
    log: Option<LogId>,
    histories: BTreeMap<DocumentId, Arc<History>>,
    deleted_by_hand: BTreeSet<DocumentId>,
    damaged_by_hand: BTreeSet<DocumentId>,
    changed_by_hand: BTreeSet<DocumentId>,
}

/// What a document's events make of it.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    events: usize,
    skips: SkippedVersions,
    /// The row at each version from 1, as far as the events lead.
    pub(super) rows: Vec<RawDocumentBuf>,
    pub(super) stop: Option<Stop>,
}

impl Monitor {
    /// A monitor that looks at nothing, for writes that no projector makes.
    pub(super) fn blind() -> Self {
        Self { blind: true, ..Self::default() }
    }

    /// Whether it looks at nothing.
    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    /// Somebody damages a row behind the daemon's back: until the document's next event, nobody need see that.
    pub(super) fn damaged_by_hand(&self, document: DocumentId) {
        self.inner.lock().unwrap().damaged_by_hand.insert(document.clone());
        self.deleted_by_hand(document);
    }

    /// Somebody changes the state of a row: what is folded on top of it is as wrong, until the row is made again.
    pub(super) fn changed_by_hand(&self, document: DocumentId) {
        self.inner.lock().unwrap().changed_by_hand.insert(document);
    }

    /// All rows whose states were changed were made again.
    pub(super) fn repaired(&self) {
        let mut inner = self.inner.lock().unwrap();
        for document in std::mem::take(&mut inner.changed_by_hand) {
            inner.damaged_by_hand.remove(&document);
        }
    }

    /// Whether a row was damaged and need not be right yet. One whose state was changed as well has to be, since it is made
    /// again before the daemon dies: whoever begins anew could not see the change.
    pub(super) fn may_be_damaged(&self, document: &DocumentId) -> bool {
        let inner = self.inner.lock().unwrap();
        inner.damaged_by_hand.contains(document) && !inner.changed_by_hand.contains(document)
    }

    /// Whether somebody has touched the row in any way.
    pub(super) fn was_touched(&self, document: &DocumentId) -> bool {
        let inner = self.inner.lock().unwrap();
        inner.deleted_by_hand.contains(document) || inner.changed_by_hand.contains(document)
    }

    /// Somebody takes a row away behind the daemon's back: what checkpoints say of it is not true any more.
    pub(super) fn deleted_by_hand(&self, document: DocumentId) {
        self.inner.lock().unwrap().deleted_by_hand.insert(document);
    }

    pub(super) fn was_deleted_by_hand(&self, document: &DocumentId) -> bool {
        self.inner.lock().unwrap().deleted_by_hand.contains(document)
    }

    /// The log that is projected.
    pub(super) fn log(&self) -> Option<LogId> {
        self.inner.lock().unwrap().log
    }

    /// A row is about to be written: it must be what majority-committed events make, of the one log,
    /// and no older than the row that it replaces.
    pub(super) fn row_written(&self, state: &State, write: &RowWrite) -> Result<(), String> {
        if self.blind {
            return Ok(());
        }
        let log = self.pin(state.archive.keys().next_back().copied());
        let history = self.history(state, log, &write.id);
        let expected = usize::try_from(write.version - 1).ok().and_then(|at| history.rows.get(at));
        let mut bare = RawDocumentBuf::new();
        let fields = write.row.iter().flatten().filter(|(key, _)| *key != "quarantine");
        fields.for_each(|(key, value)| bare.append(key, value));
        let Some(expected) = expected else {
            return Err(format!(
                "{} is written at version {}, and the majority's events lead to {} only ({:?})",
                write.id,
                write.version,
                history.rows.len(),
                history.stop
            ));
        };
        let is_excused = self.inner.lock().unwrap().changed_by_hand.contains(&write.id);
        if bare.as_bytes() != expected.as_bytes() && !is_excused {
            return Err(format!(
                "{} is written as {}, and its events make {}",
                write.id,
                text(&bare),
                text(expected)
            ));
        }
        let stored = row_of(&state.latest, &write.id).and_then(|row| version_of(row));
        match stored {
            Some(stored) if stored > write.version && !write.is_unsound => {
                Err(format!("{} goes back from version {stored} to {}", write.id, write.version))
            }
            _ => Ok(()),
        }
    }

    /// A skip is about to go on record: it must be of the very event at which the document is parked.
    pub(super) fn skip_recorded(&self, state: &State, skip: &Skip) -> Result<(), String> {
        if self.blind {
            return Ok(());
        }
        let EventKey { document, version: skipped } = &skip.key;
        let log = self.log().or_else(|| state.archive.keys().next_back().copied());
        let is_refused = |row: &QuarantineRow| {
            let mark = &row.mark;
            row.document == *document && (mark.class, mark.version) == (Class::Rejected, *skipped)
        };
        match &self.history(state, log, document).stop {
            Some(Stop::Poison { version, .. }) if version == skipped => Ok(()),
            _ if waiting(&state.visible).iter().any(is_refused) => Ok(()),
            stop => {
                Err(format!("version {skipped} of {document} is skipped, which stops at {stop:?}"))
            }
        }
    }

    /// Everything above a gap is about to be skipped: the document must stand before that gap, and all of it be there.
    pub(super) fn skip_above_recorded(&self, state: &State, skip: &Skip) -> Result<(), String> {
        if self.blind {
            return Ok(());
        }
        let EventKey { document, version: gap } = &skip.key;
        let log = self.log().or_else(|| state.archive.keys().next_back().copied());
        match &self.history(state, log, document).stop {
            Some(Stop::Hole { version }) if version == gap => {}
            stop => {
                return Err(format!("{document} is skipped from {gap} on, and stops at {stop:?}"));
            }
        }
        let above = state.latest.events(document, *gap).map(|(version, _)| version);
        let above: Vec<i64> = above.take_while(|version| *version <= skip.through).collect();
        match above == (gap + 1..=skip.through).collect::<Vec<i64>>() {
            true => Ok(()),
            false => {
                Err(format!("of {gap} to {} of {document} only {above:?} are there", skip.through))
            }
        }
    }

    /// A checkpoint is about to be saved: everything before it must be flushed, or on record as waiting.
    pub(super) fn checkpoint_saved(
        &self,
        state: &State,
        part: Part,
        checkpoint: &Checkpoint,
    ) -> Result<(), String> {
        if self.blind {
            return Ok(());
        }
        let before = saved_of(&state.latest, part);
        if let Some(later) = before.filter(|saved| saved.epoch > checkpoint.epoch) {
            let (epoch, later) = (checkpoint.epoch, later.epoch);
            return Err(format!("a checkpoint of epoch {epoch} replaces one of epoch {later}"));
        }
        if saved(&state.latest).is_empty() && !has_rows(state) {
            // Whatever there was of another log was taken back before anybody could rely on it.
            self.inner.lock().unwrap().log = None;
        }
        let pinned = self.pin(Some(checkpoint.log));
        if pinned != Some(checkpoint.log) {
            return Err(format!("a checkpoint of log {} after rows of {pinned:?}", checkpoint.log));
        }
        if log_id(&state.latest) != Some(checkpoint.log) {
            // Nobody will ever read on from there.
            return Ok(());
        }
        self.nothing_passed(state, part, checkpoint, |id, data| {
            waiting(data).iter().any(|row| row.document == *id)
        })
    }

    /// A document is about to go on record as waiting: since a moment of the world, whatever the daemon's own clock shows.
    pub(super) fn recorded(&self, row: &QuarantineRow, now: DateTime) -> Result<(), String> {
        let millis = EPOCH_MILLIS..=now.timestamp_millis();
        let (first, last) = (millis.start() - CLOCK_ERROR_MAX, millis.end() + CLOCK_ERROR_MAX);
        match self.blind || (first..=last).contains(&row.since.timestamp_millis()) {
            true => Ok(()),
            false => Err(format!("{} waits since {}, and it is {now}", row.document, row.since)),
        }
    }

    /// The record of a document is about to be removed: no checkpoint may rest on it.
    pub(super) fn record_removed(
        &self,
        state: &State,
        document: &DocumentId,
    ) -> Result<(), String> {
        if self.blind {
            return Ok(());
        }
        let log = log_id(&state.latest);
        let saved = saved(&state.latest).into_iter();
        // Also those of other divisions: what they say has to stay true, since it may be believed later.
        let mut resting =
            saved.filter(|(part, saved)| part.holds(document) && log == Some(saved.log));
        resting.try_for_each(|(part, saved)| {
            self.nothing_passed(state, part, &saved, |id, _| id != document)
        })
    }

    /// Everything before a checkpoint must be in the rows that the majority has, but for what is excused.
    fn nothing_passed(
        &self,
        state: &State,
        part: Part,
        checkpoint: &Checkpoint,
        excused: impl Fn(&DocumentId, &Data) -> bool,
    ) -> Result<(), String> {
        let Some(position) = &checkpoint.position else { return Ok(()) };
        let passed = passed(state, state.before(position), checkpoint.log);
        state.majority(|data| {
            for key in passed {
                let version =
                    row_of(data, &key.document).and_then(|row| version_of(row)).unwrap_or(0);
                if version < key.version
                    && part.holds(&key.document)
                    && !excused(&key.document, data)
                    && !self.was_deleted_by_hand(&key.document)
                {
                    return Err(format!(
                        "a checkpoint of part {part} passes event {} of {}, which the majority has at {version}",
                        key.version, key.document
                    ));
                }
            }
            Ok(())
        })
    }

    /// What the events of the projected log make of a document.
    pub(super) fn history(
        &self,
        state: &State,
        log: Option<LogId>,
        document: &DocumentId,
    ) -> Arc<History> {
        let key = |version| EventKey { document: document.clone(), version };
        let events = log.and_then(|log| state.archive.get(&log)).into_iter();
        let events = events.flat_map(|events| events.range(key(i64::MIN)..=key(i64::MAX)));
        let mut inner = self.inner.lock().unwrap();
        let history = inner.histories.entry(document.clone()).or_default();
        let count = events.clone().count();
        let skips = skipped_of(&state.latest, document);
        if history.events != count || history.skips != skips {
            let decoded = events
                .filter_map(|(key, event)| Some((key.version, Document::try_from(event).ok()?)));
            let replayed = replay(&decoded.collect(), &skips);
            *history = Arc::new(History { events: count, skips, ..replayed });
        }
        Arc::clone(history)
    }

    fn pin(&self, log: Option<LogId>) -> Option<LogId> {
        let mut inner = self.inner.lock().unwrap();
        if inner.log.is_none() {
            inner.log = log;
        }
        inner.log
    }
}

/// The events of a log before a place.
fn passed(state: &State, before: (usize, usize), followed: LogId) -> BTreeSet<&EventKey> {
    let mut log = None;
    let mut passed = BTreeSet::new();
    for (at, entry) in state.oplog.iter().enumerate() {
        for (number, op) in entry.ops.iter().enumerate() {
            match op {
                Op::Create { collection, id } if collection == EVENTS => log = Some(*id),
                _ if log != Some(followed) => {}
                Op::Put { collection, key: Key::Event(key), .. }
                    if collection == EVENTS && (at, number) < before =>
                {
                    passed.insert(key);
                }
                _ => {}
            }
        }
    }
    passed
}

fn has_rows(state: &State) -> bool {
    state.latest.collections.get(COLLECTION).is_some_and(|documents| !documents.rows.is_empty())
}

fn replay(events: &BTreeMap<i64, Document>, skips: &SkippedVersions) -> History {
    let work = async {
        let mut reference = Reference::default();
        let mut walk = Walk::new(&mut reference, "").await;
        let mut rows = Vec::new();
        let is_skipped = |version: i64| skips.contains(version);
        loop {
            let before = walk.version;
            let stop = walk.upto(before + 1, events, is_skipped).await;
            if walk.version == before {
                let stop = match stop {
                    None => walk.all(events, is_skipped).await,
                    poison => poison,
                };
                return History { rows, stop, ..History::default() };
            }
            rows.extend(walk.row(events).await);
        }
    };
    work.now_or_never().expect("the reference never waits")
}

pub(super) fn text(row: &RawDocumentBuf) -> String {
    Document::try_from(row).map_or_else(|error| error.to_string(), |row| row.to_string())
}

impl World {
    /// Ends the run when a check has failed.
    pub(super) fn insist(&self, check: Result<(), String>) {
        if let Err(violation) = check {
            self.sim.violation(violation);
        }
    }
}
