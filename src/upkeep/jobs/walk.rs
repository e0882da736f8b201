//! A job about all documents: each is folded anew and compared with its row, step by step.

use std::time::Duration;

use bson::RawDocumentBuf;
use futures::future::join;

use super::{Performance, Tally, Undone, findings::Findings};
use crate::{
    database::Result,
    log::{LogSource, Mend},
    model::id::DocumentId,
    retry::limited,
    store::{Jobs, Snapshots, Store},
    time::Time,
    upkeep::{
        compare::{Checked, Walk},
        snapshot::{Snapshotter, difference, version_of},
    },
};

/// How long one step may take before it is tried again: documents are folded from their first event.
const STEP_LIMIT: Duration = Duration::from_secs(15 * 60);

/// What a job about all documents counts, and does with those of a step.
pub(super) trait Steps<P>: Tally + Send {
    /// What is found wrong goes there.
    fn findings(&mut self) -> &mut Findings;

    /// Deals with the documents of a step of `job`.
    fn step(&mut self, job: &P, step: Compared<'_>) -> impl Future<Output = Result<()>> + Send;
}

/// The documents of a step, compared with their rows.
#[derive(Default)]
pub(super) struct Compared<'s> {
    /// Those that are what their log makes of them.
    pub(super) right: Vec<(&'s RawDocumentBuf, &'s Checked)>,
    /// Those that have events and no row.
    pub(super) rowless: Vec<DocumentId>,
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots,
{
    /// Walks over all documents from the job's place on; what it has counted.
    pub(super) async fn walk<C: Steps<Self>>(&mut self) -> std::result::Result<C, Undone> {
        let Snapshotter { collection, source, store, .. } = self.snapshotter();
        let mut tally: C = self.tally();
        let total = i64::try_from(store.estimate_documents().await?).ok();
        self.at.total = total.map(|total| total.max(self.at.done));
        let log = source.open_existing(collection).await?;
        let mut walk = Walk::begin(source, &log, store, self.at.place.clone()).await?;
        let time = self.time;
        loop {
            // The place is saved while the next documents are folded.
            let next = limited(time, STEP_LIMIT, walk.next(source));
            let (saved, next) = join(self.save_place(), next).await;
            saved?;
            let checked = next?;
            for stray in walk.take_strays() {
                tally.findings().find_stray(&stray);
            }
            let Some(checked) = checked else { break };
            let compared = compare(tally.findings(), &checked);
            tally.step(self, compared).await?;
            let Some(last) = checked.last() else { continue };
            self.at.tally = tally.to_bson();
            self.at.place = Some(last.folded.id.clone());
            self.at.done += i64::try_from(checked.len()).unwrap_or_default();
            self.at.total = self.at.total.map(|total| total.max(self.at.done));
        }
        self.at.total = Some(self.at.done);
        self.save(&tally).await?;
        Ok(tally)
    }
}

fn compare<'s>(findings: &mut Findings, checked: &'s [Checked]) -> Compared<'s> {
    let mut compared = Compared::default();
    for checked in checked {
        let id = &checked.folded.id;
        findings.documents += 1;
        findings.events += checked.folded.version;
        match &checked.row {
            Some(row) => match difference(row, &checked.folded, &checked.stop) {
                Some(problem) => findings.find(id, version_of(row), &problem),
                None => compared.right.push((row, checked)),
            },
            // The first event could not be applied, so there is no row to be.
            None if checked.folded.version == 0 => {}
            None => compared.rowless.push(id.clone()),
        }
    }
    compared
}
