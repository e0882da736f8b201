//! What a run is made of, as data: actors, what they do, and what goes wrong when. A seed gives a
//! plan; a plan can be made smaller and run again, which is how a failure becomes a short story.

use std::time::Duration;

use fastrand::Rng;

use super::compaction::{CompactionPlan, compact};

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// Decides the order of tasks, latencies, and everything that the rest of the plan leaves open.
    pub(super) seed: u64,
    pub(super) writers: Vec<WriterPlan>,
    pub(super) readers: Vec<ReaderPlan>,
    pub(super) operator: OperatorPlan,
    pub(super) daemons: Vec<DaemonPlan>,
    pub(super) mishaps: Vec<Mishap>,
    /// The lease time, where leases decide which of the daemons leads; else all of them do.
    pub(super) lease_time: Option<Duration>,
    /// Whether the leases are lost before the last start.
    pub(super) loses_leases: bool,
    /// Into how many parts the collection is divided at first.
    pub(super) parts: u32,
    pub(super) compaction: CompactionPlan,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct WriterPlan {
    /// Reads at a lower read concern and does not wait for the majority, against the rules.
    pub(super) careless: bool,
    pub(super) faults: Vec<CallFault>,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) pause: Duration,
    pub(super) document: usize,
    pub(super) action: Action,
}

/// What a writer appends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    /// `$inc` of a counter.
    Add(i64),
    /// `$set` of a field that is there.
    Rename(u8),
    /// `$push` onto a list.
    Push(i64),
    /// `$unset`.
    Unset,
    /// A merge patch.
    Merge(i64),
    /// A patch that changes nothing.
    Nothing,
    Delete,
    /// Two events in one ordered insert.
    Two,
    /// Three events in one transaction, delivered in the reverse order of their versions.
    Transaction {
        reversed: bool,
    },
    /// A patch that the state refuses.
    BadPatch,
    /// An event that no validator would have let in.
    BadEvent,
    /// An event above a hole.
    Skip,
    /// The events that are missing in holes.
    Fill,
    /// An event that is too large for the change stream.
    Big,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReaderPlan {
    pub(super) pauses: Vec<Duration>,
}

/// What an operator does. Without steps there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OperatorPlan {
    pub(super) faults: Vec<CallFault>,
    pub(super) steps: Vec<OperatorStep>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct OperatorStep {
    pub(super) pause: Duration,
    pub(super) document: usize,
    pub(super) help: Help,
}

/// How an operator helps a document that waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Help {
    /// Has it looked at again.
    Retry,
    /// Skips the event at which it is parked.
    Skip,
    /// Fills its gap.
    Fill,
    /// Fills its gap and skips everything above that.
    SkipAbove,
    /// Deletes its row by hand, so that it is folded again from its first event.
    Refold,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct DaemonPlan {
    pub(super) start: Duration,
    /// The leadership that it has where no leases decide.
    pub(super) epoch: i64,
    pub(super) wall_ahead_millis: i64,
    /// Often so small that documents are evicted all the time.
    pub(super) cache_bytes: usize,
    /// Whether it scans the log where that is quicker, although it has a place to go on from.
    pub(super) scans_backlogs: bool,
    pub(super) faults: Vec<CallFault>,
}

/// A fault of one call of a process, by the call's number since the run began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CallFault {
    pub(super) call: u32,
    pub(super) when: When,
    pub(super) trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum When {
    /// The request is never sent.
    Before,
    /// It was sent, and will be carried out.
    During,
    /// It was carried out, and the answer is lost.
    After,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Trouble {
    /// The process dies, and is started again later.
    Crash { down: Duration },
    /// The connection breaks.
    Error,
}

/// Something that goes wrong at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mishap {
    pub(super) at: Duration,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
    /// The primary is lost with everything that the majority does not have.
    RollBack,
    /// Another node answers, which knows the majority point of `entries` ago, for a while.
    Elect { entries: usize, lag: Duration },
    /// The majority does not acknowledge anything for a while.
    Stall { time: Duration },
    /// The server answers nobody for a while, longer at times than anybody waits for an answer.
    Freeze { time: Duration },
    /// The oplog forgets its past.
    LoseHistory,
    /// The daemon dies wherever it stands.
    Crash { daemon: usize, down: Duration },
    /// The daemon stands still while its clocks go on.
    Suspend { daemon: usize, time: Duration },
    /// The daemon is told to stop, and is started again after a while.
    Stop { daemon: usize, down: Duration },
    /// The daemon cannot reach the server.
    Cut { daemon: usize, time: Duration },
    /// Somebody deletes a projected row by hand.
    DeleteRow { document: usize },
    /// Somebody writes another version into a projected row, which its clock does not sum to, or none.
    DamageRow { document: usize, version: Option<i64> },
    /// Somebody changes the state of a projected row, which nobody can see but who folds its log again.
    ChangeState { document: usize },
    /// Somebody drops the projected rows.
    DropRows,
    /// Somebody deletes the checkpoints.
    DeleteCheckpoints,
    /// Somebody deletes all leases.
    DeleteLeases,
    /// The log is renamed, and gets its name back after a while.
    RenameLog { gone: Duration },
    /// Somebody divides the collection into so many parts.
    Divide { of: u32 },
    /// The log is dropped, and made again after a while.
    DropLog { gone: Duration },
    /// An index of somebody's refuses rows with this name for a while.
    Refuse { name: u8, time: Duration },
}

impl Mishap {
    /// The number of the daemon that it strikes, or 0.
    pub(super) fn daemon(&self) -> usize {
        match self.what {
            What::Crash { daemon, .. }
            | What::Suspend { daemon, .. }
            | What::Stop { daemon, .. }
            | What::Cut { daemon, .. } => daemon,
            _ => 0,
        }
    }
}

pub(super) fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

impl Plan {
    /// The plan of a seed. Each seed allows only some kinds of trouble, so that rare combinations of a few
    /// are met as well as everything at once.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0xA110_0001);
        // In a part of the runs rivals that all lead fight over a document or two that give trouble.
        let rivals = rng.u8(..3) == 0;
        let documents = if rivals { rng.usize(1..=2) } else { rng.usize(1..=4) };
        let length = millis(&mut rng, 500..if rivals { 2_500 } else { 8_000 });
        let leased = !rivals && rng.bool();
        let daemons = match (rivals, leased) {
            (true, _) => rng.usize(2..=3),
            // Enough for two that take over at once from a third.
            (false, true) => [1, 2, 3, 3, 4][rng.usize(..5)],
            (false, false) => [1, 1, 2, 2, 3][rng.usize(..5)],
        };
        let actions = if rivals { Actions::TROUBLE } else { Actions::new(&mut rng) };
        let writers =
            (0..rng.usize(1..=3)).map(|_| writer(&mut rng, documents, length, &actions)).collect();
        let readers = (0..rng.usize(..=1))
            .map(|_| ReaderPlan {
                pauses: (0..rng.usize(1..8)).map(|_| millis(&mut rng, 1..2_000)).collect(),
            })
            .collect();
        let daemons: Vec<DaemonPlan> =
            (0..daemons).map(|number| daemon(&mut rng, number as i64, length)).collect();
        let lease_time = leased.then(|| millis(&mut rng, 1_500..8_000));
        let loses_leases = rng.bool();
        let mut mishaps = mishaps(&mut rng, documents, daemons.len(), length);
        for mishap in &mut mishaps {
            if let What::DropLog { gone } = &mut mishap.what
                && rng.bool()
            {
                // While a daemon begins, and so briefly that it may not notice.
                mishap.at = daemons[rng.usize(..daemons.len())].start + millis(&mut rng, 0..80);
                *gone = millis(&mut rng, 0..50);
            }
        }
        if mishaps.iter().any(|mishap| matches!(mishap.what, What::DropLog { .. })) {
            // To delete the checkpoint is how an operator says that another log is the right one.
            mishaps.retain(|mishap| {
                !matches!(mishap.what, What::DeleteCheckpoints | What::RenameLog { .. })
            });
        }
        // Two renames at once would only undo each other.
        let mut renamed = false;
        mishaps.retain(|mishap| {
            let renames = matches!(mishap.what, What::RenameLog { .. });
            !(renames && std::mem::replace(&mut renamed, true))
        });
        // Where there is something to do for one.
        let helps = (actions.poison || actions.holes) && rng.u8(..3) != 0;
        let operator =
            if helps { operator(&mut rng, documents, length) } else { OperatorPlan::default() };
        let mut plan = Self {
            seed,
            writers,
            readers,
            operator,
            daemons,
            mishaps,
            lease_time,
            loses_leases,
            parts: 1,
            compaction: CompactionPlan::default(),
        };
        divide(&mut plan, length);
        super::refused::refuse(&mut plan, length);
        super::touching::touch_rows(&mut plan, documents, length);
        compact(&mut plan, length);
        plan
    }

    /// The documents whose states somebody changes.
    pub(super) fn changed_states(&self) -> Vec<usize> {
        let changed = |mishap: &Mishap| match mishap.what {
            What::ChangeState { document } => Some(document),
            _ => None,
        };
        self.mishaps.iter().filter_map(changed).collect()
    }

    /// Whether the log itself is lost in this run, so that the documents stay behind.
    pub(super) fn drops_log(&self) -> bool {
        self.mishaps.iter().any(|mishap| matches!(mishap.what, What::DropLog { .. }))
    }
}

/// In a part of the runs the collection is divided, and mostly divided anew while it is projected: often when one
/// of the daemons is in trouble, so that some parts are further than others. With randomness of its own,
/// since it came later than the rest.
fn divide(plan: &mut Plan, length: Duration) {
    let mut rng = Rng::with_seed(plan.seed ^ 0xA110_0002);
    if rng.u8(..3) != 0 {
        return;
    }
    plan.parts = rng.u32(1..=3);
    if rng.bool() {
        plan.lease_time.get_or_insert(millis(&mut rng, 1_500..8_000));
    }
    let span = length.as_millis() as u64 + 2_000;
    for _ in 0..rng.usize(..4) {
        let at = millis(&mut rng, 0..span);
        plan.mishaps.push(Mishap { at, what: What::Divide { of: rng.u32(1..=3) } });
        let (daemon, time) = (rng.usize(..plan.daemons.len()), millis(&mut rng, 10..4_000));
        let what = match rng.u8(..6) {
            0 => What::Crash { daemon, down: time },
            1 => What::Suspend { daemon, time: time * 3 },
            2 => What::Cut { daemon, time },
            3 => What::Stop { daemon, down: time },
            _ => continue,
        };
        let at = at.saturating_sub(millis(&mut rng, 0..2_000));
        plan.mishaps.push(Mishap { at, what });
    }
    plan.mishaps.sort_by_key(|mishap| mishap.at);
}

/// Which unusual actions the writers of a run may take.
struct Actions {
    poison: bool,
    holes: bool,
    transactions: bool,
    big: bool,
}

impl Actions {
    /// What makes documents wait.
    const TROUBLE: Self = Self { poison: true, holes: true, transactions: false, big: false };

    fn new(rng: &mut Rng) -> Self {
        let mut allowed = |one_in: u8| rng.u8(..one_in) == 0;
        Self { poison: allowed(3), holes: allowed(3), transactions: allowed(3), big: allowed(6) }
    }

    fn choose(&self, rng: &mut Rng) -> Action {
        match rng.u8(..40) {
            0..4 if self.poison => {
                if rng.bool() {
                    Action::BadPatch
                } else {
                    Action::BadEvent
                }
            }
            4..7 if self.holes => Action::Skip,
            7..12 if self.holes => Action::Fill,
            12..16 if self.transactions => Action::Transaction { reversed: rng.bool() },
            16..18 if self.big => Action::Big,
            18 | 19 => Action::Delete,
            20 => Action::Nothing,
            21..24 => Action::Two,
            24..27 => Action::Rename(rng.u8(..3)),
            27..30 => Action::Push(rng.i64(0..100)),
            30 => Action::Unset,
            31..33 => Action::Merge(rng.i64(0..100)),
            _ => Action::Add(rng.i64(1..100)),
        }
    }
}

fn writer(rng: &mut Rng, documents: usize, length: Duration, actions: &Actions) -> WriterPlan {
    let steps = rng.usize(2..14);
    let pace = (length.as_millis() as u64 * 2 / steps as u64).max(2);
    WriterPlan {
        careless: rng.u8(..6) == 0,
        faults: faults(rng, 60, 3, false),
        steps: (0..steps)
            .map(|_| Step {
                // Often in a burst, so that events meet in one flush.
                pause: if rng.bool() { Duration::ZERO } else { millis(rng, 0..pace) },
                document: rng.usize(..documents),
                action: actions.choose(rng),
            })
            .collect(),
    }
}

fn operator(rng: &mut Rng, documents: usize, length: Duration) -> OperatorPlan {
    let steps = rng.usize(1..10);
    let pace = ((length.as_millis() as u64 + 4_000) * 2 / steps as u64).max(2);
    let step = |_| OperatorStep {
        pause: millis(rng, 0..pace),
        document: rng.usize(..documents),
        help: match rng.u8(..16) {
            0..3 => Help::Retry,
            3..10 => Help::Skip,
            10..12 => Help::Fill,
            12..14 => Help::SkipAbove,
            _ => Help::Refold,
        },
    };
    let steps = (0..steps).map(step).collect();
    OperatorPlan { faults: faults(rng, 60, 4, false), steps }
}

fn daemon(rng: &mut Rng, number: i64, length: Duration) -> DaemonPlan {
    let at_once = number == 0 && rng.bool();
    DaemonPlan {
        start: if at_once { Duration::ZERO } else { millis(rng, 0..length.as_millis() as u64 + 1) },
        // Epochs are mostly of their own and at times shared, as when a lease's rise was not noticed.
        epoch: if rng.u8(..6) == 0 { 1 } else { rng.i64(1..5) },
        wall_ahead_millis: if rng.u8(..4) == 0 { rng.i64(-600_000..600_000) } else { 0 },
        cache_bytes: [2, 2_000, 8_000, 1 << 20][rng.usize(..4)],
        // Of a copy: the runs stay as they were dealt before.
        scans_backlogs: rng.clone().bool(),
        faults: faults(rng, 60, 7, true),
    }
}

fn faults(rng: &mut Rng, calls: u32, most: usize, crashes: bool) -> Vec<CallFault> {
    let count = if rng.u8(..3) == 0 { 0 } else { rng.usize(..=most) };
    let mut faults: Vec<CallFault> = (0..count)
        .map(|_| CallFault {
            call: rng.u32(..calls),
            when: [When::Before, When::During, When::After][rng.usize(..3)],
            trouble: if crashes && rng.bool() {
                Trouble::Crash { down: millis(rng, 0..3_000) }
            } else {
                Trouble::Error
            },
        })
        .collect();
    faults.sort_by_key(|fault| fault.call);
    faults.dedup_by_key(|fault| fault.call);
    faults
}

fn mishaps(rng: &mut Rng, documents: usize, daemons: usize, length: Duration) -> Vec<Mishap> {
    let kinds: Vec<u8> = (0..14).filter(|_| rng.u8(..3) == 0).collect();
    if kinds.is_empty() {
        return Vec::new();
    }
    let span = length.as_millis() as u64 + 4_000;
    let mut mishaps: Vec<Mishap> = (0..rng.usize(..8))
        .filter_map(|_| {
            let daemon = rng.usize(..daemons);
            let time = millis(rng, 10..4_000);
            let what = match kinds[rng.usize(..kinds.len())] {
                0 | 1 => What::RollBack,
                2 => What::Elect { entries: rng.usize(..20), lag: time },
                3 => What::Stall { time },
                4 | 5 => What::LoseHistory,
                6 => What::Crash { daemon, down: time },
                7 => What::Suspend { daemon, time: time * 3 },
                8 => What::Cut { daemon, time },
                10 if rng.bool() => What::RenameLog { gone: time },
                11 => What::Stop { daemon, down: time },
                12 => What::DeleteLeases,
                13 => What::Freeze { time: time * 10 },
                9 => match rng.u8(..3) {
                    0 => What::DeleteRow { document: rng.usize(..documents) },
                    _ => What::DeleteCheckpoints,
                },
                _ if rng.u8(..4) != 0 => What::DropLog { gone: time },
                _ => return None,
            };
            Some(Mishap { at: millis(rng, 0..span), what })
        })
        .collect();
    mishaps.sort_by_key(|mishap| mishap.at);
    mishaps
}
