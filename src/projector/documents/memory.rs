//! What a projection holds in memory of its documents, and what an event makes of it. Nothing here asks the
//! database: what only that can tell becomes a recheck.

use std::{collections::BTreeSet, time::Duration};

use bson::{DateTime, RawDocument};

use super::{
    cache::{Cache, Slot},
    recheck::Rechecks,
    waiting::Waiting,
};
use crate::{
    model::{
        base::Base,
        document::{Document, FoldLimits, Outcome, Quarantine},
        event::{EventKey, claimed_version, is_base},
        id::DocumentId,
        row::RowError,
        skip::{Skips, counts_fillers, is_filler},
    },
    observe::{Counts, Observer},
    planted::{Bug, planted},
    store::QuarantineRow,
    time::Time,
};

/// After so many events it is said that the loop still turns: each may take some seconds.
const EVENTS_PER_BEAT: u64 = 8;

/// So many documents are suspected at once at most. What comes late of others is found when they are compacted again.
const SUSPECTS_MAX: usize = 1_000;

/// One event to fold.
#[derive(Clone)]
pub(in crate::projector) struct Arrival<'a> {
    pub(in crate::projector) key: EventKey,
    pub(in crate::projector) event: &'a RawDocument,
    /// Whether it was appended after everything that is known here.
    pub(in crate::projector) is_news: bool,
}

/// Whether what is known of a document's skips was read after its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::projector) enum SkipsAre {
    /// It was: whatever fills a gap may be folded.
    Fresh,
    /// It may be older.
    Known,
}

/// Documents of which an event seems to stand where their base says that none is left.
#[derive(Debug, Default)]
pub(in crate::projector) struct Suspects(BTreeSet<DocumentId>);

impl Suspects {
    /// An event was at or below its document's version.
    fn replayed(&mut self, key: &EventKey, is_news: bool) {
        if is_news && key.version > 1 {
            self.note(&key.document);
        }
    }

    pub(in crate::projector) fn note(&mut self, id: &DocumentId) {
        if self.0.len() < SUSPECTS_MAX && !planted(Bug::LateNotSuspected) {
            self.0.insert(id.clone());
        }
    }

    /// Those that were noted since this was asked last.
    pub(in crate::projector) fn take(&mut self) -> Vec<DocumentId> {
        std::mem::take(&mut self.0).into_iter().collect()
    }
}

/// See the module.
pub(in crate::projector) struct Memory<T: Time> {
    pub(in crate::projector) cache: Cache,
    pub(in crate::projector) waiting: Waiting,
    pub(in crate::projector) rechecks: Rechecks,
    /// The events of the collection that an operator has skipped.
    pub(in crate::projector) skips: Skips,
    pub(in crate::projector) counts: Counts,
    /// Documents of which an event seems to have come late.
    pub(in crate::projector) suspects: Suspects,
    /// When the oldest event since the last flush was appended.
    pub(in crate::projector) oldest: Option<DateTime>,
    limits: FoldLimits,
    time: T,
    observer: Observer,
    /// When the first change since the last flush was folded.
    changed_at: Option<Duration>,
    /// How many events have been offered to their documents.
    offered: u64,
}

impl<T: Time> Memory<T> {
    /// Nothing but what is on record.
    pub(in crate::projector) fn new(
        (records, skips): (Vec<QuarantineRow>, Skips),
        (cache_bytes, limits): (usize, FoldLimits),
        (time, observer): (T, Observer),
    ) -> Self {
        Self {
            cache: Cache::new(cache_bytes),
            waiting: Waiting::new(records),
            rechecks: Rechecks::default(),
            skips,
            counts: Counts::default(),
            suspects: Suspects::default(),
            oldest: None,
            limits,
            time,
            observer,
            changed_at: None,
            offered: 0,
        }
    }

    /// Offers events to their document, if it is in memory.
    pub(in crate::projector) fn offer(
        &mut self,
        id: &DocumentId,
        events: &[Arrival<'_>],
        skips_are: SkipsAre,
    ) {
        let gap = self.waiting.gap(id);
        let skips = self.skips.of(id);
        let Some(slot) = self.cache.edit(id) else { return };
        let (mut applied, mut waits, mut behind, mut poison) = (false, false, 0, None);
        for Arrival { key, event, is_news } in events {
            self.offered = self.offered.wrapping_add(1);
            if self.offered.is_multiple_of(EVENTS_PER_BEAT) {
                self.observer.turned(&self.time);
            }
            if skips_are == SkipsAre::Known
                && let Some(known) = after_skips(key, event, slot.document.version)
            {
                behind = known;
                continue;
            }
            let is_skipped = skips.is_some_and(|skips| skips.contains(key.version))
                && !planted(Bug::SkipsForgotten);
            match slot.document.offer(key, event, is_skipped, &self.limits) {
                Outcome::Replay => {
                    self.counts.replayed += 1;
                    self.suspects.replayed(key, *is_news);
                }
                Outcome::Parked => waits = true,
                Outcome::Based => {
                    applied = true;
                    fold_leftovers(&mut slot.document, event);
                }
                Outcome::Applied(op) => {
                    self.counts.applied(op);
                    applied = true;
                }
                Outcome::Skipped => {
                    self.counts.skipped += 1;
                    applied = true;
                }
                // A gap that is on record already needs no second look, unless this event fills it.
                Outcome::Gap { expected } if gap == Some(expected) => waits = true,
                Outcome::Gap { .. } => behind = behind.max(key.version),
                Outcome::Poison(mark) => {
                    poison = Some(mark);
                    break;
                }
            }
        }
        let version = slot.document.version;
        if applied {
            self.cache.edited(id);
            self.note_change();
        }
        if waits && self.waiting.rest_on(id) {
            self.note_change();
        }
        if let Some(mark) = poison {
            return self.park(id, mark);
        }
        if skips_are == SkipsAre::Fresh {
            // The log is being read on.
        } else if behind > version {
            self.rechecks.behind(id, behind);
        } else if gap.is_some_and(|gap| version >= gap) || (applied && self.waiting.waits(id)) {
            // Whatever it waited for has passed, here or under another instance.
            self.rechecks.look(id);
        }
    }

    /// Brings a document into memory whose row is at version `stored`.
    pub(in crate::projector) fn admit(&mut self, mut document: Document, stored: i64) {
        // The record is the truth of what is parked: a row may not exist, or may have refused the mark.
        let stored_mark = document.quarantine.take();
        // It does not hold back a row that is further back than the mark, because it was deleted by hand, say; nor
        // one that has moved on, or may, because an operator has skipped the event.
        let mark = self.waiting.park(&document.id);
        let skips = self.skips.of(&document.id);
        let mark = mark.filter(|mark| skips.is_none_or(|skips| !skips.contains(mark.version)));
        let mark = mark.filter(|mark| mark.version == document.version + 1);
        document.quarantine = mark.cloned();
        self.cache.admit(Slot::new(document, stored, stored_mark));
    }

    /// Brings the document of a row into memory, if the row can be read.
    pub(in crate::projector) fn admit_row(&mut self, row: &RawDocument) {
        if let Ok(document) = Document::from_raw(row) {
            self.counts.loaded += 1;
            let stored = document.version;
            self.admit(document, stored);
        }
    }

    /// A row is no projected document. Its document is folded again from the log, as if it had none, and written over it.
    pub(in crate::projector) fn unreadable(&mut self, row: &RawDocument, error: &RowError) {
        let id = row.get("_id").ok().flatten().and_then(|id| DocumentId::from_raw(id).ok());
        let Some(id) = id else { return };
        self.observer.unreadable_row(&id, &error.to_string());
        self.admit(Document::new(id.clone()), 0);
        if let Some(slot) = self.cache.edit(&id) {
            slot.is_over(row);
        }
    }

    /// Has parked documents read again of which events above their marks come: an operator may have had one skipped or
    /// retried under another instance, whose record is gone by then; and on a record that is gone no checkpoint may pass
    /// an event.
    pub(in crate::projector) fn doubt_parked(&mut self, chunk: &[Arrival<'_>]) {
        if self.waiting.is_empty() {
            return;
        }
        for Arrival { key, .. } in chunk {
            if self.is_above_mark(&key.document, key.version) {
                self.rechecks.afresh(&key.document, key.version);
            }
        }
    }

    /// An event was seen that is not offered: what the log has of it is folded soon.
    pub(in crate::projector) fn left_out(&mut self, id: &DocumentId, version: i64) {
        match self.is_above_mark(id, version) {
            true => self.rechecks.afresh(id, version),
            false => self.rechecks.behind(id, version),
        }
    }

    fn is_above_mark(&self, id: &DocumentId, version: i64) -> bool {
        self.waiting.park(id).is_some_and(|mark| version > mark.version)
    }

    /// Parks a document at its present version.
    pub(in crate::projector) fn park(&mut self, id: &DocumentId, mark: Quarantine) {
        tracing::warn!(
            collection = self.observer.collection(), document = %id, version = mark.version,
            class = mark.class.name(), reason = mark.reason, "parked"
        );
        if let Some(slot) = self.cache.edit(id) {
            slot.document.quarantine = Some(mark.clone());
        }
        self.cache.edited(id);
        let since = self.waiting.parked_since(id, &mark).unwrap_or_else(|| self.time.wall());
        self.waiting.put(QuarantineRow { document: id.clone(), mark, since });
        self.note_change();
    }

    /// Puts on record that a document waits for a missing version, above which the log has others.
    pub(in crate::projector) fn record_gap(&mut self, id: &DocumentId, missing: i64) {
        if self.waiting.gap(id) == Some(missing) || planted(Bug::GapNotRecorded) {
            return;
        }
        let mark = Quarantine::gap(missing);
        self.waiting.put(QuarantineRow { document: id.clone(), mark, since: self.time.wall() });
        self.note_change();
    }

    /// A document has come to `version`, and waits for nothing.
    pub(in crate::projector) fn heal(&mut self, id: &DocumentId, version: i64) {
        if self.waiting.heal(id, version) {
            self.note_change();
        }
    }

    /// When the first change was made since that was last taken.
    pub(in crate::projector) fn changed_at(&self) -> Option<Duration> {
        self.changed_at
    }

    /// What has changed so far is being written.
    pub(in crate::projector) fn take_change(&mut self) {
        self.changed_at = None;
    }

    pub(in crate::projector) fn note_change(&mut self) {
        if self.changed_at.is_none() {
            self.changed_at = Some(self.time.now());
        }
    }
}

/// The version for whose sake the skips of a document are read again before an event is offered. What fills a gap may be
/// skipped, together with what stands above it, since they were looked up; and so may what stands above a base that counts
/// such events.
fn after_skips(key: &EventKey, event: &RawDocument, reached: i64) -> Option<i64> {
    if !is_filler(event) {
        return None;
    }
    if key.version == 1 && is_base(event) {
        let base = claimed_version(event);
        let is_trusted = !counts_fillers(event) || planted(Bug::BaseSkipsNotReadAgain);
        return (base > reached && !is_trusted).then_some(base);
    }
    (key.version == reached + 1).then_some(key.version)
}

/// Goes on with what is left below a base: a planted bug.
fn fold_leftovers(document: &mut Document, base: &RawDocument) {
    if let Ok(base) = Base::from_raw(base)
        && planted(Bug::LeftoversFolded)
    {
        document.version = base.pruned;
    }
}
