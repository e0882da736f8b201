//! Skips on the in-memory replica set, as those of `store::mongo` are kept. What this claims is checked in
//! `conformance`.

use bson::Timestamp;

use super::{
    store::{SimStore, refuses, row_of, version_of},
    world::{COLLECTION, Data, EVENTS, Key, Op, Row, State, World},
};
use crate::{
    database::{Error, Result},
    model::{
        id::DocumentId,
        skip::{Skip, SkippedVersions, Skips},
    },
    planted::{Bug, planted},
    store::{Filler, RowWrite, SkipAboveOutcome, SkipOutcome, SkipRows},
};

pub(super) const SKIPS: &str = "alluvium.skips";

impl SkipRows for SimStore {
    async fn load_skips(&self) -> Result<Skips> {
        let (world, seen) = (self.node.world.clone(), self.seen.clone());
        let work = async move {
            let mut skips = Skips::default();
            let seen = *seen.lock().unwrap();
            world.causal(seen).await;
            for skip in skipped(&world.state().visible) {
                skips.insert(skip.key.document, (skip.key.version, skip.through));
            }
            Ok(skips)
        };
        self.node.call("load_skips", work).await
    }

    async fn load_skips_of(
        &self,
        document: &DocumentId,
        at_least: Option<Timestamp>,
    ) -> Result<SkippedVersions> {
        let (world, document) = (self.node.world.clone(), document.clone());
        let seen = Some(*self.seen.lock().unwrap()).max(at_least);
        let work = async move {
            if let Some(seen) = seen {
                world.causal(seen).await;
            }
            Ok(skipped_of(&world.state().visible, &document))
        };
        self.node.call("load_skips_of", work).await
    }

    async fn skip_above(&self, skip: &Skip, filler: &Filler) -> Result<SkipAboveOutcome> {
        let (world, monitor) = (self.node.world.clone(), self.monitor.clone());
        let (skip, filler) = (skip.clone(), filler.clone());
        let name = self.node.name(|| {
            format!("skip_above {} {} to {}", skip.key.document, skip.key.version, skip.through)
        });
        let work = async move {
            let (found, last) = {
                let state = world.state();
                (judge_above(&state, &skip, &filler)?, state.last())
            };
            if let Some(outcome) = found {
                // A transaction that changes nothing waits as well: for what it found.
                world.majority(last).await?;
                return Ok(outcome);
            }
            let check = monitor.skip_above_recorded(&world.state(), &skip);
            world.insist(check);
            let key = || Key::Event(skip.key.clone());
            let put =
                |collection: &str, row| Op::Put { collection: collection.into(), key: key(), row };
            let record = put(SKIPS, Row::Skip(skip.clone()));
            let filler_put = put(EVENTS, Row::Raw(filler.event.clone()));
            let one_by_one = planted(Bug::SkipAfterFiller);
            let transactions = match one_by_one {
                true => vec![vec![filler_put], vec![record]],
                false => vec![vec![filler_put, record]],
            };
            for ops in transactions {
                world.majority(world.apply(ops)).await?;
            }
            Ok(SkipAboveOutcome::Done)
        };
        self.node.call(&name, work).await
    }

    async fn skip(&self, skip: &Skip, write: &RowWrite) -> Result<SkipOutcome> {
        let (world, monitor) = (self.node.world.clone(), self.monitor.clone());
        let (skip, write) = (skip.clone(), write.clone());
        let name = self.node.name(|| format!("skip {} {}", skip.key.document, skip.key.version));
        let work = async move {
            let (found, last) = {
                let state = world.state();
                (judge(&state, &skip, &write), state.last())
            };
            if let Some(outcome) = found {
                // A transaction that changes nothing waits as well: for what it found.
                world.majority(last).await?;
                return Ok(outcome);
            }
            let check = monitor.skip_recorded(&world.state(), &skip);
            world.insist(check);
            let key = Key::Event(skip.key.clone());
            let record = Op::Put { collection: SKIPS.into(), key, row: Row::Skip(skip.clone()) };
            let row = Op::Put {
                collection: COLLECTION.into(),
                key: Key::Document(write.id.clone()),
                row: Row::Raw(write.row.clone()),
            };
            let one_by_one = planted(Bug::RowBeforeSkip);
            let transactions = match one_by_one {
                true => vec![vec![row], vec![record]],
                false => vec![vec![row, record]],
            };
            for ops in transactions {
                let ticket = world.apply(ops);
                let check = monitor.row_written(&world.state(), &write);
                world.insist(check);
                world.majority(ticket).await?;
            }
            Ok(SkipOutcome::Done)
        };
        self.node.call(&name, work).await
    }
}

/// What keeps a skip from being done.
fn judge(state: &State, skip: &Skip, write: &RowWrite) -> Option<SkipOutcome> {
    if state.latest.get(SKIPS, &Key::Event(skip.key.clone())).is_some() {
        return Some(SkipOutcome::Existed);
    }
    if refuses(state, &write.row) {
        let reason = "Document failed validation".to_owned();
        return Some(SkipOutcome::Rejected { code: 121, reason });
    }
    let stored = row_of(&state.latest, &write.id).and_then(|row| version_of(row));
    (stored.unwrap_or(0) != write.expected).then_some(SkipOutcome::Stale)
}

/// What keeps a skip of everything above a gap from being done.
fn judge_above(state: &State, skip: &Skip, filler: &Filler) -> Result<Option<SkipAboveOutcome>> {
    let key = Key::Event(skip.key.clone());
    let Some(log) = state.latest.collections.get(EVENTS).filter(|log| log.id == filler.log) else {
        return Err(Error::server(361, "the collection is another one by now"));
    };
    if state.latest.get(SKIPS, &key).is_some() {
        return Ok(Some(SkipAboveOutcome::Existed));
    }
    let mut newer = state.latest.events(&skip.key.document, skip.through);
    if !filler.leaves_newer && newer.next().is_some() {
        return Ok(Some(SkipAboveOutcome::Newer));
    }
    Ok(log.rows.contains_key(&key).then_some(SkipAboveOutcome::Taken))
}

/// What is skipped.
pub(super) fn skipped(data: &Data) -> Vec<Skip> {
    let rows = data.collections.get(SKIPS).map(|found| found.rows.values());
    let skip = |row: &Row| match row {
        Row::Skip(skip) => Some(skip.clone()),
        _ => None,
    };
    rows.into_iter().flatten().filter_map(skip).collect()
}

/// What is skipped of one document.
pub(super) fn skipped_of(data: &Data, document: &DocumentId) -> SkippedVersions {
    let skips = skipped(data).into_iter().filter(|skip| skip.key.document == *document);
    skips.map(|skip| (skip.key.version, skip.through)).collect()
}

impl World {
    /// Lets the reasons of skips tell of this text, as those of the server's words may.
    pub(super) fn tell_in_skips(&self, text: &str) {
        let skips = skipped(&self.state().visible);
        let put = |skip: Skip| Op::Put {
            collection: SKIPS.into(),
            key: Key::Event(skip.key.clone()),
            row: Row::Skip(Skip { reason: text.into(), ..skip }),
        };
        self.apply(skips.into_iter().map(put).collect());
    }
}
