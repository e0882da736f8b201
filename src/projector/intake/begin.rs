//! Where a projector begins: at its checkpoint, or with a scan of the whole log where there is none or a scan is quicker, or
//! not at all when going on would be wrong.

use bson::Timestamp;
use tracing::info;

use super::backlog::{Backlog, BacklogSettings, to_scan};
use crate::{
    database::{Error, Result},
    log::{EventLog, LogSource, Start},
    model::{
        part::{Part, Vouched, vouched},
        position::{Checkpoint, LogId, Position},
    },
    planted::{Bug, planted},
    store::{Extent, Store},
};

/// A place to resume from.
#[derive(Clone, Debug)]
pub(in crate::projector) enum Resume {
    /// At the part's own checkpoint.
    Saved(Position),
    /// Where the checkpoints of another division vouch that everything before is done.
    Vouched(Position),
    /// The same, but with everything of one time, since several of them lie there.
    At(Timestamp),
}

/// How to begin.
pub(in crate::projector) struct Begin<L> {
    /// The log, which every command names from now on.
    pub(in crate::projector) log: L,
    /// The place to resume from, unless the log is scanned.
    pub(in crate::projector) resume: Option<Resume>,
    /// About how many events of the log precede that place, where it is known.
    pub(in crate::projector) passed_events: Option<u64>,
    /// Reads see everything before this time.
    pub(in crate::projector) at: Timestamp,
    /// What a scan needs of the rows, as far as can be told.
    pub(in crate::projector) extent: Extent,
}

impl<L: EventLog> Begin<L> {
    /// Decides.
    ///
    /// # Errors
    /// With advice, when the log is gone, or another one than the checkpoint speaks of.
    pub(in crate::projector) async fn decide(
        source: &impl LogSource<Log = L>,
        store: &impl Store,
        (collection, part): (&str, Part),
        backlog: BacklogSettings,
    ) -> Result<Self> {
        let log = source.open_existing(collection).await?;
        let found = log.id();
        let saved = store.load_checkpoints().await?;
        let other = saved.iter().find(|(_, saved)| saved.log != found);
        if let Some((_, other)) = other.filter(|_| !planted(Bug::IdentityIgnored)) {
            return Err(another_log(collection, other.log, found));
        }
        let rows = store.rows_id().await?;
        let (vouching, lost): (Vec<_>, Vec<_>) =
            saved.into_iter().partition(|(_, saved)| saved.rows.is_none() || saved.rows == rows);
        let (why, extent) = match Resume::choose(part, &vouching) {
            None if !lost.is_empty() => {
                ("the rows are not those that the checkpoint speaks of".to_owned(), Extent::Version)
            }
            None => ("there is no place to resume from".to_owned(), Extent::Version),
            Some((resume, passed_events)) => {
                match to_scan(&log, passed_events, part, backlog).await {
                    // The checkpoint stays until the scan is over: whoever begins before that decides anew.
                    Some(Backlog { new, events }) => {
                        let why = format!(
                            "about {new} of {events} events are new, which the stream would bring more slowly"
                        );
                        (why, Extent::Whole)
                    }
                    None => {
                        let cluster_time = resume.cluster_time().time;
                        info!(collection, %part, cluster_time, "resuming");
                        let at = source.now().await?;
                        let extent = Extent::Version;
                        return Ok(Self { log, resume: Some(resume), passed_events, at, extent });
                    }
                }
            }
        };
        // Which log the documents come from goes on record before the first of them does. Whoever answered just
        // now may not have known yet what is on record.
        if !store.claim_log(found).await? {
            return Err(Error::unreachable("another log is on record by now; looking again"));
        }
        info!(collection, %part, why, "scanning the log");
        let at = source.now().await?;
        // The stream knows logs by name, and tells of no log that was replaced before that time.
        if source.open_existing(collection).await?.id() != found {
            return Err(Error::unreachable("the log was replaced a moment ago; looking again"));
        }
        Ok(Self { log, resume: None, passed_events: None, at, extent })
    }

    /// Where the stream has to begin.
    pub(in crate::projector) fn start(&self) -> Start {
        match &self.resume {
            Some(Resume::Saved(position) | Resume::Vouched(position)) => {
                Start::After(position.clone())
            }
            Some(Resume::At(time)) => Start::At(*time),
            None if planted(Bug::TailStartsTooLate) => {
                Start::At(Timestamp { time: self.at.time + 2, increment: 0 })
            }
            None => Start::At(self.at),
        }
    }
}

impl Resume {
    /// With about how many events of the log precede it, where that is known.
    fn choose(part: Part, saved: &[(Part, Checkpoint)]) -> Option<(Self, Option<u64>)> {
        let Vouched { position, is_own, is_single, passed_events } = vouched(part, saved)?;
        if !is_own && planted(Bug::PartBeginsAtLargest) {
            let positions = saved.iter().filter_map(|(_, saved)| saved.position.as_ref());
            let largest = positions.max_by_key(|position| position.cluster_time)?;
            return Some((Self::Vouched(largest.clone()), passed_events));
        }
        let place = match (is_own, is_single) {
            (true, _) => Self::Saved(position.clone()),
            (false, true) => Self::Vouched(position.clone()),
            (false, false) => Self::At(position.cluster_time),
        };
        Some((place, passed_events))
    }

    /// The position that it is, if it is one, and whether that is the part's own.
    pub(in crate::projector) fn place(self) -> (Option<Position>, bool) {
        match self {
            Self::Saved(position) => (Some(position), true),
            Self::Vouched(position) => (Some(position), false),
            Self::At(_) => (None, false),
        }
    }

    fn cluster_time(&self) -> Timestamp {
        match self {
            Self::Saved(position) | Self::Vouched(position) => position.cluster_time,
            Self::At(time) => *time,
        }
    }
}

/// A later epoch has saved its own checkpoint.
pub(in crate::projector) fn fenced() -> Error {
    Error::stop(
        "another instance has taken over this collection",
        "nothing to do; if no other instance should be running, look for one",
    )
}

fn another_log(collection: &str, expected: LogId, found: LogId) -> Error {
    Error::stop(
        format!(
            "the log of `{collection}` is another collection (UUID {found}) than the one that was projected (UUID {expected}): \
             it was dropped, renamed or restored"
        ),
        "bring the original log back; or, if the new one is right and the documents fit it, delete the rows of this collection \
         in `alluvium.checkpoints`, those of all its parts: the log is then scanned against the documents",
    )
}
