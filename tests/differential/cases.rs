//! Cases that were wrong once, with what the server made of them. `cases.jsonl` has one a line, as canonical
//! Extended JSON: `{state, patch, array_filters?, server}`, where `server` is the state afterwards as text, or
//! `refused: …`. A document in which a name is repeated is `{"$pairs": [[name, value], ..]}`, and a value within so
//! many arrays `{"$nested": [levels, value]}`.

use bson::{Bson, RawArrayBuf, RawBson, RawDocumentBuf};
use serde_json::Value;

use crate::sides::{self, Outcome};

/// Patterns that are refused here on purpose, though the server has an answer.
const REFUSED: [&str; 14] = [
    // What a script is has changed.
    r"^\p{Latin}+$",
    // Options in front that change what characters are, and verbs that steer the search.
    r"(*UCP)^\w+$",
    "(*UCP)[[:alpha:]]",
    "(*ACCEPT)",
    "(*COMMIT)a",
    "(*THEN)a",
    // Clusters of characters have changed.
    r"\X",
    // Escapes that mean nothing.
    r"\x",
    r"\j",
    r"[\A]",
    r"[\X]",
    // The server gives up and takes it for no match.
    "(a|aa)+b|c",
    // Case of characters that are newer than the server.
    "в",
    "𐒰",
];

#[test]
fn cases_that_were_wrong_are_right_or_refused() {
    let mut wrong = Vec::new();
    let mut refused = 0;
    for line in include_str!("cases.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let pattern = case["patch"]["$pull"]["a"]["$regex"].as_str().unwrap_or_default();
        let expected = case["server"].as_str().unwrap();
        let outcome = ours(&case);
        let right = match &outcome {
            Outcome::State(state) => {
                !expected.starts_with("refused") && *state == document(&parsed(expected))
            }
            Outcome::Refused(_) if expected.starts_with("refused") => true,
            Outcome::Refused(_) => {
                refused += 1;
                REFUSED.contains(&pattern)
            }
            Outcome::Crashed => false,
        };
        if !right {
            wrong.push(format!("{}\n  ours   {outcome:?}\n  theirs {expected}", case["patch"]));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(refused, REFUSED.len(), "one of those that are refused is not any more");
}

/// The patterns of the cases, which are worth a second look from nearby.
pub(crate) fn patterns() -> impl Iterator<Item = String> {
    include_str!("cases.jsonl").lines().filter_map(|line| {
        let pattern = parsed(line)["patch"]["$pull"]["a"]["$regex"].as_str()?.to_owned();
        Some(pattern)
    })
}

fn ours(case: &Value) -> Outcome {
    let filters = case.get("array_filters").map(|filters| match value(filters) {
        RawBson::Array(filters) => filters,
        other => panic!("{other:?} are no filters"),
    });
    sides::applied(&document(&case["state"]), &document(&case["patch"]), filters.as_deref())
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn document(json: &Value) -> RawDocumentBuf {
    match value(json) {
        RawBson::Document(document) => document,
        other => panic!("{other:?} is no document"),
    }
}

fn value(json: &Value) -> RawBson {
    match json {
        Value::Array(items) => RawBson::Array(items.iter().map(value).collect()),
        Value::Object(fields) => match (fields.get("$pairs"), fields.get("$nested")) {
            (Some(pairs), _) => {
                let pairs = pairs.as_array().unwrap().iter();
                fields_of(pairs.map(|pair| (pair[0].as_str().unwrap(), &pair[1])))
            }
            (_, Some(nested)) => {
                let levels = nested[0].as_u64().unwrap();
                let wrap = |inner, _| RawBson::Array(RawArrayBuf::from_iter([inner]));
                (0..levels).fold(value(&nested[1]), wrap)
            }
            // A value of Extended JSON, or a document.
            _ => match Bson::try_from(json.clone()).unwrap() {
                Bson::Document(_) => fields_of(fields.iter().map(|(name, json)| (&**name, json))),
                other => RawBson::try_from(other).unwrap(),
            },
        },
        other => RawBson::try_from(Bson::try_from(other.clone()).unwrap()).unwrap(),
    }
}

fn fields_of<'a>(fields: impl Iterator<Item = (&'a str, &'a Value)>) -> RawBson {
    let mut document = RawDocumentBuf::new();
    for (name, json) in fields {
        let name = bson::raw::CString::try_from(name.to_owned()).unwrap();
        document.append(name, value(json));
    }
    RawBson::Document(document)
}
