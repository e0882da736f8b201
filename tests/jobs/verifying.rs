//! Comparing the projection with its log.

use bson::{Document, RawDocumentBuf, doc, rawdoc};

use alluvium::{model::snapshot::Snapshot, status::Phase};

use crate::{
    became, count, documents, insert, run,
    scene::{Scene, change, event},
};

async fn verified(scene: &Scene) -> Document {
    let id = insert(scene, doc! { "kind": "verify", "collection": "games" }).await;
    became(scene, &id, "done").await.get_document("result").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_every_row_that_is_not_what_its_log_makes_of_it() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 20, 3).await;
    // Documents that wait are as they should be.
    scene.append([event("hole", 1), event("hole", 3), event("early", 2)]).await;
    let poison = doc! { "op": "update", "patch": { "$push": { "n": 1 } } };
    scene.append([event("poison", 1), change("poison", 2, poison)]).await;
    scene.recorded("hole", "gap", 2).await;
    scene.recorded("poison", "bad_patch", 2).await;
    scene.recorded("early", "gap", 1).await;
    scene.reached("hole", 1).await;
    scene.reached("poison", 1).await;
    let clean = verified(&scene).await;
    assert_eq!((count(&clean, "documents"), count(&clean, "differences")), (23, 0));

    let games = scene.collection("games");
    let change = async |id: &str, update: Document| {
        let changed = games.update_one(doc! { "_id": id }, update).await.unwrap();
        assert_eq!(changed.modified_count, 1);
    };
    change("d0001", doc! { "$set": { "state.n": 4 } }).await;
    change("d0002", doc! { "$set": { "clock.x": 3_i32 } }).await;
    change("d0003", doc! { "$set": { "version": 9_i64 } }).await;
    change("d0004", doc! { "$unset": { "updated_at": "" } }).await;
    let stranger = doc! { "_id": "z", "version": 1_i64, "clock": { "x": 1_i64 }, "state": {} };
    games.insert_one(stranger).await.unwrap();
    let result = verified(&scene).await;
    let findings: Vec<(String, String)> = result
        .get_array("findings")
        .unwrap()
        .iter()
        .map(|finding| finding.as_document().unwrap())
        .map(|finding| {
            let text = |field: &str| finding.get_str(field).unwrap().to_owned();
            (text("document"), text("problem"))
        })
        .collect();
    let expected = [
        ("d0001", "`state.n` differs"),
        ("d0002", "`clock.x` differs"),
        ("d0003", "its log ends at version 3"),
        ("d0004", "`updated_at` differs"),
        ("z", "its log ends at version 0"),
    ];
    let mut expected = expected.map(|(id, told)| (id.to_owned(), told.to_owned()));
    expected.sort();
    let mut found = findings;
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(count(&result, "differences"), 5);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_checks_snapshots_by_their_hash_and_by_the_fold_and_repair_takes_them_away() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 5, 3).await;
    let taken = insert(&scene, doc! { "kind": "snapshot", "collection": "games" }).await;
    became(&scene, &taken, "done").await;
    let snapshots = scene.db.collection::<RawDocumentBuf>("games.snapshots");
    let key = |id: &str| doc! { "_id": { "d": id, "s": 3_i64 } };
    let set = async |id: &str, update: Document| {
        let changed = snapshots.update_one(key(id), doc! { "$set": update }).await.unwrap();
        assert_eq!(changed.modified_count, 1);
    };
    assert_eq!(count(&verified(&scene).await, "differences"), 0);
    set("d0001", doc! { "state.n": 4 }).await;
    // One of another fold counts for nothing, whatever it says.
    set("d0002", doc! { "state.n": 4, "fold": 1_i64 }).await;
    set("d0003", doc! { "taken_at": "yesterday" }).await;
    // Its hash fits, and it is not what the log makes of the document.
    let row = snapshots.find_one(key("d0004")).await.unwrap().unwrap();
    let mut wrong = Snapshot::from_raw(&row).unwrap();
    wrong.state = Some(rawdoc! { "n": 7_i32 });
    snapshots.replace_one(key("d0004"), wrong.to_raw()).await.unwrap();
    let told = |result: &Document| -> Vec<String> {
        let findings = result.get_array("findings").unwrap().iter();
        let finding = |finding: &bson::Bson| {
            let finding = finding.as_document().unwrap();
            let text = |field: &str| finding.get_str(field).unwrap().to_owned();
            format!("{}: {}", text("document"), text("problem"))
        };
        findings.map(finding).collect()
    };
    let expected = [
        "d0001: its snapshot at version 3: its hash does not fit its content: it was changed after it was taken, or is damaged",
        "d0003: its snapshot at version 3: `taken_at` is missing or has the wrong type",
        "d0004: its snapshot at version 3: `state.n` differs",
    ];
    let result = verified(&scene).await;
    assert_eq!(
        (told(&result), count(&result, "differences")),
        (expected.map(String::from).to_vec(), 3)
    );
    let made = run(&scene, &["verify", "games", "--repair"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    assert_eq!(snapshots.count_documents(doc! {}).await.unwrap(), 2);
    assert_eq!(count(&verified(&scene).await, "differences"), 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_of_every_key_that_names_no_document() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 2, 2).await;
    let log = scene.collection("games.events");
    for key in [doc! { "d": "d0000", "s": 1.5 }, doc! { "d": "zz" }] {
        log.insert_one(doc! { "_id": key }).await.unwrap();
    }
    let result = verified(&scene).await;
    assert_eq!((count(&result, "documents"), count(&result, "differences")), (2, 2), "{result}");
    let findings = result.get_array("findings").unwrap();
    for (finding, key) in
        findings.iter().zip(["{ \"d\": \"d0000\", \"s\": 1.5 }", "{ \"d\": \"zz\" }"])
    {
        let finding = finding.as_document().unwrap();
        let problem = finding.get_str("problem").unwrap();
        assert!(problem.contains(key), "{problem}");
        assert_eq!(finding.get("document"), Some(&bson::Bson::Null), "{finding}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_a_document_whose_log_goes_on_although_nothing_waits() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 3, 2).await;
    let games = scene.collection("games");
    let earlier = scene.row("d0001").await.unwrap();
    scene.append([event("d0001", 3), event("waits", 1), event("waits", 3)]).await;
    scene.reached("d0001", 3).await;
    scene.recorded("waits", "gap", 2).await;
    // As a backup of the row would bring it back.
    games.replace_one(doc! { "_id": "d0001" }, earlier).await.unwrap();
    let result = verified(&scene).await;
    let findings = result.get_array("findings").unwrap();
    let told = "its log goes on to version 3, and it does not wait";
    let expected = doc! { "document": "d0001", "version": 2_i64, "problem": told };
    assert_eq!(findings, &[expected.into()], "{result}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_a_row_that_is_gone_while_nothing_is_projected() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 3, 1).await;
    run(&scene, &["pause", "games"]).await;
    daemon.says("it is paused", |status| status.phase == Phase::Paused).await;
    scene.collection("games").delete_one(doc! { "_id": "d0001" }).await.unwrap();
    let result = verified(&scene).await;
    let told = "its log has events, but there is no row";
    let expected = doc! { "document": "d0001", "version": 0_i64, "problem": told };
    assert_eq!(result.get_array("findings").unwrap(), &[expected.into()], "{result}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_nothing_while_events_pour_in() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.write_on(20, 1..=1).await;
    let pouring = scene.write_on(20, 2..=400);
    let verifying = async {
        for _ in 0..3 {
            let result = verified(&scene).await;
            assert_eq!(count(&result, "differences"), 0, "{result}");
        }
    };
    futures::join!(pouring, verifying);
    daemon.stop().await;
}
