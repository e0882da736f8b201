//! Reads against a model that knows the whole history: whatever the projection has done so far, whatever
//! stops the document, and whatever the client has seen.

#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a history has at most 40 events"
)]

use alluvium::{
    model::{
        clock::Clock,
        document::{Class, Document, Quarantine},
        id::DocumentId,
    },
    read::{MissingQuery, ReadError, ReadLimits, Reader},
};
use bson::doc;
use mongodb::Database;
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestRunner},
};

use crate::common::{
    self,
    history::{append, at, event, folded, make_log, park, project},
};

const CLIENTS: [&str; 3] = ["mobile", "panel", "server"];

/// A random history of one document, and how far it has come.
#[derive(Clone, Debug)]
struct Case {
    id: DocumentId,
    /// The client of each event, and whether it deletes a living document.
    events: Vec<(&'static str, bool)>,
    projected: usize,
    parked: bool,
    /// The daemon stopped between the record of a parked document and the mark in its row.
    recorded_only: bool,
    /// A version that is missing from the log.
    hole: Option<usize>,
    /// A version whose event cannot be applied.
    poison: Option<usize>,
    /// How much of each client's count the asking client has.
    has: Vec<f64>,
    limit: u32,
    bytes_max: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let ids = prop_oneof![
        (-9_i64..9).prop_map(DocumentId::Integer),
        "[a-c]{1,3}".prop_map(|text| DocumentId::String(text.into())),
        any::<[u8; 12]>().prop_map(|bytes| DocumentId::ObjectId(bytes.into())),
        any::<[u8; 16]>().prop_map(DocumentId::Uuid),
    ];
    let events = vec((select(&CLIENTS[..]), prop::bool::weighted(0.1)), 1..40);
    let stops = (any::<Index>(), prop::bool::weighted(0.2), any::<bool>(), stop(), stop());
    let asks = (vec(0.0..=1.0, CLIENTS.len()), 1_u32..50, select(vec![300_usize, 16 << 20]));
    (ids, events, stops, asks).prop_map(|(id, events, stops, (has, limit, bytes_max))| {
        let (projected, parked, recorded_only, hole, poison) = stops;
        let projected = projected.index(events.len() + 1);
        let after = |stop: Option<Index>| {
            let left = events.len() - projected;
            stop.filter(|_| left > 0).map(|stop| projected + 1 + stop.index(left))
        };
        let (hole, poison) = (after(hole), after(poison));
        Case { id, events, projected, parked, recorded_only, hole, poison, has, limit, bytes_max }
    })
}

fn stop() -> impl Strategy<Value = Option<Index>> {
    prop::option::weighted(0.3, any::<Index>())
}

impl Case {
    /// The version that the document can come to.
    fn end(&self) -> usize {
        let before = |stop: Option<usize>| stop.map_or(self.events.len(), |stop| stop - 1);
        match self.parked {
            true => self.projected,
            false => before(self.hole).min(before(self.poison)),
        }
    }

    fn log(&self) -> Vec<bson::Document> {
        let mut live = false;
        let mut log = Vec::new();
        for (index, (client, delete)) in self.events.iter().enumerate() {
            let fields = match (live, delete) {
                (false, _) => doc! { "op": "create", "state": { "n": index as i64, "log": [] } },
                (true, true) => doc! { "op": "delete" },
                (true, false) => {
                    doc! { "op": "update", "patch": { "$set": { "n": index as i64 } } }
                }
            };
            live = !(live && *delete);
            log.push(event(&self.id, index as i64 + 1, client, fields));
        }
        log
    }

    /// Stores log and row, with what is wrong with them.
    async fn store(&self, db: &Database, collection: &str) {
        let log = self.log();
        let mark = self.parked.then(|| Quarantine {
            class: Class::Rejected,
            version: self.projected as i64 + 1,
            reason: "a unique index".into(),
        });
        if let Some(mark) = &mark {
            park(db, collection, &self.id, mark).await;
        }
        if self.projected > 0 {
            let mut row = folded(&self.id, &log[..self.projected]);
            // The mark comes to the row after the record.
            row.quarantine = mark.filter(|_| !self.recorded_only);
            project(db, collection, &row).await;
        }
        let mut stored = log;
        if let Some(poison) = self.poison {
            stored[poison - 1].insert("op", "explode");
        }
        let missing = |event: &bson::Document| {
            let version = event.get_document("_id").and_then(|key| key.get_i64("s")).unwrap();
            self.hole == Some(version as usize)
        };
        stored.retain(|event| !missing(event));
        if !stored.is_empty() {
            append(db, collection, &stored).await;
        }
    }

    /// The clock of the asking client: at most what exists.
    fn clock(&self) -> Clock {
        let full = self.clock_at(self.end());
        let counts = CLIENTS.iter().zip(&self.has);
        counts
            .map(|(client, share)| (*client, (full.get(client) as f64 * share).round() as i64))
            .collect()
    }

    fn clock_at(&self, version: usize) -> Clock {
        let mut clock = Clock::new();
        for (client, _) in &self.events[..version] {
            clock.increment(client);
        }
        clock
    }

    /// What the clock lacks: the law itself.
    fn lacks(&self, clock: &Clock) -> Vec<(i64, String, i64)> {
        let mut count = Clock::new();
        let mut lacks = Vec::new();
        for (index, (client, _)) in self.events[..self.end()].iter().enumerate() {
            let seq = count.increment(client);
            if seq > clock.get(client) {
                lacks.push((index as i64 + 1, (*client).to_owned(), seq));
            }
        }
        lacks
    }
}

/// Runs `check` on random histories, each in a collection of its own, every other one clustered.
fn on_random_histories(check: impl AsyncFn(&Case, &Reader) -> Result<(), TestCaseError>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = runtime.block_on(common::database());
    let number = std::cell::Cell::new(0);
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&cases(), |case| {
        number.set(number.get() + 1);
        let collection = format!("games{}", number.get());
        runtime.block_on(async {
            make_log(&test.db, &collection, number.get() % 2 == 0).await;
            case.store(&test.db, &collection).await;
            let limits = ReadLimits { bytes_max: case.bytes_max, ..ReadLimits::default() };
            check(&case, &Reader::new(&test.db, &collection, limits)).await
        })
    });
    outcome.unwrap();
}

#[test]
fn the_pages_of_a_missing_answer_are_exactly_what_the_clock_lacks() {
    on_random_histories(async |case, reader| {
        let mut query =
            MissingQuery { clock: case.clock(), limit: case.limit, ..MissingQuery::default() };
        let mut found = Vec::new();
        loop {
            let answer = reader.missing(&case.id, &query).await.unwrap();
            let Some(answer) = answer else {
                prop_assert_eq!(case.end(), 0);
                return Ok(());
            };
            prop_assert_eq!(answer.version as usize, case.end());
            prop_assert_eq!(&answer.clock, &case.clock_at(case.end()));
            prop_assert!(answer.snapshot.is_none());
            prop_assert!(answer.events.len() <= case.limit as usize);
            prop_assert!(!answer.events.is_empty() || !answer.more);
            for event in answer.events {
                prop_assert_eq!(event.raw.get_str("client").unwrap(), &event.client);
                found.push((event.version, event.client, event.seq));
            }
            query.clock = answer.next_clock;
            query.log = Some(answer.log);
            if !answer.more {
                prop_assert_eq!(&query.clock, &answer.clock);
                break;
            }
        }
        prop_assert_eq!(found, case.lacks(&case.clock()));
        Ok(())
    });
}

#[test]
fn current_and_earlier_versions_are_the_fold_of_their_events() {
    on_random_histories(async |case, reader| {
        let log = case.log();
        let rows = |document: &Document| {
            let mut document = document.clone();
            document.quarantine = None;
            document.to_raw()
        };
        let current = reader.current(&case.id).await.unwrap();
        match &current {
            None => prop_assert_eq!(case.end(), 0),
            Some(current) => {
                let expected = folded(&case.id, &log[..case.end()]);
                prop_assert_eq!(rows(&current.document), expected.to_raw());
                prop_assert_eq!(current.pending as usize, case.end() - case.projected);
            }
        }
        for version in 1..=case.end() {
            let expected = folded(&case.id, &log[..version]).to_raw();
            let found = reader.at_version(&case.id, version as i64).await.unwrap().unwrap();
            prop_assert_eq!(rows(&found), expected.clone());
            let found = reader.at_time(&case.id, at(version as i64)).await.unwrap().unwrap();
            prop_assert_eq!(rows(&found), expected);
        }
        let beyond = reader.at_version(&case.id, case.end() as i64 + 1).await;
        match beyond {
            Ok(None) => prop_assert_eq!(case.end(), 0),
            Err(ReadError::VersionAhead { exists, .. }) => {
                prop_assert_eq!(exists as usize, case.end());
            }
            other => prop_assert!(false, "beyond the end: {:?}", other),
        }
        prop_assert!(reader.at_time(&case.id, at(0)).await.unwrap().is_none());
        Ok(())
    });
}

#[test]
fn the_pages_of_a_history_are_the_log_as_it_stands() {
    on_random_histories(async |case, reader| {
        let mut versions = Vec::new();
        let mut after = Some(0);
        while let Some(from) = after {
            let page = reader.history(&case.id, from, case.limit).await.unwrap();
            prop_assert!(page.events.len() <= case.limit as usize);
            versions.extend(page.events.iter().map(|event| event.version));
            after = page.next;
        }
        let expected: Vec<i64> = (1..=case.events.len())
            .filter(|version| case.hole != Some(*version))
            .map(|version| version as i64)
            .collect();
        prop_assert_eq!(versions, expected);
        Ok(())
    });
}
