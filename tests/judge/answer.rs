//! Whether an answer to "what am I missing" is right: exactly the events that the clock lacks, and a
//! client that applies them has the state that the document has at that version.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document};

use super::{
    Log,
    replay::{Replay, Walk, canonical, counted},
};

/// An answer as a client got it.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The document.
    pub document: Bson,
    /// What the client said it had.
    pub has: BTreeMap<String, i64>,
    /// The version that the answer leads to.
    pub version: i64,
    /// The document's clock at that version.
    pub clock: BTreeMap<String, i64>,
    /// The events, as they stand in the log, oldest first, each with its client sequence.
    pub events: Vec<(i64, Document)>,
    /// The state at some version that the answer begins with, if it does: then the events follow it.
    pub snapshot: Option<(i64, Document)>,
}

/// Checks one answer against the log.
pub(super) async fn check(
    answer: &Answer,
    log: &Log,
    skipped: &BTreeSet<(String, i64)>,
    replay: &mut impl Replay,
) -> Result<(), String> {
    let id = canonical(&answer.document);
    let wrong = |what: String| Err(format!("an answer to {:?} of {id} {what}", answer.has));
    let empty = BTreeMap::new();
    let events = log.get(&id).unwrap_or(&empty);
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    let mut expected = Vec::new();
    let mut held = BTreeMap::new();
    for (version, event) in events.range(..=answer.version) {
        let client = counted(event);
        let rank = counts.entry(client).or_default();
        *rank += 1;
        let begins = answer.snapshot.as_ref().map(|(version, _)| *version);
        let lacks = match begins {
            Some(begins) => *version > begins,
            None => *rank > answer.has.get(client).copied().unwrap_or(0),
        };
        if lacks {
            expected.push((*rank, event.clone()));
        } else {
            held.insert(*version, event.clone());
        }
    }
    if expected != answer.events {
        return wrong(format!("gives {:?} and should give {expected:?}", answer.events));
    }
    let counted: BTreeMap<String, i64> =
        counts.into_iter().map(|(client, count)| (client.to_owned(), count)).collect();
    if counted != answer.clock {
        return wrong(format!("says clock {:?}, and it is {counted:?}", answer.clock));
    }
    let skips = |version: i64| skipped.contains(&(id.clone(), version));
    lead(answer, &id, events, held, skips, replay).await.or_else(wrong)
}

/// Lets a client with what it `held` apply the answer, and compares what it then has.
async fn lead(
    answer: &Answer,
    id: &str,
    events: &BTreeMap<i64, Document>,
    mut held: BTreeMap<i64, Document>,
    skips: impl Fn(i64) -> bool,
    replay: &mut impl Replay,
) -> Result<(), String> {
    for (_, event) in &answer.events {
        let version = super::place(event).map(|(_, version)| version);
        held.insert(version.ok_or("holds an event without a place")?, event.clone());
    }
    let mut client = Walk::new(replay, id).await;
    client.upto(answer.version, &held, &skips).await;
    let reached = client.row(&held).await;
    let mut document = Walk::new(replay, id).await;
    document.upto(answer.version, events, &skips).await;
    let truth = document.row(events).await;
    if reached.map(|row| row.into_bytes()) != truth.map(|row| row.into_bytes()) {
        return Err(format!("does not lead to the state at version {}", answer.version));
    }
    Ok(())
}
