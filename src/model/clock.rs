//! Vector clocks: how many events of each client a document, or a replica of it, holds. The one
//! comparison that everything about catching up rests on, kept free of any other concern.
//!
//! The partial order and the merge are those of Mattern, "Virtual Time and Global States of
//! Distributed Systems" (1988).

use std::{cmp::Ordering, fmt};

use bson::{RawDocument, RawDocumentBuf};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    id::{INTEGER_MAX, integral},
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
        for (client, count) in other.iter() {
            if count > self.get(client) {
                self.set(client, count);
            }
        }
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
        let mut clock = Self::new();
        for element in raw {
            let (client, value) =
                element.map_err(|error| ClockError::Malformed(error.to_string()))?;
            let count = integral(value).filter(|count| (0..=INTEGER_MAX).contains(count));
            let count = count.ok_or_else(|| ClockError::Count {
                client: client.to_string(),
                found: format!("{value:?}"),
            })?;
            clock.admit(client.as_str(), count)?;
        }
        Ok(clock)
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

    fn admit(&mut self, client: &str, count: i64) -> Result<(), ClockError> {
        // A skipped event with an unusable client name is counted as `?`, so that is admitted as any other.
        if !is_client_name(client) {
            return Err(ClockError::Client { name: client.to_owned() });
        }
        self.set(client, count);
        Ok(())
    }

    fn position(&self, client: &str) -> Result<usize, usize> {
        self.counts.binary_search_by(|(name, _)| (**name).cmp(client))
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
        let mut clock = Self::new();
        counts.into_iter().for_each(|(client, count)| clock.set(client, count));
        clock
    }
}

impl Serialize for Clock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Clock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Clock;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a clock: an object of client names and counts")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Clock, A::Error> {
                let mut clock = Clock::new();
                while let Some((client, value)) = map.next_entry::<String, serde_json::Value>()? {
                    let count = match &value {
                        serde_json::Value::Number(number) => number.as_i64().or_else(|| {
                            number.as_f64().and_then(|f| integral(bson::RawBsonRef::Double(f)))
                        }),
                        _ => None,
                    };
                    let count = count.filter(|count| (0..=INTEGER_MAX).contains(count));
                    let count = count.ok_or_else(|| {
                        de::Error::custom(ClockError::Count {
                            client: client.clone(),
                            found: value.to_string(),
                        })
                    })?;
                    clock.admit(&client, count).map_err(de::Error::custom)?;
                }
                Ok(clock)
            }
        }
        deserializer.deserialize_map(Visitor)
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
