//! What the API says of values.

use super::*;
use crate::api::value::DATES;
use bson::{JavaScriptCodeWithScope, doc};
use proptest::{
    collection::{hash_map, vec},
    prelude::*,
};

fn stored(notation: Notation, event: &StoredEvent) -> Value {
    tree(&Event::stored(notation, event))
}

fn projected(notation: Notation, document: &Document) -> Value {
    tree(&Projected { notation, document, waits: None })
}

fn written(notation: Notation, event: bson::Document) -> String {
    let raw = RawDocumentBuf::try_from(&event).unwrap();
    let event = StoredEvent { version: 7, is_skipped: false, raw };
    // As it is sent, and the tree of it is the same.
    let text = serde_json::to_string(&Event::stored(notation, &event)).unwrap();
    assert_eq!(stored(notation, &event).to_string(), text);
    text
}

#[test]
fn an_event_is_written_with_its_fields_in_order() {
    let at = DateTime::from_millis(1_500);
    let event = doc! {
        "_id": { "d": "a", "s": 7.0 }, "meta": { "z": 1_i64, "a": 2.0 }, "client": "c", "op": "update",
        "at": at, "patch": { "$set": { "z": 1_i32, "a": at } }, "seen": { "b": 2.0, "a": 1_i64 },
        "other": "ignored", "id": 5_i64,
    };
    assert_eq!(
        written(Notation::Relaxed, event.clone()),
        r#"{"version":7,"client":"c","op":"update","#.to_owned()
            + r#""patch":{"$set":{"z":1,"a":{"$date":"1970-01-01T00:00:01.5Z"}}},"#
            + r#""at":"1970-01-01T00:00:01.5Z","id":5,"meta":{"z":1,"a":2.0},"seen":{"a":1,"b":2}}"#
    );
    assert_eq!(
        written(Notation::Canonical, event),
        r#"{"version":7,"client":"c","op":"update","#.to_owned()
            + r#""patch":{"$set":{"z":{"$numberInt":"1"},"a":{"$date":{"$numberLong":"1500"}}}},"#
            + r#""at":"1970-01-01T00:00:01.5Z","id":{"$numberLong":"5"},"#
            + r#""meta":{"z":{"$numberLong":"1"},"a":{"$numberDouble":"2.0"}},"seen":{"a":1,"b":2}}"#
    );
}

#[test]
fn a_poison_event_is_written_as_it_stands() {
    let event =
        doc! { "_id": { "d": "a", "s": 7 }, "client": ["c"], "op": 5, "at": "soon", "seen": 1 };
    let expected = r#"{"version":7,"client":["c"],"op":5,"at":"soon","seen":1}"#;
    assert_eq!(written(Notation::Relaxed, event), expected);
}

/// Any value of BSON, but for names that begin with `$`, which Extended JSON gives a meaning, and numbers
/// that are not a number, which are not equal to themselves.
fn values() -> impl Strategy<Value = Bson> {
    let text = || proptest::string::string_regex("[a-z\u{e9}\u{1f600}\u{0}]{0,3}").unwrap();
    let symbol = |text: String| text.replace('\0', "");
    let millis = prop_oneof![
        any::<i64>(),
        Just(*DATES.end()),
        Just(DATES.end() + 1),
        Just(0),
        Just(-1),
        -2_000_000_000_000_i64..300_000_000_000_000,
    ];
    let binary = (any::<u8>(), vec(any::<u8>(), 0..20)).prop_map(|(subtype, bytes)| {
        Bson::Binary(Binary { subtype: BinarySubtype::from(subtype), bytes })
    });
    let leaf = prop_oneof![
        any::<f64>().prop_filter("a number", |number| !number.is_nan()).prop_map(Bson::Double),
        text().prop_map(Bson::String),
        binary,
        any::<[u8; 12]>().prop_map(|bytes| Bson::ObjectId(bytes.into())),
        any::<bool>().prop_map(Bson::Boolean),
        millis.prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        Just(Bson::Null),
        Just(Bson::Undefined),
        Just(Bson::MinKey),
        Just(Bson::MaxKey),
        text().prop_map(move |text| {
            let pattern = symbol(text).try_into().unwrap();
            let options = "im".to_owned().try_into().unwrap();
            Bson::RegularExpression(bson::Regex { pattern, options })
        }),
        text().prop_map(Bson::JavaScriptCode),
        text().prop_map(Bson::Symbol),
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<(u32, u32)>()
            .prop_map(|(time, increment)| { Bson::Timestamp(bson::Timestamp { time, increment }) }),
        (any::<i64>(), -40..40).prop_map(|(digits, exponent)| {
            Bson::Decimal128(format!("{digits}E{exponent}").parse().unwrap())
        }),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let names = "[a-z\u{e9}.]{0,3}";
        let document = hash_map(names, inner.clone(), 0..4)
            .prop_map(|fields| fields.into_iter().collect::<bson::Document>());
        prop_oneof![
            document.clone().prop_map(Bson::Document),
            vec(inner, 0..4).prop_map(Bson::Array),
            ("[a-z]{0,3}", document).prop_map(|(code, scope)| {
                Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code, scope })
            }),
        ]
    })
}

/// What the specification of Extended JSON v2 says of the relaxed form.
fn is_relaxed(json: &Value, value: &Bson) -> bool {
    match value {
        Bson::Int32(number) => *json == json!(number),
        Bson::Int64(number) => *json == json!(number),
        Bson::Double(number) if number.is_finite() => *json == json!(number),
        Bson::DateTime(at) if DATES.contains(&at.timestamp_millis()) => {
            let text = json["$date"].as_str().unwrap();
            text.len() <= 24 && DateTime::parse_rfc3339_str(text).unwrap() == *at
        }
        Bson::Document(fields) => {
            let json = json.as_object().unwrap();
            json.len() == fields.len()
                && fields
                    .iter()
                    .zip(json)
                    .all(|((name, value), (other, json))| name == other && is_relaxed(json, value))
        }
        Bson::Array(items) => {
            let json = json.as_array().unwrap();
            json.len() == items.len()
                && items.iter().zip(json).all(|(item, json)| is_relaxed(json, item))
        }
        Bson::JavaScriptCodeWithScope(code) => {
            json["$code"] == code.code && is_relaxed(&json["$scope"], &code.scope.clone().into())
        }
        other => *json == other.clone().into_canonical_extjson(),
    }
}

proptest! {
    /// Every value in every place: the canonical form is read back as it was, the relaxed one is as specified.
    #[test]
    fn a_value_is_answered_as_it_is(value in values()) {
        let places = ["client", "op", "state", "patch", "array_filters", "merge", "id", "type", "meta"];
        for place in places.into_iter().chain(["at", "seen"]) {
            if place == "at" && matches!(value, Bson::DateTime(_))
                || place == "seen" && value.as_document().is_some_and(|seen| seen.iter().all(|(_, count)| {
                    matches!(count, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_))
                }))
            {
                continue;
            }
            let raw = RawDocumentBuf::try_from(&doc! { "_id": 1, place: value.clone() }).unwrap();
            let event = StoredEvent { version: 7, is_skipped: false, raw };
            let json = stored(Notation::Canonical, &event)[place].clone();
            prop_assert_eq!(&Bson::try_from(json).unwrap(), &value, "{}", place);
            prop_assert!(is_relaxed(&stored(Notation::Relaxed, &event)[place], &value), "{}", place);
        }
        let mut document = Document::new(crate::model::id::DocumentId::Integer(1));
        let state = doc! { "a": [value.clone()], "b": value };
        let raw = RawDocumentBuf::try_from(&state).unwrap();
        document.body = crate::model::document::Body::Live(crate::model::state::State::from_raw(&raw).unwrap());
        let json = projected(Notation::Canonical, &document)["state"].clone();
        prop_assert_eq!(Bson::try_from(json).unwrap(), Bson::Document(state.clone()));
        prop_assert!(is_relaxed(&projected(Notation::Relaxed, &document)["state"], &state.into()));
    }
}

#[test]
fn what_cannot_be_read_is_told_with_its_bytes_and_never_as_null() {
    let bad = b"\xff\xfe\xfd";
    let text = [&4_u32.to_le_bytes()[..], bad, &[0]].concat();
    let mut event = RawValue::new(tag::STRING, &text).in_document(b"id");
    let state = RawValue::new(tag::STRING, &text).in_document(b"name");
    let wrapped = RawValue::new(tag::DOCUMENT, &state).in_document(b"state");
    event.pop();
    event.extend_from_slice(&wrapped[4..]);
    let length = event.len() as u32;
    event[..4].copy_from_slice(&length.to_le_bytes());
    let raw = RawDocumentBuf::from_bytes(event).unwrap();
    let event = StoredEvent { version: 7, is_skipped: false, raw };
    for notation in [Notation::Relaxed, Notation::Canonical] {
        let json = stored(notation, &event);
        for (place, path) in [("id", "`id`"), ("state", "`state.name`")] {
            let told = &json[place]["$unreadable"];
            assert!(told["reason"].as_str().unwrap().starts_with(path), "{json}");
            let bytes = Bson::try_from(told["bson"].clone()).unwrap();
            let Bson::Binary(bytes) = bytes else { panic!("{json}") };
            assert!(bytes.bytes.windows(3).any(|window| window == bad), "{json}");
        }
    }
}
