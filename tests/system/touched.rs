//! Rows that somebody touches: deleted, dropped, set back, or made unreadable, while a daemon looks on and while none does.
//! Their documents are folded again from the log, and the others go on meanwhile.

use bson::{Bson, Document, RawDocumentBuf, doc, raw::cstr, rawdoc, spec::BinarySubtype};

use crate::scene::{Running, Scene, event, events};

/// A scene with `a` to `e` at version 3 each, and `waits` behind a gap; the rows as they are then.
async fn projected() -> (Scene, Running) {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    for id in ["a", "b", "c", "d", "e"] {
        scene.append(events(id, 1..=3)).await;
    }
    scene.append([event("waits", 1), event("waits", 3)]).await;
    scene.recorded("waits", "gap", 2).await;
    all(&scene, 3).await;
    // A checkpoint exists after a stop.
    daemon.stop().await;
    let daemon = scene.start().await;
    daemon.says("it follows", |status| status.lag_seconds.is_some()).await;
    (scene, daemon)
}

async fn all(scene: &Scene, version: i64) {
    for id in ["a", "b", "c", "d", "e"] {
        scene.reached(id, version).await;
    }
    scene.reached("waits", 1).await;
}

async fn rename(scene: &Scene, from: &str, to: &str) {
    let name = |collection: &str| format!("{}.{collection}", scene.db.name());
    let command = doc! { "renameCollection": name(from), "to": name(to), "dropTarget": true };
    scene.db.client().database("admin").run_command(command).await.unwrap();
}

/// Touches the rows in one way.
async fn touch(scene: &Scene, how: &str) {
    let games = scene.collection("games");
    match how {
        "some are deleted" => {
            let some = doc! { "_id": { "$in": ["a", "c", "waits"] } };
            assert_eq!(games.delete_many(some).await.unwrap().deleted_count, 3);
        }
        "all are deleted" => drop(games.delete_many(doc! {}).await.unwrap()),
        "dropped" => games.drop().await.unwrap(),
        "renamed" => rename(scene, "games", "aside").await,
        "set back" => rename(scene, "earlier", "games").await,
        other => panic!("{other}"),
    }
}

const WAYS: [&str; 5] = ["some are deleted", "all are deleted", "dropped", "renamed", "set back"];

/// Keeps a copy of the rows, in which one is further back and one is missing.
async fn keep_earlier(scene: &Scene) {
    let earlier = scene.collection("earlier");
    let out = [doc! { "$out": "earlier" }];
    scene.collection("games").aggregate(out).await.unwrap();
    earlier.delete_one(doc! { "_id": "b" }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_taken_away_come_back_by_themselves() {
    for how in WAYS {
        let (scene, daemon) = projected().await;
        keep_earlier(&scene).await;
        for id in ["a", "b", "c", "d", "e"] {
            scene.append([event(id, 4)]).await;
        }
        all(&scene, 4).await;
        touch(&scene, how).await;
        all(&scene, 4).await;
        // And while nobody looks on.
        daemon.stop().await;
        keep_earlier(&scene).await;
        touch(&scene, how).await;
        let daemon = scene.start().await;
        all(&scene, 4).await;
        scene.append([event("a", 5)]).await;
        scene.reached("a", 5).await;
        daemon.stop().await;
        scene.judged().await;
    }
}

/// Moves the checkpoint to now, as if all of it had been seen.
async fn pass(scene: &Scene) {
    let changes = scene.db.watch().await.unwrap();
    let token = bson::serialize_to_document(&changes.resume_token().unwrap()).unwrap();
    let hello = scene.db.run_command(doc! { "ping": 1 }).await.unwrap();
    let time = hello.get_timestamp("operationTime").unwrap();
    let passed = doc! { "$set": { "token": token, "clusterTime": time } };
    let checkpoints = scene.collection("alluvium.checkpoints");
    checkpoints.update_one(doc! { "_id": "games" }, passed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_vouches_for_the_rows_that_it_speaks_of_and_no_others() {
    for how in ["dropped", "set back"] {
        let (scene, daemon) = projected().await;
        keep_earlier(&scene).await;
        daemon.stop().await;
        touch(&scene, how).await;
        // The stream tells nothing of it any more.
        pass(&scene).await;
        let daemon = scene.start().await;
        all(&scene, 3).await;
        daemon.stop().await;
        scene.judged().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_an_older_program_is_believed_once() {
    let (scene, daemon) = projected().await;
    daemon.stop().await;
    let checkpoints = scene.collection("alluvium.checkpoints");
    checkpoints.update_one(doc! {}, doc! { "$unset": { "rows": "" } }).await.unwrap();
    let daemon = scene.start().await;
    scene.append([event("a", 4)]).await;
    scene.reached("a", 4).await;
    daemon.stop().await;
    assert_eq!(daemon_scans(&scene).await, None);
}

/// Which collection the checkpoint vouches for, unless it is the right one.
async fn daemon_scans(scene: &Scene) -> Option<Bson> {
    let saved = scene.collection("alluvium.checkpoints").find_one(doc! {}).await.unwrap().unwrap();
    let mut listed = scene.db.list_collections().filter(doc! { "name": "games" }).await.unwrap();
    assert!(listed.advance().await.unwrap());
    let uuid = listed.deserialize_current().unwrap().info.uuid.unwrap();
    assert_eq!(uuid.subtype, BinarySubtype::Uuid);
    let found = saved.get("rows").cloned();
    (found != Some(Bson::Binary(uuid))).then_some(found.unwrap_or(Bson::Null))
}

/// Rows that no projection writes, in the place of those of `a` to `d`.
async fn damage(scene: &Scene) {
    let games = scene.db.collection::<RawDocumentBuf>("games");
    let mut twice = rawdoc! { "_id": "c", "version": 3_i64, "clock": { "x": 3_i64 } };
    let mut state = rawdoc! { "n": 3_i32 };
    state.append(cstr!("n"), 4_i32);
    twice.append(cstr!("state"), state);
    let clock = rawdoc! { "x": 3_i64 };
    for row in [
        rawdoc! { "_id": "a", "version": 7_i64, "clock": { "x": 1_i64 }, "state": {} },
        rawdoc! { "_id": "b", "name": "somebody" },
        twice,
        rawdoc! { "_id": "d", "version": 2.5, "clock": clock, "state": { "n": 3_i32 } },
    ] {
        games.delete_one(doc! { "_id": row.get_str("_id").unwrap() }).await.unwrap();
        games.insert_one(row).await.unwrap();
    }
    for stranger in
        [rawdoc! { "_id": "nobody", "version": 7_i64 }, rawdoc! { "_id": 1.5, "name": "somebody" }]
    {
        games
            .delete_one(
                doc! { "_id": Bson::try_from(stranger.get("_id").unwrap().unwrap()).unwrap() },
            )
            .await
            .unwrap();
        games.insert_one(stranger).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_is_named_and_made_again_and_the_others_go_on() {
    let (scene, daemon) = projected().await;
    let names_it = |daemon: &Running, id: &str| {
        let error = daemon.status().last_error;
        error.is_some_and(|error| error.class == "bad_row" && error.message.contains(id))
    };
    // While it looks on, by the delete or by the next event.
    damage(&scene).await;
    for id in ["a", "b", "c", "d", "e"] {
        scene.append([event(id, 4)]).await;
        scene.reached(id, 4).await;
    }
    daemon
        .says("it is named", |_| ["a", "b", "c", "d"].iter().any(|id| names_it(&daemon, id)))
        .await;
    // And by the next event alone, after a restart, which has nothing in memory.
    daemon.stop().await;
    damage(&scene).await;
    pass(&scene).await;
    let daemon = scene.start().await;
    for id in ["a", "b", "c", "d", "e"] {
        scene.append([event(id, 5)]).await;
        scene.reached(id, 5).await;
        assert!(id == "e" || names_it(&daemon, id), "{id}");
    }
    daemon.stop().await;
    // And by a scan.
    damage(&scene).await;
    scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
    let daemon = scene.start().await;
    all(&scene, 5).await;
    daemon.stop().await;
    for stranger in [Bson::from("nobody"), Bson::Double(1.5)] {
        let left: Option<Document> = scene.row(stranger.clone()).await;
        assert!(left.is_some(), "{stranger}");
        scene.collection("games").delete_one(doc! { "_id": stranger }).await.unwrap();
    }
    scene.judged().await;
}
