//! Rows that differ from their log are made again from it, by whoever leads their part and has them in memory.

use bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};
use serde_json::json;

use crate::{
    ask, became,
    common::wait_until,
    count, documents, insert, job, run,
    scene::{Running, Scene, event},
};

/// Changes a row behind the daemon's back.
async fn change(scene: &Scene, id: &str, update: Document) {
    let games = scene.collection("games");
    let changed = games.update_one(doc! { "_id": id }, update).await.unwrap();
    assert_eq!(changed.modified_count, 1, "{id}");
}

async fn done(scene: &Scene, job: Document) -> Document {
    let id = insert(scene, job).await;
    became(scene, &id, "done").await.get_document("result").unwrap().clone()
}

/// What was found, each with whether it was made again.
fn found(result: &Document) -> Vec<(String, bool)> {
    let findings = result.get_array("findings").unwrap().iter();
    let mut found: Vec<(String, bool)> = findings
        .map(|finding| finding.as_document().unwrap())
        .map(|finding| {
            let id = finding.get("document").unwrap().to_string().replace('"', "");
            (id, finding.get_bool("repaired").unwrap_or_default())
        })
        .collect();
    found.sort();
    found
}

/// Wrong in every way in which the daemon takes no notice of it.
async fn damage(scene: &Scene) {
    change(scene, "d0001", doc! { "$set": { "state.n": 40 } }).await;
    change(scene, "d0002", doc! { "$set": { "clock.x": 3_i32 } }).await;
    change(scene, "d0003", doc! { "$set": { "version": 9_i64 } }).await;
    change(scene, "d0004", doc! { "$unset": { "updated_at": "" } }).await;
    change(scene, "d0005", doc! { "$unset": { "version": "" } }).await;
    let games = scene.db.collection::<RawDocumentBuf>("games");
    let ahead = rawdoc! {
        "_id": "d0006", "version": 5_i64, "clock": { "x": 5_i64 }, "state": { "n": 5_i32 },
    };
    games.replace_one(doc! { "_id": "d0006" }, ahead).await.unwrap();
    let earlier = rawdoc! {
        "_id": "d0007", "version": 1_i64, "clock": { "x": 1_i64 }, "state": { "n": 1_i32 },
    };
    games.replace_one(doc! { "_id": "d0007" }, earlier).await.unwrap();
    for stranger in [rawdoc! { "_id": 1.5 }, rawdoc! { "_id": "nobody" }] {
        games.insert_one(stranger).await.unwrap();
    }
}

/// Takes away what nothing can be made of.
async fn clean(scene: &Scene) {
    let strangers =
        doc! { "_id": { "$in": [Bson::Double(1.5), Bson::from("nobody"), Bson::from("d0006")] } };
    assert_eq!(scene.collection("games").delete_many(strangers).await.unwrap().deleted_count, 3);
}

async fn goes_on(scene: &Scene) {
    scene.append((0..20).map(|number| event(format!("d{number:04}"), 4))).await;
    scene.level("games").await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_differ_are_made_again_in_memory_too_and_what_nothing_can_be_made_of_is_told() {
    for kind in ["verify", "rebuild"] {
        let scene = Scene::new().await;
        let mut daemon = scene.start().await;
        documents(&scene, 20, 3).await;
        if kind == "rebuild" {
            // With nothing in memory, so that it reads what is there.
            daemon.stop().await;
            daemon = scene.start().await;
        }
        damage(&scene).await;
        let mut order = doc! { "kind": kind, "collection": "games" };
        if kind == "verify" {
            order.insert("repair", true);
        }
        let result = done(&scene, order.clone()).await;
        let mut expected: Vec<(String, bool)> =
            ["d0001", "d0002", "d0003", "d0004", "d0005", "d0007"]
                .map(|id| (id.to_owned(), true))
                .into();
        expected.extend(["d0006", "nobody", "null"].map(|id| (id.to_owned(), false)));
        expected.sort();
        assert_eq!(found(&result), expected, "{result}");
        assert_eq!((count(&result, "differences"), count(&result, "repaired")), (9, 6), "{result}");
        clean(&scene).await;
        scene.reached("d0006", 3).await;
        let result = done(&scene, order).await;
        assert_eq!((count(&result, "documents"), count(&result, "differences")), (20, 0));
        goes_on(&scene).await;
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_daemon_has_read_wrong_is_made_again_with_what_was_folded_on_top() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 2, 3).await;
    daemon.stop().await;
    change(&scene, "d0001", doc! { "$set": { "state.n": 40 } }).await;
    let daemon = scene.start().await;
    scene.append([event("d0001", 4)]).await;
    let row = scene.reached("d0001", 4).await;
    assert_eq!(row.get_document("state").unwrap().get_i32("n").unwrap(), 41);
    let repair =
        doc! { "kind": "verify", "collection": "games", "document": "d0001", "repair": true };
    let result = done(&scene, repair).await;
    assert_eq!((count(&result, "differences"), count(&result, "repaired")), (1, 1), "{result}");
    scene.append([event("d0001", 5)]).await;
    scene.reached("d0001", 5).await;
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_parts_that_others_lead_are_made_again_by_them() {
    let scene = Scene::new().await;
    scene.divide(4).await;
    let daemons = [scene.start().await, scene.start().await];
    let shared = async || daemons.iter().all(|daemon: &Running| daemon.leads() == 2);
    wait_until("each leads two parts", shared).await;
    documents(&scene, 20, 3).await;
    damage(&scene).await;
    let result = done(&scene, doc! { "kind": "rebuild", "collection": "games" }).await;
    assert_eq!((count(&result, "differences"), count(&result, "repaired")), (9, 6), "{result}");
    clean(&scene).await;
    scene.reached("d0006", 3).await;
    goes_on(&scene).await;
    for daemon in daemons {
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_whose_daemon_was_killed_goes_on_at_its_place() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 700, 2).await;
    scene
        .collection("games")
        .update_many(doc! {}, doc! { "$set": { "state.n": 7 } })
        .await
        .unwrap();
    let id = insert(&scene, doc! { "kind": "rebuild", "collection": "games" }).await;
    wait_until("one step is done", async || {
        let row = job(&scene, &id).await;
        row.get_document("progress").is_ok_and(|progress| count(progress, "done") >= 256)
    })
    .await;
    daemon.crash().await;
    scene.forget_leases().await;
    let daemon = scene.start().await;
    let row = became(&scene, &id, "done").await;
    let result = row.get_document("result").unwrap();
    // What was made again by a step that was not saved is right the second time.
    let (differences, repaired) = (count(result, "differences"), count(result, "repaired"));
    assert!(differences == repaired && (444..=700).contains(&repaired), "{result}");
    assert_eq!(count(result, "documents"), 700);
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_http_have_rows_made_again() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 3, 3).await;
    let wrong = doc! { "$set": { "state.n": 40 } };
    change(&scene, "d0001", wrong.clone()).await;
    let told = run(&scene, &["verify", "games"]).await;
    assert_eq!(told.code, Some(3), "{told:?}");
    let made = run(&scene, &["verify", "games", "--repair"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.out.contains("1 differ, 1 were made again"), "{made:?}");
    assert!(
        made.out.contains("d0001  version 3  `state.n` differs; it was made again"),
        "{made:?}"
    );
    change(&scene, "d0002", wrong.clone()).await;
    let made = run(&scene, &["rebuild", "games"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    change(&scene, "d0002", wrong.clone()).await;
    scene.collection("games").insert_one(doc! { "_id": "nobody" }).await.unwrap();
    let left = run(&scene, &["rebuild", "games"]).await;
    assert_eq!(left.code, Some(3), "{left:?}");
    let one = run(&scene, &["verify", "games", "d0002"]).await;
    assert_eq!(one.code, Some(0), "{one:?}");
    assert!(one.out.starts_with("1 documents of 3 events compared, 0 differ"), "{one:?}");

    let asked = ask(&daemon, "POST", "/v1/collections/games/rebuild").await;
    assert_eq!((asked.status, &asked.json["kind"]), (202, &json!("rebuild")));
    let (status, body) = post(&daemon, "verify", r#"{"repair": true}"#).await;
    assert_eq!((status, &body["kind"]), (202, &json!("verify")), "{body}");
    let repairs = doc! { "kind": "verify", "repair": true };
    let jobs = scene.collection("alluvium.jobs");
    assert_eq!(jobs.count_documents(repairs).await.unwrap(), 2);
    let (status, body) = post(&daemon, "verify", r#"{"repair": "yes"}"#).await;
    assert_eq!(status, 400, "{body}");
    daemon.stop().await;
}

async fn post(daemon: &Running, what: &str, body: &'static str) -> (u16, serde_json::Value) {
    let address = format!("http://{}/v1/collections/games/{what}", daemon.http);
    let asked = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.post(address).send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    });
    asked.await.unwrap()
}
