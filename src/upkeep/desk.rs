//! Where jobs are taken and done: one at a time for each collection, by the instance that leads it. A job
//! whose leader died is taken again by the next one and goes on from its place.

use std::{collections::HashMap, time::Duration};

use bson::{Bson, RawDocument, RawDocumentBuf};
use futures::future::{join, join_all};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    jobs::{Performance, Undone, left_unlike_log},
    ward::Ward,
};
use crate::{
    database::{Error, Result},
    health::{Heart, beating},
    lease::Standing,
    log::{LogSource, Mend},
    logging::AUDIT,
    model::{
        id::{DocumentId, integral},
        job::{Order, Outcome, RUNNING},
    },
    retry::{Backoff, limited},
    store::{Bases, Jobs, Lock, MarkRows, Snapshots, Store, jobs::Advance},
    time::Time,
};

/// How often the desk looks for jobs.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A job of a later epoch than ours whose leader has been silent for so long is taken all the same: the row
/// of the lease was lost, and with it the count of epochs.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often a step of a job is tried that fails each time although the database is there.
const TRIES_MAX: u32 = 10;
/// The server's code for a transaction that meets another one.
const WRITE_CONFLICT: i32 = 112;

/// See the module.
pub struct Desk<J, S: LogSource, D, T> {
    /// The jobs of the database.
    pub jobs: J,
    /// The name of this instance.
    pub instance: String,
    /// The time that it goes by.
    pub time: T,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// The configured collections.
    pub wards: Vec<Ward<S, D>>,
    /// Beats while jobs that are nobody's are looked for.
    pub heart: Heart,
}

/// The jobs of other leaders, and since when their beat has been the same.
#[derive(Default)]
struct Silence(HashMap<String, (i64, i64, Duration)>);

impl<J: Jobs, S: LogSource, D, T: Time> Desk<J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    /// Takes and does jobs for ever. May be dropped at any moment: what is under way is taken up again.
    pub async fn run(self) {
        let wards = join_all(self.wards.iter().map(|ward| self.look_after(ward)));
        join(wards, self.refuse_strays()).await;
    }

    async fn look_after(&self, ward: &Ward<S, D>) {
        let mut silence = Silence::default();
        loop {
            ward.heart.beat(self.time.now());
            if !ward.parts.leads().is_empty() {
                let turn = self.turn(ward, &mut silence);
                match beating(&ward.heart, &self.time, turn).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => {
                        warn!(collection = ward.collection, %error, "the jobs could not be looked at; trying again");
                    }
                }
            }
            beating(&ward.heart, &self.time, self.time.sleep(LOOK_INTERVAL)).await;
        }
    }

    /// Does one job, if there is one; whether there was.
    async fn turn(&self, ward: &Ward<S, D>, silence: &mut Silence) -> Result<bool> {
        let limit = self.backoff.attempt_limit;
        let open = limited(&self.time, limit, self.jobs.open_jobs(&ward.collection)).await?;
        for row in open {
            let order = match Order::from_raw(&row) {
                Ok(order) => order,
                Err(error) => {
                    self.refuse(&row, &error.to_string()).await;
                    continue;
                }
            };
            let Some(led) = ward.parts.of(order.document.as_ref()) else { continue };
            let standing = *led.standing.borrow();
            let Standing::Leader(epoch) = standing else { continue };
            let lock = Lock { owner: self.instance.clone(), epoch };
            if !silence.may_take(&row, &lock, self.time.now()) {
                continue;
            }
            match limited(&self.time, limit, self.jobs.claim_job(&row, &lock)).await {
                Ok(true) => {
                    self.perform(ward, (&row, order), (&lock, led.standing)).await?;
                    return Ok(true);
                }
                Ok(false) => {}
                // A row that cannot be written to must not keep the others waiting.
                Err(error) => warn!(id = shown(&row), %error, "a job could not be taken"),
            }
        }
        Ok(false)
    }

    async fn perform(
        &self,
        ward: &Ward<S, D>,
        (row, order): (&RawDocument, Order),
        (lock, mut led): (&Lock, watch::Receiver<Standing>),
    ) -> Result<()> {
        let kind = order.kind;
        info!(collection = ward.collection, kind = kind.name(), id = shown(row), "a job begins");
        let (jobs, time) = (&self.jobs, &self.time);
        let mut job = Performance::new(jobs, ward, time, (row, order), lock.clone())?;
        let id = job.id.clone();
        ward.snapshotter.metrics.upkeep.jobs_running.set(1);
        let ended = tokio::select! {
            biased;
            _lost = led.wait_for(|now| *now != Standing::Leader(lock.epoch)) => Err(Undone::Lost),
            ended = self.persist(&mut job) => ended,
        };
        ward.snapshotter.metrics.upkeep.jobs_running.set(0);
        let outcome = match ended {
            Ok(result) => {
                let left = left_unlike_log(&job.order, &result);
                let outcome = self.finish(&id, lock, Ok(result)).await?;
                if let Some(left) = left.filter(|_| outcome == Some(Outcome::Done)) {
                    ward.snapshotter.metrics.upkeep.verified(left);
                }
                outcome
            }
            Err(Undone::Failed(error)) => {
                warn!(collection = ward.collection, kind = kind.name(), error, "a job failed");
                self.finish(&id, lock, Err(&error)).await?
            }
            Err(_) => self.jobs.outcome(&id).await?.filter(|ended| *ended == Outcome::Cancelled),
        };
        let ended = outcome.map_or("taken over by another instance", Outcome::name);
        info!(
            target: AUDIT,
            by = job.order.by,
            collection = ward.collection,
            kind = kind.name(),
            document = job.order.document.as_ref().map(ToString::to_string),
            id = shown(row),
            outcome = ended,
            "the job is over"
        );
        if let Some(outcome) = outcome {
            ward.snapshotter.metrics.upkeep.finished(kind, outcome).inc();
        }
        Ok(())
    }

    /// Does a job, beginning again at its place for as long as the database is merely away. One that the database
    /// fails again and again at the same place, although it is there, is given up: others wait for their turn.
    async fn persist(
        &self,
        job: &mut Performance<'_, J, S, D, T>,
    ) -> std::result::Result<bson::Document, Undone> {
        let (mut pause, mut tries) = (self.backoff.shortest, 0);
        let reached = |at: &Advance| (at.place.clone(), at.tally.clone());
        let mut last = reached(&job.at);
        loop {
            let error = match job.perform().await {
                Err(Undone::Interrupted(error)) => error,
                ended => return ended,
            };
            warn!(%error, "a job was interrupted and goes on from its place");
            if reached(&job.at) != last {
                (pause, tries, last) = (self.backoff.shortest, 0, reached(&job.at));
            }
            self.time.sleep(pause).await;
            pause = (pause * 2).min(self.backoff.longest);
            match job.save_place().await {
                // Whoever writes the same ends, or the server has him end: that passes by itself.
                Ok(()) if error.code() == Some(WRITE_CONFLICT) => {}
                Ok(()) => tries += 1,
                // It is away for the job's own row as well, which says nothing about the job.
                Err(Undone::Interrupted(_)) => {}
                Err(lost) => return Err(lost),
            }
            if tries == TRIES_MAX {
                let reason = format!("given up after {tries} tries at the same place: {error}");
                return Err(Undone::Failed(reason));
            }
        }
    }

    /// Ends a job; how it has ended if it was ours to end.
    async fn finish(
        &self,
        id: &Bson,
        lock: &Lock,
        result: std::result::Result<bson::Document, &str>,
    ) -> Result<Option<Outcome>> {
        let report = |error: &Error, _| warn!(%error, "the end of a job could not be saved yet");
        let finish = || self.jobs.finish_job(id, lock, result.clone());
        match self.backoff.retry(&self.time, report, finish).await? {
            true if result.is_ok() => Ok(Some(Outcome::Done)),
            true => Ok(Some(Outcome::Failed)),
            // Cancelled at the last moment; or done by an attempt whose answer was lost.
            false => self.jobs.outcome(id).await,
        }
    }

    /// Ends rows that nobody will ever take: of a collection that no instance knows, or no jobs at all.
    async fn refuse_strays(&self) {
        let known: Vec<String> = self.wards.iter().map(|ward| ward.collection.clone()).collect();
        loop {
            beating(&self.heart, &self.time, self.time.sleep(LOOK_INTERVAL)).await;
            let look = self.look_for_strays(&known);
            if let Err(error) = beating(&self.heart, &self.time, look).await {
                warn!(%error, "the jobs of unknown collections could not be looked at; trying again");
            }
        }
    }

    async fn look_for_strays(&self, known: &[String]) -> Result<()> {
        let limit = self.backoff.attempt_limit;
        for row in limited(&self.time, limit, self.jobs.stray_jobs(known)).await? {
            match Order::from_raw(&row) {
                Err(error) => self.refuse(&row, &error.to_string()).await,
                Ok(order)
                    if limited(&self.time, limit, self.jobs.is_led(&order.collection)).await? => {}
                Ok(order) => {
                    let error = format!(
                        "`{}` is not among the collections of any daemon; those of {} are: {}",
                        order.collection,
                        self.instance,
                        known.join(", ")
                    );
                    self.refuse(&row, &error).await;
                }
            }
        }
        Ok(())
    }

    async fn refuse(&self, row: &RawDocument, reason: &str) {
        let refused =
            limited(&self.time, self.backoff.attempt_limit, self.jobs.refuse_job(row, reason));
        match refused.await {
            Ok(_) => warn!(id = shown(row), reason, "a job is refused"),
            Err(error) => warn!(id = shown(row), %error, "a job could not be refused"),
        }
    }
}

impl Silence {
    /// Whether a leader under `lock`, which is at nothing, may take this job. One that runs is taken only from a
    /// leader before it, or from one that is silent.
    fn may_take(&mut self, row: &RawDocumentBuf, lock: &Lock, now: Duration) -> bool {
        if row.get_str("state").ok() != Some(RUNNING) {
            return true;
        }
        let number = |name: &str| row.get(name).ok().flatten().and_then(integral);
        let (epoch, beat) = (number("epoch").unwrap_or(-1), number("beat").unwrap_or(-1));
        if epoch < lock.epoch || row.get_str("owner").ok() == Some(&lock.owner) {
            return true;
        }
        let id = format!("{:?}", row.get("_id"));
        let seen = self.0.entry(id).or_insert((epoch, beat, now));
        if (seen.0, seen.1) != (epoch, beat) {
            *seen = (epoch, beat, now);
        }
        now.saturating_sub(seen.2) >= SILENCE_MAX
    }
}

/// The id of a job as it is written for people.
fn shown(row: &RawDocument) -> Option<String> {
    let id = row.get("_id").ok().flatten()?;
    DocumentId::from_raw(id).ok().map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_running_job_is_taken_only_from_a_leader_before_or_one_that_is_silent() {
        let lock = Lock { owner: "me".into(), epoch: 3 };
        let row = |owner: &str, epoch: i64, beat: i64| {
            rawdoc! { "_id": 1, "state": "running", "owner": owner, "epoch": epoch, "beat": beat }
        };
        let mut silence = Silence::default();
        let mut may = |row: &RawDocumentBuf, seconds| {
            silence.may_take(row, &lock, Duration::from_secs(seconds))
        };
        assert!(may(&rawdoc! { "_id": 1 }, 0));
        assert!(may(&rawdoc! { "_id": 1, "state": "running" }, 0));
        assert!(may(&row("other", 2, 9), 0));
        // Left behind by a turn of our own that failed.
        assert!(may(&row("me", 3, 9), 0));
        assert!(!may(&row("other", 4, 9), 0));
        assert!(!may(&row("other", 4, 9), 59));
        assert!(!may(&row("other", 4, 10), 60));
        assert!(!may(&row("other", 4, 10), 119));
        assert!(may(&row("other", 4, 10), 120));
    }
}
