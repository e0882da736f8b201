//! What stands in the way of compacting one document hinders no other.

use std::time::Duration;

use alluvium::{
    model::{
        document::{Class, Quarantine},
        id::DocumentId,
        part::Part,
    },
    store::{QuarantineRow, QuarantineRows, mongo::MongoStore},
};
use bson::{Bson, doc};

use super::compacting::{compact, log_of, scene, started, turn, versions};
use crate::{
    common::{wait_for, wait_until},
    count, run,
    scene::{Scene, change},
};

/// Waits for a base of a document, and that everything below it is pruned.
async fn pruned(scene: &Scene, document: &str) {
    let events = scene.collection("games.events");
    let pruned = doc! { "$gte": ["$pruned", { "$subtract": ["$version", 1] }] };
    let base = doc! { "_id": { "d": document, "s": 1 }, "op": "base", "$expr": pruned };
    wait_until(&format!("{document} is pruned"), async || {
        events.find_one(base.clone()).await.unwrap().is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_an_index_on_the_log_refuses_stands_in_nobody_elses_way() {
    let (scene, daemon) = started(10, 100).await;
    let events = scene.collection("games.events");
    let hashed = mongodb::IndexModel::builder().keys(doc! { "state.tag": "hashed" }).build();
    let index = events.create_index(hashed).await.unwrap().index_name;
    // The hash of an array cannot be taken, and only a base has the array in its state.
    let set = |version: i64| {
        change("0", version, doc! { "op": "update", "patch": { "$set": { "tag": [version] } } })
    };
    scene.append([turn("0", 1)]).await;
    scene.append((2..=100).map(set)).await;
    scene.reached("0", 100).await;
    let result = compact(&scene, doc! {}).await;
    assert_eq!((count(&result, "bases"), count(&result, "differences")), (1, 1), "{result}");
    let finding = result.get_array("findings").unwrap()[0].as_document().unwrap();
    assert_eq!(finding.get_str("document").unwrap(), "0");
    assert!(finding.get_str("problem").unwrap().contains("refuses its base"), "{finding}");
    pruned(&scene, "a").await;
    assert_eq!(log_of(&scene, "0").await.len(), 100);
    events.drop_index(index).await.unwrap();
    compact(&scene, doc! {}).await;
    pruned(&scene, "0").await;
    let nobody = run(&scene, &["compact", "games", "nobody"]).await;
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.err.contains("nobody has no projected row"), "{nobody:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_goes_on_record_whatever_is_in_it_also_of_a_document_that_waits() {
    let (scene, daemon) = started(10, 100).await;
    compact(&scene, doc! {}).await;
    // It waits behind a gap, and a text of what comes late is no UTF-8.
    scene.append([turn("a", 102)]).await;
    scene.recorded("a", "gap", 101).await;
    let mut late = turn("a", 50);
    late.insert("meta", doc! { "text": "QQQQ" });
    let mut bytes = bson::RawDocumentBuf::try_from(&late).unwrap().into_bytes();
    let text = bytes.windows(4).position(|bytes| bytes == b"QQQQ").unwrap();
    bytes[text..text + 4].copy_from_slice(b"\xff\xfe\xfdQ");
    let late = bson::RawDocumentBuf::from_bytes(bytes).unwrap();
    let events = scene.db.collection::<bson::RawDocumentBuf>("games.events");
    events.insert_one(&late).await.unwrap();
    scene.append((1..=100).map(|version| turn("b", version))).await;
    scene.reached("b", 100).await;
    let result = compact(&scene, doc! {}).await;
    assert_eq!(count(&result, "bases"), 1, "{result}");
    // Whoever follows the stream may have been quicker than the job.
    let records = scene.db.collection::<bson::RawDocumentBuf>("alluvium.quarantine");
    let record = wait_for("it is on record", async || {
        records.find_one(doc! { "class": "late" }).await.unwrap()
    })
    .await;
    assert_eq!(record.get_document("event").unwrap(), &*late);
    let kept: Vec<i64> = [1].into_iter().chain(90..=100).chain([102]).collect();
    assert_eq!(versions(&log_of(&scene, "a").await), kept);
    for arguments in [vec!["--late"], vec!["--late", "--json"]] {
        let listed =
            run(&scene, &[&["quarantine", "list", "games"], &arguments[..]].concat()).await;
        assert_eq!(listed.code, Some(0), "{listed:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_that_make_no_sense_are_written_anew_and_hinder_nobody() {
    let mut scene = scene(10).await;
    scene.games_config().compaction.every = Some(Duration::from_secs(1));
    let marks = scene.collection("alluvium.marks");
    let log = scene.db.list_collections().filter(doc! { "name": "games.events" }).await.unwrap();
    let log: Vec<_> = futures::TryStreamExt::try_collect(log).await.unwrap();
    let log = log[0].info.uuid.clone().unwrap();
    for (document, noted) in [("a", Bson::from(5)), ("b", vec![Bson::from("x")].into())] {
        let key = doc! { "c": "games", "d": document };
        marks.insert_one(doc! { "_id": key, "log": log.clone(), "marks": noted }).await.unwrap();
    }
    let daemon = scene.start().await;
    for document in ["a", "b", "c"] {
        scene.append((1..=250).map(|version| turn(document, version))).await;
    }
    for document in ["a", "b", "c"] {
        pruned(&scene, document).await;
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_says_wrongly_what_is_pruned_is_found_by_verify_and_left_by_compact() {
    let (scene, daemon) = started(10, 100).await;
    compact(&scene, doc! {}).await;
    let says = async |pruned: i64| {
        let first = doc! { "_id": { "d": "a", "s": 1 } };
        let update = doc! { "$set": { "pruned": pruned } };
        let events = scene.collection("games.events");
        assert_eq!(events.update_one(first, update).await.unwrap().modified_count, 1);
    };
    let commands: [&[&str]; 3] =
        [&["verify", "games"], &["verify", "games", "a"], &["compact", "games"]];
    says(50).await;
    for command in commands {
        let told = run(&scene, command).await;
        assert_eq!(told.code, Some(3), "{told:?}");
        assert!(told.out.contains("below its base, at version 90"), "{told:?}");
    }
    says(89).await;
    for command in commands {
        let told = run(&scene, command).await;
        assert_eq!(told.code, Some(0), "{told:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_former_leader_writes_late_is_taken_back() {
    let (scene, daemon) = started(10, 100).await;
    let id = DocumentId::from_text("a").unwrap();
    let record = |version: i64| {
        let mark = Quarantine { class: Class::BadPatch, version, reason: "late".into() };
        QuarantineRow { document: id.clone(), mark, since: bson::DateTime::now() }
    };
    let store = MongoStore::new(&scene.db, "games", Part::WHOLE);
    store.put_quarantine(&[record(100)]).await.unwrap();
    assert_eq!(store.load_quarantine().await.unwrap(), []);
    // What its row has not come to may be waited for.
    store.put_quarantine(&[record(101)]).await.unwrap();
    assert_eq!(store.load_quarantine().await.unwrap().len(), 1);
    daemon.stop().await;
}
