//! Snapshots as they stand in the database.

use bson::{Binary, DateTime, Document, RawDocumentBuf, doc, spec::BinarySubtype};
use sha2::{Digest, Sha256};

use crate::{
    became, insert,
    scene::{Scene, change, event, events},
};

async fn stored(scene: &Scene, id: &str, version: i64) -> Option<Document> {
    let key = doc! { "_id": { "d": id, "s": version } };
    scene.collection("games.snapshots").find_one(key).await.unwrap()
}

fn hash(snapshot: &Document) -> Binary {
    let mut content = doc! {
        "fold": snapshot.get_i64("fold").unwrap(),
        "version": snapshot.get_document("_id").unwrap().get_i64("s").unwrap(),
        "clock": snapshot.get_document("clock").unwrap().clone(),
    };
    if let Ok(state) = snapshot.get_document("state") {
        content.insert("state", state.clone());
    }
    let bytes = Sha256::digest(content.to_vec().unwrap()).to_vec();
    Binary { subtype: BinarySubtype::Generic, bytes }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_the_row_with_the_youngest_time_and_a_hash_that_anybody_can_check() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    let at = |millis| DateTime::from_millis(millis);
    let create = doc! { "op": "create", "state": { "n": 1, "deep": { "b": 1, "a": [1.5] } } };
    scene.append([change("a", 1, create.clone()), change("gone", 1, create)]).await;
    let young =
        doc! { "op": "update", "merge": { "n": 2 }, "at": at(9_000_000_000_000), "client": "y" };
    scene.append([change("a", 2, young)]).await;
    scene.append([change("a", 3, doc! { "op": "update", "patch": {}, "at": at(5) })]).await;
    scene.append([change("gone", 2, doc! { "op": "delete" })]).await;
    let (a, gone) = (scene.reached("a", 3).await, scene.reached("gone", 2).await);
    let id = insert(&scene, doc! { "kind": "snapshot", "collection": "games" }).await;
    became(&scene, &id, "done").await;

    let snapshot = stored(&scene, "a", 3).await.unwrap();
    assert_eq!(snapshot.get("state"), a.get("state"));
    assert_eq!(snapshot.get("clock"), a.get("clock"));
    assert_eq!(snapshot.get_datetime("at_max").unwrap(), &at(9_000_000_000_000));
    assert_eq!(snapshot.get("hash").unwrap(), &hash(&snapshot).into());
    assert_eq!(snapshot.get_str("reason").unwrap(), "request");
    let fields: Vec<&str> = snapshot.keys().map(String::as_str).collect();
    let expected = ["_id", "clock", "state", "at_max", "hash", "fold", "taken_at", "reason"];
    assert_eq!(fields, expected);
    let snapshot = stored(&scene, "gone", 2).await.unwrap();
    assert_eq!((snapshot.get_bool("deleted").ok(), snapshot.get("state")), (Some(true), None));
    assert_eq!(snapshot.get("clock"), gone.get("clock"));
    assert_eq!(snapshot.get("hash").unwrap(), &hash(&snapshot).into());
    let raw = RawDocumentBuf::try_from(&snapshot).unwrap();
    assert!(alluvium::model::snapshot::Snapshot::from_raw(&raw).is_ok());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_again_answers_200_with_what_is_stored_and_a_row_that_is_wrong_is_never_taken() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=3)).await;
    scene.append([event("slash/ä", 1)]).await;
    scene.reached("a", 3).await;
    scene.reached("slash/ä", 1).await;
    let path = "/v1/collections/games/documents/a/snapshot";
    let first = crate::ask(&daemon, "POST", path).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!((&first.json["version"], &first.json["state"]["n"]), (&3.into(), &3.into()));
    assert_eq!((&first.json["deleted"], &first.json["reason"]), (&false.into(), &"request".into()));
    let again = crate::ask(&daemon, "POST", &format!("{path}?ejson=canonical")).await;
    assert_eq!((again.status, &again.json["taken_at"]), (200, &first.json["taken_at"]));
    let other = "/v1/collections/games/documents/slash%2F%C3%A4/snapshot";
    assert_eq!(crate::ask(&daemon, "POST", other).await.status, 201);
    let unknown = crate::ask(&daemon, "POST", "/v1/collections/games/documents/no/snapshot").await;
    assert_eq!(
        (unknown.status, &unknown.json["type"]),
        (404, &"urn:alluvium:problem:unknown-document".into())
    );

    // The row of another version, changed by hand.
    scene.append([event("a", 4)]).await;
    scene.reached("a", 4).await;
    let games = scene.collection("games");
    games.update_one(doc! { "_id": "a" }, doc! { "$set": { "state.n": 7 } }).await.unwrap();
    let wrong = crate::ask(&daemon, "POST", path).await;
    assert_eq!(wrong.status, 500);
    assert!(wrong.json["detail"].as_str().unwrap().contains("`state.n` differs"), "{wrong:?}");
    assert_eq!(stored(&scene, "a", 4).await, None);

    // A snapshot that does not fit is told and left alone.
    games.update_one(doc! { "_id": "a" }, doc! { "$set": { "state.n": 4 } }).await.unwrap();
    let mut strange = stored(&scene, "a", 3).await.unwrap();
    strange.insert("_id", doc! { "d": "a", "s": 4_i64 });
    scene.collection("games.snapshots").insert_one(&strange).await.unwrap();
    let conflict = crate::ask(&daemon, "POST", path).await;
    assert_eq!(conflict.status, 500);
    assert!(conflict.json["detail"].as_str().unwrap().contains("another hash"), "{conflict:?}");
    assert_eq!(stored(&scene, "a", 4).await.unwrap(), strange);
    daemon.stop().await;
}
