//! How much of a document's log can go: decided from what is known of the document, of its clients and of time, and from
//! nothing else. What is decided here is only where the base would stand. Whether it may stand there is proven by folding.

use std::time::Duration;

use bson::DateTime;

use super::{
    base::{Base, VERSION_MIN},
    clock::Clock,
    id::DocumentId,
};

/// The longest time between a base and the first pruning below it, whatever the policy: whoever began to read before the
/// base was written and takes less than that finds everything still there.
pub const GRACE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What is kept of every log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events younger than this stay.
    pub min_age: Duration,
    /// So many of the newest events of each document stay.
    pub keep_events: i64,
    /// A client that was seen within this time is alive.
    pub client_ttl: Duration,
}

/// Why an event stays. The set is closed: it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A live client lacks it.
    Client,
    /// It is too young.
    MinAge,
    /// It is among the newest.
    KeepEvents,
    /// The base that stands for it is too young.
    Grace,
    /// Somebody has put it back.
    Hold,
    /// Its document waits.
    Waiting,
    /// To keep it takes less than its base would.
    Size,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Client,
        Self::MinAge,
        Self::KeepEvents,
        Self::Grace,
        Self::Hold,
        Self::Waiting,
        Self::Size,
    ];

    /// As it stands in metrics, results and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::MinAge => "min_age",
            Self::KeepEvents => "keep_events",
            Self::Grace => "grace",
            Self::Hold => "hold",
            Self::Waiting => "waiting",
            Self::Size => "size",
        }
    }
}

/// What a projection notices that matters to compaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Documents that have grown, with the versions that they have come to.
    Grown(Vec<(DocumentId, i64)>),
    /// Documents of which an event seems to have come late.
    Late(Vec<DocumentId>),
}

/// What keeps events of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Pin {
    /// The rule.
    pub rule: Rule,
    /// The client, where one needs them.
    pub client: Option<LiveClient>,
    /// How many events stay because of it.
    pub events: i64,
}

/// A client that reads a document, as it has told.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveClient {
    /// Its name.
    pub name: String,
    /// What it has of the document.
    pub clock: Clock,
    /// When it told so, by the database's clock.
    pub seen_at: DateTime,
    /// Whether all of this could be read. One that could not lacks everything.
    pub is_readable: bool,
}

/// The version that a document had reached at a time, by the database's clock: every event up to there is at least as old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The version.
    pub version: i64,
    /// When it was noted.
    pub at: DateTime,
}

/// What is known of a document before its log is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Inventory {
    /// The version of its row, as the majority holds it.
    pub version: i64,
    /// The base of its log.
    pub base: Option<Base>,
    /// Its marks that count for this log.
    pub marks: Vec<Mark>,
    /// Clients that told of it, alive or not.
    pub clients: Vec<LiveClient>,
    /// The present time, by the database's clock.
    pub now: DateTime,
}

/// The highest version at which a base may stand, as far as that is known before the clients of the events are.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// No base above this version.
    pub cap: i64,
    /// What keeps the events above that.
    pub rule: Rule,
    /// The live clients that count.
    live: Vec<LiveClient>,
}

/// Plans for one document. Pure.
pub fn plan(inventory: &Inventory, retention: &Retention) -> Plan {
    let Inventory { version, base, marks, clients, now } = inventory;
    let age = |at: DateTime| now.saturating_duration_since(at);
    let kept = (version - retention.keep_events).max(0);
    let old = match retention.min_age.is_zero() {
        true => *version,
        false => marks
            .iter()
            .filter(|mark| age(mark.at) >= retention.min_age)
            .map(|mark| mark.version)
            .max()
            .unwrap_or(0),
    };
    let (cap, rule) = if old < kept { (old, Rule::MinAge) } else { (kept, Rule::KeepEvents) };
    let counts = |client: &&LiveClient| {
        // Whoever is below the base gets the base anyway, and needs none of the events.
        age(client.seen_at) <= retention.client_ttl
            && base.as_ref().is_none_or(|base| client.clock.includes(&base.clock))
    };
    let live: Vec<LiveClient> = clients.iter().filter(counts).cloned().collect();
    Plan { cap, rule, live }
}

impl Plan {
    /// A base at this version, whatever anybody may lack.
    pub fn at(version: i64) -> Self {
        Self { cap: version, rule: Rule::Hold, live: Vec::new() }
    }

    /// Whether there is nothing to gain, whatever the events are.
    pub fn is_empty(&self, base: Option<&Base>) -> bool {
        self.cap < VERSION_MIN.max(base.map_or(0, |base| base.version + 1))
    }

    /// Who lacks the `seq`-th event of a client, if anybody does: then no base may stand at it or above it.
    pub fn needed_by(&self, client: &str, seq: i64) -> Option<&LiveClient> {
        self.live.iter().find(|live| seq > live.clock.get(client))
    }
}

/// How long after a base was written pruning may begin.
pub fn grace(retention: &Retention) -> Duration {
    retention.min_age.min(GRACE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Retention = Retention {
        min_age: Duration::from_secs(100),
        keep_events: 10,
        client_ttl: Duration::from_secs(50),
    };

    fn seconds(seconds: i64) -> DateTime {
        DateTime::from_millis(seconds * 1_000)
    }

    fn inventory() -> Inventory {
        let mark = |version, at| Mark { version, at: seconds(at) };
        Inventory {
            version: 100,
            base: None,
            marks: vec![mark(20, 0), mark(60, 100), mark(95, 150)],
            clients: Vec::new(),
            now: seconds(200),
        }
    }

    fn clock(counts: &[(&str, i64)]) -> Clock {
        let mut clock = Clock::new();
        counts.iter().for_each(|(client, count)| clock.set(client, *count));
        clock
    }

    #[test]
    fn an_event_is_as_old_as_the_first_mark_at_or_above_it_and_without_one_it_is_young() {
        let planned = |now, retention: &Retention| {
            let plan = plan(&Inventory { now: seconds(now), ..inventory() }, retention);
            (plan.cap, plan.rule)
        };
        assert_eq!(planned(99, &RETENTION), (0, Rule::MinAge));
        assert_eq!(planned(100, &RETENTION), (20, Rule::MinAge));
        assert_eq!(planned(200, &RETENTION), (60, Rule::MinAge));
        assert_eq!(planned(250, &RETENTION), (90, Rule::KeepEvents));
        let ageless = Retention { min_age: Duration::ZERO, ..RETENTION };
        assert_eq!(planned(0, &ageless), (90, Rule::KeepEvents));
        let all = Retention { keep_events: 0, ..ageless };
        assert_eq!(planned(0, &all), (100, Rule::KeepEvents));
    }

    #[test]
    fn a_live_client_keeps_what_it_lacks_and_one_that_is_away_or_below_the_base_keeps_nothing() {
        let client = |name: &str, counts: &[(&str, i64)], seen| LiveClient {
            name: name.into(),
            clock: clock(counts),
            seen_at: seconds(seen),
            is_readable: true,
        };
        let mut inventory = inventory();
        inventory.clients =
            vec![client("phone", &[("a", 5), ("b", 1)], 150), client("desk", &[("a", 2)], 149)];
        let asked = |inventory: &Inventory, name: &str, seq| {
            let plan = plan(inventory, &RETENTION);
            plan.needed_by(name, seq).map(|client| client.name.clone())
        };
        assert_eq!(asked(&inventory, "a", 5), None, "the desk was not seen for too long");
        assert_eq!(asked(&inventory, "a", 6).as_deref(), Some("phone"));
        assert_eq!(asked(&inventory, "c", 1).as_deref(), Some("phone"));
        let base = Base {
            key: bson::rawdoc! { "d": "a", "s": 1 },
            id: crate::model::id::DocumentId::String("a".into()),
            version: 7,
            clock: clock(&[("a", 6), ("b", 1)]),
            state: None,
            at: seconds(0),
            at_max: seconds(0),
            fold: 1,
            pruned: 6,
            based_at: seconds(0),
            mark: None,
            erased_through: 0,
        };
        inventory.base = Some(base);
        assert_eq!(asked(&inventory, "a", 60), None, "the base has passed the phone");
    }
}
