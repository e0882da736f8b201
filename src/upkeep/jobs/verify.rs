//! `verify`, of a whole collection: folds the log anew and compares every row with it, byte for byte. Counts documents
//! and events, and what differs.

use std::{collections::HashSet, time::Duration};

use bson::{Document, RawDocumentBuf};

use super::{
    Done, Performance, Tally,
    findings::Findings,
    walk::{Compared, Steps},
};
use crate::{
    database::Result,
    log::{LogSource, Mend},
    model::id::DocumentId,
    store::{Bases, MarkRows, Jobs, Snapshots, Store},
    time::Time,
};

/// How often a job looks again whether a document without a row has got one, in all. The projection may
/// only be a little behind.
const LOOKS_MAX: u32 = 5;
/// The pause before it does.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What it counts.
#[derive(Default)]
struct Verified {
    findings: Findings,
    /// How often it has looked again.
    looks: u32,
}

impl Tally for Verified {
    fn to_bson(&self) -> Document {
        self.findings.to_bson(Document::new())
    }

    fn from_bson(saved: &Document) -> Self {
        Self { findings: Findings::from_bson(saved), looks: 0 }
    }
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    pub(super) async fn verify(&mut self) -> Done {
        let verified: Verified = self.walk().await?;
        Ok(verified.to_bson())
    }
}

impl<J: Jobs, S: LogSource, D, T: Time> Steps<Performance<'_, J, S, D, T>> for Verified
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    fn findings(&mut self) -> &mut Findings {
        &mut self.findings
    }

    /// Documents that have events and no row: the projection may be a little behind, or they wait in
    /// quarantine since their first row was refused. The others have lost it.
    async fn step(&mut self, job: &Performance<'_, J, S, D, T>, step: Compared<'_>) -> Result<()> {
        let (store, mut rowless) = (&job.snapshotter().store, step.rowless);
        if rowless.is_empty() {
            return Ok(());
        }
        let waiting = store.load_quarantine().await?;
        let waiting: HashSet<DocumentId> = waiting.into_iter().map(|row| row.document).collect();
        rowless.retain(|id| !waiting.contains(id));
        while !rowless.is_empty() && self.looks < LOOKS_MAX {
            self.looks += 1;
            job.time.sleep(LOOK_PAUSE).await;
            let rows: Vec<RawDocumentBuf> = store.load(&rowless).await?;
            let found = rows.iter().filter_map(|row| row.get("_id").ok().flatten());
            let found: HashSet<DocumentId> =
                found.filter_map(|id| DocumentId::from_raw(id).ok()).collect();
            rowless.retain(|id| !found.contains(id));
        }
        for id in rowless {
            self.findings.find(&id, 0, "its log has events, but there is no row");
        }
        Ok(())
    }
}
