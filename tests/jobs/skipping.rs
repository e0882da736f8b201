//! Skipping everything above a gap: the state stays what it was below the gap, everything counts, whoever has applied what
//! is skipped is told, and nobody applies it any more.

use alluvium::{
    log::{LogSource, mongo::MongoSource},
    model::{id::DocumentId, part::Part},
    store::mongo::MongoStore,
    time::SystemTime,
    upkeep::operate::{Filled, Filling, Means, OperateError},
};
use bson::{Document, RawDocumentBuf, doc};
use serde_json::{Value, json};

use crate::{
    Answer, ask, became,
    common::{Daemon, wait_until},
    doing::Hindered,
    insert, job,
    operating::{GAPS, agree, append_parked, hasty},
    run,
    scene::{Running, Scene, change, event, events},
};

fn path(id: &str) -> String {
    format!("/v1/collections/games/documents/{id}")
}

async fn missing(daemon: &Running, id: &str, clock: Value) -> Answer {
    let clock = clock.to_string().replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
    ask(daemon, "GET", &format!("{}/missing?clock={clock}", path(id))).await
}

/// The state that a replica takes anew, as bytes.
async fn anew(daemon: &Running, id: &str) -> Option<Vec<u8>> {
    let reset = format!("{}/missing?reset=true&ejson=canonical", path(id));
    let answer = ask(daemon, "GET", &reset).await.json;
    assert_eq!((&answer["answer"], &answer["more"]), (&json!("snapshot"), &json!(false)));
    assert_eq!(answer["next_clock"], answer["clock"], "{answer}");
    assert_eq!(answer["events"], json!([]));
    let state: bson::Bson = answer["snapshot"]["state"].clone().try_into().unwrap();
    Some(RawDocumentBuf::try_from(state.as_document()?).unwrap().into_bytes())
}

async fn stored(scene: &Scene, id: &str) -> Option<Vec<u8>> {
    let games = scene.db.collection::<RawDocumentBuf>("games");
    let row = games.find_one(doc! { "_id": id }).await.unwrap().unwrap();
    row.get_document("state").ok().map(|state| state.as_bytes().to_vec())
}

/// The last event that fills something in the log of a document.
async fn fillers(scene: &Scene, id: &str) -> u64 {
    let fillers = doc! { "_id.d": id, "client": "alluvium" };
    scene.collection("games.events").count_documents(fillers).await.unwrap()
}

async fn ranges(scene: &Scene) -> u64 {
    scene.collection("alluvium.skips").count_documents(doc! {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_applied_an_event_that_is_skipped_is_told_and_takes_the_state_anew() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    append_parked(&scene, "a").await;
    scene.parked("a", 4).await;
    // Its writer counts it, and has applied it in a fold of its own.
    let writer = json!({ "x": 3, "y": 1 });
    let parked = missing(&daemon, "a", json!({ "x": 3 })).await.json;
    assert_eq!(
        (&parked["waits"]["class"], &parked["waits"]["version"]),
        (&json!("bad_patch"), &json!(4))
    );
    assert_eq!((&parked["skips"], &parked["events"]), (&json!([]), &json!([])));
    let shown = ask(&daemon, "GET", &path("a")).await.json;
    assert_eq!((&shown["waits"], shown.get("quarantine")), (&parked["waits"], None));
    let skipped = ask(&daemon, "POST", "/v1/collections/games/quarantine/a/skip").await;
    assert_eq!(skipped.status, 200, "{skipped:?}");
    scene.reached("a", 6).await;
    // In the answer of the last events and in the others, whether the clock covers it or not.
    let told = json!([{ "version": 4, "client": "y", "seq": 1 }]);
    for clock in [writer, json!({ "x": 5, "y": 1 }), json!({}), json!({ "y": 1 })] {
        let answer = missing(&daemon, "a", clock).await.json;
        assert_eq!((&answer["skips"], &answer["waits"]), (&told, &Value::Null), "{answer}");
        assert!(answer.get("skips_total").is_none());
    }
    assert_eq!(anew(&daemon, "a").await, stored(&scene, "a").await);
    let text = run(&scene, &["missing", "games", "a", "--reset"]).await;
    assert!(text.out.contains("start from the state {\"n\":5}"), "{text:?}");
    assert!(text.out.contains("1 skipped in all") && text.out.contains("4 (y 1)"), "{text:?}");
    let text = run(&scene, &["history", "games", "a"]).await;
    assert_eq!(text.out.matches("(skipped)").count(), 1, "{text:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_a_missing_answer_changes_with_everything_that_the_answer_depends_on() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    append_parked(&scene, "a").await;
    scene.parked("a", 4).await;
    let asked = async |tag: &str| {
        let clock = "%7B%22x%22%3A3%7D";
        let uri = format!("http://{}{}/missing?clock={clock}", daemon.http, path("a"));
        let tag = tag.to_owned();
        let answer = tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent =
                ureq::Agent::config_builder().http_status_as_error(false).build().into();
            agent.get(uri).header("if-none-match", tag).call().unwrap()
        });
        let answer = answer.await.unwrap();
        let tag = answer.headers().get("etag").unwrap().to_str().unwrap().to_owned();
        (answer.status().as_u16(), tag)
    };
    let (status, parked) = asked("\"nothing\"").await;
    assert_eq!(status, 200);
    assert_eq!(asked(&parked).await, (304, parked.clone()));
    // The same version and the same events, but it is parked for another reason.
    let row = doc! { "$set": { "quarantine.reason": "another" } };
    scene.collection("games").update_one(doc! { "_id": "a" }, row).await.unwrap();
    let (status, other) = asked(&parked).await;
    assert_eq!((status, other == parked), (200, false));
    let skipped = ask(&daemon, "POST", "/v1/collections/games/quarantine/a/skip").await;
    assert_eq!(skipped.status, 200, "{skipped:?}");
    scene.reached("a", 6).await;
    let (status, skipped) = asked(&other).await;
    assert_eq!((status, skipped == other), (200, false));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_above_a_gap_is_skipped_and_the_state_stays_what_it_was() {
    let scene = hasty().await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=2)).await;
    // Two gaps, and a delete among what is above them.
    scene.append([event("a", 4), change("a", 5, doc! { "op": "delete" }), event("a", 8)]).await;
    scene.recorded("a", "gap", 3).await;
    scene.reached("a", 2).await;
    let shown = ask(&daemon, "GET", &path("a")).await.json;
    assert_eq!((&shown["waits"]["class"], &shown["waits"]["version"]), (&json!("gap"), &json!(3)));
    let before = missing(&daemon, "a", json!({})).await.json;
    assert_eq!((&before["waits"], &before["version"]), (&shown["waits"], &json!(2)));
    let filled = ask(&daemon, "POST", &format!("{GAPS}/a/fill?version=3&skip_above=true")).await;
    assert_eq!(filled.status, 200, "{filled:?}");
    assert_eq!(
        filled.json["result"],
        json!({ "gap": 3, "filled": 3, "skipped": 6, "through": 8, "version": 8, "waits": null })
    );
    let row = scene.reached("a", 8).await;
    assert_eq!(row.get_document("clock").unwrap(), &doc! { "alluvium": 3_i64, "x": 5_i64 });
    assert_eq!(row.get_document("state").unwrap(), &doc! { "n": 2 });
    let late = scene.collection("games.events").insert_one(event("a", 3)).await.unwrap_err();
    assert!(late.to_string().contains("E11000"), "{late}");
    agree(&scene, &daemon, "a").await;
    // A replica that wrote what is above the gap is told of it, and of nothing twice.
    let told = missing(&daemon, "a", json!({ "x": 5 })).await.json;
    let clients = [("alluvium", 1), ("x", 3), ("x", 4), ("alluvium", 2), ("alluvium", 3), ("x", 5)];
    let told_of = |at: usize| {
        let (client, seq) = clients[at];
        json!({ "version": at + 3, "client": client, "seq": seq })
    };
    assert_eq!(told["skips"], (0..6).map(told_of).collect::<Value>());
    assert_eq!(anew(&daemon, "a").await, stored(&scene, "a").await);
    // What comes later applies to the state below the gap.
    scene.append([event("a", 9)]).await;
    assert_eq!(scene.reached("a", 9).await.get_document("state").unwrap(), &doc! { "n": 3 });
    agree(&scene, &daemon, "a").await;
    // Also folded from the first event, and by one who begins.
    daemon.stop().await;
    scene.collection("games").delete_many(doc! {}).await.unwrap();
    scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
    let daemon = scene.start().await;
    assert_eq!(scene.reached("a", 9).await.get_document("state").unwrap(), &doc! { "n": 3 });
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_never_was_stays_absent_and_may_be_created() {
    let scene = hasty().await;
    let daemon = scene.start().await;
    scene.append([event("b", 2), event("b", 3)]).await;
    scene.recorded("b", "gap", 1).await;
    let filled = run(&scene, &["gap", "fill", "games", "b", "--skip-above"]).await;
    assert_eq!(filled.code, Some(0), "{filled:?}");
    assert!(filled.out.contains("from version 1 to 3 is skipped"), "{filled:?}");
    let row = scene.reached("b", 3).await;
    assert_eq!(row.get_document("clock").unwrap(), &doc! { "alluvium": 1_i64, "x": 2_i64 });
    assert!(row.get_bool("deleted").unwrap() && !row.contains_key("state"), "{row}");
    agree(&scene, &daemon, "b").await;
    assert_eq!(anew(&daemon, "b").await, None);
    scene.append([change("b", 4, doc! { "op": "create", "state": { "n": 9 } })]).await;
    assert_eq!(scene.reached("b", 4).await.get_document("state").unwrap(), &doc! { "n": 9 });
    agree(&scene, &daemon, "b").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tens_of_thousands_of_events_above_a_gap_are_skipped() {
    const LAST: i64 = 20_002;
    let scene = hasty().await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=1)).await;
    let above: Vec<i64> = (3..=LAST).collect();
    for versions in above.chunks(5_000) {
        scene.append(versions.iter().map(|version| event("a", *version))).await;
    }
    scene.recorded("a", "gap", 2).await;
    let row =
        doc! { "kind": "gap_fill", "collection": "games", "document": "a", "skip_above": true };
    let done = insert(&scene, row).await;
    let done = became(&scene, &done, "done").await;
    assert_eq!(crate::count(done.get_document("result").unwrap(), "skipped"), LAST - 1);
    let row = scene.reached("a", LAST).await;
    assert_eq!(row.get_document("state").unwrap(), &doc! { "n": 1 });
    assert_eq!(ranges(&scene).await, 1);
    for clock in [json!({}), json!({ "alluvium": 1, "x": LAST - 1 })] {
        let told = missing(&daemon, "a", clock).await.json;
        let skips = told["skips"].as_array().unwrap();
        assert_eq!((skips.len(), &told["skips_total"]), (1_000, &json!(LAST - 1)));
        assert_eq!(skips[999], json!({ "version": LAST, "client": "x", "seq": LAST - 1 }));
        assert_eq!(skips[0]["version"], json!(LAST - 999));
    }
    assert_eq!(anew(&daemon, "a").await, stored(&scene, "a").await);
    scene.judged().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_missing_event_arrives_nothing_is_skipped() {
    let scene = hasty().await;
    scene.append([event("a", 1), event("a", 3), event("a", 5)]).await;
    let daemon = scene.start().await;
    scene.recorded("a", "gap", 2).await;
    daemon.crash().await;
    // The upper gap is filled already, and then the event arrives in the lower one.
    scene.append([event("a", 2)]).await;
    let begun = doc! {
        "kind": "gap_fill", "collection": "games", "document": "a", "skip_above": true,
        "state": "running", "owner": "dead", "epoch": 0_i64, "beat": 3_i64, "place": "a",
        "tally": { "version": 2 },
    };
    let begun = insert(&scene, begun).await;
    scene.forget_leases().await;
    let daemon = scene.start().await;
    let failed = became(&scene, &begun, "failed").await;
    assert!(failed.get_str("error").unwrap().contains("has arrived"), "{failed}");
    scene.reached("a", 3).await;
    assert_eq!(ranges(&scene).await, 0);
    daemon.stop().await;
}

/// Skips what is above the gap at version 2 of `a`, as a daemon does it.
async fn skip_above(scene: &Scene) -> Result<Filled, OperateError> {
    let source = MongoSource::new(scene.db.clone());
    let log = source.open_existing("games").await.unwrap();
    let store = MongoStore::new(&scene.db, "games", Part::WHOLE);
    let (id, time) = (DocumentId::String("a".into()), SystemTime::new());
    let means = Means { source: &source, log: &log, store: &store, time: &time };
    loop {
        let attempt = async {
            let mut filling = Filling::begin(means, (&id, 2), true).await?;
            loop {
                if let Some(filled) = filling.step(means).await? {
                    return Ok(filled);
                }
            }
        };
        match attempt.await {
            // The two hinder each other: it is tried again, as a job is.
            Err(OperateError::Database(error)) if error.code() == Some(112) => {}
            ended => return ended,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_that_skip_the_same_at_once_do_it_once() {
    for _ in 0..10 {
        let scene = hasty().await;
        scene.append([event("a", 1), event("a", 3), event("a", 6)]).await;
        let daemon = scene.start().await;
        scene.recorded("a", "gap", 2).await;
        scene.reached("a", 1).await;
        let (one, other) = tokio::join!(skip_above(&scene), skip_above(&scene));
        assert_eq!((one.unwrap().through, other.unwrap().through), (Some(6), Some(6)));
        assert_eq!((ranges(&scene).await, fillers(&scene, "a").await), (1, 3));
        assert_eq!(scene.reached("a", 6).await.get_document("state").unwrap(), &doc! { "n": 1 });
        scene.judged().await;
        daemon.stop().await;
    }
}

/// A document with 3,000 missing versions in two gaps, and more above them.
async fn wide(scene: &Scene) {
    scene.append([event("a", 1), event("a", 3)]).await;
    scene.append((3_003..=3_100).map(|version| event("a", version))).await;
}

fn skipping() -> Document {
    doc! { "kind": "gap_fill", "collection": "games", "document": "a", "skip_above": true }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_skip_stops_between_two_steps_and_skips_nothing() {
    let scene = hasty().await;
    wide(&scene).await;
    let daemon = scene.start().await;
    scene.recorded("a", "gap", 2).await;
    let slow = Hindered::slow_on(&scene, "games.events", 1_000).await;
    let id = insert(&scene, skipping()).await;
    wait_until("some are filled", async || fillers(&scene, "a").await > 0).await;
    let key = id.as_object_id().unwrap().to_hex();
    let cancelled = ask(&daemon, "DELETE", &format!("/v1/jobs/{key}")).await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    // The next one is begun, so the cancelled one has been left.
    let next = insert(&scene, doc! { "kind": "retry", "collection": "games" }).await;
    became(&scene, &next, "done").await;
    slow.over().await;
    assert_eq!(job(&scene, &id).await.get_str("state").unwrap(), "cancelled");
    assert!(fillers(&scene, "a").await < 3_000 && ranges(&scene).await == 0);
    scene.recorded("a", "gap", 2).await;
    let again = insert(&scene, skipping()).await;
    became(&scene, &again, "done").await;
    assert_eq!(scene.reached("a", 3_100).await.get_document("state").unwrap(), &doc! { "n": 1 });
    assert_eq!((ranges(&scene).await, fillers(&scene, "a").await), (1, 3_000));
    scene.judged().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_anywhere_in_a_skip_is_followed_by_another() {
    let scene = hasty().await;
    wide(&scene).await;
    let start = || {
        Daemon::start(&format!(
            r#"
            [mongodb]
            uri = "{}"
            database = "{}"
            [http]
            listen = "127.0.0.1:0"
            [daemon]
            lease_time = "3s"
            [[collections]]
            name = "games"
            gap_grace = "0s"
            "#,
            scene.uri,
            scene.db.name()
        ))
    };
    let mut daemon = start();
    scene.recorded("a", "gap", 2).await;
    let id = insert(&scene, skipping()).await;
    for filled in [1, 1_500, 2_999, 3_000] {
        wait_until("so many are filled", async || fillers(&scene, "a").await >= filled).await;
        daemon.kill();
        // It takes the lease from the dead one, and ends what that has left open.
        daemon = start();
    }
    became(&scene, &id, "done").await;
    assert_eq!(scene.reached("a", 3_100).await.get_document("state").unwrap(), &doc! { "n": 1 });
    assert_eq!((ranges(&scene).await, fillers(&scene, "a").await), (1, 3_000));
    scene.judged().await;
    let status = daemon.stop().await;
    assert!(status.success(), "{status}:\n{}", daemon.log());
}
