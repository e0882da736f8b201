//! The answer of the last events, which is one command: that it is exact, of one moment, and of one log.

use alluvium::{
    model::{document::Document, id::DocumentId, position::LogId},
    read::{MissingQuery, Reader},
};
use bson::doc;
use futures::TryStreamExt;
use mongodb::{Database, options::WriteConcern};

use crate::{
    common::{
        self,
        history::{append, event, make_log},
    },
    five, query,
};

/// A log of five events takes the place of the one that is there.
async fn replace(db: &Database, how: &str) {
    match how {
        "dropped and made again" => {
            db.collection::<bson::Document>("games.events").drop().await.unwrap();
            five(db, true).await;
        }
        _ => {
            make_log(db, "spare", true).await;
            let events: Vec<bson::Document> = db
                .collection("games.events")
                .find(doc! {})
                .await
                .unwrap()
                .try_collect()
                .await
                .unwrap();
            append(db, "spare", &events).await;
            let namespace = |name: &str| format!("{}.{name}", db.name());
            let rename = doc! {
                "renameCollection": namespace("spare.events"), "to": namespace("games.events"),
                "dropTarget": true,
            };
            db.client().database("admin").run_command(rename).await.unwrap();
        }
    }
}

async fn identity(db: &Database) -> LogId {
    let mut found = db.list_collections().filter(doc! { "name": "games.events" }).await.unwrap();
    LogId(found.try_next().await.unwrap().unwrap().info.uuid.unwrap().to_uuid().unwrap())
}

#[tokio::test]
async fn a_log_that_took_the_place_of_another_is_noticed_by_the_next_answer() {
    for how in ["dropped and made again", "renamed over"] {
        let db = common::database().await.db;
        let (id, reader) = five(&db, true).await;
        let clock = [("server", 1), ("panel", 3)];
        let before = reader.missing(&id, &query(&clock)).await.unwrap().unwrap();
        assert_eq!(before.log, identity(&db).await);
        replace(&db, how).await;
        let now = identity(&db).await;
        assert_ne!(before.log, now, "{how}");
        // Twice: by the answer that notices, and by one that knows.
        for _ in 0..2 {
            let known = MissingQuery { log: Some(before.log), ..query(&clock) };
            let answer = reader.missing(&id, &known).await.unwrap().unwrap();
            assert_eq!((answer.log, answer.snapshot.is_some()), (now, true), "{how}");
            let answer = reader.missing(&id, &query(&clock)).await.unwrap().unwrap();
            assert_eq!((answer.log, answer.events.len()), (now, 1), "{how}");
        }
    }
}

#[tokio::test]
async fn an_answer_of_the_last_events_is_one_command() {
    let db = common::database().await.db;
    let (id, reader) = five(&db, true).await;
    reader.missing(&id, &query(&[])).await.unwrap().unwrap();
    db.run_command(doc! { "profile": 2 }).await.unwrap();
    for clock in [&[][..], &[("server", 1), ("panel", 1)], &[("server", 1), ("panel", 4)]] {
        reader.missing(&id, &query(clock)).await.unwrap().unwrap();
    }
    db.run_command(doc! { "profile": 0 }).await.unwrap();
    let others = doc! { "command.profile": { "$exists": false } };
    let profile = db.collection::<bson::Document>("system.profile");
    let commands: Vec<_> = profile.find(others).await.unwrap().try_collect().await.unwrap();
    assert_eq!(commands.len(), 3, "{commands:#?}");
}

#[tokio::test]
async fn what_an_operator_skipped_is_marked_for_that_document_alone() {
    let db = common::database().await.db;
    let (id, reader) = five(&db, true).await;
    let skips =
        [("games", "five", 2), ("games", "five", 4), ("games", "six", 3), ("toys", "five", 5)];
    for (c, d, s) in skips {
        skip(&db, c, d, s).await;
    }
    for (known, lacking) in [(0, [false, true, false, true, false].as_slice()), (3, &[true, false])]
    {
        let clock: &[_] = if known == 0 { &[] } else { &[("server", 1), ("panel", 2)] };
        let answer = reader.missing(&id, &query(clock)).await.unwrap().unwrap();
        let marks: Vec<bool> = answer.events.iter().map(|event| event.is_skipped).collect();
        assert_eq!(marks, lacking);
    }
}

async fn skip(db: &Database, c: &str, d: &str, s: i64) {
    let row = doc! { "_id": { "c": c, "d": d, "s": s }, "client": "x", "seq": s };
    let skips = db.collection::<bson::Document>("alluvium.skips");
    skips.insert_one(row).write_concern(WriteConcern::majority()).await.unwrap();
}

/// Moves the document over its next event, by a skip, in one transaction: as an operator does.
async fn skip_next(db: &Database, document: &mut Document) {
    let version = document.version + 1;
    let next = event(&document.id, version, "panel", doc! { "op": "explode" });
    append(db, "games", &[next]).await;
    document.version = version;
    document.clock.increment("panel");
    let mut session = db.client().start_session().await.unwrap();
    session.start_transaction().write_concern(WriteConcern::majority()).await.unwrap();
    let rows = db.collection::<bson::RawDocumentBuf>("games");
    let replaced = rows.replace_one(doc! { "_id": document.id.to_bson() }, document.to_raw());
    replaced.session(&mut session).await.unwrap();
    let key = doc! { "c": "games", "d": document.id.to_bson(), "s": version };
    let row = doc! { "_id": key, "client": "panel", "seq": document.clock.get("panel") };
    let skips = db.collection::<bson::Document>("alluvium.skips");
    skips.insert_one(row).session(&mut session).await.unwrap();
    session.commit_transaction().await.unwrap();
}

#[tokio::test]
async fn events_document_and_skips_are_of_one_moment() {
    const SKIPPED: i64 = 60;
    let db = common::database().await.db;
    let (id, reader) = five(&db, true).await;
    let mut document = reader.document(&id).await.unwrap().unwrap();
    let write = async {
        while document.version < 5 + SKIPPED {
            skip_next(&db, &mut document).await;
        }
    };
    let read = async {
        let mut version = 0;
        while version < 5 + SKIPPED {
            version = all_skipped(&reader, &id).await;
        }
    };
    tokio::join!(write, read);
}

/// Asks as somebody who knows the first five events, and gives the version of the answer.
async fn all_skipped(reader: &Reader, id: &DocumentId) -> i64 {
    let known = query(&[("server", 1), ("panel", 4)]);
    let answer = reader.missing(id, &known).await.unwrap().unwrap();
    let versions = answer.events.iter().map(|event| event.version);
    assert!(versions.eq(6..=answer.version), "{answer:?}");
    assert!(answer.events.iter().all(|event| event.is_skipped), "{answer:?}");
    assert_eq!(answer.clock.total(), answer.version);
    answer.version
}

#[tokio::test]
async fn a_state_of_any_size_does_not_make_an_answer_longer() {
    let db = common::database().await.db;
    let (id, reader) = five(&db, true).await;
    let fields = doc! { "op": "update", "patch": { "$set": { "text": "x".repeat(1 << 20) } } };
    append(&db, "games", &[event(&id, 6, "panel", fields)]).await;
    let rows = db.collection::<bson::Document>("games");
    let update = doc! { "$set": {
        "version": 6_i64, "clock.panel": 5_i64, "state.text": "x".repeat(1 << 20),
    } };
    let majority = WriteConcern::majority();
    rows.update_one(doc! { "_id": "five" }, update).write_concern(majority).await.unwrap();
    let everything = query(&[("server", 1), ("panel", 5)]);
    reader.missing(&id, &everything).await.unwrap().unwrap();
    db.run_command(doc! { "profile": 2 }).await.unwrap();
    reader.missing(&id, &everything).await.unwrap().unwrap();
    db.run_command(doc! { "profile": 0 }).await.unwrap();
    let profile = db.collection::<bson::Document>("system.profile");
    let asked = doc! { "command.aggregate": "games.events" };
    let asked = profile.find_one(asked).await.unwrap().unwrap();
    assert!(asked.get_i32("responseLength").unwrap() < 2_000, "{asked}");
}
