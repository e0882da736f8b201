//! The jobs by which an operator deals with documents that wait: each is done, and then the projector is told to look
//! at the document again, whose answer is waited for.

use std::time::Duration;

use bson::{Bson, Document, doc};
use tokio::sync::oneshot;

use super::{
    operate::{self, OperateError, Skipped},
    perform::{Performance, Undone},
    snapshot::version_of,
};
use crate::{
    database::{Error, Result},
    lease::Standing,
    log::{LogSource, Mend},
    metrics::SkipReason,
    model::{
        document::Class,
        id::DocumentId,
        job::{Kind, Order, Outcome},
    },
    projector::revisit::Revisit,
    store::{Jobs, Snapshots, Store},
    time::Time,
};

/// How long the projector may take to look at a document again.
const REVISIT_LIMIT: Duration = Duration::from_secs(20);

/// How often it is looked whether another instance has.
const HAND_OVER_LOOK: Duration = Duration::from_millis(300);

/// What is said of a document that was to be looked at and was not.
const NOT_LOOKED_AT: &str = "the projection has not looked at the document: it is paused, refused or starting; see its status, and try again";

type Done = std::result::Result<Document, Undone>;

impl From<OperateError> for Undone {
    fn from(error: OperateError) -> Self {
        match error {
            OperateError::Database(error) => error.into(),
            refusal => Self::Failed(refusal.to_string()),
        }
    }
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots,
{
    /// Does what is asked for one document that waits.
    pub(super) async fn operate(&mut self, id: &DocumentId) -> Done {
        let mut result = match self.order.kind {
            Kind::Retry => {
                let record = self.snapshotter().store.load_quarantine_of(id).await?;
                record.ok_or_else(|| OperateError::NotWaiting(id.clone()))?;
                doc! {}
            }
            Kind::Skip => self.skip(id).await?,
            _ => self.fill(id).await?,
        };
        let is_seen = self.revisit(id).await;
        if self.order.kind == Kind::Retry && !is_seen {
            return Err(Undone::Failed(NOT_LOOKED_AT.into()));
        }
        (self.at.done, self.at.total) = (1, Some(1));
        self.save().await?;
        result.extend(self.outcome(id).await?);
        Ok(result)
    }

    /// Looks again at all documents that are parked, one after the other.
    pub(super) async fn retry_all(&mut self) -> Done {
        let mut records = self.snapshotter().store.load_quarantine().await?;
        let place = self.at.place.clone();
        records.retain(|row| {
            row.mark.class != Class::Gap && place.as_ref().is_none_or(|at| row.document > *at)
        });
        records.sort_unstable_by(|a, b| a.document.cmp(&b.document));
        self.at.total = i64::try_from(records.len()).ok().map(|left| left + self.at.done);
        self.save().await?;
        for row in records {
            if !self.revisit(&row.document).await {
                return Err(Undone::Failed(NOT_LOOKED_AT.into()));
            }
            let left = self.snapshotter().store.load_quarantine_of(&row.document).await?;
            let waits = left.filter(|left| left.mark.class != Class::Gap);
            self.tally.documents += 1;
            self.tally.healed += i64::from(waits.is_none());
            self.at.done += 1;
            self.at.place = Some(row.document);
            self.save().await?;
        }
        Ok(self.tally.to_bson(Kind::Retry))
    }

    async fn skip(&mut self, id: &DocumentId) -> Done {
        let store = &self.snapshotter().store;
        let version = match self.begun() {
            Some(version) => version,
            None => match self.order.version {
                // It may have been skipped already, by a job like this one.
                Some(version) => self.begin(id, version).await?,
                None => {
                    let version = operate::parked_at(store, id, None).await?;
                    self.begin(id, version).await?
                }
            },
        };
        let ward = self.snapshotter();
        let log = operate::open(&ward.source, &ward.collection, store).await?;
        let Skipped { version, client } =
            operate::skip(&ward.source, &log, store, self.time, (id, version)).await?;
        if client.is_some() {
            ward.metrics.skipped(SkipReason::Operator).inc();
        }
        Ok(doc! { "skipped": version, "client": client })
    }

    async fn fill(&mut self, id: &DocumentId) -> Done {
        let ward = self.snapshotter();
        let hole = match self.begun() {
            Some(hole) => hole,
            None => {
                let now = (self.time.wall(), self.ward.gap_grace);
                let hole = operate::closable(&ward.store, id, self.order.version, now).await?;
                self.begin(id, hole).await?
            }
        };
        let (source, store) = (&ward.source, &ward.store);
        let log = operate::open(source, &ward.collection, store).await?;
        let filled = operate::fill(source, &log, store, self.time, (id, hole)).await?;
        Ok(doc! { "hole": hole, "filled": filled })
    }

    /// The version that this job has begun with, if it was begun before.
    fn begun(&self) -> Option<i64> {
        Some(self.tally.version).filter(|version| *version > 0)
    }

    /// Saves with which version the job begins: whoever takes it over goes on with that, wherever the document is
    /// by then.
    async fn begin(&mut self, id: &DocumentId, version: i64) -> std::result::Result<i64, Undone> {
        self.tally.version = version;
        self.at.place = Some(id.clone());
        self.save().await?;
        Ok(version)
    }

    /// Has the projector look at a document again; whether it has, and has written what became of it.
    async fn revisit(&self, id: &DocumentId) -> bool {
        let asked = async {
            let led = self.ward.parts.of(Some(id));
            match led.filter(|led| matches!(*led.standing.borrow(), Standing::Leader(_))) {
                Some(led) => {
                    let (done, seen) = oneshot::channel();
                    let wish = Revisit { document: id.clone(), done };
                    led.wishes.send(wish).await.is_ok() && seen.await.is_ok()
                }
                None => self.hand_over(id).await.unwrap_or(false),
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
    async fn hand_over(&self, id: &DocumentId) -> Result<bool> {
        let (collection, document) = (self.order.collection.clone(), Some(id.clone()));
        let order = Order { kind: Kind::Retry, collection, document, version: None };
        let row = self.jobs.insert_job(&order).await?;
        let job = Bson::try_from(row.get("_id")?.unwrap_or(bson::RawBsonRef::Null))?;
        loop {
            match self.jobs.outcome(&job).await? {
                Some(Outcome::Done) => return Ok(true),
                Some(_) => {
                    let left = self.snapshotter().store.load_quarantine_of(id).await?;
                    return Ok(left.is_none());
                }
                None => self.time.sleep(HAND_OVER_LOOK).await,
            }
        }
    }

    /// Where a document is, and what it waits for.
    async fn outcome(&self, id: &DocumentId) -> Result<Document> {
        let store = &self.snapshotter().store;
        let row = store.load(std::slice::from_ref(id)).await?.into_iter().next();
        let version = row.as_deref().map_or(0, version_of);
        let record = store.load_quarantine_of(id).await?;
        let waits = record.filter(|record| record.mark.version > version).map(|record| {
            let mark = record.mark;
            doc! { "class": mark.class.name(), "version": mark.version, "reason": mark.reason }
        });
        Ok::<_, Error>(doc! { "version": version, "waits": waits })
    }
}
