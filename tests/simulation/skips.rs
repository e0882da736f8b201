//! Skips on the in-memory replica set, as those of `store::mongo` are kept. What this claims is checked in
//! `conformance`.

use super::{
    store::{SimStore, refuses, row_of, version_of},
    world::{COLLECTION, Data, Key, Op, Row, State},
};
use crate::{
    database::Result,
    model::{
        event::EventKey,
        id::DocumentId,
        skip::{Skip, SkippedVersions, Skips},
    },
    planted::{Bug, planted},
    store::{RowWrite, SkipOutcome, SkipRows},
};

pub(super) const SKIPS: &str = "alluvium.skips";

impl SkipRows for SimStore {
    async fn load_skips(&self) -> Result<Skips> {
        let world = self.node.world.clone();
        let work = async move {
            let mut skips = Skips::default();
            for key in skipped(&world.state().visible) {
                skips.insert(key.document, key.version);
            }
            Ok(skips)
        };
        self.node.call("load_skips", work).await
    }

    async fn load_skips_of(&self, document: &DocumentId) -> Result<SkippedVersions> {
        let (world, document) = (self.node.world.clone(), document.clone());
        let work = async move { Ok(skipped_of(&world.state().visible, &document)) };
        self.node.call("load_skips_of", work).await
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

/// The places that are skipped.
pub(super) fn skipped(data: &Data) -> Vec<EventKey> {
    let rows = data.collections.get(SKIPS).map(|found| found.rows.keys());
    let event = |key: &Key| match key {
        Key::Event(key) => Some(key.clone()),
        _ => None,
    };
    rows.into_iter().flatten().filter_map(event).collect()
}

/// Those of one document.
pub(super) fn skipped_of(data: &Data, document: &DocumentId) -> SkippedVersions {
    let places = skipped(data).into_iter().filter(|key| key.document == *document);
    places.map(|key| key.version).collect()
}
