//! The server's own check of every event on arrival: the same judgement as [`crate::model::event`],
//! said in MongoDB's language. It runs on every append, so its form was chosen by measuring
//! (`benches/README.md`): what every event has in a `$jsonSchema`, which does not look inside arrays and whose
//! descriptions come back with the error; what depends on the operation in plain operators, of which
//! one branch is walked where a schema looks at every property; the order of the key's fields by
//! comparing whole keys; sizes alone in an `$expr`.

use bson::{Binary, Bson, Document, doc, oid::ObjectId, spec::BinarySubtype};

use crate::model::{
    base::VERSION_MIN,
    clock::CLIENT_RULE,
    event::BASE_OP,
    id::{INTEGER_MAX, STRING_ID_BYTES_MAX},
    skip::FILLER_CLIENT,
};

/// The printable characters of ASCII without `$` and `.`. The end is `\z`, since `$` would let a
/// newline follow.
const CLIENT_PATTERN: &str = r"^[ -#%-\-/-~]{1,128}\z";

/// The bits of a 64-bit integer that a number from 0 to 2^53 - 1 leaves clear.
const HIGH_BITS: std::ops::Range<i32> = 53..64;

/// The most bytes of a key whose string id cannot be too long: its length prefixes, names and
/// terminators take 20 bytes when the version is an int, and 24 otherwise.
const SHORT_KEY_BYTES: i64 = STRING_ID_BYTES_MAX as i64 + 20;

/// The validator of a log whose events may have up to `max_event_bytes`.
///
/// It judges what the fold relies on and a validator can see. It leaves alone what the fold ignores (`id`, `type`, `meta`,
/// unknown fields). It cannot see what depends on earlier events, the clients that `seen` names, a name that
/// stands twice, or a text that is not UTF-8.
pub fn validator(max_event_bytes: u64) -> Document {
    doc! { "$and": [
        { "$jsonSchema": schema() },
        { "_id.s": { "$bitsAllClear": HIGH_BITS.collect::<Vec<i32>>() } },
        { "$or": keys() },
        { "$or": operations().into_iter().chain([base()]).collect::<Vec<Document>>() },
        { "$expr": sizes(max_event_bytes) },
    ] }
}

fn schema() -> Document {
    let client = format!("client: {CLIENT_RULE}");
    doc! {
        "title": "an event",
        "required": ["client", "at"],
        "properties": {
            "_id": {
                "description": "_id: {d: <document id>, s: <version>}, these two in this order; s is an integer from 1 to 2^53 - 1",
                "maxProperties": 2,
                "properties": { "s": { "bsonType": ["int", "long", "double"] } },
            },
            "client": { "description": client, "bsonType": "string", "pattern": CLIENT_PATTERN },
            "at": { "description": "at: a date, the writer's clock", "bsonType": "date" },
            "seen": { "description": "seen: a document of clients and counts", "bsonType": "object" },
            "op": { "description": "op: create, update or delete (base is the daemon's)", "bsonType": "string" },
        },
    }
}

/// The keys of each type of document id. A range of whole keys fixes type, name and place of their
/// first field at once.
fn keys() -> [Document; 4] {
    let uuid = |byte| Binary { subtype: BinarySubtype::Uuid, bytes: vec![byte; 16] };
    let range = |least: Document, most: Document| doc! { "_id": { "$gt": least, "$lt": most } };
    let all = |least: Bson, most: Bson| {
        range(doc! { "d": least, "s": Bson::MinKey }, doc! { "d": most, "s": Bson::MaxKey })
    };
    let mut integers = all((-INTEGER_MAX).into(), INTEGER_MAX.into());
    // No bit is asked for, which every integral number satisfies and no other value.
    integers.insert("_id.d", doc! { "$bitsAllClear": [], "$not": { "$type": "decimal" } });
    [
        all(ObjectId::from_bytes([0; 12]).into(), ObjectId::from_bytes([0xff; 12]).into()),
        range(doc! { "d": "", "s": Bson::MaxKey }, doc! { "d": {} }),
        all(uuid(0).into(), uuid(0xff).into()),
        integers,
    ]
}

/// What goes with each operation, the most frequent first. That `s` is at least 1 follows here.
fn operations() -> [Document; 4] {
    let operation = |op: &str, has: Option<&str>, lacks: &[&str], above: i32| {
        let mut rule = doc! { "op": op };
        // `$type` alone would find a document inside an array.
        let document = doc! { "$type": "object", "$not": { "$type": "array" } };
        has.iter().for_each(|field| drop(rule.insert(*field, document.clone())));
        lacks.iter().for_each(|field| drop(rule.insert(*field, doc! { "$exists": false })));
        rule.insert("_id.s", doc! { "$gt": above });
        rule
    };
    let mut patch = operation("update", Some("patch"), &["state", "merge"], 1);
    let no_array = doc! { "$exists": true, "$not": { "$type": "array" } };
    patch.insert("$nor", [doc! { "array_filters": no_array }]);
    [
        patch,
        operation("create", Some("state"), &["state._id", "patch", "merge", "array_filters"], 0),
        operation("update", Some("merge"), &["state", "patch", "array_filters"], 1),
        operation("delete", None, &["state", "patch", "merge", "array_filters"], 1),
    ]
}

/// A base, by its shape: what it says is proven by its hash, by whoever reads it. One that was damaged parks its document,
/// and whoever may insert could as well have inserted a create.
fn base() -> Document {
    let document = || doc! { "$type": "object", "$not": { "$type": "array" } };
    doc! {
        "op": BASE_OP, "_id.s": 1, "client": FILLER_CLIENT, "version": { "$gte": VERSION_MIN },
        "clock": document(), "pruned": { "$gte": 1 }, "hash": { "$type": "binData" },
        "fold": { "$type": "number" }, "at_max": { "$type": "date" }, "based_at": { "$type": "date" },
        "$or": [
            { "state": document(), "deleted": { "$exists": false } },
            { "state": { "$exists": false }, "deleted": true },
        ],
    }
}

fn sizes(max_event_bytes: u64) -> Document {
    let id_bytes = doc! { "$cond": [
        { "$eq": [{ "$type": "$_id.d" }, "string"] }, { "$strLenBytes": "$_id.d" }, 0,
    ] };
    doc! { "$and": [
        { "$or": [
            { "$lte": [{ "$bsonSize": "$$ROOT" }, i64::try_from(max_event_bytes).unwrap_or(i64::MAX)] },
            { "$eq": ["$op", BASE_OP] },
        ] },
        { "$or": [
            { "$lte": [{ "$bsonSize": "$_id" }, SHORT_KEY_BYTES] },
            { "$lte": [id_bytes, STRING_ID_BYTES_MAX as i64] },
        ] },
    ] }
}
