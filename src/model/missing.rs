//! What a client is missing, decided from two clocks and the log read backwards. An event's client
//! sequence is its rank among its client's events of the document, so what a client with clock K
//! lacks are exactly the last `clock[c] - K[c]` events of each client `c`. No snapshot is needed, and the
//! cost is the distance to the oldest missing event.

use super::clock::Clock;

/// The client claims events that do not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock claims {claimed} events of client `{client}`, but the document has {exists}: \
     it belongs to another document, or to a log that was replaced"
)]
pub struct ClockAhead {
    /// The client in question.
    pub client: String,
    /// How many the clock claims.
    pub claimed: i64,
    /// How many there are.
    pub exists: i64,
}

/// A walk from the newest event back to the oldest that the client lacks.
#[derive(Clone, Debug)]
pub struct Missing {
    /// The counts right after the event that comes next in the walk.
    at: Clock,
    has: Clock,
    remaining: i64,
}

impl Missing {
    /// Starts the walk for a document whose clock is `document` and a client that has seen `client`.
    ///
    /// # Errors
    /// [`ClockAhead`] when the client claims more than the document has.
    pub fn new(document: &Clock, client: &Clock) -> Result<Self, ClockAhead> {
        if let Some((name, claimed)) =
            client.iter().find(|(name, claimed)| document.get(name) < *claimed)
        {
            let exists = document.get(name);
            return Err(ClockAhead { client: name.to_owned(), claimed, exists });
        }
        let remaining = document.total() - client.total();
        Ok(Self { at: document.clone(), has: client.clone(), remaining })
    }

    /// How many missing events the walk has not yet met; 0 means that it is over.
    pub fn remaining(&self) -> i64 {
        self.remaining
    }

    /// Steps back over an event by `client`: its client sequence if it is one of the missing,
    /// `None` if the asking client has it.
    pub fn step(&mut self, client: &str) -> Option<i64> {
        let sequence = self.at.get(client);
        self.at.set(client, (sequence - 1).max(0));
        let missing = sequence > self.has.get(client);
        self.remaining -= i64::from(missing);
        missing.then_some(sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    proptest! {
        /// The law itself: for any history and any clock below it, prefix or not, the walk finds
        /// exactly the events whose rank is above the clock's count, and stops at the oldest.
        #[test]
        fn the_walk_finds_exactly_what_the_clock_lacks(
            history in vec(select(vec!["a", "b", "c"]), 0..40),
            share in vec(0.0..=1.0, 3),
        ) {
            let mut full = Clock::new();
            let ranks: Vec<i64> = history.iter().map(|client| full.increment(client)).collect();
            let mut has = Clock::new();
            for (client, share) in ["a", "b", "c"].into_iter().zip(&share) {
                has.set(client, (full.get(client) as f64 * share) as i64);
            }
            let expected: Vec<(usize, i64)> = (0..history.len())
                .filter(|at| ranks[*at] > has.get(history[*at]))
                .map(|at| (at, ranks[at]))
                .collect();

            let mut walk = Missing::new(&full, &has).unwrap();
            let mut found = Vec::new();
            let mut at = history.len();
            while walk.remaining() > 0 {
                at -= 1;
                if let Some(sequence) = walk.step(history[at]) {
                    found.push((at, sequence));
                }
            }
            found.reverse();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(at, expected.first().map_or(history.len(), |(at, _)| *at));
        }

        #[test]
        fn a_clock_ahead_is_an_error(history in vec(select(vec!["a", "b"]), 0..10)) {
            let mut full = Clock::new();
            history.iter().for_each(|client| { full.increment(client); });
            let mut ahead = full.clone();
            ahead.increment("a");
            let error = Missing::new(&full, &ahead).unwrap_err();
            prop_assert_eq!(error, ClockAhead { client: "a".into(), claimed: full.get("a") + 1, exists: full.get("a") });
        }
    }
}
