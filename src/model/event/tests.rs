//! Which events are well formed, and what is said of those that are not.

use super::*;
use bson::{RawDocumentBuf, doc};

fn check(event: bson::Document, expected: Result<Op, &str>) {
    let raw = RawDocumentBuf::try_from(&event).unwrap();
    match (Event::decode(&raw), expected) {
        (Ok(event), Ok(op)) => assert_eq!(event.change.op(), op),
        (Err(error), Err(part)) => {
            assert!(error.to_string().contains(part), "{error} does not say {part}");
        }
        (found, expected) => panic!("{event}: expected {expected:?}, found {found:?}"),
    }
}

fn event(fields: bson::Document) -> bson::Document {
    let mut event =
        doc! { "_id": { "d": "a", "s": 2 }, "client": "c", "at": DateTime::from_millis(0) };
    event.extend(fields);
    event
}

#[test]
fn well_formed_events_are_read() {
    check(event(doc! { "op": "create", "state": {} }), Ok(Op::Create));
    check(event(doc! { "op": "update", "patch": {} }), Ok(Op::Update));
    check(event(doc! { "op": "update", "patch": {}, "array_filters": [] }), Ok(Op::Update));
    check(event(doc! { "op": "update", "merge": {} }), Ok(Op::Update));
    check(event(doc! { "op": "delete", "extra": 1, "type": "x" }), Ok(Op::Delete));
    check(event(doc! { "op": "delete", "_id": { "d": 5.0, "s": 7.0 } }), Ok(Op::Delete));
}

#[test]
fn a_key_is_the_same_whichever_document_is_near() {
    let ids: [bson::Bson; 5] = ["a".into(), "b".into(), "".into(), 7.into(), 7.0.into()];
    let near =
        [DocumentId::String("a".into()), DocumentId::String("b".into()), DocumentId::Integer(7)];
    for id in ids {
        let event = event(doc! { "op": "delete", "_id": { "d": id, "s": 2 } });
        let raw = RawDocumentBuf::try_from(&event).unwrap();
        let alone = EventKey::from_event(&raw);
        for near in &near {
            assert_eq!(EventKey::from_event_near(&raw, Some(near)), alone);
        }
    }
}

#[test]
fn what_is_said_of_an_event_is_short_however_long_the_event_is() {
    let long = "x".repeat(1_000_000);
    let nested = |value: bson::Bson| doc! { "d": "a", "s": value };
    for fields in [
        doc! { "op": &long },
        doc! { "op": "delete", "client": &long },
        doc! { "op": "delete", "_id": { &long: 1, "s": 2 } },
        doc! { "op": "delete", "_id": { "d": &long, "s": 2 } },
        doc! { "op": "delete", "_id": nested(long.as_str().into()) },
        doc! { "op": "delete", "_id": nested(doc! { "a": &long }.into()) },
        doc! { "op": "delete", "_id": nested(f64::MAX.into()) },
    ] {
        let raw = RawDocumentBuf::try_from(&event(fields)).unwrap();
        let message = Event::decode(&raw).unwrap_err().to_string();
        assert!(message.len() < 1_000, "{} bytes: {}", message.len(), &message[..100]);
    }
}

#[test]
fn malformed_events_are_refused_by_the_name_of_the_field() {
    let key = |key: bson::Document| event(doc! { "op": "delete", "_id": key });
    check(key(doc! { "s": 2, "d": "a" }), Err("`_id` must be {d:"));
    check(key(doc! { "d": "a", "s": 2, "x": 1 }), Err("more than two"));
    check(key(doc! { "d": "a" }), Err("`s` is missing"));
    check(key(doc! { "d": true, "s": 2 }), Err("`_id.d`"));
    for version in [bson::Bson::Int32(0), 1.5.into(), (1_i64 << 53).into(), "2".into()] {
        check(key(doc! { "d": "a", "s": version }), Err("`_id.s`"));
    }
    check(event(doc! { "op": "delete", "client": ["c"] }), Err("`client` must be a string"));
    check(event(doc! { "op": "delete", "client": "a.b" }), Err("`client` must be 1 to 128"));
    check(event(doc! { "op": "upsert" }), Err("`op` must be create"));
    check(event(doc! {}), Err("`op` is missing"));
    check(event(doc! { "op": "create" }), Err("carries `state`"));
    check(event(doc! { "op": "create", "state": { "_id": 1 } }), Err("without an `_id`"));
    check(event(doc! { "op": "create", "state": {}, "patch": {} }), Err("carries `state`"));
    check(event(doc! { "op": "update", "patch": {}, "merge": {} }), Err("exactly one of"));
    check(
        event(doc! { "op": "update", "merge": {}, "array_filters": [] }),
        Err("only with `patch`"),
    );
    check(event(doc! { "op": "delete", "state": {} }), Err("carries none"));
    check(event(doc! { "op": "delete", "at": 5 }), Err("`at` must be a date"));
    check(event(doc! { "op": "delete", "_id": { "d": "a", "s": 1 } }), Err("begins with a create"));
}
