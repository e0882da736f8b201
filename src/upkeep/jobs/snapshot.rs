//! `snapshot`, of one document or of all of a collection: stores what a document is at the version of its row, once a
//! fresh fold of its log has proved that. Counts what was stored and what was there already, and what differs.

use bson::{Document, doc};

use super::{
    Done, Performance, Tally, Undone, count,
    findings::Findings,
    walk::{Compared, Steps},
};
use crate::{
    log::{LogSource, Mend},
    model::{id::DocumentId, snapshot::Reason},
    store::{Bases, Jobs, MarkRows, PutOutcome, Snapshots, Store},
    time::Time,
    upkeep::snapshot::{TakeError, of_folded, version_of},
};

/// What it counts.
#[derive(Default)]
struct Taken {
    /// Snapshots that were stored.
    taken: i64,
    /// Snapshots that were there already.
    existed: i64,
    findings: Findings,
}

impl Tally for Taken {
    fn to_bson(&self) -> Document {
        self.findings.to_bson(doc! { "taken": self.taken, "existed": self.existed })
    }

    fn from_bson(saved: &Document) -> Self {
        let (taken, existed) = (count(saved, "taken"), count(saved, "existed"));
        Self { taken, existed, findings: Findings::from_bson(saved) }
    }
}

impl<J: Jobs, S: LogSource, D, T: Time> Steps<Performance<'_, J, S, D, T>> for Taken
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    fn findings(&mut self) -> &mut Findings {
        &mut self.findings
    }

    async fn step(
        &mut self,
        job: &Performance<'_, J, S, D, T>,
        step: Compared<'_>,
    ) -> std::result::Result<(), Undone> {
        for (checked, problem) in &step.wrong {
            self.findings.find(&checked.folded.id, checked.version(), problem);
        }
        if step.right.is_empty() {
            return Ok(());
        }
        let taken_at = job.snapshotter().store.database_time().await?;
        let mut snapshots = Vec::with_capacity(step.right.len());
        for (row, checked) in step.right {
            match of_folded(row, &checked.folded, taken_at, Reason::Request) {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(error) => {
                    let (id, version) = (&checked.folded.id, version_of(row));
                    self.findings.find(id, version, &error.to_string());
                }
            }
        }
        let outcomes = job.snapshotter().put(&snapshots).await?;
        for (snapshot, outcome) in snapshots.iter().zip(outcomes) {
            match outcome {
                PutOutcome::Stored => self.taken += 1,
                PutOutcome::Existed => self.existed += 1,
                PutOutcome::Conflict { reason } => {
                    let problem = format!("another snapshot of this version exists: {reason}");
                    self.findings.find(&snapshot.id, snapshot.version, &problem);
                }
            }
        }
        Ok(())
    }
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    pub(super) async fn snapshot_one(&mut self, document: &DocumentId) -> Done {
        let taken = self.snapshotter().take(document, Reason::Request).await;
        let taken = taken.map_err(|error| match error {
            TakeError::Database(error) => error.into(),
            other => Undone::Failed(other.to_string()),
        })?;
        (self.at.done, self.at.total) = (1, Some(1));
        self.save_place().await?;
        Ok(doc! {
            "version": taken.snapshot.version, "taken": i64::from(taken.is_new),
            "existed": i64::from(!taken.is_new),
        })
    }

    pub(super) async fn snapshot_all(&mut self) -> Done {
        let taken: Taken = self.walk().await?;
        Ok(taken.to_bson())
    }
}
