//! One bad document never stops the others: an event that cannot be applied, or a row that the server
//! refuses, parks its own document at its last good version, on record, and nothing else.

use bson::{Bson, DateTime, Document, doc};
use mongodb::{IndexModel, options::IndexOptions};

use crate::scene::{Running, Scene, change, event, events};

/// Poison: what it is called, the versions before it, its fields, and the class it is filed under.
fn poisons() -> Vec<(&'static str, i64, Document, &'static str)> {
    let update = |patch: Document| doc! { "op": "update", "patch": patch };
    // The server takes no event that is nested deeper than 180 levels, but a path adds to them.
    let deep = (0..100).fold(doc! { "leaf": 1 }, |inner, _| doc! { "d": inner });
    let path = format!("deep{}", ".d".repeat(100));
    let large = "x".repeat(40_000);
    vec![
        ("inc of text", 2, update(doc! { "$inc": { "name": 1 } }), "bad_patch"),
        ("push to text", 2, update(doc! { "$push": { "name": 1 } }), "bad_patch"),
        ("unknown operator", 2, update(doc! { "$frobnicate": { "n": 1 } }), "bad_patch"),
        (
            "conflicting paths",
            2,
            update(doc! { "$set": { "n": 1 }, "$inc": { "n": 1 } }),
            "bad_patch",
        ),
        ("no operator", 2, update(doc! { "n": 1 }), "bad_patch"),
        ("update first", 0, update(doc! { "$set": { "n": 1 } }), "bad_event"),
        ("create twice", 2, doc! { "op": "create", "state": {} }, "bad_event"),
        ("patch and merge", 2, doc! { "op": "update", "patch": {}, "merge": {} }, "bad_event"),
        ("no op", 2, doc! {}, "bad_event"),
        ("no client", 2, doc! { "op": "delete", "client": Bson::Null }, "bad_event"),
        ("client with a dot", 2, doc! { "op": "delete", "client": "a.b" }, "bad_event"),
        ("time as text", 2, doc! { "op": "delete", "at": "now" }, "bad_event"),
        ("too deep", 2, update(doc! { "$set": { path: deep } }), "too_large"),
        ("event too large", 2, update(doc! { "$set": { "a": &large } }), "too_large"),
        ("state too large", 2, update(doc! { "$set": { "a": &large[..9_000] } }), "too_large"),
        ("one client more", 2, doc! { "op": "delete", "client": "third" }, "too_large"),
    ]
}

/// Everything parked stands on record, in its row, and in sight.
async fn parked(scene: &Scene, daemon: &Running) {
    for (id, good, _, class) in poisons() {
        scene.recorded(id, class, good + 1).await;
        if good == 0 {
            assert_eq!(scene.row(id).await, None, "{id}");
            continue;
        }
        let row = scene.parked(id, good + 1).await;
        let mark = row.get_document("quarantine").unwrap();
        assert_eq!(mark.get_str("class").unwrap(), class, "{id}");
        assert!(!mark.get_str("reason").unwrap().is_empty(), "{id}");
    }
    let parked = poisons().len() as u64;
    daemon.says("all are parked", |status| status.quarantined == Some(parked)).await;
    for class in ["bad_patch", "bad_event", "too_large", "rejected", "gap", "late"] {
        let expected = poisons().iter().filter(|poison| poison.3 == class).count();
        let shown = daemon.metric("quarantined_documents", &format!("class=\"{class}\""));
        assert_eq!(shown, Some(expected as f64), "{class}");
    }
}

async fn strict() -> Scene {
    let mut scene = Scene::new().await;
    let games = scene.games_config();
    games.max_event_bytes = 20_000;
    games.max_state_bytes = 8_000;
    games.max_clients = 2;
    scene
}

async fn append_poison(scene: &Scene) {
    for (id, good, fields, _) in poisons() {
        let create = doc! { "op": "create", "state": { "name": "x", "n": 1 } };
        let second = doc! { "op": "update", "patch": { "$inc": { "n": 1 } }, "client": "y" };
        let before = [change(id, 1, create), change(id, 2, second)];
        let after = [change(id, good + 1, fields), event(id, good + 2)];
        scene.append(before.into_iter().take(usize::try_from(good).unwrap()).chain(after)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_applied_parks_only_its_own_document() {
    let scene = strict().await;
    let daemon = scene.start().await;
    append_poison(&scene).await;
    scene.append(events("healthy", 1..=5)).await;
    scene.reached("healthy", 5).await;
    parked(&scene, &daemon).await;
    daemon.stop().await;

    let daemon = scene.start().await;
    parked(&scene, &daemon).await;
    scene.append([event("healthy", 6), event("inc of text", 5)]).await;
    scene.reached("healthy", 6).await;
    parked(&scene, &daemon).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_parks_as_a_tail_does() {
    let scene = strict().await;
    append_poison(&scene).await;
    scene.append(events("healthy", 1..=5)).await;
    let daemon = scene.start().await;
    scene.reached("healthy", 5).await;
    parked(&scene, &daemon).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_judge_agrees_where_poison_parks() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    let poison = |id: &str, version, fields: Document| {
        let fields = doc! { "op": "update", "patch": fields };
        [change(id, version, fields), event(id, version + 1)]
    };
    scene.append(events("a", 1..=3)).await;
    scene.append(poison("a", 4, doc! { "$push": { "n": 1 } })).await;
    scene.append(events("b", 1..=3)).await;
    scene.append([change("b", 4, doc! { "op": "delete" })]).await;
    scene.append(poison("b", 5, doc! { "$set": { "n": 1 } })).await;
    scene.append(poison("c", 1, doc! { "$set": { "n": 1 } })).await;
    for (id, class, version) in
        [("a", "bad_patch", 4), ("b", "bad_event", 5), ("c", "bad_event", 1)]
    {
        scene.recorded(id, class, version).await;
    }
    daemon.says("three are parked", |status| status.quarantined == Some(3)).await;
    scene.reached("a", 3).await;
    scene.reached("b", 4).await;
    assert_eq!(scene.judged().await.poisoned, 3);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_id_names_no_document_is_told_and_stops_nobody() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    let keys = [
        doc! { "_id": "no document" },
        doc! { "_id": { "s": 1, "d": "a" } },
        doc! { "_id": { "d": "a", "s": 1.5 } },
        doc! { "_id": { "d": ["a"], "s": 1 } },
        doc! { "_id": { "d": "a", "s": 1, "x": 1 } },
    ];
    for key in keys {
        scene.collection("games.events").insert_one(key).await.unwrap();
        daemon
            .says("it is told", |status| {
                status.last_error.as_ref().is_some_and(|error| error.class == "bad_event")
            })
            .await;
    }
    scene.append(events("a", 1..=2)).await;
    scene.reached("a", 2).await;
    // Two of them lie in the range of the document, which is read because of the gap.
    scene.append([event("a", 4)]).await;
    scene.recorded("a", "gap", 3).await;
    daemon.stop().await;
    // Not in the way of a scan either.
    scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
    let daemon = scene.start().await;
    scene.append([event("a", 3)]).await;
    scene.reached("a", 4).await;
    let (status, history) = daemon.get("/v1/collections/games/documents/a/events").await;
    assert_eq!((status, history["events"].as_array().map(Vec::len)), (200, Some(4)), "{history}");
    let (_, then) = daemon.get("/v1/collections/games/documents/a?at_version=3").await;
    assert_eq!(then["version"], 3, "{then}");
    let (_, missing) = daemon
        .get("/v1/collections/games/documents/a/missing?clock=%7B%22x%22%3A1%7D&limit=2")
        .await;
    assert_eq!(missing["snapshot"], serde_json::Value::Null, "{missing}");
    assert_eq!(missing["events"].as_array().map(Vec::len), Some(2), "{missing}");
    daemon.stop().await;
}

/// Waits until the document is parked as rejected with this code, while others go on.
async fn rejected(scene: &Scene, daemon: &Running, id: &str, version: i64, code: &str) {
    scene.recorded(id, "rejected", version).await;
    scene.record(id, |record| record.unwrap().get_str("reason").unwrap().contains(code)).await;
    scene.append(events("healthy", 1..=2)).await;
    scene.reached("healthy", 2).await;
    scene.append([event(id, version + 1)]).await;
    daemon.says("one is parked", |status| status.quarantined == Some(1)).await;
    let healthy = scene.reached("healthy", 2).await;
    assert!(!healthy.contains_key("quarantine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_a_unique_index_refuses_is_parked() {
    let scene = Scene::new().await;
    let options = IndexOptions::builder().unique(true).sparse(true).build();
    let index = IndexModel::builder().keys(doc! { "state.email": 1 }).options(options).build();
    scene.collection("games").create_index(index).await.unwrap();
    let create = |email: &str| doc! { "op": "create", "state": { "n": 1, "email": email } };
    let daemon = scene.start().await;
    scene.append([change("first", 1, create("a@x"))]).await;
    scene.append([change("second", 1, create("b@x"))]).await;
    scene.reached("second", 1).await;
    let steal = doc! { "op": "update", "merge": { "email": "a@x" } };
    scene.append([change("second", 2, steal)]).await;
    rejected(&scene, &daemon, "second", 2, "11000").await;
    let row = scene.parked("second", 2).await;
    assert_eq!(row.get_document("quarantine").unwrap().get_str("class").unwrap(), "rejected");
    assert_eq!(row.get_document("state").unwrap().get_str("email").unwrap(), "b@x");
    // One that has no row yet, so that only the record can tell.
    scene.append([change("third", 1, create("a@x"))]).await;
    scene.recorded("third", "rejected", 1).await;
    assert_eq!(scene.row("third").await, None);
    daemon.stop().await;
    let daemon = scene.start().await;
    daemon.says("both are parked", |status| status.quarantined == Some(2)).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_a_validator_refuses_is_parked() {
    // The second one refuses even the mark of a parked document.
    let validators = [
        doc! { "state.n": { "$lt": 3 } },
        doc! { "state.n": { "$lt": 3 }, "quarantine": { "$exists": false } },
    ];
    for (number, validator) in validators.into_iter().enumerate() {
        let scene = Scene::new().await;
        scene.db.run_command(doc! { "create": "games", "validator": validator }).await.unwrap();
        let daemon = scene.start().await;
        scene.append(events("a", 1..=2)).await;
        scene.reached("a", 2).await;
        scene.append([event("a", 3)]).await;
        rejected(&scene, &daemon, "a", 3, "121").await;
        if number == 0 {
            scene.parked("a", 3).await;
        }
        daemon.stop().await;
        let daemon = scene.start().await;
        daemon.says("it is parked", |status| status.quarantined == Some(1)).await;
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_events_at_once_the_one_is_found_that_the_server_refuses() {
    let scene = Scene::new().await;
    let validator = doc! { "state.n": { "$lt": 40 } };
    scene.db.run_command(doc! { "create": "games", "validator": validator }).await.unwrap();
    // Folded together, since all of them are there when the daemon comes.
    for id in ["a", "b"] {
        scene.append(events(id, 1..=60)).await;
    }
    scene.append(events("c", 1..=39)).await;
    let daemon = scene.start().await;
    for id in ["a", "b"] {
        scene.recorded(id, "rejected", 40).await;
        let row = scene.parked(id, 40).await;
        assert_eq!(row.get_document("state").unwrap(), &doc! { "n": 39 });
    }
    scene.reached("c", 39).await;
    // What stops it after a restart is what stopped it before.
    daemon.stop().await;
    let daemon = scene.start().await;
    daemon.says("both are parked", |status| status.quarantined == Some(2)).await;
    scene.parked("a", 40).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_row_among_many_keeps_no_other_from_being_written() {
    let scene = Scene::new().await;
    let validator = doc! { "state.n": { "$ne": 1_000 } };
    scene.db.run_command(doc! { "create": "games", "validator": validator }).await.unwrap();
    let daemon = scene.start().await;
    scene.write_on(500, 1..=1).await;
    scene.level("games").await;
    let refused = doc! { "op": "update", "merge": { "n": 1_000 } };
    let mut second: Vec<_> = (0..500).map(|d| event(format!("d{d}"), 2)).collect();
    second[250] = change("d250", 2, refused);
    scene.append(second).await;
    scene.parked("d250", 2).await;
    for document in (0..500).filter(|document| *document != 250) {
        scene.reached(format!("d{document}"), 2).await;
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_a_geo_index_refuses_is_parked() {
    let scene = Scene::new().await;
    let index = IndexModel::builder().keys(doc! { "state.place": "2dsphere" }).build();
    scene.collection("games").create_index(index).await.unwrap();
    let daemon = scene.start().await;
    scene.append(events("a", 1..=2)).await;
    scene.reached("a", 2).await;
    let nowhere = doc! { "type": "Point", "coordinates": [1000, 1000] };
    scene.append([change("a", 3, doc! { "op": "update", "merge": { "place": nowhere } })]).await;
    rejected(&scene, &daemon, "a", 3, "16755").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_removed_or_changed_by_hand_is_folded_again() {
    let scene = Scene::new().await;
    let games = scene.collection("games");
    let daemon = scene.start().await;
    for id in ["removed", "set back", "untouched"] {
        scene.append(events(id, 1..=3)).await;
        scene.reached(id, 3).await;
    }
    let early = scene.start_over("set back", 2).await;
    games.replace_one(doc! { "_id": "set back" }, early).await.unwrap();
    games.delete_one(doc! { "_id": "removed" }).await.unwrap();
    for id in ["removed", "set back", "untouched"] {
        scene.append([event(id, 4)]).await;
        scene.reached(id, 4).await;
    }
    daemon.stop().await;
    scene.judged().await;
}

impl Scene {
    /// The row that a document had at an earlier version.
    async fn start_over(&self, id: &str, version: i64) -> Document {
        let log = self.collection("games.events");
        let at = log.find_one(doc! { "_id": { "d": id, "s": version } }).await.unwrap().unwrap();
        let at: DateTime = *at.get_datetime("at").unwrap();
        doc! {
            "_id": id, "version": version, "clock": { "x": version }, "state": { "n": version as i32 },
            "updated_at": at,
        }
    }
}
