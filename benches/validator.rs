//! What the validator costs an append: the insert rate with each form of it, beside the rate without
//! any, in pairs that follow each other at once on the same server; and, since a busy machine spoils
//! rates, the CPU time of the server's thread that does it. `cargo bench --bench validator`; needs Linux.

#[path = "server/mod.rs"]
mod server;

use std::time::{Duration, Instant};

use alluvium::{
    database::create::clustered,
    embedded::{Mongod, Options},
    log::validator::validator,
};
use bson::{DateTime, Document, RawArrayBuf, RawDocumentBuf, doc, oid::ObjectId, rawdoc};
use server::{Outcome, Server};

const EVENT_BYTES_MAX: u64 = 4 << 20;

/// The protocol's way to append much: ordered batches at majority.
const BATCHES: Load = Load { events: 20_000, size: 1_000, concern: "majority" };
/// The protocol's way to append one event.
const SINGLES: Load = Load { events: 300, size: 1, concern: "majority" };
/// What loads the server's thread with nothing but inserting: the validator at its worst.
const UNCONFIRMED: Load = Load { events: 20_000, size: 1_000, concern: "1" };
const PAIRS: usize = 15;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mongod = Mongod::start(Options { cache_mib: 1024, ..Options::default() }).await?;
    let server = Server::connect(&mongod).await?;
    println!(
        "| form | load | rate with / without: median (quartiles) | events/s with | µs of server CPU per event: without, added (quartiles) |"
    );
    println!("|---|---|---|---|---|");
    for (name, form) in forms() {
        let loads = [("batches", BATCHES), ("single", SINGLES), ("batches, w: 1", UNCONFIRMED)];
        // Parts of it are told apart best where nothing else is in the way.
        let whole = form.is_empty() || form == validator(EVENT_BYTES_MAX);
        for (load_name, load) in loads.into_iter().skip(if whole { 0 } else { 2 }) {
            let figures = compare(&server, &form, load).await?;
            println!("| {name} | {load_name} | {figures} |");
        }
    }
    mongod.stop().await?;
    Ok(())
}

/// The validator in use, parts of it, and the obvious way to write it.
fn forms() -> Vec<(&'static str, Document)> {
    let ours = validator(EVENT_BYTES_MAX);
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
    /// How many of them one command carries.
    size: usize,
    concern: &'static str,
}

/// What a run took.
struct Cost {
    wall: Duration,
    cpu: Duration,
}

/// Quartiles and medians of pairs.
async fn compare(server: &Server, form: &Document, load: Load) -> Outcome<String> {
    let (mut ratios, mut rates, mut bare, mut added) = (vec![], vec![], vec![], vec![]);
    for pair in 0..PAIRS {
        // Who goes first alternates, since the second finds a warmer or a busier server.
        let (with, without) = if pair % 2 == 0 {
            let with = insert(server, Some(form), load).await?;
            (with, insert(server, None, load).await?)
        } else {
            let without = insert(server, None, load).await?;
            (insert(server, Some(form), load).await?, without)
        };
        let per_event = |cost: &Cost| cost.cpu.as_secs_f64() * 1e6 / load.events as f64;
        ratios.push(without.wall.as_secs_f64() / with.wall.as_secs_f64());
        rates.push(load.events as f64 / with.wall.as_secs_f64());
        bare.push(per_event(&without));
        added.push(per_event(&with) - per_event(&without));
    }
    for figures in [&mut ratios, &mut rates, &mut bare, &mut added] {
        figures.sort_by(f64::total_cmp);
    }
    let (low, middle, high) = (PAIRS / 4, PAIRS / 2, 3 * PAIRS / 4);
    Ok(format!(
        "{:.2} ({:.2} to {:.2}) | {:.0} | {:.1}, {:+.1} ({:+.1} to {:+.1})",
        ratios[middle],
        ratios[low],
        ratios[high],
        rates[middle],
        bare[middle],
        added[middle],
        added[low],
        added[high]
    ))
}

/// What it takes to insert the events into a fresh log.
async fn insert(server: &Server, form: Option<&Document>, load: Load) -> Outcome<Cost> {
    let database = &server.database;
    let log = database.collection::<Document>("games.events");
    log.drop().await?;
    let mut command = doc! { "create": "games.events" };
    command.extend(clustered());
    if let Some(form) = form.filter(|form| !form.is_empty()) {
        command.insert("validator", form);
    }
    database.run_command(command).await?;
    let concern = match load.concern.parse::<i32>() {
        Ok(nodes) => rawdoc! { "w": nodes },
        Err(_) => rawdoc! { "w": load.concern },
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
    let (start, cpu) = (Instant::now(), server.cpu()?);
    for command in commands {
        let reply = database.run_raw_command(command).await?;
        if reply.get("writeErrors").is_some() {
            return Err(format!("an event was refused: {reply:?}").into());
        }
    }
    Ok(Cost { wall: start.elapsed(), cpu: server.cpu()? - cpu })
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
