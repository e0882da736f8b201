//! Compaction over a real server: what goes is proven redundant, and whatever is read afterwards is what it would have been.

use std::time::Duration;

use alluvium::{
    model::{clock::Clock, id::DocumentId},
    read::{MissingQuery, ReadError, ReadLimits, Reader},
};
use bson::{Bson, DateTime, Document, doc};

use crate::{
    ask, became, count, insert, run,
    scene::{Running, Scene, change, event},
};

const CLIENTS: [&str; 3] = ["desk", "phone", "server"];

/// A scene whose data has bases already, and keeps the newest `keep` events whatever their age.
pub(super) async fn scene(keep: u32) -> Scene {
    let mut scene = Scene::new().await;
    let format = doc! { "_id": "format", "version": 2_i64 };
    scene.collection("alluvium.meta").insert_one(format).await.unwrap();
    let compaction = &mut scene.games_config().compaction;
    (compaction.min_age, compaction.keep_events) = (Duration::ZERO, keep);
    scene
}

/// The `version`-th event of a document, of clients that take turns.
pub(super) fn turn(document: &str, version: i64) -> Document {
    let client = CLIENTS[usize::try_from(version).unwrap() % CLIENTS.len()];
    let mut event = event(document, version);
    event.insert("client", client);
    event.insert("at", DateTime::from_millis(version * 1_000));
    if version > 1 {
        event.insert("patch", doc! { "$inc": { "n": 1 }, "$set": { "by": client } });
    }
    event
}

pub(super) fn clock(upto: i64) -> Clock {
    let mut clock = Clock::new();
    (1..=upto).for_each(|version| {
        clock.increment(CLIENTS[usize::try_from(version).unwrap() % CLIENTS.len()]);
    });
    clock
}

pub(super) async fn compact(scene: &Scene, fields: Document) -> Document {
    let mut job = doc! { "kind": "compact", "collection": "games" };
    job.extend(fields);
    let id = insert(scene, job).await;
    became(scene, &id, "done").await.get_document("result").unwrap().clone()
}

pub(super) async fn log_of(scene: &Scene, document: &str) -> Vec<Document> {
    use futures::TryStreamExt;
    let log = scene.collection("games.events");
    let find = log.find(doc! { "_id.d": document }).sort(doc! { "_id": 1 });
    find.await.unwrap().try_collect().await.unwrap()
}

pub(super) fn versions(log: &[Document]) -> Vec<i64> {
    let version = |event: &Document| match event.get_document("_id").unwrap().get("s") {
        Some(Bson::Int32(version)) => i64::from(*version),
        Some(Bson::Int64(version)) => *version,
        other => panic!("{other:?}"),
    };
    log.iter().map(version).collect()
}

fn reader(scene: &Scene) -> Reader {
    Reader::new(&scene.db, "games", ReadLimits::default())
}

pub(super) async fn started(keep: u32, upto: i64) -> (Scene, Running) {
    let scene = scene(keep).await;
    let daemon = scene.start().await;
    scene.append((1..=upto).map(|version| turn("a", version))).await;
    scene.reached("a", upto).await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    (scene, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_log_gives_the_document_and_every_client_gets_what_it_lacks() {
    let (scene, daemon) = started(20, 300).await;
    let id = DocumentId::from_text("a").unwrap();
    let reader = reader(&scene);
    let earlier = reader.at_version(&id, 290).await.unwrap().unwrap();
    let result = compact(&scene, doc! {}).await;
    assert_eq!((count(&result, "bases"), count(&result, "events")), (1, 278), "{result}");
    let log = log_of(&scene, "a").await;
    let kept: Vec<i64> = [1].into_iter().chain(280..=300).collect();
    assert_eq!(versions(&log), kept);
    assert_eq!(log[0].get_str("op").unwrap(), "base");
    assert_eq!((log[0].get_i64("version").unwrap(), log[0].get_i64("pruned").unwrap()), (280, 279));

    // Every earlier clock, and one that is no prefix.
    for upto in [0, 1, 150, 278, 279, 280, 281, 299, 300] {
        let query = MissingQuery { clock: clock(upto), limit: 100, ..MissingQuery::default() };
        let answer = reader.missing(&id, &query).await.unwrap().unwrap();
        let start = answer.snapshot.as_ref().map_or(upto, |snapshot| snapshot.version);
        assert_eq!(answer.snapshot.is_some(), upto < 280, "{upto}");
        let got: Vec<i64> = answer.events.iter().map(|event| event.version).collect();
        assert_eq!(got, (start + 1..=300).collect::<Vec<_>>(), "{upto}");
        assert_eq!((answer.next_clock, answer.more), (clock(300), false));
    }
    let mut sparse = clock(300);
    sparse.set("desk", clock(280).get("desk"));
    let query = MissingQuery { clock: sparse, limit: 100, ..MissingQuery::default() };
    let answer = reader.missing(&id, &query).await.unwrap().unwrap();
    assert!(answer.snapshot.is_none());
    assert!(answer.events.iter().all(|event| event.client == "desk"));
    assert_eq!(answer.next_clock, clock(300));

    // Earlier versions and times above the base, at it, and below.
    assert_eq!(reader.at_version(&id, 290).await.unwrap().unwrap().to_raw(), earlier.to_raw());
    assert_eq!(reader.at_version(&id, 280).await.unwrap().unwrap().version, 280);
    let time = |version: i64| DateTime::from_millis(version * 1_000);
    assert_eq!(reader.at_time(&id, time(290)).await.unwrap().unwrap().to_raw(), earlier.to_raw());
    let floor = |error: ReadError| match error {
        ReadError::BelowFloor { floor } => floor,
        other => panic!("{other}"),
    };
    assert_eq!(floor(reader.at_version(&id, 279).await.unwrap_err()), 280);
    assert_eq!(floor(reader.at_time(&id, time(279)).await.unwrap_err()), 280);
    assert_eq!(floor(reader.history(&id, 279, 10).await.unwrap_err()), 280);
    let history = reader.history(&id, None, 1_000).await.unwrap();
    let told: Vec<i64> = history.events.iter().map(|event| event.version).collect();
    assert_eq!(told, (280..=300).collect::<Vec<_>>());
    let answer =
        ask(&daemon, "GET", "/v1/collections/games/documents/a/events?after_version=5").await;
    assert_eq!((answer.status, &answer.json["floor_version"]), (410, &280.into()), "{answer:?}");
    let answer = ask(&daemon, "GET", "/v1/collections/games/documents/a/events?limit=1").await;
    assert_eq!(answer.json["events"][0]["op"], "base", "{answer:?}");

    // It goes on, is compacted again, and is made again from what is left.
    scene.append((301..=600).map(|version| turn("a", version))).await;
    scene.reached("a", 600).await;
    let result = compact(&scene, doc! { "document": "a" }).await;
    assert_eq!((count(&result, "bases"), count(&result, "events")), (1, 300), "{result}");
    assert_eq!(versions(&log_of(&scene, "a").await).len(), 22);
    let row = scene.row("a").await.unwrap();
    daemon.stop().await;
    scene.collection("games").delete_many(doc! {}).await.unwrap();
    scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
    let daemon = scene.start().await;
    assert_eq!(scene.reached("a", 600).await, row);
    let verify = insert(&scene, doc! { "kind": "verify", "collection": "games" }).await;
    let verified = became(&scene, &verify, "done").await;
    let verified = verified.get_document("result").unwrap();
    assert_eq!(count(verified, "differences"), 0, "{verified}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_client_keeps_what_it_lacks_and_a_dry_run_tells_who_keeps_what() {
    let (scene, daemon) = started(0, 200).await;
    let seen = |name: &str, upto: i64, ago: i64| {
        let at = DateTime::from_millis(DateTime::now().timestamp_millis() - ago * 1_000);
        let clock = Document::try_from(clock(upto).to_raw()).unwrap();
        doc! { "_id": { "c": "games", "x": name, "d": "a" }, "clock": clock, "seen_at": at }
    };
    let clients = [seen("tablet", 120, 60), seen("old phone", 3, 90_000)];
    scene.collection("alluvium.clients").insert_many(clients).await.unwrap();
    let ended = run(&scene, &["compact", "games", "--dry-run"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("118 events of 1 documents could go"), "{ended:?}");
    assert!(ended.out.contains("80 events stay: client tablet"), "{ended:?}");
    assert_eq!(log_of(&scene, "a").await.len(), 200);
    let status = ask(&daemon, "GET", "/v1/status").await;
    let told = &status.json["collections"][0]["compaction"];
    assert_eq!((&told["events"], &told["late_events"]), (&0.into(), &0.into()), "{told}");
    assert_eq!(told["kept"]["pinned"]["client"], 80, "{told}");
    let largest = &told["kept"]["largest"][0];
    assert_eq!((&largest["document"], &largest["client"]), (&"a".into(), &"tablet".into()));
    let answer = ask(&daemon, "POST", "/v1/collections/games/compact").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let jobs = scene.collection("alluvium.jobs");
    crate::common::wait_until("the job is done", async || {
        jobs.count_documents(doc! { "state": "done" }).await.unwrap() == 2
    })
    .await;
    assert_eq!(
        versions(&log_of(&scene, "a").await),
        [1].into_iter().chain(120..=200).collect::<Vec<_>>()
    );
    // The presence row follows with a beat.
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("alluvium.toml");
    std::fs::write(&config, "[[collections]]\nname = \"games\"\n").unwrap();
    let config = config.to_str().unwrap();
    crate::common::wait_until("everybody is told", async || {
        let ended = run(&scene, &["status", "--config", config]).await;
        ended.out.contains("118 events of") && ended.out.contains("80 events kept by client")
    })
    .await;
    let id = DocumentId::from_text("a").unwrap();
    let query = MissingQuery { clock: clock(120), limit: 100, ..MissingQuery::default() };
    let answer = reader(&scene).missing(&id, &query).await.unwrap().unwrap();
    assert!(answer.snapshot.is_none());
    assert_eq!(answer.events.len(), 80);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_proven_is_left_and_what_came_late_is_put_on_record() {
    let (scene, daemon) = started(10, 100).await;
    scene.append((1..=100).map(|version| turn("b", version))).await;
    scene.append([turn("waits", 1), turn("waits", 3)]).await;
    scene.reached("b", 100).await;
    scene.recorded("waits", "gap", 2).await;
    let games = scene.collection("games");
    games.update_one(doc! { "_id": "b" }, doc! { "$set": { "state.n": 7 } }).await.unwrap();
    let result = compact(&scene, doc! {}).await;
    assert_eq!((count(&result, "bases"), count(&result, "differences")), (1, 1), "{result}");
    assert_eq!(log_of(&scene, "b").await.len(), 100);
    // A writer that was away for long takes a place that is free again, while nobody follows the stream.
    daemon.stop().await;
    scene.append([turn("a", 50)]).await;
    let daemon = scene.start().await;
    scene.append((101..=200).map(|version| turn("a", version))).await;
    scene.reached("a", 200).await;
    let result = compact(&scene, doc! { "document": "a" }).await;
    assert_eq!((count(&result, "late"), count(&result, "bases")), (1, 1), "{result}");
    assert_eq!(
        versions(&log_of(&scene, "a").await),
        [1].into_iter().chain(190..=200).collect::<Vec<_>>()
    );
    let late =
        scene.collection("alluvium.quarantine").find_one(doc! { "class": "late" }).await.unwrap();
    let mut found = late.unwrap().get_document("event").unwrap().clone();
    found.remove("at");
    let mut expected = turn("a", 50);
    expected.remove("at");
    assert_eq!(found, expected);
    let listed = run(&scene, &["quarantine", "list", "games", "--late"]).await;
    assert!(listed.out.contains("\"client\":\"server\""), "{listed:?}");
    assert_eq!(
        run(&scene, &["quarantine", "list", "games", "--late", "--json"]).await.code,
        Some(0)
    );
    // It does not disturb who reads what waits.
    daemon.stop().await;
    let daemon = scene.start().await;
    scene.append([turn("waits", 2)]).await;
    scene.reached("waits", 3).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_is_on_record_by_itself_also_of_a_document_that_is_not_in_memory() {
    let (scene, daemon) = started(10, 100).await;
    compact(&scene, doc! {}).await;
    daemon.stop().await;
    let daemon = scene.start().await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    // Nothing was applied since the start, so that its row has to be loaded.
    scene.append([turn("a", 50)]).await;
    let quarantine = scene.collection("alluvium.quarantine");
    crate::common::wait_until("it is on record", async || {
        quarantine.count_documents(doc! { "class": "late", "event._id.s": 50 }).await.unwrap() == 1
    })
    .await;
    crate::common::wait_until("it is counted", async || {
        daemon.metric("late_events_total", "") == Some(1.0)
    })
    .await;
    assert_eq!(daemon.status().reclaimed.late, 1);
    let left: Vec<i64> = [1].into_iter().chain(90..=100).collect();
    assert_eq!(versions(&log_of(&scene, "a").await), left);
    // The same of one that is in memory, with an event in its turn beside it.
    scene.append([turn("a", 101), turn("a", 7)]).await;
    crate::common::wait_until("that is on record as well", async || {
        quarantine.count_documents(doc! { "class": "late" }).await.unwrap() == 2
    })
    .await;
    scene.reached("a", 101).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_nothing_wrong_while_writers_write_and_history_is_pruned() {
    let mut scene = scene(10).await;
    scene.games_config().compaction.every = Some(Duration::from_millis(100));
    let daemon = scene.start().await;
    let is_enough = std::sync::atomic::AtomicBool::new(false);
    let writing = async {
        for from in (1..).step_by(25) {
            if is_enough.load(std::sync::atomic::Ordering::Relaxed) {
                return from - 1;
            }
            for document in ["a", "b", "c"] {
                scene.append((from..from + 25).map(|version| turn(document, version))).await;
            }
        }
        unreachable!()
    };
    let verifying = async {
        // As many as during which something was pruned.
        let mut meanwhile = 0;
        while meanwhile < 3 {
            let pruned = || daemon.metric("compacted_events_total", "").unwrap_or_default();
            let before = pruned();
            let verify = insert(&scene, doc! { "kind": "verify", "collection": "games" }).await;
            let verified = became(&scene, &verify, "done").await;
            let verified = verified.get_document("result").unwrap();
            assert_eq!(count(verified, "differences"), 0, "{verified}");
            meanwhile += i32::from(pruned() > before);
        }
        is_enough.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let both = async { tokio::join!(writing, verifying) };
    let (written, ()) = tokio::time::timeout(Duration::from_secs(180), both).await.unwrap();
    for document in ["a", "b", "c"] {
        scene.reached(document, written).await;
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_is_not_what_was_written_parks_its_document_and_cannot_be_skipped() {
    let (scene, daemon) = started(10, 100).await;
    compact(&scene, doc! {}).await;
    daemon.stop().await;
    let first = doc! { "_id": { "d": "a", "s": 1 } };
    let events = scene.collection("games.events");
    let base = events.find_one(first.clone()).await.unwrap().unwrap();
    events.update_one(first.clone(), doc! { "$set": { "state.n": 5 } }).await.unwrap();
    scene.collection("games").delete_many(doc! {}).await.unwrap();
    scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
    let daemon = scene.start().await;
    scene.recorded("a", "bad_base", 1).await;
    let skipped = run(&scene, &["quarantine", "skip", "games", "a"]).await;
    assert_eq!(skipped.code, Some(1), "{skipped:?}");
    assert!(skipped.err.contains("base"), "{skipped:?}");
    events.replace_one(first, base).await.unwrap();
    let retried = run(&scene, &["quarantine", "retry", "games", "a"]).await;
    assert_eq!(retried.code, Some(0), "{retried:?}");
    scene.reached("a", 100).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_an_old_validator_nothing_is_compacted_and_the_sentence_says_what_to_do() {
    let (scene, daemon) = started(10, 100).await;
    let old = doc! { "collMod": "games.events", "validator": { "op": { "$in": ["create", "update", "delete"] } } };
    scene.db.run_command(old).await.unwrap();
    let id = insert(&scene, doc! { "kind": "compact", "collection": "games" }).await;
    let failed = became(&scene, &id, "failed").await;
    let error = failed.get_str("error").unwrap();
    assert!(error.contains("games.events") && error.contains("alluvium init"), "{error}");
    assert_eq!(log_of(&scene, "a").await.len(), 100);
    scene.append([change("a", 101, doc! { "op": "delete" })]).await;
    scene.reached("a", 101).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_policy_what_is_old_enough_goes_without_being_asked_for_unless_that_is_paused() {
    let mut scene = scene(10).await;
    let compaction = &mut scene.games_config().compaction;
    compaction.min_age = Duration::from_secs(1);
    compaction.every = Some(Duration::from_secs(1));
    let paused = run(&scene, &["pause", "games", "--compaction"]).await;
    assert_eq!(paused.code, Some(1), "{paused:?}");
    let daemon = scene.start().await;
    scene.append((1..=250).map(|version| turn("a", version))).await;
    scene.reached("a", 250).await;
    let first = doc! { "_id": { "d": "a", "s": 1 } };
    let events = scene.collection("games.events");
    let base = |wanted: Document| {
        let mut filter = first.clone();
        filter.extend(wanted);
        let events = events.clone();
        async move {
            crate::common::wait_for(&format!("{filter}"), async || {
                events.find_one(filter.clone()).await.unwrap()
            })
            .await
        }
    };
    base(doc! { "op": "base", "version": 240_i64, "pruned": 239_i64 }).await;
    assert_eq!(log_of(&scene, "a").await.len(), 12);
    crate::common::wait_until("it is counted", async || {
        daemon.metric("compacted_events_total", "") == Some(238.0)
    })
    .await;
    let paused = run(&scene, &["pause", "games", "--compaction"]).await;
    assert_eq!(paused.code, Some(0), "{paused:?}");
    daemon.stop().await;
    scene.games_config().compaction.every = None;
    let daemon = scene.start().await;
    scene.append((251..=500).map(|version| turn("a", version))).await;
    scene.reached("a", 500).await;
    let marks = scene.collection("alluvium.marks");
    crate::common::wait_until("it is old enough", async || {
        let ago = DateTime::from_millis(DateTime::now().timestamp_millis() - 1_100);
        let old = doc! { "marks": { "$elemMatch": { "version": 500_i64, "at": { "$lt": ago } } } };
        marks.find_one(old).await.unwrap().is_some()
    })
    .await;
    daemon.says("it is paused", |status| status.compaction_stands.is_some()).await;
    let refused = insert(&scene, doc! { "kind": "compact", "collection": "games" }).await;
    became(&scene, &refused, "failed").await;
    base(doc! { "op": "base", "version": 240_i64, "pruned": 239_i64 }).await;
    assert_eq!(log_of(&scene, "a").await.len(), 12 + 250);
    // What is begun by a request is noted, so that it is finished without `every`.
    let resumed = run(&scene, &["resume", "games", "--compaction"]).await;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    daemon.says("it goes on", |status| status.compaction_stands.is_none()).await;
    let result = compact(&scene, doc! {}).await;
    assert_eq!((count(&result, "bases"), count(&result, "events")), (1, 0), "{result}");
    base(doc! { "op": "base", "version": 490_i64, "pruned": 239_i64 }).await;
    let due = doc! { "pending": true };
    assert_eq!(marks.count_documents(due).await.unwrap(), 1);
    daemon.stop().await;
}
