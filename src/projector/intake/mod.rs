//! Where a projection gets its events from: the daemon's change stream, and while it catches up a scan of the log
//! beside it.

pub mod backlog;
pub(super) mod begin;
pub(super) mod chunk;
pub(super) mod scan;

use std::time::Duration;

use bson::Timestamp;
use tokio::sync::mpsc;

use super::documents::{Documents, memory::Arrival};
use crate::{
    database::Result,
    log::{Batch, EventLog},
    observe::Observer,
    status::Phase,
    store::{Extent, Store},
    stream::Feed,
    time::Time,
};
use chunk::Chunks;
use scan::Walk;

/// See the module.
pub(super) struct Intake<L: EventLog, D: Store> {
    feed: mpsc::Receiver<Feed>,
    state: State<L, D>,
    /// What a scan sees need not be taken from the stream again.
    ignore_before: Option<Timestamp>,
    /// The stream has told that the log went, and not yet that it came back: what it brings under that name is of
    /// another log.
    is_away: bool,
    /// The collection that holds the log.
    pub(super) events: String,
    pub(super) chunks: Chunks,
    observer: Observer,
}

enum State<L: EventLog, D: Store> {
    Scanning(Box<Walk<L, D>>),
    Tailing,
}

/// What is about to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coming {
    /// The log is being scanned.
    pub(super) is_scanning: bool,
    /// Something waits to be taken from the stream.
    pub(super) has_more: bool,
}

/// What came.
pub(super) enum Came {
    /// A batch of the scan, or its end.
    Scanned(Result<Option<Batch>>),
    /// Something from the stream; nothing if it has ended.
    Fed(Option<Feed>),
}

impl<L: EventLog, D: Store> Intake<L, D> {
    /// Follows the stream, and scans the log first if there is a walk.
    pub(super) fn new(
        feed: mpsc::Receiver<Feed>,
        scan: Option<(Timestamp, Extent)>,
        (events, chunks): (String, Chunks),
    ) -> Self {
        let observer = chunks.observer.clone();
        let ignore_before = scan.map(|(at, _)| at);
        let state = match scan {
            Some((at, extent)) => State::Scanning(Box::new(Walk::new(at, extent))),
            None => State::Tailing,
        };
        let intake = Self { feed, state, ignore_before, is_away: false, events, chunks, observer };
        intake.tell();
        intake
    }

    /// Whether the log is being scanned.
    pub(super) fn is_scanning(&self) -> bool {
        matches!(self.state, State::Scanning(_))
    }

    /// What it is about to bring.
    pub(super) fn coming(&self) -> Coming {
        Coming { is_scanning: self.is_scanning(), has_more: !self.feed.is_empty() }
    }

    /// Nothing more is taken from the stream.
    pub(super) fn close(&mut self) {
        self.feed.close();
    }

    /// Waits for what comes next. Catching up goes before news, which may depend on it. Can be dropped without losing
    /// anything.
    pub(super) async fn next(&mut self, log: &L, within: (&impl Time, Duration)) -> Came {
        let Self { state, feed, .. } = self;
        let scanned = async {
            match state {
                State::Scanning(walk) => walk.next(log, within).await,
                State::Tailing => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            batch = scanned => Came::Scanned(batch),
            fed = feed.recv() => Came::Fed(fed),
        }
    }

    /// What the stream has brought meanwhile. It has to move on while a long scan lasts, or the oplog would overtake it.
    pub(super) fn fed_meanwhile(&mut self) -> Option<Feed> {
        self.feed.try_recv().ok()
    }

    /// Whether a change of this time is taken from the stream.
    pub(super) fn takes(&self, cluster_time: Timestamp) -> bool {
        !self.is_away && self.ignore_before.is_none_or(|time| cluster_time >= time)
    }

    /// The stream tells that a log came to our name, or left it.
    pub(super) fn moved(&mut self, came: bool) {
        self.is_away = !came;
    }

    /// Leaves those events of the stream to the scan whose documents it has yet to come to.
    pub(super) fn leave_to_scan(&mut self, events: &mut Vec<Arrival<'_>>) {
        if let State::Scanning(walk) = &mut self.state {
            events.retain(|arrival| !walk.comes_to(&arrival.key));
        }
    }

    /// Has the log scanned beside the stream, from its beginning: everything that was there before `at`.
    pub(super) fn scan_again(&mut self, at: Timestamp) {
        match &mut self.state {
            State::Scanning(walk) => walk.restart(at),
            State::Tailing => {
                self.state = State::Scanning(Box::new(Walk::new(at, Extent::Version)));
            }
        }
        self.tell();
    }

    /// Something of the stream was lost: what was there before `at` is read from the log.
    pub(super) fn lost(&mut self, at: Timestamp) {
        self.scan_again(at);
        (self.ignore_before, self.is_away) = (Some(at), false);
    }

    /// Picks out what events of the scan are news, as far as there is room; the rest comes after it.
    pub(super) async fn pick_scanned<'a, T: Time>(
        &mut self,
        documents: &mut Documents<L, D, T>,
        events: Vec<Arrival<'a>>,
    ) -> Result<(Vec<Arrival<'a>>, Vec<Arrival<'a>>)> {
        match &mut self.state {
            State::Scanning(walk) => walk.pick(documents, events).await,
            State::Tailing => Ok((Vec::new(), Vec::new())),
        }
    }

    /// The scan has come to the end of the log.
    pub(super) async fn end_scan<T: Time>(
        &mut self,
        documents: &mut Documents<L, D, T>,
    ) -> Result<()> {
        let State::Scanning(walk) = std::mem::replace(&mut self.state, State::Tailing) else {
            return Ok(());
        };
        walk.finish(documents).await?;
        documents.recheck_urgent().await?;
        tracing::info!(collection = self.observer.collection(), "the scan of the log is over");
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        self.observer.phase(match self.state {
            State::Scanning(_) => Phase::Scanning,
            State::Tailing => Phase::Tailing,
        });
    }
}
