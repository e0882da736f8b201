//! What it costs the server to replace projected rows, by the form of the statement: the price of
//! checking each row's version. `cargo bench --bench rows`; needs Linux.

#[path = "server/mod.rs"]
mod server;

use std::time::Instant;

use alluvium::embedded::{Mongod, Options};
use bson::{DateTime, RawArrayBuf, RawDocumentBuf, rawdoc};
use server::{Outcome, Server};

const ROWS: i64 = 10_000;
/// The most rows of one command.
const COMMAND_ROWS: usize = 1_000;
const REPETITIONS: usize = 7;

/// How rows are replaced.
#[derive(Clone, Copy)]
enum Form {
    /// A statement for each, which checks nothing.
    Unchecked,
    /// A statement for each, whose filter names the version.
    Filter,
    /// A statement for each, whose filter is the key alone and whose pipeline compares the version.
    Pipeline,
    /// A statement for so many, whose pipeline finds the successor and compares the version.
    Together(usize),
}

const FORMS: [(&str, Form); 7] = [
    ("a statement for each row, no check", Form::Unchecked),
    ("a statement for each row, `{_id, version}`", Form::Filter),
    ("a statement for each row, `{_id}`, a pipeline compares", Form::Pipeline),
    ("a statement for 50 rows, a pipeline compares", Form::Together(50)),
    ("a statement for 100 rows", Form::Together(100)),
    ("a statement for 200 rows", Form::Together(200)),
    ("a statement for 1,000 rows", Form::Together(1_000)),
];

#[tokio::main]
async fn main() -> Outcome<()> {
    let mongod = Mongod::start(Options { cache_mib: 1024, ..Options::default() }).await?;
    let server = Server::connect(&mongod).await?;
    let rows: RawArrayBuf = (0..ROWS).map(|number| row(number, 1)).collect();
    server.database.run_raw_command(rawdoc! { "insert": "games", "documents": rows }).await?;
    let mut figures = vec![(Vec::new(), Vec::new()); FORMS.len()];
    let mut version = 1;
    for _ in 0..REPETITIONS {
        for ((_, form), (cpu, wall)) in FORMS.iter().zip(&mut figures) {
            let (before, begun) = (server.cpu()?, Instant::now());
            replace(&server, *form, version).await?;
            version += 1;
            wall.push(begun.elapsed().as_secs_f64() * 1e6 / ROWS as f64);
            cpu.push((server.cpu()? - before).as_secs_f64() * 1e6 / ROWS as f64);
        }
    }
    println!("| form | µs of server CPU per row: median (least to most) | µs until the reply |");
    println!("|---|---|---|");
    for ((name, _), (cpu, wall)) in FORMS.iter().zip(&mut figures) {
        cpu.sort_by(f64::total_cmp);
        wall.sort_by(f64::total_cmp);
        let middle = REPETITIONS / 2;
        println!(
            "| {name} | {:.1} ({:.1} to {:.1}) | {:.1} |",
            cpu[middle],
            cpu[0],
            cpu[REPETITIONS - 1],
            wall[middle]
        );
    }
    mongod.stop().await?;
    Ok(())
}

fn row(number: i64, version: i64) -> RawDocumentBuf {
    rawdoc! {
        "_id": format!("game-{number:08}"), "version": version, "clock": { "client-1": version },
        "state": {
            "name": format!("the game number {number}"), "gold": 100 + version, "level": 1,
            "experience": version, "last_updated": DateTime::from_millis(version),
        },
        "updated_at": DateTime::from_millis(version),
    }
}

/// Replaces every row at `version` by its next version.
async fn replace(server: &Server, form: Form, version: i64) -> Outcome<()> {
    let numbers: Vec<i64> = (0..ROWS).collect();
    for numbers in numbers.chunks(COMMAND_ROWS) {
        let updates: RawArrayBuf = match form {
            Form::Together(rows) => {
                numbers.chunks(rows).map(|numbers| together(numbers, version)).collect()
            }
            _ => numbers.iter().map(|number| alone(form, *number, version)).collect(),
        };
        let command = rawdoc! {
            "update": "games", "updates": updates, "ordered": false, "writeConcern": { "w": "majority" },
        };
        let reply = server.database.run_raw_command(command).await?;
        if reply.get_i32("nModified")? != i32::try_from(numbers.len())? {
            return Err(format!("not every row was replaced: {reply}").into());
        }
    }
    Ok(())
}

fn alone(form: Form, number: i64, version: i64) -> RawDocumentBuf {
    let next = row(number, version + 1);
    let id = format!("game-{number:08}");
    match form {
        Form::Filter => rawdoc! { "q": { "_id": id, "version": version }, "u": next },
        Form::Pipeline => rawdoc! {
            "q": { "_id": id },
            "u": [{ "$replaceWith": { "$cond": [{ "$eq": ["$version", version] }, { "$literal": next }, "$$ROOT"] } }],
        },
        _ => rawdoc! { "q": { "_id": id }, "u": next },
    }
}

/// The statement of `store::mongo`, built the same way.
fn together(numbers: &[i64], version: i64) -> RawDocumentBuf {
    let ids: RawArrayBuf = numbers.iter().map(|number| format!("game-{number:08}")).collect();
    let expected: RawArrayBuf = numbers.iter().map(|_| version).collect();
    let rows: RawArrayBuf = numbers.iter().map(|number| row(*number, version + 1)).collect();
    rawdoc! {
        "q": { "_id": { "$in": ids.clone() } },
        "u": [{ "$replaceWith": { "$let": {
            "vars": { "at": { "$indexOfArray": ["$$ids", "$_id"] } },
            "in": { "$cond": [
                { "$eq": ["$version", { "$arrayElemAt": ["$$expected", "$$at"] }] },
                { "$arrayElemAt": ["$$rows", "$$at"] },
                "$$ROOT",
            ] },
        } } }],
        "c": { "ids": ids, "expected": expected, "rows": rows },
        "multi": true,
    }
}
