//! `verify`, of a whole collection or of one document, and `rebuild`: folds the log anew and compares every row with it,
//! byte for byte. Counts documents and events, what differs, and what of that was made again. A rebuild, and a verify that
//! is deep, also fold what compaction has taken out ([`super::deep`]).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bson::{Document, RawDocumentBuf};

use super::{
    Done, Performance, Tally, Undone,
    deep::Deep,
    findings::Findings,
    repair::Wrong,
    walk::{Behind, Compared, Steps},
};
use crate::{
    database::Result,
    log::{LogSource, Mend},
    model::id::DocumentId,
    store::{Bases, Jobs, MarkRows, Snapshots, Store},
    time::Time,
    upkeep::{
        compare::Checked,
        snapshot::{Snapshotter, version_of},
    },
};

/// How often a job looks again at documents that are behind their log, in all. The projection may only be a little
/// behind; an idle one saves how far it has come every few seconds.
const LOOKS_MAX: u32 = 15;
/// The pause before it does.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What it counts.
#[derive(Default)]
struct Verified {
    findings: Findings,
    deep: Deep,
    /// How often it has looked again.
    looks: u32,
}

impl Tally for Verified {
    fn to_bson(&self) -> Document {
        self.findings.to_bson(self.deep.to_bson())
    }

    fn from_bson(saved: &Document) -> Self {
        Self { findings: Findings::from_bson(saved), deep: Deep::from_bson(saved), looks: 0 }
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

    pub(super) async fn verify_one(&mut self, id: &DocumentId) -> Done {
        let Snapshotter { collection, source, store, .. } = self.snapshotter();
        let log = source.open_existing(collection).await?;
        let checked = Checked::look(source, (&log, store), id).await?;
        let mut verified = Verified::default();
        self.examine(&mut verified, &[checked]).await?;
        (self.at.done, self.at.total) = (1, Some(1));
        self.save_place().await?;
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

    /// Documents whose log goes on behind their rows: the projection may be a little behind, or they wait. Everything
    /// before a checkpoint is in the rows or on record, so whatever is in neither although one has passed it was lost.
    async fn step(
        &mut self,
        job: &Performance<'_, J, S, D, T>,
        step: Compared<'_>,
    ) -> std::result::Result<(), Undone> {
        let right: Vec<&Checked> = step.right.iter().map(|(_, checked)| *checked).collect();
        job.check_snapshots(step.all, &right, &mut self.findings).await?;
        job.prove_bases(step.all, (&mut self.findings, &mut self.deep)).await?;
        self.judge(job, step.wrong.into_iter().map(Wrong::differs).collect()).await?;
        let mut behind = step.behind;
        if behind.is_empty() {
            return Ok(());
        }
        let Snapshotter { source, store, .. } = job.snapshotter();
        let seen = source.now().await?;
        loop {
            let saved = store.load_checkpoints().await?;
            for behind in &mut behind {
                behind.is_passed |= saved.iter().any(|(part, saved)| {
                    let reached = saved.position.as_ref().map(|position| position.cluster_time);
                    part.holds(&behind.id) && reached.is_some_and(|reached| reached >= seen)
                });
            }
            keep_behind(store, &mut behind).await?;
            if behind.iter().all(|behind| behind.is_passed) || self.looks == LOOKS_MAX {
                break;
            }
            self.looks += 1;
            job.time.sleep(LOOK_PAUSE).await;
        }
        // Where nothing is projected at present, it may come yet.
        behind.retain(|behind| behind.version == 0 || behind.is_passed);
        Ok(self.judge(job, behind.into_iter().map(Wrong::behind).collect()).await?)
    }
}

impl Verified {
    /// Tells of documents that are not what their log makes of them, and has them made again if that is wanted.
    async fn judge<J: Jobs, S: LogSource, D, T: Time>(
        &mut self,
        job: &Performance<'_, J, S, D, T>,
        wrong: Vec<Wrong<'_>>,
    ) -> Result<()>
    where
        S::Log: Mend,
        D: Store + Snapshots + Bases + MarkRows,
    {
        let repaired = match job.order.repair {
            true => job.repair(&wrong).await?,
            false => HashSet::new(),
        };
        for Wrong { id, version, problem, .. } in wrong {
            match repaired.contains(&id) {
                true => self.findings.find_repaired(&id, version, &problem),
                false => self.findings.find(&id, version, &problem),
            }
        }
        Ok(())
    }
}

/// Leaves out documents that wait, and those whose rows have come to the end of their logs meanwhile.
async fn keep_behind<D: Store>(store: &D, behind: &mut Vec<Behind>) -> Result<()> {
    // What waits is read before the rows: a record goes after its row has moved on.
    let waiting = store.load_quarantine().await?;
    let waiting: HashSet<DocumentId> = waiting.into_iter().map(|row| row.document).collect();
    let ids: Vec<DocumentId> = behind.iter().map(|behind| behind.id.clone()).collect();
    let rows: Vec<RawDocumentBuf> = store.load(&ids).await?;
    let reached: HashMap<DocumentId, i64> =
        rows.iter().filter_map(|row| Some((DocumentId::of_row(row)?, version_of(row)))).collect();
    behind.retain_mut(|behind| {
        behind.version = reached.get(&behind.id).copied().unwrap_or_default();
        behind.version < behind.last && !waiting.contains(&behind.id)
    });
    Ok(())
}
