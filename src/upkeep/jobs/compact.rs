//! `compact`, of one document or of all of a collection: writes bases, and prunes what is due; or only tells what could go
//! and what keeps the rest. Counts documents, events and bytes, and names the largest of what stays.

use std::{collections::BTreeMap, time::Duration};

use bson::{Bson, DateTime, Document, doc};

use super::{Done, Performance, Tally, Undone, count, findings::Findings};
use crate::{
    database::Result,
    log::{EventLog, LogSource, Mend},
    model::{compaction::Pin, id::DocumentId, job::Kind},
    retry::limited,
    store::{Bases, Extent, Hindrance, Jobs, MarkRows, Snapshots, Store, Versions},
    time::Time,
    upkeep::{
        compact::{Clear, Compacted, Compactor, Pace},
        snapshot::TakeError,
    },
};

/// How many documents are looked at before the place is saved.
const STEP_DOCUMENTS: usize = 64;
/// How long one step may take before it is tried again: documents are folded from their base.
const STEP_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How many of what stays are named: the largest.
const PINS_MAX: usize = 100;
/// What is told of a client whose row is not what it has to be.
const UNREADABLE: &str =
    "its row in alluvium.clients cannot be read, so it keeps everything: mend or delete it";
/// The pause before it is looked again whether the collection may be compacted.
const PAUSE: Duration = Duration::from_secs(1);

/// What it counts.
#[derive(Default)]
struct Tallied {
    based: i64,
    events: i64,
    bytes: i64,
    documents: i64,
    late: i64,
    /// The largest of what stays, the largest first.
    pins: Vec<Document>,
    /// All events that stay, by the rule.
    pinned: BTreeMap<String, i64>,
    findings: Findings,
}

impl Tally for Tallied {
    fn to_bson(&self) -> Document {
        let pinned: Document =
            self.pinned.iter().map(|(rule, events)| (rule.clone(), Bson::from(*events))).collect();
        let counts = doc! {
            "documents": self.documents, "events": self.events, "bytes": self.bytes,
            "bases": self.based, "late": self.late, "pinned": pinned, "pins": self.pins.clone(),
        };
        self.findings.to_bson(counts)
    }

    fn from_bson(saved: &Document) -> Self {
        let pins = saved.get_array("pins").map(Vec::as_slice).unwrap_or_default();
        let pins = pins.iter().filter_map(Bson::as_document).take(PINS_MAX).cloned().collect();
        let pinned = saved.get_document("pinned").ok().into_iter().flatten();
        let pinned = pinned.filter_map(|(rule, events)| Some((rule.clone(), events.as_i64()?)));
        Self {
            based: count(saved, "bases"),
            events: count(saved, "events"),
            bytes: count(saved, "bytes"),
            documents: count(saved, "documents"),
            late: count(saved, "late"),
            pins,
            pinned: pinned.collect(),
            findings: Findings::from_bson(saved),
        }
    }
}

impl Tallied {
    fn add(&mut self, done: Compacted) {
        self.based += done.based;
        self.events += done.events;
        self.bytes += done.bytes;
        self.documents += done.documents;
        self.late += done.late;
        for (document, pin) in &done.pins {
            *self.pinned.entry(pin.rule.name().to_owned()).or_default() += pin.events;
            self.pins.push(shown(document, pin));
        }
        self.pins.sort_by_key(|pin| std::cmp::Reverse(pin.get_i64("events").unwrap_or_default()));
        self.pins.truncate(PINS_MAX);
        for finding in &done.findings {
            self.findings.find(&finding.id, finding.version, &finding.problem);
        }
    }
}

fn shown(document: &DocumentId, pin: &Pin) -> Document {
    let mut shown = doc! { "document": document.to_bson(), "rule": pin.rule.name() };
    if let Some(client) = &pin.client {
        shown.insert("client", &client.name);
        // Without one that can be read it counts as seen for ever, which is a time that drivers cannot show.
        if client.seen_at < DateTime::MAX {
            shown.insert("seen_at", client.seen_at);
        }
        if !client.is_readable {
            shown.insert("problem", UNREADABLE);
        }
    }
    shown.insert("events", pin.events);
    shown
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    pub(super) async fn compact_one(&mut self, document: &DocumentId) -> Done {
        let mut tallied = Tallied::default();
        self.may_compact(&mut Clear::default()).await?;
        let log = self.snapshotter().source.open_existing(&self.ward.collection).await?;
        if !self.order.dry_run {
            self.snapshotter().store.hold(log.id(), document, false).await?;
        }
        let done = self.compact_some(&log, std::slice::from_ref(document)).await?;
        if done.next.is_empty() {
            return Err(Undone::Failed(TakeError::Unknown(document.clone()).to_string()));
        }
        tallied.add(done);
        (self.at.done, self.at.total) = (1, Some(1));
        self.save(&tallied).await?;
        Ok(tallied.to_bson())
    }

    pub(super) async fn compact_all(&mut self) -> Done {
        let (mut tallied, mut clear): (Tallied, _) = (self.tally(), Clear::default());
        let store = &self.snapshotter().store;
        self.at.total = i64::try_from(store.estimate_documents().await?).ok();
        let log = self.snapshotter().source.open_existing(&self.ward.collection).await?;
        let mut versions = store.versions(self.at.place.as_ref(), Extent::Version).await?;
        while let Some(rows) = versions.next().await? {
            let after = self.at.place.clone();
            let rows = rows.into_iter().map(|row| row.id);
            let ids: Vec<DocumentId> =
                rows.filter(|id| after.as_ref().is_none_or(|after| id > after)).collect();
            for ids in ids.chunks(STEP_DOCUMENTS) {
                self.may_compact(&mut clear).await?;
                tallied.add(self.compact_some(&log, ids).await?);
                self.at.place = ids.last().cloned().or(self.at.place.take());
                self.at.done += i64::try_from(ids.len()).unwrap_or_default();
                self.at.total = self.at.total.map(|total| total.max(self.at.done));
                self.save(&tallied).await?;
            }
        }
        self.at.total = Some(self.at.done);
        self.save(&tallied).await?;
        self.ward.compaction.observer.kept(&tallied.pinned, &tallied.pins);
        Ok(tallied.to_bson())
    }

    async fn compact_some(
        &self,
        log: &S::Log,
        ids: &[DocumentId],
    ) -> std::result::Result<Compacted, Undone> {
        let (ward, retention) = (self.snapshotter(), self.ward.compaction.retention);
        let (source, store) = (&ward.source, &ward.store);
        let archive = self.ward.compaction.archive.as_ref();
        let is_asked = self.order.document.is_some();
        let pace = Pace::new(&self.ward.compaction, self.time);
        let compactor = Compactor { source, log, store, retention, archive, is_asked, pace };
        let compact = compactor.compact(ids, self.order.dry_run);
        let done = self.while_wanted(limited(self.time, STEP_LIMIT, compact)).await?;
        self.ward.compaction.observer.archived(done.archived);
        if let Some(why) = done.stands {
            return Err(Undone::Failed(why));
        }
        if !self.order.dry_run {
            ward.store.set_due(log.id(), &done.next).await?;
            self.ward.compaction.observer.compacted(done.events, done.bytes, done.late);
        }
        Ok(done)
    }

    /// Does this, unless the job is cancelled or an operator stops compaction meanwhile: a step may take long.
    async fn while_wanted<R>(
        &self,
        work: impl Future<Output = Result<R>>,
    ) -> std::result::Result<R, Undone> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done?),
                () = self.time.sleep(PAUSE) => {}
            }
            self.not_stopped()?;
            self.save_place().await?;
        }
    }

    /// An operator has not stopped what changes logs. An erasure goes on: what is to be forgotten must not wait for a dump.
    fn not_stopped(&self) -> std::result::Result<(), Undone> {
        let is_held = self.order.kind == Kind::Compact && !self.order.dry_run;
        match self.ward.compaction.stopped().filter(|_| is_held) {
            Some(why) => Err(Undone::Failed(why)),
            None => Ok(()),
        }
    }

    /// Waits until the collection may be compacted: it is projected, and not late.
    pub(super) async fn may_compact(&self, clear: &mut Clear) -> std::result::Result<(), Undone> {
        if self.order.dry_run {
            return Ok(());
        }
        let (store, compaction) = (&self.snapshotter().store, &self.ward.compaction);
        loop {
            self.not_stopped()?;
            let is_known = compaction.paused.borrow().is_some();
            match clear.hindrance((store, compaction), self.time).await? {
                None if is_known => return Ok(()),
                Some(Hindrance::Stands(why)) => return Err(Undone::Failed(why)),
                Some(Hindrance::Passing) | None => {}
            }
            self.time.sleep(PAUSE).await;
            // This also finds out whether the job was cancelled.
            self.save_place().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        clock::Clock,
        compaction::{LiveClient, Rule},
    };

    #[test]
    fn a_client_that_cannot_be_read_is_told_of_as_such() {
        let told = |seen_at, is_readable| {
            let client = LiveClient { name: "x".into(), clock: Clock::new(), seen_at, is_readable };
            shown(
                &DocumentId::Integer(1),
                &Pin { rule: Rule::Client, client: Some(client), events: 5 },
            )
        };
        let good = told(DateTime::from_millis(5), true);
        assert!(good.contains_key("seen_at") && !good.contains_key("problem"), "{good}");
        let bad = told(DateTime::MAX, false);
        assert!(!bad.contains_key("seen_at") && bad.get_str("problem").is_ok(), "{bad}");
    }
}
