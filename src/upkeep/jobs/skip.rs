//! `skip`, of one document: the event at which it is parked counts from now on, and changes nothing. Remembers the
//! version that it has begun with.

use bson::{Document, doc};

use super::{Done, Performance, Tally, count};
use crate::{
    log::{LogSource, Mend},
    metrics::SkipReason,
    model::id::DocumentId,
    store::{Bases, Jobs, MarkRows, Snapshots, Store},
    time::Time,
    upkeep::operate::{self, Skipped},
};

/// What it remembers: the version, or 0 before it has begun. Whoever takes the job over goes on with that, wherever the
/// document is by then.
#[derive(Default)]
struct Begun(i64);

impl Tally for Begun {
    fn to_bson(&self) -> Document {
        doc! { "version": self.0 }
    }

    fn from_bson(saved: &Document) -> Self {
        Self(count(saved, "version"))
    }
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    pub(super) async fn skip(&mut self, id: &DocumentId) -> Done {
        let ward = self.snapshotter();
        let mut begun: Begun = self.tally();
        if begun.0 == 0 {
            begun.0 = match self.order.version {
                // It may have been skipped already, by a job like this one.
                Some(version) => version,
                None => operate::parked_at(&ward.store, id, None).await?,
            };
            self.at.place = Some(id.clone());
            self.save(&begun).await?;
        }
        let (source, store) = (&ward.source, &ward.store);
        let log = operate::open(source, &ward.collection, store).await?;
        let Skipped { version, client } =
            operate::skip(source, &log, store, self.time, (id, begun.0)).await?;
        if client.is_some() {
            ward.metrics.skipped(SkipReason::Operator).inc();
        }
        // Where nobody hears of it now, the next projection takes it up.
        self.revisit(id).await;
        self.outcome(id, doc! { "skipped": version, "client": client }).await
    }
}
