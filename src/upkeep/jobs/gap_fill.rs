//! `gap_fill`, of one document: fills the gap that it waits behind, and with `skip_above` skips everything above that.
//! Remembers the version of the gap, and counts how many versions are filled.

use bson::{Document, doc};

use super::{Done, Performance, Tally, count};
use crate::{
    log::{LogSource, Mend},
    model::id::DocumentId,
    store::{Bases, Jobs, MarkRows, Snapshots, Store},
    time::Time,
    upkeep::operate::{self, Filling, Means},
};

/// What it remembers and counts.
#[derive(Default)]
struct Begun {
    /// The version of the gap, or 0 before it has begun. Whoever takes the job over goes on with that, wherever the
    /// document is by then.
    version: i64,
    filled: i64,
}

impl Tally for Begun {
    fn to_bson(&self) -> Document {
        doc! { "version": self.version, "filled": self.filled }
    }

    fn from_bson(saved: &Document) -> Self {
        Self { version: count(saved, "version"), filled: count(saved, "filled") }
    }
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    pub(super) async fn gap_fill(&mut self, id: &DocumentId) -> Done {
        let ward = self.snapshotter();
        let mut begun: Begun = self.tally();
        if begun.version == 0 {
            let (asked, grace) = (self.order.version, self.ward.gap_grace);
            begun.version = operate::closable(&ward.store, id, asked, grace).await?;
            self.at.place = Some(id.clone());
            self.save(&begun).await?;
        }
        let (source, store) = (&ward.source, &ward.store);
        let log = &operate::open(source, &self.ward.collection, store).await?;
        let means = Means { source, log, store, time: self.time };
        let gap = begun.version;
        let mut filling = Filling::begin(means, (id, gap), self.order.skip_above).await?;
        let filled = loop {
            if let Some(filled) = filling.step(means).await? {
                break filled;
            }
            begun.filled = begun.filled.max(filling.filled());
            // This also finds out whether the job was cancelled.
            self.save(&begun).await?;
        };
        // Where nobody hears of it now, the next projection takes it up.
        self.revisit(id).await;
        let mut result = doc! { "gap": gap, "filled": filled.filled.max(begun.filled) };
        if let Some(through) = filled.through {
            result.extend(doc! { "skipped": through - gap + 1, "through": through });
        }
        self.outcome(id, result).await
    }
}
