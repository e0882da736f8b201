//! Daemons that compact are killed in the middle of pruning, while writers append.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use alluvium::{
    model::{clock::Clock, id::DocumentId},
    read::{MissingQuery, ReadLimits, Reader},
};
use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use fastrand::Rng;
use futures::{StreamExt, TryStreamExt};
use mongodb::Database;

use crate::{
    Stage,
    common::{Daemon, wait_for, wait_until},
    judge::{Answer, Evidence, Reference, ServerReplay, Walk, judge},
    writers::Writers,
};

/// How often a daemon dies while it prunes.
const KILLS: usize = 8;
/// What is new to be compacted before each of them.
const DOCUMENTS: usize = 3;
const EVENTS: i64 = 1_500;
/// More than anybody appends to a document between a writer's look and his append: with `min_age = "0s"` that alone
/// keeps a place from being taken that is free again.
const KEPT: i64 = 40;
const POLICY: &str = r#"
    [collections.compaction]
    every = "1s"
    min_age = "0s"
    keep_events = 40
"#;

/// Every event that was ever in the log, as the change stream told of it.
#[derive(Clone, Default)]
struct Record(Arc<Mutex<Vec<Document>>>);

impl Record {
    async fn start(database: &Database) -> Record {
        let record = Record::default();
        let inserts = [doc! { "$match": { "operationType": "insert" } }];
        let events = database.collection::<Document>("games.events");
        let mut stream = events.watch().pipeline(inserts).await.unwrap();
        let told = record.clone();
        tokio::spawn(async move {
            while let Some(Ok(change)) = stream.next().await {
                told.0.lock().unwrap().extend(change.full_document);
            }
        });
        record
    }

    fn events(&self) -> Vec<Document> {
        self.0.lock().unwrap().clone()
    }
}

/// An event of a document that only this test writes, by clients that take turns.
fn event(document: &str, version: i64) -> Document {
    let client = ["desk", "phone", "server"][usize::try_from(version % 3).unwrap()];
    let mut event = doc! {
        "_id": { "d": document, "s": version }, "client": client, "at": DateTime::from_millis(version),
    };
    event.extend(match version {
        1 => doc! { "op": "create", "state": { "n": 0_i64 } },
        _ => {
            doc! { "op": "update", "patch": { "$inc": { "n": version }, "$set": { "by": client } } }
        }
    });
    event
}

fn clock(counts: &BTreeMap<String, i64>) -> Clock {
    let mut clock = Clock::new();
    counts.iter().for_each(|(client, count)| clock.set(client, *count));
    clock
}

/// The sum of what the bases say is pruned.
async fn pruned(stage: &Stage) -> i64 {
    let bases = [
        doc! { "$match": { "op": "base" } },
        doc! { "$group": { "_id": null, "sum": { "$sum": "$pruned" } } },
    ];
    let mut sums = stage.scene.collection("games.events").aggregate(bases).await.unwrap();
    let sum = sums.try_next().await.unwrap();
    sum.map_or(0, |sum| sum.get_i64("sum").unwrap())
}

/// The answer to a client at any earlier clock, in pages of any size; and the rows of bases that it was given.
async fn answer(
    reader: &Reader,
    document: &str,
    rng: &mut Rng,
) -> (Answer, Option<RawDocumentBuf>) {
    let mut has = BTreeMap::new();
    let upto = rng.i64(0..=EVENTS);
    for version in 1..=upto {
        let client = event(document, version).get_str("client").unwrap().to_owned();
        *has.entry(client).or_insert(0) += 1;
    }
    if rng.bool() {
        // One that is no prefix of the history.
        has.values_mut().for_each(|count| *count = rng.i64(0..=*count));
    }
    let id = DocumentId::from_text(document).unwrap();
    let limit = rng.u32(1..=1_000).max(rng.u32(1..=200));
    let mut query = MissingQuery { clock: clock(&has), limit, ..MissingQuery::default() };
    let mut answer = Answer { document: Bson::from(document), has, ..Answer::default() };
    let mut base = None;
    loop {
        let page = reader.missing(&id, &query).await.unwrap().unwrap();
        if let Some(snapshot) = &page.snapshot {
            // Also in the middle: the base has passed the client meanwhile.
            answer.events.clear();
            answer.snapshot = Some((snapshot.version, Document::new()));
            base = Some(snapshot.to_raw());
        }
        let event = |event: &RawDocumentBuf| Document::try_from(event.clone()).unwrap();
        answer.events.extend(page.events.iter().map(|found| (found.seq, event(&found.raw))));
        query.clock = page.next_clock;
        if !page.more {
            answer.version = page.version;
            let counts = page.clock.iter().map(|(client, count)| (client.to_owned(), count));
            answer.clock = counts.collect();
            return (answer, base);
        }
    }
}

/// Whether somebody died before everything that could go was gone.
async fn is_in_the_middle(stage: &Stage) -> bool {
    let unfinished = doc! { "$lt": ["$pruned", { "$subtract": ["$version", 1] }] };
    let unfinished = doc! { "op": "base", "$expr": unfinished };
    stage.scene.collection("games.events").find_one(unfinished).await.unwrap().is_some()
}

async fn ask(stage: &Stage, kind: &str) -> Bson {
    let job = doc! { "kind": kind, "collection": "games" };
    stage.scene.collection("alluvium.jobs").insert_one(job).await.unwrap().inserted_id
}

/// The result of a job, once it is done.
async fn result(stage: &Stage, job: &Bson) -> Document {
    let jobs = stage.scene.collection("alluvium.jobs");
    let ended = doc! { "_id": job, "state": { "$in": ["done", "failed"] } };
    let job = wait_for("the job", async || jobs.find_one(ended.clone()).await.unwrap()).await;
    job.get_document("result").unwrap_or_else(|_| panic!("{job}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_killed_in_the_middle_of_pruning_leaves_documents_answers_and_verify_right() {
    let mut stage = Stage::new().await;
    let format = doc! { "_id": "format", "version": 2_i64 };
    stage.scene.collection("alluvium.meta").insert_one(format).await.unwrap();
    stage.policy = POLICY;
    let record = Record::start(&stage.scene.db).await;
    let writers = Writers::start(&stage.scene, stage.rng.fork());
    let mut daemons = [stage.daemon(), stage.daemon()];
    let reader = Reader::new(&stage.scene.db, "games", ReadLimits::default());
    let (mut answers, mut bases, mut verifies, mut middles) = (vec![], vec![], vec![], 0);
    let mut documents = Vec::new();
    for round in 0..KILLS {
        let new = (0..DOCUMENTS).map(|number| format!("old/{round}/{number}"));
        let new: Vec<String> = new.collect();
        let before = pruned(&stage).await;
        for document in &new {
            stage.scene.append((1..=EVENTS).map(|version| event(document, version))).await;
        }
        for document in &new {
            stage.scene.reached(document.as_str(), EVENTS).await;
        }
        documents.extend(new);
        verifies.push(ask(&stage, "verify").await);
        ask(&stage, "compact").await;
        wait_until("something is pruned", async || pruned(&stage).await > before).await;
        writers.wrote(stage.rng.usize(0..3)).await;
        // Whoever leads: the other one is left to go on, or both are dead for a moment.
        daemons.iter_mut().for_each(Daemon::kill);
        middles += usize::from(is_in_the_middle(&stage).await);
        for _ in 0..10 {
            let document = stage.rng.choice(&documents).unwrap().clone();
            let (answer, base) = answer(&reader, &document, &mut stage.rng).await;
            bases.extend(base);
            answers.push(answer);
        }
        stage.scene.forget_leases().await;
        daemons = [stage.daemon(), stage.daemon()];
    }
    assert!(middles > 0, "nobody died in the middle");
    let acknowledged = writers.finish().await;
    let sum = async || stage.projected().await.unwrap();
    wait_until("all is projected", async || sum().await == record.events().len() as i64).await;
    verifies.push(ask(&stage, "verify").await);
    for job in [ask(&stage, "compact").await, ask(&stage, "verify").await] {
        verifies.push(job);
    }
    for job in &verifies {
        let result = result(&stage, job).await;
        assert_eq!(result.get_i64("differences").unwrap(), 0, "{result}");
    }
    for daemon in &mut daemons {
        assert!(daemon.stop().await.success(), "{}", daemon.log());
    }
    assert!(!is_in_the_middle(&stage).await);
    let all = i64::try_from(documents.len()).unwrap() * (EVENTS - KEPT - 1);
    assert!(pruned(&stage).await >= all, "{} of {all}", pruned(&stage).await);
    assert!(bases.len() > 10 && answers.iter().any(|answer| answer.snapshot.is_none()));
    judged(&stage, record.events(), (acknowledged, answers, bases)).await;
    stage.mongod.stop().await.unwrap();
}

/// Replays everything that was ever written. What this test has written itself is of a kind that needs no server.
async fn judged(
    stage: &Stage,
    log: Vec<Document>,
    (acknowledged, answers, bases): (Vec<Document>, Vec<Answer>, Vec<RawDocumentBuf>),
) {
    let is_own =
        |id: Option<&Bson>| id.and_then(Bson::as_str).is_some_and(|id| id.starts_with("old/"));
    let of_event = |event: &Document| is_own(event.get_document("_id").unwrap().get("d"));
    let (own, others): (Vec<_>, Vec<_>) = log.into_iter().partition(of_event);
    let rows = stage.scene.db.collection::<RawDocumentBuf>("games").find(doc! {}).await.unwrap();
    let rows: Vec<RawDocumentBuf> = rows.try_collect().await.unwrap();
    let of_row = |row: &RawDocumentBuf| is_own(Document::try_from(row.clone()).unwrap().get("_id"));
    let (own_rows, other_rows) = rows.into_iter().partition(of_row);
    for base in &bases {
        let raw = Document::try_from(base.clone()).unwrap();
        let (id, version) = (raw.get_str("_id").unwrap(), raw.get_i64("version").unwrap());
        let events = (1..=EVENTS).map(|version| (version, event(id, version))).collect();
        let mut replay = Reference::default();
        let mut walk = Walk::new(&mut replay, id).await;
        walk.upto(version, &events, |_| false).await;
        assert_eq!(walk.row(&events).await.as_ref(), Some(base), "{raw}");
    }
    let evidence = Evidence { log: own, rows: own_rows, answers, ..Evidence::default() };
    let found = judge(&evidence, &mut Reference::default()).await;
    assert_eq!(found.map(|report| report.documents), Ok(KILLS * DOCUMENTS));
    let evidence = Evidence { log: others, rows: other_rows, acknowledged, ..Evidence::default() };
    let bench = stage.scene.db.client().database("crash_judge");
    let found = judge(&evidence, &mut ServerReplay::new(&bench)).await;
    found.unwrap_or_else(|findings| panic!("the judge found:\n{}", findings.join("\n")));
}
