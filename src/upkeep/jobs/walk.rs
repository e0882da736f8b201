//! A job about all documents: each is folded anew and compared with its row, step by step.

use std::time::Duration;

use bson::RawDocumentBuf;
use futures::future::join;

use super::{Performance, Tally, Undone, findings::Findings};
use crate::{
    log::{LogSource, Mend},
    model::id::DocumentId,
    retry::limited,
    store::{Bases, Jobs, MarkRows, Snapshots, Store},
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
    fn step(
        &mut self,
        job: &P,
        step: Compared<'_>,
    ) -> impl Future<Output = std::result::Result<(), Undone>> + Send;
}

/// The documents of a step, compared with their rows.
#[derive(Default)]
pub(super) struct Compared<'s> {
    /// All of them, in the order of their ids.
    pub(super) all: &'s [Checked],
    /// Those that are what their log makes of them.
    pub(super) right: Vec<(&'s RawDocumentBuf, &'s Checked)>,
    /// Those that are something else, with what is wrong.
    pub(super) wrong: Vec<(&'s Checked, String)>,
    /// Those whose log goes on behind the row. The projection may only be a little behind, or they wait.
    pub(super) behind: Vec<Behind>,
}

/// A document whose log goes on behind its row.
pub(super) struct Behind {
    pub(super) id: DocumentId,
    /// The version of its row; 0 if there is none.
    pub(super) version: i64,
    /// The version of its last event.
    pub(super) last: i64,
    /// Whether a checkpoint has passed that event.
    pub(super) is_passed: bool,
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
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
            self.examine(&mut tally, &checked).await?;
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

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    /// Compares documents with their rows, and deals with what comes of it.
    pub(super) async fn examine<C: Steps<Self>>(
        &self,
        tally: &mut C,
        checked: &[Checked],
    ) -> std::result::Result<(), Undone> {
        let compared = compare(tally.findings(), checked);
        tally.step(self, compared).await
    }
}

fn compare<'s>(findings: &mut Findings, checked: &'s [Checked]) -> Compared<'s> {
    let mut compared = Compared { all: checked, ..Compared::default() };
    for checked in checked {
        let id = &checked.folded.id;
        findings.documents += 1;
        findings.events += checked.folded.version;
        let version = checked.row.as_deref().map_or(0, version_of);
        if let Some(problem) = checked.wrong_base() {
            findings.find(id, version, &problem);
        }
        if let Some(row) = &checked.row {
            if let Some(problem) = difference(row, &checked.folded, &checked.stop) {
                compared.wrong.push((checked, problem));
                continue;
            }
            compared.right.push((row, checked));
        }
        if checked.last > version {
            let (id, last) = (id.clone(), checked.last);
            compared.behind.push(Behind { id, version, last, is_passed: false });
        }
    }
    compared
}
