//! The server's validator and the model's own reading of events must judge alike: what one lets
//! through the other accepts. Both are held against one table, and against events that are nearly
//! well-formed, made at random.
//!
//! What they differ in, on purpose: the size of an event is the validator's alone (the projector
//! compares it with its own limit), and of a field that stands twice in one event the validator sees the first and
//! the reader the last.

mod common;

use std::collections::BTreeMap;

use alluvium::{
    config::CollectionConfig, log::create::Differing, model::event::Event, setup::prepare,
};
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, RawDocumentBuf, Regex, Timestamp, doc,
    oid::ObjectId, rawdoc, spec::BinarySubtype,
};
use common::database;
use mongodb::Database;

/// Above the model's own limits, so that they are what is compared.
const EVENT_BYTES_MAX: u64 = 64 << 10;

async fn prepared() -> Database {
    let db = database().await.db;
    let config =
        CollectionConfig { max_event_bytes: EVENT_BYTES_MAX, ..CollectionConfig::new("games") };
    prepare(&db, &[config], Differing::Warn).await.unwrap();
    db
}

/// What the server makes of each event: nothing, or its error. An event whose key is taken has
/// passed the validator.
async fn judge(db: &Database, events: &[RawDocumentBuf]) -> BTreeMap<usize, Document> {
    let mut documents = bson::RawArrayBuf::new();
    events.iter().for_each(|event| documents.push(event.clone()));
    let command = rawdoc! { "insert": "games.events", "documents": documents, "ordered": false };
    let reply = db.run_raw_command(command).await.unwrap();
    let errors = reply.get_array("writeErrors").cloned().unwrap_or_default();
    let errors = errors.iter().map(|error| error.as_document().unwrap().clone());
    errors
        .filter(|error| error.get_i32("code").unwrap() != 11000)
        .map(|error| (usize::try_from(error.get_i32("index").unwrap()).unwrap(), error))
        .collect()
}

fn raw(event: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(event).unwrap()
}

fn uuid(bytes: usize) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; bytes] })
}

fn base(d: impl Into<Bson>, s: impl Into<Bson>) -> Document {
    doc! { "_id": { "d": d.into(), "s": s.into() }, "client": "c", "at": DateTime::from_millis(0) }
}

fn with(mut event: Document, fields: Document) -> Document {
    event.extend(fields);
    event
}

fn without(mut event: Document, field: &str) -> Document {
    event.remove(field);
    event
}

fn delete(fields: Document) -> Document {
    with(with(base("a", 2), doc! { "op": "delete" }), fields)
}

fn keyed(d: impl Into<Bson>, s: impl Into<Bson>) -> Document {
    with(base(d, s), doc! { "op": "create", "state": {} })
}

fn good() -> Vec<Document> {
    let long = "x".repeat(1024);
    vec![
        keyed("a", 1),
        keyed("a", 2_i64),
        keyed("a", 3.0),
        keyed("a", (1_i64 << 53) - 1),
        keyed("a", ((1_i64 << 53) - 1) as f64),
        keyed("\0", 1),
        keyed(long.as_str(), 1),
        keyed(long.as_str(), 2_i64),
        keyed("ü".repeat(512), 1),
        keyed(ObjectId::from_bytes([0; 12]), 1),
        keyed(ObjectId::from_bytes([0xff; 12]), 1.0),
        keyed(uuid(16), 1),
        keyed(5, 1),
        keyed(5_i64, 2),
        keyed(5.0, 3),
        keyed(-0.0, 1),
        keyed((1_i64 << 53) - 1, 1),
        keyed(-((1_i64 << 53) - 1), 1),
        keyed(-(((1_i64 << 53) - 1) as f64), 2),
        with(base("b", 1), doc! { "op": "create", "state": { "a": { "_id": 1 } } }),
        with(base("b", 2), doc! { "op": "update", "patch": { "$inc": { "n": 1 } } }),
        with(base("b", 3), doc! { "op": "update", "patch": {}, "array_filters": [{ "x": 1 }] }),
        with(base("b", 4), doc! { "op": "update", "merge": { "a": null } }),
        with(base("b", 5), doc! { "op": "delete" }),
        delete(doc! { "client": "~ !x-Y/0" }),
        delete(doc! { "client": "x".repeat(128) }),
        delete(
            doc! { "id": "mark", "seen": { "c": 1 }, "type": "Deleted", "meta": {}, "other": [1] },
        ),
    ]
}

/// Malformed events, each with the field that the error must name.
fn bad() -> Vec<(&'static str, Document)> {
    let key = |key: Document| delete(doc! { "_id": key });
    let beyond = 1_i64 << 53;
    let decimal: Decimal128 = "2".parse().unwrap();
    let mut table = vec![
        ("_id", without(keyed("a", 1), "_id")),
        ("seen", delete(doc! { "seen": 5 })),
        ("seen", delete(doc! { "seen": [{ "c": 1 }] })),
        ("_id", delete(doc! { "_id": ObjectId::new() })),
        ("_id", delete(doc! { "_id": 5 })),
        ("_id", key(doc! {})),
        ("_id", key(doc! { "d": "a" })),
        ("_id", key(doc! { "s": 2 })),
        ("_id", key(doc! { "s": 2, "d": "a" })),
        ("_id", key(doc! { "s": 2, "d": 5 })),
        ("_id", key(doc! { "s": 2, "d": ObjectId::new() })),
        ("_id", key(doc! { "d": "a", "s": 2, "x": 1 })),
        ("_id", key(doc! { "d": "a", "x": 2 })),
        ("_id", key(doc! { "x": 1, "d": "a", "s": 2 })),
        ("client", without(delete(doc! {}), "client")),
        ("at", without(delete(doc! {}), "at")),
        ("op", without(delete(doc! {}), "op")),
        ("at", delete(doc! { "at": "2026-01-01" })),
        ("at", delete(doc! { "at": [DateTime::from_millis(0)] })),
        ("op", delete(doc! { "op": "upsert" })),
        ("op", delete(doc! { "op": ["delete"] })),
        ("op", delete(doc! { "op": null })),
        ("state", delete(doc! { "op": "create" })),
        ("state", delete(doc! { "op": "create", "state": 1 })),
        ("state", delete(doc! { "op": "create", "state": [{}] })),
        ("state", delete(doc! { "op": "create", "state": { "_id": 1 } })),
        ("patch", delete(doc! { "op": "create", "state": {}, "patch": {} })),
        ("merge", delete(doc! { "op": "create", "state": {}, "merge": {} })),
        ("array_filters", delete(doc! { "op": "create", "state": {}, "array_filters": [] })),
        ("patch", delete(doc! { "op": "update" })),
        ("merge", delete(doc! { "op": "update", "patch": {}, "merge": {} })),
        ("state", delete(doc! { "op": "update", "patch": {}, "state": {} })),
        ("patch", delete(doc! { "op": "update", "patch": [{}] })),
        ("patch", delete(doc! { "op": "update", "patch": null })),
        ("merge", delete(doc! { "op": "update", "merge": [{}] })),
        ("merge", delete(doc! { "op": "update", "merge": null })),
        ("array_filters", delete(doc! { "op": "update", "patch": {}, "array_filters": {} })),
        ("array_filters", delete(doc! { "op": "update", "merge": {}, "array_filters": [] })),
        ("state", delete(doc! { "state": {} })),
        ("patch", delete(doc! { "patch": null })),
        ("_id", with(base("a", 1), doc! { "op": "delete" })),
        ("_id", with(base("a", 1.0), doc! { "op": "update", "patch": {} })),
        ("_id", with(base("a", 1), doc! { "op": "update", "merge": {} })),
    ];
    let versions: [Bson; 13] = [
        0.into(),
        (-1).into(),
        1.5.into(),
        0.0.into(),
        (-0.0).into(),
        beyond.into(),
        (beyond as f64).into(),
        f64::NAN.into(),
        f64::INFINITY.into(),
        i64::MIN.into(),
        "2".into(),
        decimal.into(),
        Bson::Array(vec![2.into()]),
    ];
    table.extend(versions.into_iter().map(|version| ("_id", keyed("a", version))));
    let ids: [Bson; 20] = [
        "".into(),
        "x".repeat(1025).into(),
        "ü".repeat(513).into(),
        "€".repeat(1000).into(),
        5.5.into(),
        beyond.into(),
        (-beyond).into(),
        (beyond as f64).into(),
        f64::NAN.into(),
        f64::NEG_INFINITY.into(),
        decimal.into(),
        true.into(),
        Bson::Null,
        Bson::Array(vec!["a".into()]),
        doc! { "a": 1 }.into(),
        uuid(15),
        uuid(17),
        Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![7; 16] }),
        DateTime::from_millis(0).into(),
        Bson::Timestamp(Timestamp { time: 1, increment: 1 }),
    ];
    table.extend(ids.into_iter().map(|id| ("_id", keyed(id, 1))));
    let names: [Bson; 12] = [
        "".into(),
        "a.b".into(),
        "$a".into(),
        "a\n".into(),
        "\n".into(),
        "a\0".into(),
        "a\x7f".into(),
        "ü".into(),
        "x".repeat(129).into(),
        5.into(),
        Bson::Null,
        Bson::Array(vec!["ok".into(), 5.into()]),
    ];
    table.extend(names.into_iter().map(|name| ("client", delete(doc! { "client": name }))));
    table
}

#[tokio::test]
async fn well_formed_events_pass_both() {
    let db = prepared().await;
    let events: Vec<RawDocumentBuf> = good().iter().map(raw).collect();
    let refused = judge(&db, &events).await;
    for (index, event) in events.iter().enumerate() {
        assert!(!refused.contains_key(&index), "{event:?}: {}", refused[&index]);
        Event::decode(event).unwrap_or_else(|error| panic!("{event:?}: {error}"));
    }
}

#[tokio::test]
async fn malformed_events_are_refused_by_both_and_the_server_names_the_field() {
    let db = prepared().await;
    let table = bad();
    let events: Vec<RawDocumentBuf> = table.iter().map(|(_, event)| raw(event)).collect();
    let refused = judge(&db, &events).await;
    for (index, (field, event)) in table.iter().enumerate() {
        let Some(error) = refused.get(&index) else { panic!("{event} was let in") };
        assert_eq!(error.get_i32("code").unwrap(), 121, "{error}");
        let details = error.get_document("errInfo").unwrap().get_document("details").unwrap();
        // As `"field"`, in `"field.of.its.own"`, or in an expression as `"$field"`.
        let named = [format!("\"{field}"), format!("\"${field}")];
        let details = details.to_string();
        assert!(named.iter().any(|name| details.contains(name)), "{event}: {details}");
        if *field != "_id" || event.contains_key("_id") {
            assert!(Event::decode(&events[index]).is_err(), "{event} can be read");
        }
    }
}

#[tokio::test]
async fn the_size_of_an_event_is_bounded() {
    let db = prepared().await;
    let sized = |bytes: usize| {
        let bare = raw(&with(base("a", 2), doc! { "op": "update", "patch": { "x": "" } }));
        let text = "x".repeat(bytes - bare.as_bytes().len());
        let event = raw(&with(base("a", 2), doc! { "op": "update", "patch": { "x": text } }));
        assert_eq!(event.as_bytes().len(), bytes);
        event
    };
    let limit = usize::try_from(EVENT_BYTES_MAX).unwrap();
    let refused = judge(&db, &[sized(limit), sized(limit + 1)]).await;
    assert_eq!(refused.keys().collect::<Vec<_>>(), [&1], "{refused:?}");
    assert!(refused[&1].to_string().contains("$bsonSize"), "{}", refused[&1]);
}

/// Makes events that are nearly well-formed.
struct Near(fastrand::Rng);

impl Near {
    fn event(&mut self) -> Document {
        let mut good = good();
        let mut event = good.swap_remove(self.0.usize(..good.len()));
        for _ in 0..self.0.usize(..4) {
            self.spoil(&mut event);
        }
        event
    }

    fn spoil(&mut self, event: &mut Document) {
        const FIELDS: [&str; 10] =
            ["client", "op", "at", "state", "patch", "merge", "array_filters", "id", "meta", "x"];
        let field = FIELDS[self.0.usize(..FIELDS.len())];
        match self.0.u8(..8) {
            0 => drop(event.remove(field)),
            1 => drop(event.insert(field, self.value())),
            2 => drop(event.insert("_id", doc! { "d": self.value(), "s": self.value() })),
            3 => drop(event.insert("_id", doc! { "d": "a", "s": self.value() })),
            4 => drop(event.insert("_id", doc! { "d": self.value(), "s": 2 })),
            5 => drop(event.insert("_id", doc! { "s": self.value(), "d": self.value() })),
            6 => drop(event.insert("op", ["create", "update", "delete"][self.0.usize(..3)])),
            _ => {
                let value = if self.0.bool() { doc! {}.into() } else { self.value() };
                let field = ["state", "patch", "merge"][self.0.usize(..3)];
                event.insert(field, value);
            }
        }
    }

    fn value(&mut self) -> Bson {
        let beyond = 1_i64 << 53;
        match self.0.u8(..20) {
            0 => self.0.i32(-2..4).into(),
            1 => i64::from(self.0.i32(-2..4)).into(),
            2 => (beyond - self.0.i64(0..3)).into(),
            3 => (self.0.i64(0..3) - beyond).into(),
            4 => f64::from(self.0.i32(-2..4)).into(),
            5 => (f64::from(self.0.i32(-4..8)) / 2.0).into(),
            6 => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 9e15, 9.1e15]
                [self.0.usize(..6)]
            .into(),
            7 => ["", "a", "a.b", "$", "a\n", "create", "delete"][self.0.usize(..7)].into(),
            8 => "x".repeat(self.0.usize(1018..1030)).into(),
            9 => "ü".repeat(self.0.usize(508..516)).into(),
            10 => "y".repeat(self.0.usize(126..131)).into(),
            11 => Bson::ObjectId(ObjectId::from_bytes([self.0.u8(..); 12])),
            12 => uuid(self.0.usize(15..18)),
            13 => Bson::Binary(Binary {
                subtype: BinarySubtype::Generic,
                bytes: vec![0; self.0.usize(0..20)],
            }),
            14 => Bson::Array((0..self.0.usize(..3)).map(|_| self.value()).collect()),
            15 => doc! { ["a", "_id", "d"][self.0.usize(..3)]: self.value() }.into(),
            16 => DateTime::from_millis(self.0.i64(-5..5)).into(),
            17 => Bson::Decimal128(["1", "1.5", "NaN"][self.0.usize(..3)].parse().unwrap()),
            18 => Bson::RegularExpression(Regex {
                pattern: "a".try_into().unwrap(),
                options: "".try_into().unwrap(),
            }),
            _ => [Bson::Null, Bson::MinKey, Bson::MaxKey, true.into()][self.0.usize(..4)].clone(),
        }
    }
}

#[tokio::test]
async fn nearly_well_formed_events_are_judged_alike() {
    let db = prepared().await;
    let mut near = Near(fastrand::Rng::with_seed(7));
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..10 {
        let events: Vec<RawDocumentBuf> = (0..500).map(|_| raw(&near.event())).collect();
        let errors = judge(&db, &events).await;
        for (index, event) in events.iter().enumerate() {
            match (Event::decode(event), errors.get(&index)) {
                (Ok(_), None) => passed += 1,
                (Err(_), Some(_)) => refused += 1,
                (Ok(_), Some(error)) => panic!("refused only by the server: {event:?}: {error}"),
                (Err(error), None) => panic!("refused only by the reader: {event:?}: {error}"),
            }
        }
    }
    assert!(passed > 500 && refused > 500, "{passed} passed, {refused} refused");
}
