//! What the projection writes never does harm: random rows, nasty in every way, replace each other in each form
//! that a flush uses, on a real server. Rows that the fold cannot bring about are not written, so what is tried is
//! what `Document::from_raw` takes for a row. The server lives, and holds what was written, byte for byte.
//!
//! ```text
//! ALLUVIUM_FLUSHES=1000000 ALLUVIUM_SEED=7 cargo test --release --test differential rows_replace -- --nocapture
//! ```

use alluvium::embedded::{Mongod, Options};
use alluvium::model::document::Document;
use alluvium::model::part::Part;
use alluvium::store::mongo::{MongoStore, Transactions};
use alluvium::store::{Documents, RowOutcome, RowWrite};
use bson::{RawDocumentBuf, doc};
use fastrand::Rng;
use futures::TryStreamExt;
use mongodb::{Client, Database};

use crate::setting;
use crate::tree::{self, Value};

/// How the rows of a flush are written: see `store::mongo`.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// Many by one statement, without a transaction.
    Together,
    /// The same in a transaction.
    Transaction,
    /// Each by a statement of its own, since the server refuses one of them.
    OneByOne,
}

const FORMS: [Form; 3] = [Form::Together, Form::Transaction, Form::OneByOne];

/// Pairs per flush: enough for a transaction, and for several statements.
const BATCH: usize = 200;

/// One row and the one that takes its place.
#[derive(Clone)]
struct Pair {
    before: RowWrite,
    after: RowWrite,
}

fn row(id: i64, version: i64, state: &Value) -> RawDocumentBuf {
    let fields = [
        ("_id", tree::long(id)),
        ("version", tree::long(version)),
        ("clock", Value::Document(vec![(b"a".to_vec(), tree::long(version))])),
        ("state", state.clone()),
        ("updated_at", Value::Scalar(0x09, version.to_le_bytes().to_vec())),
    ];
    let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value)).to_vec();
    RawDocumentBuf::from_bytes(Value::Document(fields).bytes()).unwrap()
}

/// The pair of that seed, if both are rows that the fold can bring about.
fn pair(seed: u64, id: i64) -> Option<Pair> {
    let mut rng = Rng::with_seed(seed);
    let before = tree::document(&mut rng, 4);
    let after = tree::successor(&mut rng, &before);
    let write = |version: i64, state| {
        let row = row(id, version, state);
        let document = Document::from_raw(&row).ok()?;
        // What is folded on from it is written as it was.
        assert_eq!(document.to_raw(), row);
        Some(RowWrite::new(document.id, (version - 1, version), row))
    };
    Some(Pair { before: write(1, &before)?, after: write(2, &after)? })
}

struct Server {
    mongod: Mongod,
    database: Database,
}

impl Server {
    async fn start() -> Self {
        let mongod = Mongod::start(Options::default()).await.unwrap();
        let client = Client::with_uri_str(mongod.uri()).await.unwrap();
        Self { mongod, database: client.database("flush") }
    }

    /// Replaces the rows, and says what is wrong afterwards.
    async fn replace(&self, pairs: &[Pair], form: Form) -> Result<(), String> {
        let shown = |error: &dyn std::fmt::Display| error.to_string();
        let rows = self.database.collection::<RawDocumentBuf>("games");
        rows.delete_many(doc! {}).await.map_err(|error| shown(&error))?;
        let mut before: Vec<RawDocumentBuf> =
            pairs.iter().map(|pair| pair.before.row.clone()).collect();
        let mut writes: Vec<RowWrite> = pairs.iter().map(|pair| pair.after.clone()).collect();
        let refused = matches!(form, Form::OneByOne);
        if refused {
            // The first of every statement, so that the rest of it is still to be written.
            for at in 0..writes.len().div_ceil(63) {
                let id = -1 - at as i64;
                let state = Value::Document(vec![(b"refused".to_vec(), tree::long(1))]);
                before.push(row(id, 1, &Value::Document(Vec::new())));
                let row = row(id, 2, &state);
                let document = Document::from_raw(&row).unwrap();
                writes.insert(64 * at, RowWrite::new(document.id, (1, 2), row));
            }
        }
        rows.insert_many(before).await.map_err(|error| shown(&error))?;
        let store = MongoStore::new(&self.database, "games", Part::WHOLE);
        let store = match form {
            Form::Transaction => {
                let transactions = Transactions::open(&self.database).await;
                store.with_transactions(transactions.map_err(|error| shown(&error))?)
            }
            Form::Together | Form::OneByOne => store,
        };
        let outcomes = store.write(&writes).await.map_err(|error| shown(&error))?;
        for (at, (write, outcome)) in writes.iter().zip(&outcomes).enumerate() {
            if (*outcome == RowOutcome::Written) == (refused && at % 64 == 0) {
                return Err(format!("{outcome:?} of {:?}", write.row));
            }
        }
        let stored: Vec<RawDocumentBuf> = rows
            .find(doc! {"_id": {"$gt": 0}})
            .sort(doc! {"_id": 1})
            .await
            .map_err(|error| shown(&error))?
            .try_collect()
            .await
            .map_err(|error| shown(&error))?;
        if stored.len() != pairs.len() {
            return Err(format!("{} rows of {} are there", stored.len(), pairs.len()));
        }
        match stored.iter().zip(pairs).find(|(stored, pair)| **stored != pair.after.row) {
            Some((stored, pair)) => Err(format!("{:?} became {stored:?}", pair.after.row)),
            None => Ok(()),
        }
    }

    async fn restart(&mut self) {
        self.mongod.kill().await.unwrap();
        *self = Self::start().await;
        self.prepare().await;
    }

    async fn prepare(&self) {
        self.database
            .create_collection("games")
            .validator(doc! {"state.refused": {"$ne": 1}})
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_replace_each_other_without_harm() {
    let mut server = Server::start().await;
    server.prepare().await;
    let first = setting("ALLUVIUM_SEED", 1);
    let count = setting("ALLUVIUM_FLUSHES", 3_000);
    let (mut tried, mut wrong) = (0, Vec::new());
    let mut seed = first;
    while seed < first + count && wrong.is_empty() {
        let seeds = seed..(seed + BATCH as u64).min(first + count);
        seed = seeds.end;
        let pairs: Vec<(u64, Pair)> = seeds
            .filter_map(|seed| Some((seed, pair(seed, (seed % BATCH as u64 + 1) as i64)?)))
            .collect();
        tried += pairs.len() as u64;
        let mut pairs = pairs;
        pairs.sort_by_key(|(_, pair)| pair.after.id.clone());
        let (seeds, pairs): (Vec<u64>, Vec<Pair>) = pairs.into_iter().unzip();
        for form in FORMS {
            let Err(error) = server.replace(&pairs, form).await else { continue };
            server.restart().await;
            wrong.push(format!("{form:?}, seeds {seeds:?}: {error}"));
            for (seed, pair) in seeds.iter().zip(&pairs) {
                if let Err(error) = server.replace(std::slice::from_ref(pair), form).await {
                    wrong.push(format!(
                        "seed {seed} alone: {error}\n  {:?}\n  {:?}",
                        pair.before.row, pair.after.row
                    ));
                    server.restart().await;
                    break;
                }
            }
            break;
        }
    }
    println!("{tried} pairs of {count} are rows");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(2 * tried > count, "too few pairs are rows: {tried} of {count}");
}
