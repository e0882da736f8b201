//! Clients that ask what they are missing, with clocks of all kinds, at any moment of a run. What they
//! are answered is kept, and the judge says whether it was right.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bson::Document;
use fastrand::Rng;

use super::{
    bases::base_of,
    node::Node,
    store::row_of,
    world::{Data, EVENTS},
    writer::{DOCUMENTS, document_id},
};
use crate::{
    judge::Answer,
    model::{
        base::Base, clock::Clock, document, id::DocumentId, missing::Missing, skip::client_of,
    },
};

/// What all readers were answered.
pub(super) type Answers = Arc<Mutex<Vec<Answer>>>;

/// Asks after every pause.
pub(super) async fn run(node: Node, number: usize, pauses: Vec<Duration>, answers: Answers) {
    let mut rng = node.sim().rng(0x500 + number as u64);
    for pause in pauses {
        node.sim().sleep(pause).await;
        let id = document_id(rng.usize(..DOCUMENTS));
        let (world, mut rng) = (node.world.clone(), rng.fork());
        // Document and log as they stand together, which is what a snapshot session gives.
        let work = async move { Ok(ask(&world.state().visible, &id, &mut rng)) };
        if let Ok(Some(answer)) = node.call("ask what is missing", work).await {
            node.sim().tell(|| {
                format!("{:?} has {:?}, lacks {}", node.owner, answer.has, answer.events.len())
            });
            answers.lock().unwrap().push(answer);
        }
    }
}

/// The answer to a client that has seen some of every other client's events.
pub(super) fn ask(data: &Data, id: &DocumentId, rng: &mut Rng) -> Option<Answer> {
    // A log that is away has no answers to give.
    data.collections.get(EVENTS)?;
    let mut row = document::Document::from_raw(row_of(data, id)?).ok()?;
    let base = base_of(data, id);
    if let Some(base) = base.as_ref().filter(|base| base.version > row.version) {
        row = base.document().ok()?;
    }
    let has: Clock = row.clock.iter().map(|(client, count)| (client, rng.i64(0..=count))).collect();
    let passed = base.as_ref().filter(|base| !has.includes(&base.clock));
    let floor = base.as_ref().map_or(0, |base| base.version);
    // Whom the base has passed gets it, and everything after it: what somebody lacks who has just that.
    let from = passed.map_or(&has, |base| &base.clock);
    let mut walk = Missing::new(&row.clock, from).ok()?;
    let above = data.events(id, floor);
    let below: Vec<_> = above.filter(|(version, _)| *version <= row.version).collect();
    let mut events = Vec::new();
    for (_, raw) in below.iter().rev() {
        if walk.remaining() == 0 {
            break;
        }
        let event = Document::try_from(*raw).ok()?;
        if let Some(sequence) = walk.step(client_of(raw)) {
            events.push((sequence, event));
        }
    }
    events.reverse();
    let counts = |clock: &Clock| -> BTreeMap<String, i64> {
        clock.iter().map(|(client, count)| (client.to_owned(), count)).collect()
    };
    Some(Answer {
        document: id.to_bson(),
        has: counts(&has),
        version: row.version,
        clock: counts(&row.clock),
        events,
        snapshot: passed.and_then(begins_with),
    })
}

/// What an answer begins with that begins with a base.
fn begins_with(base: &Base) -> Option<(i64, Document)> {
    let document = base.document().ok()?;
    Some((base.version, Document::try_from(&document.to_raw()).ok()?))
}
