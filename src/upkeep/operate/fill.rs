//! Filling a gap: events that change nothing, by a client of our own, under every version that is missing. A late
//! original then finds its place taken, as if another writer had been quicker, and its writer decides again.
//!
//! Where everything above the gap is skipped, the gap itself is filled last, together with the record of that skip. Until
//! then nobody folds anything above the gap, and whoever folds the event in it looks again what is skipped. It is done in
//! steps, each of which may be done again, by another daemon too.

use std::{collections::VecDeque, slice, time::Duration};

use bson::{DateTime, RawDocument, RawDocumentBuf, Timestamp, raw::cstr, rawdoc};

use super::{OperateError, READ_EVENTS_MAX, Result};
use crate::{
    database::Error,
    log::{EventLog, LogSource, Mend},
    model::{
        clock::Clock,
        document::{Class, Document},
        event::EventKey,
        id::DocumentId,
        new_event::{NewChange, NewEvent},
        skip::{
            FILLER_CLIENT, Skip, SkippedEvent, SkippedVersions, TOLD_MAX, client_of, is_filler,
        },
    },
    store::{Filler, SkipAboveOutcome, Store},
    time::Time,
};

/// The most versions that are filled.
const VERSIONS_MAX: i64 = 10_000;
/// How many of them are inserted in one step.
const INSERTED_MAX: usize = 1_000;
/// How often a skip waits for events that have come above it meanwhile. After that those count as appended later.
const NEWER_MAX: u32 = 10;
/// How often it is looked whether the row is where the gap begins. The record of a gap is there a little before it.
const LOOKS_MAX: u32 = 25;
/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The means by which a gap is closed.
#[derive(Debug)]
pub struct Means<'a, S: LogSource, D, T> {
    /// Tells the time of the log.
    pub source: &'a S,
    /// The log.
    pub log: &'a S::Log,
    /// The rows and the skips.
    pub store: &'a D,
    /// The time.
    pub time: &'a T,
}

impl<S: LogSource, D, T> Clone for Means<'_, S, D, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: LogSource, D, T> Copy for Means<'_, S, D, T> {}

/// A gap that is closed, step by step.
#[derive(Debug)]
pub struct Filling {
    id: DocumentId,
    /// The lowest missing version.
    gap: i64,
    /// The version that comes next in the walk over the log.
    next: i64,
    /// Whether the document lives before that.
    lives: bool,
    /// The time of the last event.
    at: Option<DateTime>,
    /// What is skipped below the gap.
    skips: SkippedVersions,
    fillers: VecDeque<RawDocumentBuf>,
    filled: Filled,
    /// Where everything above the gap is skipped.
    above: Option<Above>,
    is_done: bool,
}

/// What is skipped above a gap.
#[derive(Debug, Default)]
struct Above {
    /// The counts right before the version that comes next.
    clock: Clock,
    /// The newest events.
    told: VecDeque<SkippedEvent>,
    /// The event that fills the gap itself.
    filler: Option<RawDocumentBuf>,
    /// How often newer events have come.
    newer: u32,
}

/// What was done about a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// How many of the versions from the gap on are events that only fill.
    pub filled: i64,
    /// The version of the last event that is skipped, where everything above the gap is.
    pub through: Option<i64>,
}

impl Filling {
    /// Begins, or begins again, to fill what is missing of a document from version `gap` on; with `skip_above`
    /// everything from there on is skipped.
    ///
    /// # Errors
    /// [`OperateError`]. After one that came from the database, try again.
    pub async fn begin<S: LogSource, T: Time>(
        means: Means<'_, S, impl Store, T>,
        (id, gap): (&DocumentId, i64),
        skip_above: bool,
    ) -> Result<Self> {
        let at_least = means.source.now().await?;
        let skips = means.store.load_skips_of(id, Some(at_least)).await?;
        let (lives, at) = before(means.log, (id, gap), &skips, at_least).await?;
        let mut filling = Self {
            id: id.clone(),
            gap,
            next: gap,
            lives,
            at,
            skips,
            fillers: VecDeque::new(),
            filled: Filled::default(),
            above: None,
            is_done: false,
        };
        if skip_above && !filling.finds_itself_done() {
            match filling.clock_before(means).await? {
                Some(clock) => filling.above = Some(Above { clock, ..Above::default() }),
                None => filling.was_done(means).await?,
            }
        }
        Ok(filling)
    }

    /// How many of the versions from the gap on are known to be events that only fill.
    pub fn filled(&self) -> i64 {
        self.filled.filled
    }

    /// Takes the next step; what was done, once nothing is left to do.
    ///
    /// # Errors
    /// [`OperateError`]. After one that came from the database, begin again.
    pub async fn step<S: LogSource<Log: Mend>, T: Time>(
        &mut self,
        means: Means<'_, S, impl Store, T>,
    ) -> Result<Option<Filled>> {
        if self.is_done {
            return Ok(Some(self.filled));
        }
        if !self.fillers.is_empty() {
            let some = self.fillers.len().min(INSERTED_MAX);
            let some: Vec<RawDocumentBuf> = self.fillers.drain(..some).collect();
            means.log.insert(&some).await?;
            return Ok(None);
        }
        let (at_least, begins) = (means.source.now().await?, self.next);
        let batch = means.log.read(&self.id, begins - 1, READ_EVENTS_MAX, Some(at_least)).await?;
        let now = means.time.wall();
        for event in batch.documents()? {
            let event = event?;
            let Ok(key) = EventKey::from_event(event) else { continue };
            if self.above.is_some() && key.version == self.gap {
                self.was_done(means).await?;
                return Ok(Some(self.filled));
            }
            self.meet(&key, event, now)?;
        }
        if self.next > begins {
            return Ok(None);
        }
        match self.above {
            Some(_) => self.skip(means).await,
            None => Ok(Some(self.filled)),
        }
    }

    /// Takes in the next event of the log: what is missing before it is to be filled.
    fn meet(&mut self, key: &EventKey, event: &RawDocument, now: DateTime) -> Result<()> {
        let version = key.version;
        let missing = version - self.next + self.filled.filled;
        if missing > VERSIONS_MAX {
            return Err(OperateError::TooWide { id: self.id.clone(), missing, max: VERSIONS_MAX });
        }
        let at = event.get_datetime("at").ok();
        while self.next < version {
            // Between its neighbours in time as well, so that reads at a time are not cut off here.
            let filler = self.filler(self.at.or(at).unwrap_or(now), now);
            self.count(FILLER_CLIENT);
            match self.above.as_mut().filter(|_| self.next == self.gap) {
                Some(above) => above.filler = Some(filler),
                None => self.fillers.push_back(filler),
            }
            self.filled.filled += 1;
            (self.next, self.lives) = (self.next + 1, true);
        }
        self.filled.filled += i64::from(is_filler(event));
        self.count(client_of(event));
        if !self.skips.contains(version) {
            self.lives = leaves_life(event);
        }
        (self.next, self.at) = (version + 1, at.or(self.at));
        Ok(())
    }

    /// Counts the event that comes next among those that are skipped.
    fn count(&mut self, client: &str) {
        let Some(above) = &mut self.above else { return };
        if above.told.len() == TOLD_MAX {
            above.told.pop_front();
        }
        let seq = above.clock.increment(client);
        let client = client.to_owned();
        above.told.push_back(SkippedEvent { version: self.next, client, seq });
    }

    fn filler(&self, at: DateTime, now: DateTime) -> RawDocumentBuf {
        let change = match self.lives {
            true => NewChange::Patch { patch: RawDocumentBuf::new(), array_filters: None },
            // There is nothing that a patch could leave as it is.
            false => NewChange::Create { state: RawDocumentBuf::new() },
        };
        let mut event = NewEvent::new(FILLER_CLIENT, change, at);
        event.event_type = Some("gap-fill".into());
        let mut meta = rawdoc! {};
        meta.append(cstr!("filled_at"), now);
        event.meta = Some(meta);
        event.encode(&EventKey { document: self.id.clone(), version: self.next })
    }

    /// Fills the gap and skips everything above it, at once.
    async fn skip<S: LogSource, T: Time>(
        &mut self,
        means: Means<'_, S, impl Store, T>,
    ) -> Result<Option<Filled>> {
        let Means { log, store, time, .. } = means;
        let (id, version) = (&self.id, self.gap);
        let Some(above) = &mut self.above else { return Ok(Some(self.filled)) };
        let Some(event) = above.filler.clone() else {
            // Nothing is above it any more: the log is another one, or was changed by hand.
            return Err(OperateError::NoGap { id: id.clone(), version });
        };
        let filler = Filler { log: log.id(), event, leaves_newer: above.newer >= NEWER_MAX };
        let skip = Skip {
            key: EventKey { document: id.clone(), version },
            through: self.next - 1,
            told: above.told.iter().cloned().collect(),
            class: Class::Gap,
            reason: format!("skipped by an operator: version {version} was missing"),
            skipped_at: time.wall(),
        };
        match store.skip_above(&skip, &filler).await? {
            SkipAboveOutcome::Done => {
                (self.is_done, self.filled.through) = (true, Some(skip.through));
            }
            SkipAboveOutcome::Newer => {
                above.newer += 1;
                return Ok(None);
            }
            SkipAboveOutcome::Existed | SkipAboveOutcome::Taken => self.was_done(means).await?,
        }
        Ok(Some(self.filled))
    }

    /// The gap is filled: by another daemon, or by an earlier attempt whose answer was lost, which have skipped everything
    /// above it as well. Or the missing event has arrived.
    async fn was_done<S: LogSource, T: Time>(
        &mut self,
        means: Means<'_, S, impl Store, T>,
    ) -> Result<()> {
        let at_least = means.source.now().await?;
        self.skips = means.store.load_skips_of(&self.id, Some(at_least)).await?;
        match self.finds_itself_done() {
            true => Ok(()),
            false => Err(OperateError::Arrived { id: self.id.clone(), version: self.gap }),
        }
    }

    /// Whether everything above the gap is skipped already.
    fn finds_itself_done(&mut self) -> bool {
        let through = self.skips.range_of(self.gap).map(|(_, last)| last);
        // Above a gap there is an event, or it would not be one.
        self.filled.through = through.filter(|last| *last > self.gap);
        self.is_done = self.filled.through.is_some();
        self.is_done
    }

    /// The document's clock before the gap; `None` when it has passed that.
    async fn clock_before<S: LogSource, T: Time>(
        &self,
        means: Means<'_, S, impl Store, T>,
    ) -> Result<Option<Clock>> {
        let mut looks = 0;
        loop {
            let row = means.store.load(slice::from_ref(&self.id)).await?.into_iter().next();
            let row = row.as_deref().map(Document::from_raw).transpose().map_err(|error| {
                Error::damaged(format!("the row of document {}: {error}", self.id))
            })?;
            let (id, waits) = (self.id.clone(), self.gap);
            let version = row.as_ref().map_or(0, |row| row.version);
            looks += 1;
            if version == waits - 1 {
                return Ok(Some(row.map(|row| row.clock).unwrap_or_default()));
            } else if version >= waits {
                return Ok(None);
            } else if looks == LOOKS_MAX {
                return Err(OperateError::Elsewhere { id, waits, version });
            }
            means.time.sleep(LOOK_PAUSE).await;
        }
    }
}

/// Whether the document lives after an event that was applied.
fn leaves_life(event: &RawDocument) -> bool {
    event.get_str("op").ok() != Some("delete")
}

/// Whether the document lives before version `from`, and the time of its last event before that.
async fn before(
    log: &impl EventLog,
    (id, from): (&DocumentId, i64),
    skips: &SkippedVersions,
    at_least: Timestamp,
) -> Result<(bool, Option<DateTime>)> {
    let (mut at, mut version) = (None, from - 1);
    while version > 0 {
        let batch = log.read(id, version - 1, 1, Some(at_least)).await?;
        let Some(event) = batch.documents()?.next().transpose()? else { break };
        at = at.or(event.get_datetime("at").ok());
        match skips.range_of(version) {
            Some((first, _)) => version = first - 1,
            None => return Ok((leaves_life(event), at)),
        }
    }
    Ok((false, at))
}
