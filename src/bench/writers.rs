//! Writers that go on while a daemon works, at a pace or as fast as they can, and how far the projected
//! documents are behind them.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bson::{DateTime, Document, RawArrayBuf, doc, rawdoc};
use futures::{TryStreamExt, future};
use mongodb::Database;

use super::{
    backlog::{self, Expected},
    daemon::COLLECTION,
    error::Result,
};
use crate::{
    database::Error,
    log::events_collection,
    time::{SystemTime, Time},
};

/// How many commands are on their way at once.
const LANES: usize = 8;
/// As many clients take turns in a document.
const CLIENTS: usize = 4;

/// How fast the writers append.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// The next command as soon as the one before is acknowledged.
    FullSpeed,
    /// So many events per second. Who is late makes up for it.
    PerSecond(f64),
}

/// Writers that append to every document in turn, each command acknowledged by the majority.
pub(super) struct Writers<'a> {
    database: &'a Database,
    documents: usize,
    /// The first of them.
    first: usize,
    /// How many events each document had before.
    before: i64,
    /// How many events a command carries.
    command: usize,
    is_stopped: AtomicBool,
    appended: AtomicI64,
    lanes: Vec<Lane>,
}

/// Where the writer of every so many-th document is: its last event.
struct Lane {
    document: AtomicUsize,
    version: AtomicI64,
}

/// What had been appended at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mark {
    at: Instant,
    /// The events of all documents together.
    events: i64,
    /// Of the document that had the fewest.
    least: i64,
}

impl<'a> Writers<'a> {
    /// Writers for documents that have `before` events each, with `command` events in each command.
    pub(super) fn new(
        database: &'a Database,
        documents: usize,
        before: i64,
        command: usize,
    ) -> Self {
        let lane = |document| Lane {
            document: AtomicUsize::new(document),
            version: AtomicI64::new(before),
        };
        let lanes = (0..LANES.min(documents)).map(lane).collect();
        let (is_stopped, appended) = (AtomicBool::new(false), AtomicI64::new(0));
        Self { database, documents, first: 0, before, command, is_stopped, appended, lanes }
    }

    /// The same for documents from the `first` on. Nobody looks at how far the projection is behind these.
    pub(super) fn from(self, first: usize) -> Self {
        Self { first, ..self }
    }

    /// Appends until [`Writers::stop`], or for so long. What it began is acknowledged when this returns.
    ///
    /// # Errors
    /// When the server refuses.
    pub(super) async fn write(&self, pace: Pace, length: Option<Duration>) -> Result<()> {
        let begun = Instant::now();
        let end = length.map(|length| begun + length);
        let lanes = (0..self.lanes.len()).map(|lane| self.write_lane(lane, pace, begun, end));
        future::try_join_all(lanes).await.map(drop)
    }

    async fn write_lane(
        &self,
        lane: usize,
        pace: Pace,
        begun: Instant,
        end: Option<Instant>,
    ) -> Result<()> {
        let time = SystemTime::new();
        let lanes = self.lanes.len();
        let mut places = (self.before + 1..).flat_map(move |version| {
            (lane..self.documents).step_by(lanes).map(move |document| (document, version))
        });
        for turn in 0.. {
            if let Pace::PerSecond(rate) = pace {
                let due = ((turn * lanes + lane) * self.command) as f64 / rate;
                let due = begun + Duration::from_secs_f64(due);
                time.sleep(due.saturating_duration_since(Instant::now())).await;
            }
            if self.is_stopped.load(Ordering::Relaxed)
                || end.is_some_and(|end| Instant::now() >= end)
            {
                break;
            }
            let mut events = RawArrayBuf::new();
            let mut last = (lane, self.before);
            for (document, version) in places.by_ref().take(self.command) {
                let document_there = self.first + document;
                events.push(backlog::event(document_there, version, CLIENTS, DateTime::now()));
                last = (document, version);
            }
            self.insert(events).await?;
            self.appended.fetch_add(self.command as i64, Ordering::Relaxed);
            self.lanes[lane].document.store(last.0, Ordering::Relaxed);
            self.lanes[lane].version.store(last.1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn insert(&self, events: RawArrayBuf) -> Result<()> {
        let command = rawdoc! {
            "insert": events_collection(COLLECTION), "documents": events, "ordered": true,
            "writeConcern": { "w": "majority" },
        };
        let reply = self.database.run_raw_command(command).await?;
        for field in ["writeErrors", "writeConcernError"] {
            if let Some(found) = reply.get(field) {
                return Err(Error::damaged(format!("{field}: {found:?}")).into());
            }
        }
        Ok(())
    }

    /// Lets them end.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// How many events they have appended.
    pub(super) fn appended(&self) -> i64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// What there is to project, with what was there before.
    pub(super) fn expected(&self) -> Expected {
        let last = |lane: &Lane| {
            let document = lane.document.load(Ordering::Relaxed);
            (backlog::id(document), lane.version.load(Ordering::Relaxed))
        };
        let events = self.before * self.documents as i64 + self.appended();
        Expected { events, last: self.lanes.iter().map(last).collect() }
    }

    fn mark(&self) -> Mark {
        let Expected { events, last } = self.expected();
        // The documents that a lane has not come to in this turn have one event less.
        let least = last.into_iter().map(|(_, version)| version - 1).min().unwrap_or_default();
        Mark { at: Instant::now(), events, least: least.max(self.before) }
    }
}

/// How far the projected documents are behind the writers, look by look.
pub(super) struct Lag<'a> {
    writers: &'a Writers<'a>,
    marks: Vec<Mark>,
}

impl<'a> Lag<'a> {
    /// Begins to look.
    pub(super) fn new(writers: &'a Writers<'a>) -> Self {
        Self { writers, marks: vec![writers.mark()] }
    }

    /// How long before this look the writers had appended no more than is projected by now; `None` while not even
    /// that is projected which was there at the beginning.
    ///
    /// # Errors
    /// When the server refuses.
    pub(super) async fn look(&mut self) -> Result<Option<Duration>> {
        let now = self.writers.mark();
        self.marks.push(now);
        let (events, least) = projected(self.writers.database).await?;
        Ok(lag(&self.marks, events, least, now.at))
    }
}

/// The time since the last of the marks that is projected.
fn lag(marks: &[Mark], events: i64, least: i64, now: Instant) -> Option<Duration> {
    let is_projected = |mark: &&Mark| mark.events <= events && mark.least <= least;
    marks.iter().rev().find(is_projected).map(|mark| now.saturating_duration_since(mark.at))
}

/// The events of all projected documents together, and of the one that has the fewest.
async fn projected(database: &Database) -> Result<(i64, i64)> {
    let group = doc! {
        "$group": { "_id": null, "events": { "$sum": "$version" }, "least": { "$min": "$version" } }
    };
    let mut found = database.collection::<Document>(COLLECTION).aggregate(vec![group]).await?;
    let row = found.try_next().await?.unwrap_or_default();
    let number = |field| row.get_i64(field).unwrap_or_default();
    Ok((number("events"), number("least")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_the_last_mark_that_is_projected() {
        let start = Instant::now();
        let second = |number: u64| start + Duration::from_secs(number);
        let mark = |number: u64, events, least| Mark { at: second(number), events, least };
        let marks = [mark(0, 10, 1), mark(1, 20, 1), mark(2, 30, 2), mark(3, 40, 2)];
        let lag = |events, least| lag(&marks, events, least, second(4)).map(|lag| lag.as_secs());
        assert_eq!(lag(40, 2), Some(1));
        assert_eq!(lag(39, 2), Some(2));
        assert_eq!(lag(40, 1), Some(3), "one document is late although the others are far");
        assert_eq!(lag(5, 0), None);
    }
}
