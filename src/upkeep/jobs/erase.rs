//! `erase`, of one document: its content goes for good. Remembers at which version the document is deleted, and what is gone.

use std::time::Duration;

use bson::{Document, doc};

use super::{Done, Performance, Tally, Undone, count};
use crate::{
    log::{LogSource, Mend},
    model::id::DocumentId,
    store::{Bases, Forgotten, Jobs, MarkRows, Snapshots, Store},
    time::Time,
    upkeep::{
        compact::Clear,
        erase::{Begun, EraseError, Eraser, Stepped},
        operate,
    },
};

/// The pause before it is looked again whether the deletion is projected.
const PAUSE: Duration = Duration::from_millis(200);

impl Tally for Begun {
    fn to_bson(&self) -> Document {
        doc! {
            "version": self.version, "is_deleted": i32::from(self.is_deleted), "events": self.events,
            "snapshots": self.gone.snapshots, "records": self.gone.records, "skips": self.gone.skips,
            "jobs": self.gone.jobs, "segments": self.segments,
        }
    }

    fn from_bson(saved: &Document) -> Self {
        let count = |name| count(saved, name);
        Self {
            version: count("version"),
            is_deleted: count("is_deleted") == 1,
            events: count("events"),
            gone: Forgotten {
                snapshots: count("snapshots"),
                records: count("records"),
                skips: count("skips"),
                jobs: count("jobs"),
            },
            segments: count("segments"),
            idle: 0,
        }
    }
}

impl From<EraseError> for Undone {
    fn from(error: EraseError) -> Self {
        match error {
            EraseError::Database(error) => error.into(),
            refusal => Self::Failed(refusal.to_string()),
        }
    }
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    pub(super) async fn erase(&mut self, id: &DocumentId) -> Done {
        let (ward, compaction) = (self.snapshotter(), &self.ward.compaction);
        let (mut begun, mut clear): (Begun, _) = (self.tally(), Clear::default());
        self.at.place = Some(id.clone());
        let log = operate::open(&ward.source, &ward.collection, &ward.store).await?;
        let (source, store) = (&ward.source, &ward.store);
        let (archive, retention) = (compaction.archive.as_ref(), compaction.retention);
        let eraser = Eraser { source, log: &log, store, archive, retention };
        loop {
            self.may_compact(&mut clear).await?;
            match eraser.step(id, &mut begun).await? {
                Stepped::Done => break,
                Stepped::Waits => self.time.sleep(PAUSE).await,
                Stepped::Went => {}
            }
            // This also finds out whether the job was cancelled.
            self.save(&begun).await?;
        }
        (self.at.done, self.at.total) = (1, Some(1));
        self.save(&begun).await?;
        let mut result = begun.to_bson();
        result.remove("is_deleted");
        Ok(result)
    }
}
