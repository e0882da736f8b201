//! The cases with which clients test a fold of their own (`examples/patches.json`): each says what this crate and a real
//! server make of it. A server knows no merges, so those are compared with this crate alone.

use alluvium::model::{
    patch::merge,
    state::{Limits, State},
};
use bson::{Bson, Document, RawDocumentBuf};
use serde_json::Value;

use crate::generate::Case;
use crate::sides::{self, Outcome, Server};

/// Fewer would say that the file was not read.
const CASES_MIN: usize = 40;

#[tokio::test]
async fn what_clients_test_their_fold_with_is_true() {
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("../../examples/patches.json")).unwrap();
    assert!(vectors.len() >= CASES_MIN);
    let mut server = Server::start().await;
    for vector in &vectors {
        let name = vector["name"].as_str().unwrap();
        let state = document(&vector["state"]);
        let found = match vector.get("merge") {
            Some(changes) => vec![merged(&state, &document(changes))],
            None => {
                let case = Case { state, patch: document(&vector["patch"]), filters: Vec::new() };
                let theirs = server.outcomes(std::slice::from_ref(&case)).await;
                [theirs, vec![sides::ours(&case)]].concat()
            }
        };
        for outcome in found {
            check(name, vector, &outcome);
        }
    }
}

#[track_caller]
fn check(name: &str, vector: &Value, outcome: &Outcome) {
    match outcome {
        Outcome::State(state) => {
            let expected = vector.get("result").unwrap_or_else(|| panic!("{name}: not refused"));
            assert_eq!(*state, raw(&document(expected)), "{name}");
        }
        Outcome::Refused(_) => assert_eq!(vector.get("refused"), Some(&true.into()), "{name}"),
        Outcome::Crashed => panic!("{name}: the server did not survive it"),
    }
}

fn merged(state: &Document, changes: &Document) -> Outcome {
    let mut state = State::from_raw(&raw(state)).unwrap();
    match merge(&mut state, &raw(changes), &Limits::default()) {
        Ok(()) => Outcome::State(state.to_raw()),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

fn document(json: &Value) -> Document {
    match Bson::try_from(json.clone()).unwrap() {
        Bson::Document(document) => document,
        other => panic!("{other} is no document"),
    }
}

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}
