//! Snapshots whose content is not what their hash says, or not what the log makes of the document at their version where
//! that is known: readers pass the former over and would believe the latter.

use super::{Performance, findings::Findings};
use crate::{
    database::Result,
    log::{LogSource, Mend},
    model::{diff::first_difference, document::Document, snapshot::Snapshot, state::State},
    store::{Bases, Jobs, MarkRows, Snapshots, Store, StoredSnapshot},
    time::Time,
    upkeep::compare::Checked,
};

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    /// Checks the snapshots of some documents, which stand in ascending order. `right` are those of them that their log
    /// makes what their rows are.
    pub(super) async fn check_snapshots(
        &self,
        documents: &[Checked],
        right: &[&Checked],
        findings: &mut Findings,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (documents.first(), documents.last()) else {
            return Ok(());
        };
        let store = &self.snapshotter().store;
        let mut wrong: Vec<(StoredSnapshot, String)> = Vec::new();
        for stored in store.stored_between(&first.folded.id, &last.folded.id).await? {
            let problem = match &stored.problem {
                Some(error) => Some(error.to_string()),
                None => {
                    let folded = right.iter().map(|checked| &checked.folded);
                    let mut folded = folded.filter(|folded| folded.version == stored.version);
                    match folded.find(|folded| folded.id == stored.id) {
                        Some(folded) => self.compare(&stored, folded).await?,
                        None => None,
                    }
                }
            };
            wrong.extend(problem.map(|problem| (stored, problem)));
        }
        for (stored, problem) in wrong {
            let problem = format!("its snapshot at version {}: {problem}", stored.version);
            let is_gone = self.order.repair && store.remove_snapshot(&stored).await?;
            match is_gone {
                true => findings.find_repaired(&stored.id, stored.version, &problem),
                false => findings.find(&stored.id, stored.version, &problem),
            }
        }
        Ok(())
    }

    /// How a snapshot of the version that was folded differs from the fold.
    async fn compare(&self, stored: &StoredSnapshot, folded: &Document) -> Result<Option<String>> {
        let store = &self.snapshotter().store;
        let found = store.snapshot(&stored.id, stored.version).await?;
        Ok(found.and_then(|found| unlike(&found, folded)))
    }
}

/// How a snapshot differs from what the log makes of the document at its version.
fn unlike(snapshot: &Snapshot, folded: &Document) -> Option<String> {
    let (found, expected) = (snapshot.clock.to_raw(), folded.clock.to_raw());
    if let Some(place) = first_difference(&found, &expected) {
        return Some(format!("`clock.{place}` differs"));
    }
    match (snapshot.state.as_deref(), folded.state().map(State::to_raw)) {
        (Some(found), Some(expected)) => {
            first_difference(found, &expected).map(|place| format!("`state.{place}` differs"))
        }
        (None, None) => None,
        (Some(_), None) => Some("`state` differs: the document was deleted".into()),
        (None, Some(_)) => Some("`state` differs: the document was not deleted".into()),
    }
}
