//! `retry`, of one document that waits or of all that are parked: has the projection look at them again. Of all it
//! counts how many were looked at, and how many wait no more.

use bson::{Document, doc};

use super::{Done, Performance, Tally, Undone, count, waiting::NOT_LOOKED_AT};
use crate::{
    log::{LogSource, Mend},
    model::{document::Class, id::DocumentId},
    store::{Bases, Jobs, MarkRows, Snapshots, Store},
    time::Time,
    upkeep::operate::OperateError,
};

/// What it counts.
#[derive(Default)]
struct Retried {
    documents: i64,
    /// Those that are parked no more.
    healed: i64,
}

impl Tally for Retried {
    fn to_bson(&self) -> Document {
        doc! { "documents": self.documents, "healed": self.healed }
    }

    fn from_bson(saved: &Document) -> Self {
        Self { documents: count(saved, "documents"), healed: count(saved, "healed") }
    }
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    pub(super) async fn retry(&mut self, id: &DocumentId) -> Done {
        let record = self.snapshotter().store.load_quarantine_of(id).await?;
        record.ok_or_else(|| OperateError::NotWaiting(id.clone()))?;
        match self.revisit(id).await {
            true => self.outcome(id, doc! {}).await,
            false => Err(Undone::Failed(NOT_LOOKED_AT.into())),
        }
    }

    pub(super) async fn retry_all(&mut self) -> Done {
        let mut tally: Retried = self.tally();
        let mut records = self.snapshotter().store.load_quarantine().await?;
        let place = self.at.place.clone();
        records.retain(|row| {
            row.mark.class != Class::Gap && place.as_ref().is_none_or(|at| row.document > *at)
        });
        records.sort_unstable_by(|a, b| a.document.cmp(&b.document));
        self.at.total = i64::try_from(records.len()).ok().map(|left| left + self.at.done);
        self.save(&tally).await?;
        for row in records {
            if !self.revisit(&row.document).await {
                return Err(Undone::Failed(NOT_LOOKED_AT.into()));
            }
            let left = self.snapshotter().store.load_quarantine_of(&row.document).await?;
            let waits = left.filter(|left| left.mark.class != Class::Gap);
            tally.documents += 1;
            tally.healed += i64::from(waits.is_none());
            self.at.done += 1;
            self.at.place = Some(row.document);
            self.save(&tally).await?;
        }
        Ok(tally.to_bson())
    }
}
