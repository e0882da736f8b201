//! `restore`, of one document or of all of a collection: puts back what compaction has taken out, step by step, while
//! everything else goes on. What was put back stays, also when the job is cancelled.

use std::time::Duration;

use bson::{Document, doc};

use super::{Done, Performance, Tally, Undone, count, findings::Findings};
use crate::{
    archive::{Archive, LastRead},
    log::{LogSource, Mend},
    model::id::DocumentId,
    retry::limited,
    store::{Bases, Extent, Jobs, MarkRows, Snapshots, Store, Versions},
    time::Time,
    upkeep::{
        fold::first_of,
        restore::{RestoreError, Restorer},
    },
};

/// How long one step may take before it is tried again.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// What it counts.
#[derive(Default)]
struct Tallied {
    /// Documents whose log is whole again by it.
    restored: i64,
    /// Events that are back.
    events: i64,
    /// Documents whose content was erased.
    erased: i64,
    findings: Findings,
    last: LastRead,
}

impl Tally for Tallied {
    fn to_bson(&self) -> Document {
        self.findings.to_bson(
            doc! { "documents": self.restored, "events": self.events, "erased": self.erased },
        )
    }

    fn from_bson(saved: &Document) -> Self {
        let (restored, events) = (count(saved, "documents"), count(saved, "events"));
        let (findings, last) = (Findings::from_bson(saved), LastRead::default());
        Self { restored, events, erased: count(saved, "erased"), findings, last }
    }
}

impl<'a, J: Jobs, S: LogSource, D, T: Time> Performance<'a, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    pub(super) async fn restore_one(&mut self, document: &DocumentId) -> Done {
        let mut tallied: Tallied = self.tally();
        let log = self.snapshotter().source.open_existing(&self.ward.collection).await?;
        match self.restore(&log, document, &mut tallied).await? {
            None if tallied.events == 0 && !self.is_written(&log, document).await? => {
                Err(Undone::Failed(format!("document {document} was never written")))
            }
            Some(problem) => Err(Undone::Failed(format!("document {document}: {problem}"))),
            None => Ok(tallied.to_bson()),
        }
    }

    pub(super) async fn restore_all(&mut self) -> Done {
        let mut tallied: Tallied = self.tally();
        let store = &self.snapshotter().store;
        self.at.total = i64::try_from(store.estimate_documents().await?).ok();
        let log = self.snapshotter().source.open_existing(&self.ward.collection).await?;
        let mut versions = store.versions(self.at.place.as_ref(), Extent::Version).await?;
        while let Some(rows) = versions.next().await? {
            for row in rows {
                if self.at.place.as_ref().is_some_and(|place| row.id <= *place) {
                    continue;
                }
                match self.restore(&log, &row.id, &mut tallied).await? {
                    None => {}
                    Some(RestoreError::Erased) => tallied.erased += 1,
                    Some(error) => {
                        tallied.findings.find(&row.id, row.version, &error.to_string());
                    }
                }
                self.at.place = Some(row.id);
                self.at.done += 1;
                self.at.total = self.at.total.map(|total| total.max(self.at.done));
                self.save(&tallied).await?;
            }
        }
        self.at.total = Some(self.at.done);
        self.save(&tallied).await?;
        Ok(tallied.to_bson())
    }

    /// Puts one document's events back; why that is not done, if it is not.
    async fn restore(
        &mut self,
        log: &S::Log,
        document: &DocumentId,
        tallied: &mut Tallied,
    ) -> std::result::Result<Option<RestoreError>, Undone> {
        let archive = self.archive()?;
        let (source, store) = (&self.snapshotter().source, &self.snapshotter().store);
        let last = tallied.last.clone();
        let restorer = Restorer { source, log, store, archive, last };
        let mut is_held = false;
        loop {
            let held = &mut is_held;
            let step = limited(self.time, STEP_LIMIT, async {
                match restorer.step(document, held).await {
                    Err(RestoreError::Database(error)) => Err(error),
                    step => Ok(step),
                }
            });
            match step.await? {
                Ok(Some(events)) => tallied.events += events,
                Ok(None) => {
                    tallied.restored += i64::from(is_held);
                    return Ok(None);
                }
                Err(error) => return Ok(Some(error)),
            }
            // This also finds out whether the job was cancelled.
            self.save(tallied).await?;
        }
    }

    async fn is_written(
        &self,
        log: &S::Log,
        document: &DocumentId,
    ) -> std::result::Result<bool, Undone> {
        let source = &self.snapshotter().source;
        let first = limited(self.time, STEP_LIMIT, async {
            Ok(first_of(log, document, source.now().await?).await?.is_some())
        });
        Ok(first.await?)
    }

    /// The archive of the collection.
    pub(super) fn archive(&self) -> std::result::Result<&'a Archive, Undone> {
        self.ward.compaction.archive.as_ref().ok_or_else(|| {
            Undone::Failed(format!(
                "`{}` has no archive; set `archive` in its [collections.compaction]",
                self.ward.collection
            ))
        })
    }
}
