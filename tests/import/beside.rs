//! An import beside an application that goes on: it writes to the original, and appends to the log.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;

/// So many documents are in the original at first, and of so many of them the application goes on in the log.
const DOCUMENTS: i32 = 600;
const MOVED: i32 = 40;

/// Changes documents of the original until it is told to stop: none that has moved.
async fn write(db: &TestDatabase, is_over: &AtomicBool) {
    let (old, mut random) = (old(db), fastrand::Rng::with_seed(7));
    let mut round = 0;
    while !is_over.load(Ordering::Relaxed) {
        round += 1;
        let id = doc! { "_id": random.i32(MOVED..DOCUMENTS) };
        let change = match random.u8(0..4) {
            0 => doc! { "$inc": { "gold": 1, "v": 1_i64 } },
            1 => doc! { "$set": { "items.0.a": round, "at": { "x": null, "round": round } } },
            2 => doc! { "$unset": { "at": 1 }, "$push": { "items": { "a": round } } },
            _ => doc! { "$set": { "names.of.it": round }, "$inc": { "v": 1_i64 } },
        };
        old.update_one(id.clone(), change).await.unwrap();
        match round % 20 {
            0 => drop(old.delete_one(id).await.unwrap()),
            10 => {
                let new = doc! { "_id": format!("late {round}"), "v": 3_i64, "gold": round };
                old.insert_one(new).await.unwrap();
            }
            _ => {}
        }
    }
}

/// Appends to documents that have moved, and to new ones, until it is told to stop. The places that it took.
async fn append(db: &TestDatabase, client: &str, is_over: &AtomicBool) -> Vec<Document> {
    let log = db.db.collection::<Document>("games.events");
    let (mut places, mut random) = (Vec::new(), fastrand::Rng::with_seed(client.len() as u64));
    while !is_over.load(Ordering::Relaxed) || places.len() < 100 {
        let id: bson::Bson = match random.bool() {
            true => random.i32(0..MOVED).into(),
            false => format!("new {}", random.u8(0..20)).into(),
        };
        let of =
            doc! { "_id": { "$gte": { "d": &id, "s": 0 }, "$lt": { "d": &id, "s": i64::MAX } } };
        let last = log.find_one(of).sort(doc! { "_id": -1 }).await.unwrap();
        let last = last.map_or(0, |last| last.get_document("_id").unwrap().get_i64("s").unwrap());
        let place = doc! { "d": id, "s": last + 1 };
        let mut event = doc! { "_id": &place, "client": client, "at": bson::DateTime::now() };
        event.extend(match last {
            0 => doc! { "op": "create", "state": { "by": client } },
            _ => doc! { "op": "update", "patch": { "$inc": { client: 1 } } },
        });
        // Another one was quicker, if this fails.
        if log.insert_one(event).await.is_ok() {
            places.push(place);
        }
    }
    places
}

async fn check(options: &[&str]) {
    let db = prepared().await;
    let daemon = daemon(&db).await;
    let documents = (0..DOCUMENTS).map(|n| {
        doc! { "_id": n, "v": i64::from(n % 4 + 1), "gold": n, "items": [{ "a": 1.5 }] }
    });
    old(&db).insert_many(documents).await.unwrap();
    imported(&db, options).await;
    let options = [options, &["--deletes"]].concat();

    let is_over = AtomicBool::new(false);
    let imports = async {
        let mut found = 0;
        for _ in 0..3 {
            let (_, told, complaint) = import(&db, &options).await;
            found += told["updated"].as_u64().unwrap_or_else(|| panic!("{complaint}"));
        }
        is_over.store(true, Ordering::Relaxed);
        found
    };
    let writers = (write(&db, &is_over), append(&db, "app", &is_over), append(&db, "b", &is_over));
    let (found, (), first, second) = tokio::join!(imports, writers.0, writers.1, writers.2);
    assert!(found > 0, "nothing changed while it was looked for");

    // Whoever appended to it has it; everything else follows the original to its end.
    import(&db, &options).await;
    let (code, told, _) = import(&db, &options).await;
    let count = |field: &str| told[field].as_u64().unwrap();
    assert_eq!(["created", "updated", "deleted", "changed"].map(count), [0; 4], "{told}");
    let has_moved = |id: &DocumentId| matches!(id, DocumentId::Integer(n) if *n < MOVED.into());
    let appended = [first, second].concat();
    let theirs: BTreeSet<i32> = (0..MOVED)
        .filter(|n| appended.iter().any(|place| place.get_i32("d").ok() == Some(*n)))
        .collect();
    assert_eq!(code, Some(1), "{told}");
    let refused = told["refused"].as_array().unwrap().iter();
    let refused: BTreeSet<i32> =
        refused.map(|one| one["id"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(refused, theirs);

    let log = db.db.collection::<Document>("games.events");
    let by = doc! { "client": { "$in": ["app", "b"] } };
    let mut kept: Vec<Document> = log
        .distinct("_id", by)
        .await
        .unwrap()
        .into_iter()
        .map(|place| place.as_document().unwrap().clone())
        .collect();
    let order = |places: &mut Vec<Document>| places.sort_by_key(ToString::to_string);
    let mut appended = appended;
    order(&mut kept);
    order(&mut appended);
    assert!(kept == appended, "what was appended is not what the log has");

    let is_new = |id: &DocumentId| matches!(id, DocumentId::String(id) if id.starts_with("new "));
    let mut expected = source(&db).await;
    expected.retain(|(id, _)| !has_moved(id));
    wait_until("the projected documents are those of the source", async || {
        let mut found = projected(&db).await;
        found.retain(|(id, _)| !has_moved(id) && !is_new(id));
        same(&found) == same(&expected)
    })
    .await;
    verified(&daemon).await;
}

/// Without the order of fields, which an import does not bring over.
fn same(documents: &[(DocumentId, Document)]) -> Vec<(DocumentId, Value)> {
    let json = |document: &Document| bson::Bson::from(document.clone()).into_canonical_extjson();
    documents.iter().map(|(id, document)| (id.clone(), json(document))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_meanwhile_is_found_and_what_others_append_stays() {
    check(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_meanwhile_is_found_where_documents_keep_their_versions() {
    check(&["--version-field", "v"]).await;
}
