//! What it costs the server to replace projected rows, by the form of the statement: the price of
//! checking each row's version; with and without a transaction around a command, alone and beside a daemon's
//! change stream, which has to pass over what is written. `cargo bench --bench rows`; needs Linux.

#[path = "server/mod.rs"]
mod server;

use alluvium::{
    embedded::{Mongod, Options},
    log::{Bodies, LogSource, Start, Tail, mongo::MongoSource},
};
use bson::{DateTime, RawArrayBuf, RawDocumentBuf, Timestamp, raw::cstr, rawdoc};
use mongodb::{Client, options::WriteConcern};
use server::{Outcome, Server};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

const ROWS: i64 = 20_000;
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
    ("a statement for 32 rows, a pipeline compares", Form::Together(32)),
    ("a statement for 64 rows", Form::Together(64)),
    ("a statement for 200 rows", Form::Together(200)),
    ("a statement for 1,000 rows", Form::Together(1_000)),
];

#[tokio::main]
async fn main() -> Outcome<()> {
    let mongod = Mongod::start(Options { cache_mib: 1024, ..Options::default() }).await?;
    let server = Server::connect(&mongod).await?;
    let rows: RawArrayBuf = (0..ROWS).map(|number| row(number, 1)).collect();
    server.database.run_raw_command(rawdoc! { "insert": "games", "documents": rows }).await?;
    // For each form: without and in transactions, first alone and then beside a stream.
    let mut figures = vec![[const { Vec::new() }; 4]; FORMS.len()];
    let mut version = 1;
    for _ in 0..REPETITIONS {
        for (place, is_followed) in [(0, false), (2, true)] {
            let mut stream = if is_followed { Some(Stream::follow(&mongod).await?) } else { None };
            for ((_, form), figures) in FORMS.iter().zip(&mut figures) {
                for (place, in_transactions) in [(place, false), (place + 1, true)] {
                    let before = server.cpu_of_all()?;
                    replace(&server, *form, version, in_transactions).await?;
                    version += 1;
                    if let Some(stream) = &mut stream {
                        stream.passes().await?;
                    }
                    let used = (server.cpu_of_all()? - before).as_secs_f64();
                    figures[place].push(used * 1e6 / ROWS as f64);
                }
            }
        }
    }
    println!(
        "| µs of server CPU per row: least (median) | alone | in a transaction | beside a stream | both |"
    );
    println!("|---|---|---|---|---|");
    for ((name, _), figures) in FORMS.iter().zip(&mut figures) {
        let middles = figures.each_mut().map(|figures| {
            figures.sort_by(f64::total_cmp);
            // What the server does besides, checkpoints say, comes on top now and then.
            format!("{:.1} ({:.1})", figures[0], figures[REPETITIONS / 2])
        });
        println!("| {name} | {} |", middles.join(" | "));
    }
    mongod.stop().await?;
    Ok(())
}

/// A daemon's change stream, read as it comes.
struct Stream {
    source: MongoSource,
    /// How far it has come.
    place: watch::Receiver<Timestamp>,
    _reader: AbortOnDropHandle<()>,
}

impl Stream {
    async fn follow(mongod: &Mongod) -> Outcome<Self> {
        let database = Client::with_uri_str(mongod.uri()).await?.database("bench");
        let source = MongoSource::new(database);
        let begin = source.now().await?;
        let mut tail = source.tail(&["games".to_owned()], &Start::At(begin), Bodies::All).await?;
        let (told, place) = watch::channel(begin);
        let reader = tokio::spawn(async move {
            while let Ok(batch) = tail.next().await {
                told.send_replace(batch.position.cluster_time);
            }
        });
        Ok(Self { source, place, _reader: AbortOnDropHandle::new(reader) })
    }

    /// Waits until it has passed everything that is written.
    async fn passes(&mut self) -> Outcome<()> {
        let now = self.source.now().await?;
        self.place.wait_for(|place| *place >= now).await?;
        Ok(())
    }
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
async fn replace(server: &Server, form: Form, version: i64, in_transactions: bool) -> Outcome<()> {
    let numbers: Vec<i64> = (0..ROWS).collect();
    let mut session = server.database.client().start_session().await?;
    for numbers in numbers.chunks(COMMAND_ROWS) {
        let updates: RawArrayBuf = match form {
            Form::Together(rows) => {
                numbers.chunks(rows).map(|numbers| together(numbers, version)).collect()
            }
            _ => numbers.iter().map(|number| alone(form, *number, version)).collect(),
        };
        let mut command = rawdoc! { "update": "games", "updates": updates, "ordered": false };
        let reply = if in_transactions {
            session.start_transaction().write_concern(WriteConcern::majority()).await?;
            let reply = server.database.run_raw_command(command).session(&mut session).await?;
            session.commit_transaction().await?;
            reply
        } else {
            command.append(cstr!("writeConcern"), rawdoc! { "w": "majority" });
            server.database.run_raw_command(command).await?
        };
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
