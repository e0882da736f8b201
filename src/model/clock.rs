//! Vector clocks: how many events of each client a document, or a replica of it, holds. The one
//! comparison that everything about catching up rests on, kept free of any other concern.
//!
//! The partial order and the merge are those of Mattern, "Virtual Time and Global States of
//! Distributed Systems" (1988).

mod json;

use std::{cmp::Ordering, fmt};

use bson::{RawDocument, RawDocumentBuf};

use super::{
    id::{INTEGER_MAX, display_number, integral},
    shown::shown,
    state::raw::tag,
};

/// The longest client name, in bytes.
pub const CLIENT_BYTES_MAX: usize = 128;

/// Counts of events per client, in byte order of the names. A client without events has no entry,
/// so two clocks that mean the same are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    counts: Vec<(Box<str>, i64)>,
}

/// Why a map is not a clock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The key cannot be the name of a client.
    #[error("`{name}` is no client name: {rule}", rule = CLIENT_RULE)]
    Client {
        /// The offending name.
        name: String,
    },
    /// The count is negative, fractional, too large, or no number.
    #[error("the count of client `{client}` must be an integer from 0 to 2^53 - 1, not {found}")]
    Count {
        /// The client.
        client: String,
        /// What was found instead.
        found: String,
    },
    /// A client has two counts.
    #[error("client `{client}` has two counts")]
    Twice {
        /// The client.
        client: String,
    },
    /// The BSON is damaged.
    #[error("the clock is not readable BSON: {0}")]
    Malformed(String),
}

/// What a client's name must be, as a sentence for error messages.
pub const CLIENT_RULE: &str = "1 to 128 printable ASCII characters without `.` and `$`";

/// Whether `name` can name a client: see [`CLIENT_RULE`].
pub fn is_client_name(name: &str) -> bool {
    (1..=CLIENT_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'.' && byte != b'$')
}

impl Clock {
    /// The clock that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many events of `client` have been seen.
    pub fn get(&self, client: &str) -> i64 {
        self.position(client).map_or(0, |at| self.counts[at].1)
    }

    /// Counts one more event of `client` and returns the new count: that event's client sequence.
    pub fn increment(&mut self, client: &str) -> i64 {
        match self.position(client) {
            Ok(at) => {
                self.counts[at].1 += 1;
                self.counts[at].1
            }
            Err(at) => {
                self.counts.insert(at, (client.into(), 1));
                1
            }
        }
    }

    /// Sets the count of `client`; 0 removes it.
    pub fn set(&mut self, client: &str, count: i64) {
        match (self.position(client), count) {
            (Ok(at), 0) => drop(self.counts.remove(at)),
            (Ok(at), _) => self.counts[at].1 = count,
            (Err(_), 0) => {}
            (Err(at), _) => self.counts.insert(at, (client.into(), count)),
        }
    }

    /// Takes, for every client, the larger of both counts: the least clock that has seen what either has.
    pub fn merge(&mut self, other: &Self) {
        let all = std::mem::take(&mut self.counts).into_iter().chain(other.counts.iter().cloned());
        let mut all: Vec<_> = all.collect();
        // The larger count of a client first, and the others go.
        all.sort_by(|left, right| left.0.cmp(&right.0).then(right.1.cmp(&left.1)));
        all.dedup_by(|later, kept| later.0 == kept.0);
        self.counts = all;
    }

    /// Whether this clock has seen everything that `other` has.
    pub fn includes(&self, other: &Self) -> bool {
        other.iter().all(|(client, count)| self.get(client) >= count)
    }

    /// All events counted. A document's clock sums to its version.
    pub fn total(&self) -> i64 {
        // A clock that a client claims may hold many counts that are each as large as can be: the sum
        // must not overflow.
        self.counts.iter().fold(0, |total, (_, count)| total.saturating_add(*count))
    }

    /// The number of clients with at least one event.
    pub fn clients(&self) -> usize {
        self.counts.len()
    }

    /// Clients and counts, in byte order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.counts.iter().map(|(client, count)| (&**client, *count))
    }

    /// Reads a clock from BSON. Counts may be int, long or integral double.
    ///
    /// # Errors
    /// [`ClockError`] naming the client at fault.
    pub fn from_raw(raw: &RawDocument) -> Result<Self, ClockError> {
        let mut clock = Unsorted::default();
        Self::each(raw, |client, count| clock.admit(client.into(), count))?;
        clock.sorted()
    }

    /// How many clients a map names that [`Clock::from_raw`] could read, but for one that it names twice. Copies
    /// nothing.
    ///
    /// # Errors
    /// [`ClockError`] naming the client at fault.
    pub fn count_raw(raw: &RawDocument) -> Result<usize, ClockError> {
        let mut clients = 0;
        Self::each(raw, |client, _| {
            clients += 1;
            check_name(client)
        })?;
        Ok(clients)
    }

    fn each<'a>(
        raw: &'a RawDocument,
        mut take: impl FnMut(&'a str, i64) -> Result<(), ClockError>,
    ) -> Result<(), ClockError> {
        for element in raw {
            let (client, value) =
                element.map_err(|error| ClockError::Malformed(error.to_string()))?;
            let count = integral(value).filter(|count| (0..=INTEGER_MAX).contains(count));
            let count = count.ok_or_else(|| ClockError::Count {
                client: shown(client.as_str().as_bytes()),
                found: display_number(value),
            })?;
            take(client.as_str(), count)?;
        }
        Ok(())
    }

    /// The clock as BSON: int64 counts in byte order of the clients.
    pub fn to_raw(&self) -> RawDocumentBuf {
        let mut raw = Vec::new();
        self.append_to(&mut raw);
        // What is written there always has the right length and a closing zero.
        RawDocumentBuf::from_bytes(raw).unwrap_or_default()
    }

    /// Appends the same bytes to `out`, for building a larger document around them.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        // A client's name has no NUL byte (`is_client_name`), the one thing that a key cannot hold.
        for (client, count) in self.iter().filter(|(client, _)| !client.contains('\0')) {
            out.push(tag::INT64);
            out.extend_from_slice(client.as_bytes());
            out.push(0);
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.push(0);
        let length = (out.len() - start) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Roughly how many bytes of memory the entries take.
    pub fn heap_bytes(&self) -> usize {
        self.counts.iter().map(|(client, _)| client.len() + 24).sum()
    }

    fn position(&self, client: &str) -> Result<usize, usize> {
        self.counts.binary_search_by(|(name, _)| (**name).cmp(client))
    }
}

/// Refuses what cannot name a client. A skipped event with an unusable client name is counted as `?`, so that is
/// taken as any other.
fn check_name(client: &str) -> Result<(), ClockError> {
    if is_client_name(client) {
        Ok(())
    } else {
        Err(ClockError::Client { name: shown(client.as_bytes()) })
    }
}

/// The counts of a clock as they come. They are sorted once: to put each in its place would take the square of
/// their number.
#[derive(Default)]
struct Unsorted(Vec<(Box<str>, i64)>);

impl Unsorted {
    fn admit(&mut self, client: Box<str>, count: i64) -> Result<(), ClockError> {
        check_name(&client)?;
        self.0.push((client, count));
        Ok(())
    }

    fn sorted(self) -> Result<Clock, ClockError> {
        let Self(mut counts) = self;
        if !counts.is_sorted_by(|left, right| left.0 < right.0) {
            counts.sort_by(|left, right| left.0.cmp(&right.0));
            if let Some(pair) = counts.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(ClockError::Twice { client: pair[0].0.to_string() });
            }
        }
        counts.retain(|(_, count)| *count != 0);
        Ok(Clock { counts })
    }
}

impl PartialOrd for Clock {
    /// Causal order: less means that `other` has seen everything and more; `None` means concurrent.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.includes(other), other.includes(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl<'a> FromIterator<(&'a str, i64)> for Clock {
    fn from_iter<I: IntoIterator<Item = (&'a str, i64)>>(counts: I) -> Self {
        let mut counts: Vec<(Box<str>, i64)> =
            counts.into_iter().map(|(client, count)| (client.into(), count)).collect();
        // What is said last of a client counts.
        counts.reverse();
        counts.sort_by(|left, right| left.0.cmp(&right.0));
        counts.dedup_by(|earlier, kept| earlier.0 == kept.0);
        counts.retain(|(_, count)| *count != 0);
        Self { counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;
    use proptest::{collection::btree_map, prelude::*};

    fn clocks() -> impl Strategy<Value = Clock> {
        btree_map("[a-e]", 0_i64..5, 0..5)
            .prop_map(|map| map.iter().map(|(client, count)| (client.as_str(), *count)).collect())
    }

    fn merged(a: &Clock, b: &Clock) -> Clock {
        let mut merged = a.clone();
        merged.merge(b);
        merged
    }

    proptest! {
        #[test]
        fn the_order_is_partial(a in clocks(), b in clocks(), c in clocks()) {
            prop_assert!(a.includes(&a));
            prop_assert_eq!(a.includes(&b) && b.includes(&a), a == b);
            prop_assert!(!(a.includes(&b) && b.includes(&c)) || a.includes(&c));
            prop_assert_eq!(a.partial_cmp(&b), b.partial_cmp(&a).map(Ordering::reverse));
        }

        #[test]
        fn merge_is_the_least_upper_bound(a in clocks(), b in clocks(), c in clocks()) {
            let ab = merged(&a, &b);
            prop_assert_eq!(&ab, &merged(&b, &a));
            prop_assert_eq!(&merged(&ab, &c), &merged(&a, &merged(&b, &c)));
            prop_assert_eq!(&merged(&a, &a), &a);
            prop_assert!(ab.includes(&a) && ab.includes(&b));
            prop_assert!(!(c.includes(&a) && c.includes(&b)) || c.includes(&ab));
        }

        #[test]
        fn an_event_moves_the_clock_by_exactly_one(a in clocks(), client in "[a-g]") {
            let mut b = a.clone();
            prop_assert_eq!(b.increment(&client), a.get(&client) + 1);
            prop_assert_eq!(b.total(), a.total() + 1);
            prop_assert!(b > a);
        }

        #[test]
        fn bson_and_json_read_back(a in clocks()) {
            prop_assert_eq!(&Clock::from_raw(&a.to_raw()).unwrap(), &a);
            let json = serde_json::to_string(&a).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Clock>(&json).unwrap(), &a);
        }
    }

    #[test]
    fn keys_stand_in_byte_order_whatever_the_order_of_arrival() {
        let clock: Clock = [("b", 1), ("a", 2), ("B", 3)].into_iter().collect();
        assert_eq!(clock.to_string(), r#"{"B":3,"a":2,"b":1}"#);
    }

    #[test]
    fn a_client_that_is_named_twice_is_refused() {
        let mut twice = rawdoc! { "b": 1, "a": 1 };
        twice.append(bson::raw::cstr!("b"), 2);
        assert_eq!(Clock::from_raw(&twice), Err(ClockError::Twice { client: "b".into() }));
        let error = serde_json::from_str::<Clock>(r#"{"a":1,"b":1,"a":1}"#).unwrap_err();
        assert!(error.to_string().contains("`a` has two counts"), "{error}");
    }

    /// The nanoseconds that this thread has been at work, whatever else the machine does.
    fn worked() -> u64 {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        told.split(' ').next().unwrap().parse().unwrap()
    }

    /// Thirty times as many take about thirty times as long, and not nine hundred times.
    #[test]
    fn reading_and_merging_take_no_more_than_the_names_do() {
        let took = |count: usize| {
            let names: Vec<String> = (0..count).rev().map(|at| format!("c{at:07}")).collect();
            let json = names.iter().map(|name| format!("\"{name}\":1")).collect::<Vec<_>>();
            let json = format!("{{{}}}", json.join(","));
            let mut raw = RawDocumentBuf::new();
            for name in &names {
                raw.append(bson::raw::CString::try_from(name.clone()).unwrap(), 1);
            }
            let least = (0..3).map(|_| {
                let begun = worked();
                let mut clock = Clock::from_raw(&raw).unwrap();
                let other = serde_json::from_str::<Clock>(&json.replace("\"c", "\"d")).unwrap();
                clock.merge(&other);
                assert_eq!(clock.clients(), 2 * count);
                assert!(clock.includes(&other));
                assert_eq!(clock, clock.iter().collect());
                worked() - begun
            });
            least.min().unwrap()
        };
        let (few, many) = (took(2_000), took(60_000));
        println!("{few} and {many}");
        assert!(many < 300 * few, "{few} and {many}");
    }

    #[test]
    fn counts_may_come_as_any_integral_number() {
        let clock = Clock::from_raw(&rawdoc! { "a": 1_i32, "b": 2_i64, "c": 3.0 }).unwrap();
        assert_eq!(clock, [("a", 1), ("b", 2), ("c", 3)].into_iter().collect());
        assert_eq!(serde_json::from_str::<Clock>(r#"{"a":1.0}"#).unwrap().get("a"), 1);
    }

    #[test]
    fn bad_counts_and_names_are_refused_by_name() {
        for json in [r#"{"a":-1}"#, r#"{"a":1.5}"#, r#"{"a":"1"}"#, r#"{"a":9007199254740992}"#] {
            let error = serde_json::from_str::<Clock>(json).unwrap_err().to_string();
            assert!(error.contains("client `a`"), "{json}: {error}");
        }
        for json in [r#"{"a.b":1}"#, r#"{"$a":1}"#, r#"{"":1}"#] {
            let error = serde_json::from_str::<Clock>(json).unwrap_err().to_string();
            assert!(error.contains("no client name"), "{json}: {error}");
        }
        assert!(Clock::from_raw(&rawdoc! { "a": -1 }).is_err());
    }
}
