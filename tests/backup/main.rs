//! Dumps that are restored on another replica set, with nothing but the steps of deploy/README.md: what an operator sees, and
//! that the documents are what their logs make of them afterwards.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/dump.rs"]
mod dump;
#[path = "../judge/mod.rs"]
mod judge;
#[path = "../common/scene.rs"]
mod scene;

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use alluvium::{
    embedded::{Mongod, Options},
    model::id::{DocumentId, integral},
    read::{ReadLimits, Reader},
};
use bson::{DateTime, Document, doc};
use common::wait_for;
use dump::{Identities, begin, dump, dump_collection, dumped, restore};
use mongodb::Client;
use scene::{Running, Scene, change, event, events};
use tempfile::TempDir;

/// How many documents the writers change.
const DOCUMENTS: i64 = 5;
/// How many events of each are written while a dump is taken, and after it was restored.
const MEANWHILE: i64 = 100;
const MORE: i64 = 120;

/// Has a job done; its result.
async fn done(scene: &Scene, job: Document) -> Document {
    let jobs = scene.collection("alluvium.jobs");
    let id = jobs.insert_one(job).await.unwrap().inserted_id;
    let job = wait_for("the job ends", async || {
        let job = jobs.find_one(doc! { "_id": &id }).await.unwrap().unwrap();
        assert!(!job.contains_key("error"), "{job}");
        job.get_str("state").is_ok_and(|state| state == "done").then_some(job)
    });
    job.await.get_document("result").unwrap().clone()
}

/// Runs a command of the real binary, which has to succeed.
async fn run(scene: &Scene, line: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    command.args(line.split(' ').skip(1)).args([
        "--uri",
        &scene.uri,
        "--database",
        scene.db.name(),
    ]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = format!("{}{}", lossy(&output.stdout), lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {said}");
    said
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The commands of a block of deploy/README.md, which is the one under this heading.
fn steps(heading: &str) -> Vec<Document> {
    let text = include_str!("../../deploy/README.md");
    let section = text.split(&format!("\n### {heading}\n")).nth(1).unwrap();
    let block = section.split("```js\n").nth(1).unwrap().split("```").next().unwrap();
    let command = |line: &str| {
        let json = line.strip_prefix("db.runCommand(")?.rsplit_once(')')?.0;
        // As Extended JSON writes a date.
        let json = json.replace("ISODate(", "{ \"$date\": ").replace("\")", "\" }");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        Some(Document::try_from(json.as_object().unwrap().clone()).unwrap())
    };
    let commands: Vec<Document> = block.lines().filter_map(command).collect();
    assert!(!commands.is_empty(), "{heading}");
    commands
}

/// What is to be done after a dump that was taken collection by collection since a time.
fn since(begun: DateTime) -> Vec<Document> {
    let mut steps = steps("A dump that was taken collection by collection");
    let skips =
        steps.iter_mut().find(|step| step.get_str("delete").is_ok_and(|of| of == "alluvium.skips"));
    let delete = skips.unwrap().get_array_mut("deletes").unwrap()[0].as_document_mut().unwrap();
    let at = delete.get_document_mut("q").unwrap().get_document_mut("skipped_at").unwrap();
    at.insert("$gte", begun).expect("the documentation names a time");
    steps
}

/// The last version that the log has of a document.
async fn last(scene: &Scene, id: &str) -> i64 {
    let log = scene.collection("games.events");
    let of = log.find_one(doc! { "_id.d": id }).sort(doc! { "_id": -1 });
    of.await.unwrap().unwrap().get_document("_id").unwrap().get_i64("s").unwrap()
}

/// Does what an operator does.
async fn follow(scene: &Scene, steps: &[Document]) {
    for command in steps {
        let reply = scene.db.run_command(command.clone()).await.unwrap();
        assert!(!reply.contains_key("writeErrors"), "{command}: {reply}");
    }
}

/// A replica set of its own, and a scene on it with what a dump has.
async fn restored(folder: &Path, identities: Identities) -> (Mongod, Scene) {
    let server = Mongod::start(Options::default()).await.unwrap();
    let client = Client::with_uri_str(server.uri()).await.unwrap();
    let scene = Scene::on(server.uri().to_owned(), client.database("restored")).await;
    restore(&scene.db, folder, identities).await;
    (server, scene)
}

/// A collection with something of everything: bases, snapshots, a skip, a parked document, a gap.
async fn lived() -> (Scene, Running) {
    let mut scene = Scene::new().await;
    scene.games_config().snapshots.every_events = 20;
    let compaction = &mut scene.games_config().compaction;
    (compaction.min_age, compaction.keep_events) = (Duration::ZERO, 10);
    let format = doc! { "_id": "format", "version": 2_i64 };
    scene.collection("alluvium.meta").insert_one(format).await.unwrap();
    let daemon = scene.start().await;
    scene.write_on(DOCUMENTS, 1..=60).await;
    skipped(&scene, "skipped").await;
    scene.append([event("parked", 1), poison("parked", 2), event("parked", 3)]).await;
    scene.append([event("waiting", 1), event("waiting", 3)]).await;
    scene.parked("parked", 2).await;
    scene.recorded("waiting", "gap", 2).await;
    for document in 0..DOCUMENTS {
        scene.reached(format!("d{document}"), 60).await;
    }
    let compacted = done(&scene, doc! { "kind": "compact", "collection": "games" }).await;
    assert_eq!(compacted.get_i64("bases").unwrap(), DOCUMENTS, "{compacted}");
    (scene, daemon)
}

fn poison(id: &str, version: i64) -> Document {
    change(id, version, doc! { "op": "update", "patch": { "$inc": { "n": "text" } } })
}

/// A document whose second event is skipped.
async fn skipped(scene: &Scene, id: &str) {
    scene.append([event(id, 1), poison(id, 2), event(id, 3)]).await;
    scene.parked(id, 2).await;
    done(scene, doc! { "kind": "skip", "collection": "games", "document": id }).await;
    scene.reached(id, 3).await;
}

/// Everything is what its log makes of it, also after writers went on.
async fn goes_on(scene: &Scene) {
    let daemon = scene.start().await;
    for document in 0..DOCUMENTS {
        let id = format!("d{document}");
        let last = last(scene, &id).await;
        // Other ones than the dumped database may have had there.
        let more = doc! { "op": "update", "patch": { "$inc": { "n": 10 } } };
        scene.append((1..=MORE).map(|n| change(id.as_str(), last + n, more.clone()))).await;
        scene.reached(id.as_str(), last + MORE).await;
        // The same that a snapshot says which is there already, if one is.
        done(scene, doc! { "kind": "snapshot", "collection": "games", "document": &id }).await;
        let reader = Reader::new(&scene.db, "games", ReadLimits::default());
        for n in 1..=MORE {
            let id = DocumentId::from_text(&id).unwrap();
            let then = reader.at_version(&id, last + n).await.unwrap().unwrap();
            let state = then.state().unwrap().to_raw();
            assert_eq!(state.get("n").unwrap().and_then(integral), Some(last + 10 * n), "{id}");
            let key = doc! { "_id": { "d": id.to_bson(), "s": last + n } };
            let snapshot = scene.collection("games.snapshots").find_one(key).await.unwrap();
            let snapshot = snapshot.map(|found| found.get_document("state").unwrap().clone());
            assert!(snapshot.is_none_or(|found| found == Document::try_from(state).unwrap()));
        }
    }
    scene.append([event("waiting", 2)]).await;
    scene.reached("waiting", 3).await;
    scene.reached("skipped", 3).await;
    scene.parked("parked", 2).await;
    let verified = done(scene, doc! { "kind": "verify", "collection": "games" }).await;
    assert_eq!(verified.get_i64("differences").unwrap(), 0, "{verified}");
    assert!(verified.get_i64("documents").unwrap() >= DOCUMENTS + 3, "{verified}");
    done(scene, doc! { "kind": "compact", "collection": "games" }).await;
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_one_moment_goes_on_and_its_log_has_to_be_accepted() {
    let (scene, daemon) = lived().await;
    daemon.stop().await;
    let folder = TempDir::new().unwrap();
    dump(&scene.db, folder.path()).await;

    // Where the log is known still, the place in the oplog of another server means nothing.
    let (server, same) = restored(folder.path(), Identities::Kept).await;
    goes_on(&same).await;
    server.stop().await.unwrap();

    let (server, other) = restored(folder.path(), Identities::New).await;
    let daemon = other.start().await;
    let refusal = daemon.refuses().await;
    assert!(refusal.contains("it was dropped, renamed or restored"), "{refusal}");
    assert!(refusal.contains("`alluvium.checkpoints`"), "{refusal}");
    daemon.stop().await;
    follow(&other, &steps("A dump of one moment")).await;
    goes_on(&other).await;
    server.stop().await.unwrap();
}

/// Dumps while writers go on, everything else long after what comes `first`.
async fn online(scene: &Scene, folder: &Path, first: &str) {
    let is_over = AtomicBool::new(false);
    let written = async {
        scene.write_on(DOCUMENTS, 61..=60 + MEANWHILE).await;
        for n in 0.. {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            scene.append([event(format!("new {n}"), 1)]).await;
        }
    };
    let dumped = async {
        run(scene, "alluvium pause games --compaction").await;
        let mut names = begin(&scene.db, folder).await;
        let is_first = |name: &String| name.starts_with(first);
        names.sort_by_key(|name| !is_first(name));
        for name in names.iter().filter(|name| is_first(name)) {
            dump_collection(&scene.db, folder, name).await;
        }
        for document in 0..DOCUMENTS {
            scene.reached(format!("d{document}"), 60 + MEANWHILE).await;
        }
        skipped(scene, "skipped meanwhile").await;
        scene.append([event("parked meanwhile", 1), poison("parked meanwhile", 2)]).await;
        scene.parked("parked meanwhile", 2).await;
        scene.append([event("waits meanwhile", 1), event("waits meanwhile", 3)]).await;
        scene.recorded("waits meanwhile", "gap", 2).await;
        done(scene, doc! { "kind": "snapshot", "collection": "games", "document": "d1" }).await;
        for name in names.iter().filter(|name| !is_first(name)) {
            dump_collection(&scene.db, folder, name).await;
        }
        run(scene, "alluvium resume games --compaction").await;
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(written, dumped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_older_than_its_documents_is_refused_and_makes_them_again() {
    let (scene, daemon) = lived().await;
    let (folder, begun) = (TempDir::new().unwrap(), DateTime::now());
    online(&scene, folder.path(), "games.events").await;
    daemon.stop().await;

    let (server, restored) = restored(folder.path(), Identities::New).await;
    follow(&restored, &steps("A dump of one moment")).await;
    let daemon = restored.start().await;
    let refusal = daemon.refuses().await;
    assert!(refusal.contains("restore the log"), "{refusal}");
    daemon.stop().await;
    assert_eq!(dumped(folder.path(), "alluvium.skips").len(), 2);
    follow(&restored, &since(begun)).await;
    // It was paused when the dump was taken, and so was what came out of it.
    run(&restored, "alluvium resume games --compaction").await;
    // What stands at the place of a skip that the log knows nothing of is another event.
    for id in ["skipped meanwhile", "parked meanwhile", "waits meanwhile"] {
        restored.append(events(id, 1..=3)).await;
    }
    goes_on(&restored).await;
    for id in ["skipped meanwhile", "parked meanwhile", "waits meanwhile"] {
        let row = restored.reached(id, 3).await;
        assert_eq!(row.get_document("state").unwrap(), &doc! { "n": 3 });
        restored.record(id, |record| record.is_none()).await;
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_older_than_their_log_are_brought_up_to_it() {
    let (scene, daemon) = lived().await;
    let (folder, begun) = (TempDir::new().unwrap(), DateTime::now());
    online(&scene, folder.path(), "alluvium.").await;
    daemon.stop().await;
    let (server, restored) = restored(folder.path(), Identities::New).await;
    follow(&restored, &steps("A dump of one moment")).await;
    let daemon = restored.start().await;
    for document in 0..DOCUMENTS {
        let id = format!("d{document}");
        let newest = last(&restored, &id).await;
        assert_eq!(newest, 60 + MEANWHILE);
        restored.reached(id, newest).await;
    }
    daemon.stop().await;
    follow(&restored, &since(begun)).await;
    // It was paused when the dump was taken, and so was what came out of it.
    run(&restored, "alluvium resume games --compaction").await;
    goes_on(&restored).await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_that_are_put_over_a_compacted_log_change_nothing_and_are_taken_out() {
    let (scene, daemon) = lived().await;
    scene.append(events("big", 1..=1_500)).await;
    scene.reached("big", 1_500).await;
    let folder = TempDir::new().unwrap();
    begin(&scene.db, folder.path()).await;
    dump_collection(&scene.db, folder.path(), "games.events").await;
    let few = events("d0", 2..=40);
    done(&scene, doc! { "kind": "compact", "collection": "games" }).await;
    let log = scene.collection("games.events");
    let before = log.count_documents(doc! {}).await.unwrap();
    daemon.stop().await;

    // What is there already is refused, as it is for `mongorestore`.
    let old = dumped(folder.path(), "games.events").into_iter().chain(few.clone());
    let put_back = log.insert_many(old).ordered(false).await;
    assert!(put_back.unwrap_err().to_string().contains("E11000"));
    let daemon = scene.start().await;
    let (records, late) = (scene.collection("alluvium.quarantine"), doc! { "class": "late" });
    let on_record = async || records.count_documents(late.clone()).await.unwrap();
    let compacted = done(&scene, doc! { "kind": "compact", "collection": "games" }).await;
    let findings = compacted.get_array("findings").unwrap();
    assert_eq!(findings.len(), 1, "{compacted}");
    let problem = findings[0].as_document().unwrap().get_str("problem").unwrap();
    assert!(problem.contains("somebody has put a dump back over the log"), "{problem}");
    assert_eq!(on_record().await, few.len() as u64);

    let base = log.find_one(doc! { "_id": { "d": "big", "s": 1_i64 } }).await.unwrap().unwrap();
    assert_eq!(base.get_i64("pruned").unwrap(), 1_489, "as the documentation has it");
    follow(&scene, &steps("Old events over a compacted log")).await;
    assert_eq!(log.count_documents(doc! {}).await.unwrap(), before);
    assert_eq!(on_record().await, 0);
    let compacted = done(&scene, doc! { "kind": "compact", "collection": "games" }).await;
    assert_eq!(compacted.get_i64("differences").unwrap(), 0, "{compacted}");
    daemon.stop().await;
    goes_on(&scene).await;
}
