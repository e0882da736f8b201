//! What the validator costs an append: the insert rate with each form of it, beside the rate without
//! any, in pairs that follow each other at once on the same server. `cargo bench --bench validator`.

use std::time::{Duration, Instant};

use alluvium::{
    database::create::clustered,
    embedded::{Mongod, Options},
    log::validator::validator,
};
use bson::{DateTime, Document, RawArrayBuf, RawDocumentBuf, doc, oid::ObjectId, rawdoc};
use mongodb::{Client, Database};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Events per run of bulk inserts, and how many of them one command carries.
const BULK_EVENTS: usize = 20_000;
const BULK_SIZE: usize = 1_000;
/// Events per run of single inserts at majority.
const SINGLE_EVENTS: usize = 500;
const PAIRS: usize = 15;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mongod = Mongod::start(Options { cache_mib: 1024, ..Options::default() }).await?;
    let client = Client::with_uri_str(mongod.uri()).await?;
    let database = client.database("bench");
    println!("| form | bulk, w: 1 | events/s | one by one, majority | events/s |");
    println!("|---|---|---|---|---|");
    for (name, form) in forms() {
        let bulk = compare(&database, &form, Load { events: BULK_EVENTS, size: BULK_SIZE }).await?;
        let single = compare(&database, &form, Load { events: SINGLE_EVENTS, size: 1 }).await?;
        println!("| {name} | {bulk} | {single} |");
    }
    mongod.stop().await?;
    Ok(())
}

/// The validator in use, parts of it, and the obvious way to write it.
fn forms() -> Vec<(&'static str, Document)> {
    let ours = validator(4 << 20);
    let part = |at: usize| match ours.get_array("$and").map(|parts| &parts[at]) {
        Ok(bson::Bson::Document(part)) => part.clone(),
        _ => doc! {},
    };
    vec![
        ("none (noise of the method)", doc! {}),
        ("the validator", ours.clone()),
        ("its `$jsonSchema` alone", part(0)),
        ("its keys alone", doc! { "$and": [part(1), part(2)] }),
        ("its operations alone", part(3)),
        ("its sizes (`$expr`) alone", part(4)),
        ("one `$jsonSchema` for all but order and sizes", doc! { "$jsonSchema": schema_only() }),
    ]
}

/// What a first attempt looks like: everything that can be said in a schema, said in it.
fn schema_only() -> Document {
    let lacks = |fields: &[&str]| {
        let any: Vec<Document> = fields.iter().map(|field| doc! { "required": [field] }).collect();
        doc! { "anyOf": any }
    };
    let operation = |op: &str, has: &[&str], without: &[&str]| {
        let mut rule = doc! { "properties": { "op": { "enum": [op] } }, "not": lacks(without) };
        if !has.is_empty() {
            rule.insert("required", has);
        }
        rule
    };
    let integer = ["int", "long", "double"];
    doc! {
        "required": ["_id", "client", "op", "at"],
        "properties": {
            "_id": {
                "bsonType": "object",
                "required": ["d", "s"],
                "additionalProperties": false,
                "properties": {
                    "d": { "bsonType": ["string", "objectId", "binData", "int", "long", "double"], "maxLength": 1024 },
                    "s": { "bsonType": integer.to_vec(), "minimum": 1, "maximum": (1_i64 << 53) - 1, "multipleOf": 1 },
                },
            },
            "client": { "bsonType": "string", "pattern": r"^[ -#%-\-/-~]{1,128}\z" },
            "at": { "bsonType": "date" },
            "op": { "enum": ["create", "update", "delete"] },
            "state": { "bsonType": "object", "not": { "required": ["_id"] } },
            "patch": { "bsonType": "object" },
            "merge": { "bsonType": "object" },
            "array_filters": { "bsonType": "array" },
        },
        "anyOf": [
            operation("update", &["patch"], &["state", "merge"]),
            operation("create", &["state"], &["patch", "merge", "array_filters"]),
            operation("update", &["merge"], &["state", "patch", "array_filters"]),
            operation("delete", &[], &["state", "patch", "merge", "array_filters"]),
        ],
    }
}

#[derive(Clone, Copy)]
struct Load {
    events: usize,
    size: usize,
}

/// The median of the ratios of pairs, with its quartiles, and the median rate with the validator.
async fn compare(database: &Database, form: &Document, load: Load) -> Outcome<String> {
    let mut ratios = Vec::new();
    let mut rates = Vec::new();
    for pair in 0..PAIRS {
        // Who goes first alternates, since the second finds a warmer or a busier server.
        let (with, without) = if pair % 2 == 0 {
            let with = insert(database, Some(form), load).await?;
            (with, insert(database, None, load).await?)
        } else {
            let without = insert(database, None, load).await?;
            (insert(database, Some(form), load).await?, without)
        };
        ratios.push(without.as_secs_f64() / with.as_secs_f64());
        rates.push(load.events as f64 / with.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    rates.sort_by(f64::total_cmp);
    let [low, median, high] = [PAIRS / 4, PAIRS / 2, 3 * PAIRS / 4].map(|at| ratios[at]);
    Ok(format!("{median:.2} ({low:.2} to {high:.2}) | {:.0}", rates[PAIRS / 2]))
}

/// How long it takes to insert the events into a fresh log.
async fn insert(database: &Database, form: Option<&Document>, load: Load) -> Outcome<Duration> {
    let log = database.collection::<Document>("games.events");
    log.drop().await?;
    let mut command = doc! { "create": "games.events" };
    command.extend(clustered());
    if let Some(form) = form.filter(|form| !form.is_empty()) {
        command.insert("validator", form);
    }
    database.run_command(command).await?;
    let concern = if load.size == 1 {
        rawdoc! { "w": "majority" }
    } else {
        rawdoc! { "w": 1 }
    };
    let mut commands = Vec::new();
    for batch in 0..load.events / load.size {
        let mut documents = RawArrayBuf::new();
        for at in 0..load.size {
            documents.push(event(batch * load.size + at)?);
        }
        commands.push(rawdoc! {
            "insert": "games.events", "documents": documents, "writeConcern": concern.clone(),
        });
    }
    let start = Instant::now();
    for command in commands {
        let reply = database.run_raw_command(command).await?;
        if reply.get("writeErrors").is_some() {
            return Err(format!("an event was refused: {reply:?}").into());
        }
    }
    Ok(start.elapsed())
}

/// Ten events a document, of about 200 bytes.
fn event(number: usize) -> Outcome<RawDocumentBuf> {
    let (document, version) = (number / 10, i64::try_from(number % 10 + 1)?);
    let mut event = doc! {
        "_id": { "d": format!("document-{document:08}"), "s": version },
        "client": "game-server",
        "at": DateTime::now(),
        "id": ObjectId::new(),
    };
    if version == 1 {
        let state = doc! { "name": "a name of ordinary length", "gold": 0, "level": 1 };
        event.extend(doc! { "op": "create", "state": state });
    } else {
        let patch = doc! { "$inc": { "gold": 5, "experience": 10 }, "$set": { "last": "quest" } };
        event.extend(doc! { "op": "update", "patch": patch });
    }
    Ok(RawDocumentBuf::try_from(&event)?)
}
