//! What the jobs about documents that wait share: the projector is told to look at the document again, whose answer is
//! waited for.

use std::time::Duration;

use bson::{Bson, doc};
use tokio::sync::oneshot;

use super::{Done, Performance};
use crate::{
    database::Result,
    lease::Standing,
    log::{LogSource, Mend},
    model::{
        id::DocumentId,
        job::{Kind, Order, Outcome},
    },
    projector::revisit::{How, Revisit},
    store::{Bases, Jobs, MarkRows, Snapshots, Store},
    time::Time,
    upkeep::snapshot::version_of,
};

/// How long the projector may take to look at a document again.
const REVISIT_LIMIT: Duration = Duration::from_secs(20);

/// How often it is looked whether another instance has.
const HAND_OVER_LOOK: Duration = Duration::from_millis(300);

/// What is said of a document that was to be looked at and was not.
pub(super) const NOT_LOOKED_AT: &str = "the projection has not looked at the document: it is paused, refused or starting; see its status, and try again";

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    /// Has the projector look at a document again; whether it has, and has written what became of it.
    pub(super) async fn revisit(&self, id: &DocumentId) -> bool {
        self.revisit_as(id, How::OnItsRow).await
    }

    /// The same, from its row or from its log alone.
    pub(super) async fn revisit_as(&self, id: &DocumentId, how: How) -> bool {
        let asked = async {
            let led = self.ward.parts.of(Some(id));
            match led.filter(|led| matches!(*led.standing.borrow(), Standing::Leader(_))) {
                Some(led) => {
                    let (done, seen) = oneshot::channel();
                    let wish = Revisit { document: id.clone(), how, done };
                    led.wishes.send(wish).await.is_ok() && seen.await.is_ok()
                }
                None => self.hand_over(id, how).await.unwrap_or(false),
            }
        };
        tokio::select! {
            biased;
            is_seen = asked => is_seen,
            () = self.time.sleep(REVISIT_LIMIT) => false,
        }
    }

    /// Another instance leads the document's part: a job of its own reaches it. Whether it was done, or the document
    /// waits no more.
    async fn hand_over(&self, id: &DocumentId, how: How) -> Result<bool> {
        let (kind, repair) = match how {
            How::OnItsRow => (Kind::Retry, false),
            How::FromItsLog(_) => (Kind::Verify, true),
        };
        let order = Order::new(kind, &self.order.collection);
        let order = Order { document: Some(id.clone()), repair, ..order };
        let row = self.jobs.insert_job(&order).await?;
        let job = Bson::try_from(row.get("_id")?.unwrap_or(bson::RawBsonRef::Null))?;
        loop {
            match self.jobs.outcome(&job).await? {
                Some(Outcome::Done) => return Ok(true),
                Some(Outcome::Failed | Outcome::Cancelled) => {
                    let left = self.snapshotter().store.load_quarantine_of(id).await?;
                    return Ok(left.is_none());
                }
                None => self.time.sleep(HAND_OVER_LOOK).await,
            }
        }
    }

    /// The result of a job about one document: what it did, where the document is, and what it waits for.
    pub(super) async fn outcome(&mut self, id: &DocumentId, did: bson::Document) -> Done {
        (self.at.done, self.at.total) = (1, Some(1));
        self.save_place().await?;
        let store = &self.snapshotter().store;
        let row = store.load(std::slice::from_ref(id)).await?.into_iter().next();
        let version = row.as_deref().map_or(0, version_of);
        let record = store.load_quarantine_of(id).await?;
        let waits = record.filter(|record| record.mark.version > version).map(|record| {
            let mark = record.mark;
            doc! { "class": mark.class.name(), "version": mark.version, "reason": mark.reason }
        });
        let mut result = did;
        result.extend(doc! { "version": version, "waits": waits });
        Ok(result)
    }
}
