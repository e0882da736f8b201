//! Rows, and only rows, made again from the log, in place and document by document: by the projector that leads the
//! document's part, which also has it in memory. What was found wrong is looked at once more afterwards.

use std::collections::HashSet;

use bson::RawDocumentBuf;
use futures::future::join_all;

use super::{Performance, walk::Behind};
use crate::{
    database::Result,
    log::{LogSource, Mend},
    model::{document::Document, id::DocumentId},
    projector::revisit::How,
    store::{Bases, Jobs, MarkRows, Snapshots, Store},
    time::Time,
    upkeep::{
        compare::Checked,
        fold::Stop,
        snapshot::{difference, version_of},
    },
};

/// A document that is not what its log makes of it.
pub(super) struct Wrong<'s> {
    pub(super) id: DocumentId,
    /// The version of its row; 0 if there is none.
    pub(super) version: i64,
    pub(super) problem: String,
    /// What its log makes of it, up to the version of its row.
    folded: Option<&'s Document>,
    /// The least version at which it is right.
    least: i64,
    /// Whether its row is sound and ahead of its log, or nobody's at all: then there is nothing to make it from.
    is_beyond: bool,
}

impl<'s> Wrong<'s> {
    /// A document whose row differs.
    pub(super) fn differs((checked, problem): (&'s Checked, String)) -> Self {
        let (folded, version) = (&checked.folded, checked.version());
        let is_whole = folded.version == version || matches!(checked.stop, Stop::Poison(_));
        let is_sound = checked.row.as_deref().is_some_and(|row| Document::from_raw(row).is_ok());
        Self {
            id: folded.id.clone(),
            version,
            problem,
            folded: Some(folded).filter(|_| is_whole && version > 0),
            least: folded.version,
            is_beyond: checked.last == 0 || (is_sound && !is_whole),
        }
    }

    /// A document whose log goes on behind its row.
    pub(super) fn behind(behind: Behind) -> Self {
        let Behind { id, version, last, .. } = behind;
        let problem = match version {
            0 => "its log has events, but there is no row".to_owned(),
            _ => format!("its log goes on to version {last}, and it does not wait"),
        };
        Self { id, version, problem, folded: None, least: 1, is_beyond: false }
    }

    /// Whether this row is what the log makes of the document, as far as it was folded here.
    fn is_righted_by(&self, row: &RawDocumentBuf) -> bool {
        let is_same = |folded: &&Document| folded.version == version_of(row);
        let differs = self.folded.filter(is_same).is_some_and(|folded| {
            let stop = Stop::Reached;
            difference(row, folded, &stop).is_some()
        });
        Document::from_raw(row).is_ok_and(|row| row.version >= self.least) && !differs
    }
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    /// Has rows made again; the documents that are right afterwards.
    pub(super) async fn repair(&self, wrong: &[Wrong<'_>]) -> Result<HashSet<DocumentId>> {
        let wrong: Vec<&Wrong<'_>> = wrong.iter().filter(|wrong| !wrong.is_beyond).collect();
        let asked = join_all(wrong.iter().map(|wrong| {
            let folded = wrong.folded.map(|folded| Box::new(folded.clone()));
            self.revisit_as(&wrong.id, How::FromItsLog(folded))
        }));
        let asked = asked.await;
        let asked: Vec<&Wrong<'_>> = wrong
            .into_iter()
            .zip(asked)
            .filter(|(_, is_done)| *is_done)
            .map(|(wrong, _)| wrong)
            .collect();
        if asked.is_empty() {
            return Ok(HashSet::new());
        }
        let ids: Vec<DocumentId> = asked.iter().map(|wrong| wrong.id.clone()).collect();
        let mut right = HashSet::new();
        for row in self.snapshotter().store.load(&ids).await? {
            let Some(id) = row.get("_id")?.and_then(|id| DocumentId::from_raw(id).ok()) else {
                continue;
            };
            if asked.iter().any(|wrong| wrong.id == id && wrong.is_righted_by(&row)) {
                right.insert(id);
            }
        }
        Ok(right)
    }
}
