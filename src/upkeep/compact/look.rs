//! A look at one document: its log is folded from its base, or its first event, up to its row. Where a base may stand by
//! the plan, the fold has it; that fold and row are the same, byte for byte, proves it.

use std::collections::{HashMap, HashSet};

use bson::{DateTime, RawDocument, RawDocumentBuf, Timestamp};

use super::{Compactor, Pacing};
use crate::{
    database::{Error, Result},
    log::{EventLog, LogSource, history},
    model::{
        base::{Base, BaseError},
        compaction::{Inventory, LiveClient, Mark, Pin, Plan, Rule, grace, plan},
        document::Document,
        event::{EventKey, is_base},
        id::DocumentId,
        skip::{SkippedVersions, client_of},
        state::State,
    },
    planted::{Bug, planted},
    store::{Bases, Documents, Over, QuarantineRow, QuarantineRows, SkipRows},
    upkeep::{
        fold::{Stop, base_of, first_of, offer, page_above},
        snapshot::{difference, version_of},
    },
};

/// The most late events of one document that are dealt with. More of them, and somebody has put a dump back.
const LATE_MAX: u32 = 1_000;
/// The largest base that is written. The server takes 16 MB, and a stream tells of it with some words around it.
const BASE_BYTES_MAX: usize = 15 << 20;

/// What is known of some documents before they are looked at.
pub(super) struct Known {
    pub(super) now: DateTime,
    pub(super) marks: HashMap<DocumentId, Vec<Mark>>,
    pub(super) clients: HashMap<DocumentId, Vec<LiveClient>>,
    pub(super) waiting: Vec<QuarantineRow>,
    /// What somebody has put back.
    pub(super) held: HashSet<DocumentId>,
}

/// Something is wrong with a document, which is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) id: DocumentId,
    pub(in crate::upkeep) version: i64,
    pub(in crate::upkeep) problem: String,
}

/// What there is to do about a document.
#[derive(Clone, Debug)]
pub(in crate::upkeep) enum Work {
    /// Nothing.
    None,
    /// This base is proven.
    Write {
        /// The base.
        base: Base,
        /// What it takes the place of.
        over: Over,
    },
    /// What this base stands for can go.
    Prune(Base),
}

/// What a look has found.
#[derive(Clone, Debug)]
pub(in crate::upkeep) struct Look {
    pub(in crate::upkeep) id: DocumentId,
    pub(in crate::upkeep) work: Work,
    /// How many events would go.
    pub(in crate::upkeep) events: i64,
    /// Their bytes, where they were read.
    pub(in crate::upkeep) bytes: i64,
    /// What keeps the rest.
    pub(in crate::upkeep) pin: Option<Pin>,
    pub(in crate::upkeep) finding: Option<Finding>,
    /// Events that came late, each with the base that was found.
    pub(in crate::upkeep) late: Vec<(Base, RawDocumentBuf)>,
}

impl Look {
    fn nothing(id: &DocumentId) -> Self {
        let (work, events, bytes) = (Work::None, 0, 0);
        Self { id: id.clone(), work, events, bytes, pin: None, finding: None, late: Vec::new() }
    }

    fn pinned(self, rule: Rule, events: i64) -> Self {
        let pin = (events > 0).then_some(Pin { rule, client: None, events });
        Self { pin, ..self }
    }

    /// The document is left as it is.
    pub(super) fn wrong(self, version: i64, problem: String) -> Self {
        let finding = Some(Finding { id: self.id.clone(), version, problem });
        Self { finding, work: Work::None, events: 0, bytes: 0, ..self }
    }
}

impl<S: LogSource, D, P: Pacing> Compactor<'_, S, D, P>
where
    D: Documents + SkipRows + QuarantineRows + Bases,
{
    /// Looks at a document; `None` if it has no row.
    pub(super) async fn look(&self, id: &DocumentId, known: &Known) -> Result<Option<Look>> {
        let row = self.store.load(std::slice::from_ref(id)).await?.pop();
        let Some(row) = row else { return Ok(None) };
        let version = version_of(&row);
        let look = Look::nothing(id);
        // Later than the row: whoever answers from now on has seen every event that it holds.
        let at_least = self.source.now().await?;
        let Some(first) = first_of(self.log, id, at_least).await? else {
            return Ok(Some(look.wrong(version, "its log is empty".into())));
        };
        let base = match is_base(&first).then(|| Base::from_raw(&first)).transpose() {
            Ok(base) => base,
            Err(error) => return Ok(Some(look.wrong(version, error.to_string()))),
        };
        let floor = base.as_ref().map_or(0, |base| base.version);
        let look = match base.as_ref() {
            Some(base) => self.late(look, base, at_least).await?,
            None => look,
        };
        if look.finding.is_some() {
            return Ok(Some(look));
        }
        let is_waiting = known.waiting.iter().any(|row| row.document == *id);
        if is_waiting || row.get("quarantine").ok().flatten().is_some() {
            return Ok(Some(look.pinned(Rule::Waiting, version - floor)));
        }
        if known.held.contains(id) {
            return Ok(Some(look.pinned(Rule::Hold, version - floor)));
        }
        if let Some(base) = base.as_ref().filter(|base| !base.is_pruned()) {
            return self.pending(look, (&first, base), (known.now, at_least)).await.map(Some);
        }
        let (marks, clients) = (known.marks.get(id), known.clients.get(id));
        let inventory = Inventory {
            version,
            base,
            marks: marks.cloned().unwrap_or_default(),
            clients: clients.cloned().unwrap_or_default(),
            now: known.now,
        };
        let planned = plan(&inventory, &self.retention);
        let base = inventory.base;
        if planned.is_empty(base.as_ref()) {
            return Ok(Some(look.pinned(planned.rule, version - floor)));
        }
        let times = (known.now, at_least);
        self.prove(look, (&row, &first, base.as_ref()), &planned, times).await.map(Some)
    }

    /// Finds the events that stand where a base says that none is left, also of a document that waits.
    async fn late(&self, look: Look, base: &Base, at_least: Timestamp) -> Result<Look> {
        if base.pruned <= 1 || planted(Bug::LateNotLookedFor) {
            return Ok(look);
        }
        let late = self.store.late(self.log.id(), base, LATE_MAX + 1, at_least).await?;
        if late.len() > LATE_MAX as usize {
            let problem = format!(
                "more than {LATE_MAX} events stand below its base: somebody has put a dump back over the log. Take \
                 them out, or restore the document"
            );
            return Ok(look.wrong(base.version, problem));
        }
        Ok(Look { late: late.into_iter().map(|event| (base.clone(), event)).collect(), ..look })
    }

    /// Looks only for what came late of a document.
    pub(super) async fn look_for_late(&self, id: &DocumentId) -> Result<Look> {
        let look = Look::nothing(id);
        let at_least = self.source.now().await?;
        let base = base_of(self.log, id, at_least).await?;
        // One that cannot be read says nothing of what is late. It parks its document.
        let Some(base) = base.and_then(|base| Base::from_raw(&base).ok()) else {
            return Ok(look);
        };
        self.late(look, &base, at_least).await
    }

    /// What a base stands for goes once that is old enough, and while its own event is there.
    async fn pending(
        &self,
        look: Look,
        (first, base): (&RawDocument, &Base),
        (now, at_least): (DateTime, Timestamp),
    ) -> Result<Look> {
        let events = base.version - 1 - base.pruned;
        let is_due = now.saturating_duration_since(base.based_at) >= grace(&self.retention);
        if !is_due && !planted(Bug::PrunedBeforeGrace) {
            return Ok(look.pinned(Rule::Grace, events));
        }
        let page = self.log.read(&base.id, base.version - 1, 1, Some(at_least)).await?;
        let own = page.documents()?.next().transpose()?;
        let own = own.and_then(|event| EventKey::from_event(event).ok());
        if own.is_none_or(|key| key.version != base.version) {
            let problem = format!(
                "the event of its base, at version {}, is missing: put it back",
                base.version
            );
            return self.judge(look, first, (base.version, problem)).await;
        }
        Ok(Look { work: Work::Prune(base.clone()), events, ..look })
    }

    /// Something is wrong with a log that began with `first`, unless it begins with something else by now: then another
    /// instance was at work below what was being read.
    async fn judge(
        &self,
        look: Look,
        first: &RawDocument,
        (version, problem): (i64, String),
    ) -> Result<Look> {
        let found = first_of(self.log, &look.id, self.source.now().await?).await?;
        let is_same = found.as_deref() == Some(first);
        match is_same || planted(Bug::OvertakenIsWrong) {
            true => Ok(look.wrong(version, problem)),
            false => Ok(look),
        }
    }

    /// Folds the log, notes what it comes to at the highest version that is allowed, and compares the end with the row.
    async fn prove(
        &self,
        look: Look,
        (row, first, old): (&RawDocument, &RawDocument, Option<&Base>),
        planned: &Plan,
        (now, at_least): (DateTime, Timestamp),
    ) -> Result<Look> {
        let until = version_of(row);
        match self.fold(&look.id, (row, first, old), planned, at_least).await? {
            Ok(fold) => Ok(fold.end(look, (first, old), (until, planned.rule, now))),
            Err(problem) => self.judge(look, first, (until, problem)).await,
        }
    }

    /// Folds the log up to the row; or how the end differs from that.
    pub(super) async fn fold<'p>(
        &self,
        id: &DocumentId,
        (row, first, old): (&RawDocument, &RawDocument, Option<&Base>),
        planned: &'p Plan,
        at_least: Timestamp,
    ) -> Result<std::result::Result<Folding<'p>, String>> {
        let until = version_of(row);
        let mut fold = match Folding::new(id, first, old, planned) {
            Ok(fold) => fold,
            Err(error) => return Ok(Err(error.to_string())),
        };
        // After the row, which moves over an event together with the record.
        let mut skips = self.store.load_skips_of(id, Some(at_least)).await?;
        while fold.document.version < until && fold.stop.is_none() {
            let reached = fold.document.version;
            let means = (self.log, self.store);
            let take_page = async {
                let page = page_above(means, (id, reached), &mut skips, at_least).await?;
                for event in page.documents()? {
                    fold.take(event?, until, &skips);
                }
                Ok::<(), Error>(())
            };
            self.pace.step(take_page).await?;
            if fold.document.version == reached {
                break;
            }
        }
        let stop = fold.stop.clone().unwrap_or(Stop::End);
        match difference(row, &fold.document, &stop).filter(|_| !planted(Bug::BaseNotProven)) {
            Some(problem) => Ok(Err(problem)),
            None => Ok(Ok(fold)),
        }
    }
}

/// A fold on its way from the base, or the first event, to the row.
pub(super) struct Folding<'p> {
    document: Document,
    stop: Option<Stop>,
    plan: &'p Plan,
    /// What the document was at the highest version at which a base may stand, as far as it has come.
    pub(super) candidate: Option<Document>,
    /// Who needs the event after that.
    needed_by: Option<LiveClient>,
    /// The bytes of the events below the candidate that could go.
    bytes: i64,
    /// Those of the candidate's own event, which stays.
    last_bytes: i64,
}

impl<'p> Folding<'p> {
    fn new(
        id: &DocumentId,
        first: &RawDocument,
        old: Option<&Base>,
        plan: &'p Plan,
    ) -> Result<Self, BaseError> {
        let document = match old {
            Some(base) => base.document()?,
            None => history::start(id),
        };
        // What a new base replaces goes as well.
        let bytes = old.map_or(0, |_| first.as_bytes().len() as i64);
        let (stop, candidate, needed_by) = (None, None, None);
        Ok(Self { document, stop, plan, candidate, needed_by, bytes, last_bytes: 0 })
    }

    fn take(&mut self, event: &RawDocument, until: i64, skips: &SkippedVersions) {
        let Ok(key) = EventKey::from_event(event) else { return };
        let version = key.version;
        if self.stop.is_some() || version != self.document.version + 1 || version > until {
            if version > self.document.version && version <= until && self.stop.is_none() {
                self.stop = Some(Stop::Gap);
            }
            return;
        }
        let may_go = version <= self.plan.cap && self.needed_by.is_none();
        if may_go {
            let client = client_of(event);
            let seq = self.document.clock.get(client) + 1;
            let spared = i64::from(planted(Bug::FloorOffByOne));
            let needed = self.plan.needed_by(client, seq - spared);
            if let Some(live) = needed {
                self.needed_by = Some(live.clone());
                self.candidate = Some(self.document.clone());
            }
        }
        self.stop = offer(&mut self.document, (key, event), until, Some(skips));
        if may_go && self.needed_by.is_none() && self.stop.is_none() {
            self.bytes += self.last_bytes;
            self.last_bytes = event.as_bytes().len() as i64;
            if version == self.plan.cap {
                self.candidate = Some(self.document.clone());
            }
        }
    }

    /// What there is to do, with a fold that has come to the row at `until`.
    fn end(
        self,
        look: Look,
        (first, old): (&RawDocument, Option<&Base>),
        (until, rule, now): (i64, Rule, DateTime),
    ) -> Look {
        let floor = old.map_or(0, |base| base.version);
        let pinned = |version: i64| match self.needed_by.clone() {
            Some(client) => {
                Pin { rule: Rule::Client, client: Some(client), events: until - version }
            }
            None => Pin { rule, client: None, events: until - version },
        };
        let Some(candidate) = self.candidate.as_ref() else {
            return Look { pin: Some(pinned(floor)), ..look };
        };
        let Some(mut base) = Base::of(candidate, first, now) else {
            return Look { pin: Some(pinned(floor)), ..look };
        };
        if planted(Bug::BaseOfRow) {
            base.state = self.document.state().map(State::to_raw);
        }
        let size = base.to_raw().as_bytes().len();
        let gains = self.bytes > size as i64 && size <= BASE_BYTES_MAX;
        if !gains || base.version <= floor {
            let pin = Pin { rule: Rule::Size, client: None, events: base.version - floor };
            return Look { pin: Some(pin), ..look };
        }
        let over = old.map_or(Over::Create, |old| Over::Base(old.into()));
        let events = base.version - 1 - base.pruned;
        let pin = Some(pinned(base.version)).filter(|pin| pin.events > 0);
        Look { events, bytes: self.bytes, pin, work: Work::Write { base, over }, ..look }
    }
}
