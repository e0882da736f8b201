//! What a daemon knows about itself, as one value per collection: written by the projector, read by
//! the API, the metrics and the command line. Unknown is `None`, never 0.

use std::collections::BTreeMap;

use bson::{DateTime, Document, doc};
use serde::Serialize;

use crate::model::{document::Class, part::Part};

/// How many documents wait, by class. Where that is known every class is there.
pub type WaitingClasses = BTreeMap<Class, u64>;

/// Whether this instance projects the collection or stands by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It projects.
    Leader,
    /// Another instance does; this one reads and could take over.
    Standby,
}

/// How a checkpoint stands in the oplog.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Headroom {
    /// How much older the checkpoint could be before the oplog no longer reached it. Negative once it
    /// no longer does.
    pub seconds: f64,
    /// How long until then, if the oplog goes on forgetting as fast as it does now. Unknown while it
    /// forgets nothing.
    pub lost_in_seconds: Option<f64>,
    /// Whether that is soon.
    pub is_low: bool,
    /// Whether the checkpoint is in the older half of an oplog that forgets.
    pub is_short: bool,
}

/// What compaction has taken out of the log since this instance began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Events that bases stand for.
    pub events: i64,
    /// Bytes of the events that bases were written for.
    pub bytes: i64,
    /// Events that came late, which are kept on record.
    pub late: i64,
}

/// What a compaction of the whole collection, or a dry run of one, has found to stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// When.
    pub at: DateTime,
    /// How many events, by the rule that keeps them.
    pub pinned: BTreeMap<&'static str, i64>,
    /// `{document, rule, client?, seen_at?, events}`, the largest first.
    pub largest: Vec<Document>,
}

/// What a projector is doing: the later ones ask more for attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Another instance projects; this one is ready to take over.
    StandingBy,
    /// Following the change stream.
    Tailing,
    /// Comparing the log with the documents.
    Scanning,
    /// Looking for where to begin.
    Starting,
    /// Stopped by an operator.
    Paused,
    /// Stopped because going on would be wrong: see `last_error`.
    Refused,
}

impl Role {
    /// As it is written everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Standby => "standby",
        }
    }
}

impl Phase {
    /// As it is written everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::StandingBy => "standing_by",
            Self::Tailing => "tailing",
            Self::Scanning => "scanning",
            Self::Starting => "starting",
            Self::Paused => "paused",
            Self::Refused => "refused",
        }
    }
}

/// The last thing that went wrong, until its cause has gone.
#[derive(Clone, Debug, PartialEq)]
pub struct LastError {
    /// The part that it befell, or the whole collection.
    pub part: Part,
    /// When, by the daemon's wall clock.
    pub at: DateTime,
    /// The kind, from a closed set.
    pub class: &'static str,
    /// What went wrong.
    pub message: String,
    /// What an operator can do.
    pub advice: String,
}

/// The state of one collection's projection: of the parts that this instance leads, or could lead if it leads none.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionStatus {
    /// The collection.
    pub name: String,
    /// Leader if it leads any part, or standby. `None` while the leases could not be read.
    pub role: Option<Role>,
    /// The epoch under which this instance leads; of several the last.
    pub lease_epoch: Option<i64>,
    /// What it is doing; of several the one that asks most for attention.
    pub phase: Phase,
    /// The age in seconds of the oldest event that is not visible yet; 0 when there is none.
    pub lag_seconds: Option<f64>,
    /// How many events are not yet visible. Known only when caught up.
    pub lag_events: Option<u64>,
    /// How much older the checkpoint could be before the oplog no longer reached it, in seconds.
    pub oplog_headroom_seconds: Option<f64>,
    /// How many seconds until the oplog no longer holds the checkpoint, if the checkpoint stays where
    /// it is and the oplog goes on forgetting as fast as it does now; 0 when it is lost already.
    pub checkpoint_lost_in_seconds: Option<f64>,
    /// Whether the checkpoint is in the older half of an oplog that forgets: then nothing may be done that moves the oplog
    /// and can wait.
    pub is_oplog_short: bool,
    /// Documents that wait behind a gap, in what this instance leads.
    pub version_gaps: Option<u64>,
    /// How long the oldest of these gaps has been open, in seconds; 0 when there is none.
    pub oldest_gap_seconds: Option<f64>,
    /// Documents parked by a poison event, in what this instance leads.
    pub quarantined: Option<u64>,
    /// The last error, until its cause has gone.
    pub last_error: Option<LastError>,
    /// Why nothing is compacted, where an operator has to do something about it.
    pub compaction_stands: Option<String>,
    /// What compaction has taken out.
    pub reclaimed: Reclaimed,
    /// What it keeps, once that is known.
    pub kept: Option<Kept>,
    /// Counts flushes. A request that waits for a version looks again when this changes.
    pub flushes: u64,
    /// The parts, from which the rest is told. None while it is not known how many there are.
    pub parts: BTreeMap<Part, PartStatus>,
}

/// The state of one part's projection.
#[derive(Clone, Debug, PartialEq)]
pub struct PartStatus {
    /// Leader or standby. `None` while the leases could not be read.
    pub role: Option<Role>,
    /// The epoch under which this instance leads.
    pub lease_epoch: Option<i64>,
    /// What it is doing.
    pub phase: Phase,
    /// As of the collection.
    pub lag_seconds: Option<f64>,
    /// As of the collection.
    pub lag_events: Option<u64>,
    /// How long its oldest gap has been open, in seconds; 0 when there is none.
    pub oldest_gap_seconds: Option<f64>,
    /// How many of its documents wait, by class; unknown until they have been read.
    pub waiting: WaitingClasses,
    /// How many bytes of documents it keeps in memory.
    pub cache_bytes: usize,
}

impl CollectionStatus {
    /// A collection of which nothing is known yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            role: None,
            lease_epoch: None,
            phase: Phase::Starting,
            lag_seconds: None,
            lag_events: None,
            oplog_headroom_seconds: None,
            checkpoint_lost_in_seconds: None,
            is_oplog_short: false,
            version_gaps: None,
            oldest_gap_seconds: None,
            quarantined: None,
            last_error: None,
            compaction_stands: None,
            reclaimed: Reclaimed::default(),
            kept: None,
            flushes: 0,
            parts: BTreeMap::new(),
        }
    }

    /// What compaction has come to, as it is told: `{events, bytes, late_events, kept: null | {at, pinned, largest}}`.
    pub fn compaction(&self) -> Document {
        let Reclaimed { events, bytes, late } = self.reclaimed;
        let kept = self.kept.as_ref().map(|Kept { at, pinned, largest }| {
            let pinned: Document = pinned
                .iter()
                .map(|(rule, events)| ((*rule).to_owned(), (*events).into()))
                .collect();
            doc! { "at": *at, "pinned": pinned, "largest": largest.clone() }
        });
        doc! { "events": events, "bytes": bytes, "late_events": late, "kept": kept }
    }

    /// Changes what is known of a part, and what it means for the whole.
    pub fn update_part(&mut self, part: Part, change: impl FnOnce(&mut PartStatus)) {
        change(self.parts.entry(part).or_default());
        self.gather();
    }

    /// The collection is divided into so many parts from now on, of which nothing is known yet.
    pub fn divide(&mut self, of: u32) {
        self.parts = Part::all(of).map(|part| (part, PartStatus::default())).collect();
        self.gather();
    }

    /// The parts that this instance leads.
    pub fn led(&self) -> impl Iterator<Item = &PartStatus> {
        self.parts.values().filter(|part| part.role == Some(Role::Leader))
    }

    /// The parts that count for the whole: the others are somebody else's.
    pub fn counted(&self) -> Vec<&PartStatus> {
        let led: Vec<&PartStatus> = self.led().collect();
        match led.is_empty() {
            true => self.parts.values().collect(),
            false => led,
        }
    }

    fn gather(&mut self) {
        let counted = self.counted();
        let known = !counted.is_empty() && counted.iter().all(|part| !part.waiting.is_empty());
        let waiting = |is_it: fn(Class) -> bool| {
            let waiting = counted.iter().flat_map(|part| &part.waiting);
            let sum = waiting.filter(|(class, _)| is_it(**class)).map(|(_, count)| count).sum();
            known.then_some(sum)
        };
        let largest = |of: fn(&PartStatus) -> Option<f64>| {
            let largest = |largest: Option<f64>, part: &&PartStatus| Some(largest?.max(of(part)?));
            counted.iter().fold(Some(0.0), largest).filter(|_| !counted.is_empty())
        };
        let (version_gaps, quarantined) =
            (waiting(|class| class == Class::Gap), waiting(|class| class != Class::Gap));
        let role = counted.iter().map(|part| part.role).min_by_key(Option::is_some).flatten();
        let lease_epoch = counted.iter().filter_map(|part| part.lease_epoch).max();
        let phase = counted.iter().map(|part| part.phase).max().unwrap_or(Phase::Starting);
        let (lag_seconds, oldest_gap_seconds) =
            (largest(|part| part.lag_seconds), largest(|part| part.oldest_gap_seconds));
        let lag_events = counted.iter().map(|part| part.lag_events).sum::<Option<u64>>();
        let lag_events = lag_events.filter(|_| !counted.is_empty());
        (self.role, self.lease_epoch, self.phase) = (role, lease_epoch, phase);
        (self.lag_seconds, self.lag_events) = (lag_seconds, lag_events);
        self.oldest_gap_seconds = oldest_gap_seconds;
        (self.version_gaps, self.quarantined) = (version_gaps, quarantined);
    }
}

impl Default for PartStatus {
    fn default() -> Self {
        Self {
            role: None,
            lease_epoch: None,
            phase: Phase::Starting,
            lag_seconds: None,
            lag_events: None,
            oldest_gap_seconds: None,
            waiting: BTreeMap::new(),
            cache_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json() {
        use Phase::{Paused, Refused, Scanning, StandingBy, Starting, Tailing};
        for phase in [StandingBy, Tailing, Scanning, Starting, Paused, Refused] {
            assert_eq!(serde_json::json!(phase), phase.name());
        }
        for role in [Role::Leader, Role::Standby] {
            assert_eq!(serde_json::json!(role), role.name());
        }
    }

    fn part(index: u32) -> Part {
        Part { index, of: 3 }
    }

    fn leads(epoch: i64, lag: Option<f64>, gaps: u64) -> PartStatus {
        PartStatus {
            role: Some(Role::Leader),
            lease_epoch: Some(epoch),
            phase: Phase::Tailing,
            lag_seconds: lag,
            lag_events: lag.map(|_| 2),
            oldest_gap_seconds: lag,
            waiting: BTreeMap::from([(Class::Gap, gaps), (Class::BadPatch, 1)]),
            cache_bytes: 0,
        }
    }

    #[test]
    fn a_collection_is_as_far_behind_as_the_last_of_the_parts_that_it_leads() {
        let mut status = CollectionStatus::new("games");
        status.divide(3);
        assert_eq!((status.role, status.lag_seconds, status.lag_events), (None, None, None));
        status.update_part(part(0), |now| *now = leads(4, Some(1.0), 1));
        status.update_part(part(1), |now| *now = leads(7, Some(3.0), 2));
        assert_eq!((status.role, status.lease_epoch), (Some(Role::Leader), Some(7)));
        assert_eq!((status.lag_seconds, status.lag_events), (Some(3.0), Some(4)));
        assert_eq!((status.version_gaps, status.quarantined), (Some(3), Some(2)));
        status.update_part(part(1), |now| *now = leads(7, None, 2));
        assert_eq!((status.lag_seconds, status.lag_events), (None, None), "unknown is not zero");
        status.update_part(part(1), |now| now.phase = Phase::Refused);
        assert_eq!(status.phase, Phase::Refused);
        // Somebody else has taken it: what it was last known to be no longer counts.
        status.update_part(part(1), |now| now.role = Some(Role::Standby));
        assert_eq!((status.phase, status.lag_seconds), (Phase::Tailing, Some(1.0)));
        assert_eq!((status.version_gaps, status.quarantined), (Some(1), Some(1)));
    }

    #[test]
    fn it_stands_by_for_a_collection_of_which_it_leads_no_part() {
        let mut status = CollectionStatus::new("games");
        status.divide(3);
        for index in 0..3 {
            assert_eq!(status.role, None, "the lease of some part could not be read");
            status.update_part(part(index), |now| now.role = Some(Role::Standby));
        }
        assert_eq!((status.role, status.lag_seconds), (Some(Role::Standby), None));
        assert_eq!((status.version_gaps, status.quarantined), (None, None));
    }
}
