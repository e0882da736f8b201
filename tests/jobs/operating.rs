//! What an operator does about documents that wait: after each of it documents, clocks, `verify` and missing answers
//! agree, and the judge with them.

use std::time::Duration;

use bson::{Document, doc};
use serde_json::{Value, json};

use crate::{
    ask, became, insert, job, run,
    scene::{Running, Scene, change, event, events},
};

const QUARANTINE: &str = "/v1/collections/games/quarantine";
pub(crate) const GAPS: &str = "/v1/collections/games/gaps";

/// A stage on which a gap may be closed as soon as it is seen.
pub(crate) async fn hasty() -> Scene {
    let mut scene = Scene::new().await;
    scene.games_config().gap_grace = Duration::ZERO;
    scene
}

/// An event of the client `y` that no number takes.
fn poison(id: &str, version: i64) -> Document {
    let patch = doc! { "$push": { "n": 1 } };
    change(id, version, doc! { "client": "y", "op": "update", "patch": patch })
}

/// Three good events, one that cannot be applied, and two that could be.
pub(crate) async fn append_parked(scene: &Scene, id: &str) {
    scene.append(events(id, 1..=3)).await;
    scene.append([poison(id, 4)]).await;
    scene.append(events(id, 5..=6)).await;
}

/// Everything that answers for the documents agrees: the judge, the verify job, and what a client that
/// has nothing is missing of `id`, which it is told how to apply.
pub(crate) async fn agree(scene: &Scene, daemon: &Running, id: &str) {
    scene.judged().await;
    let verified = insert(scene, doc! { "kind": "verify", "collection": "games" }).await;
    let verified = became(scene, &verified, "done").await;
    let result = verified.get_document("result").unwrap();
    assert_eq!(result.get_i64("differences").ok(), Some(0), "{result}");
    let row = scene.row(id).await.unwrap();
    let version = row.get_i64("version").unwrap();
    let path = format!("/v1/collections/games/documents/{id}");
    let missing = ask(daemon, "GET", &format!("{path}/missing?clock=%7B%7D")).await.json;
    let events = missing["events"].as_array().unwrap();
    assert_eq!(missing["version"].as_i64(), Some(version));
    assert_eq!(i64::try_from(events.len()).unwrap(), version);
    let skipped: Vec<i64> =
        scene.skipped("games").await.into_iter().map(|(_, version)| version).collect();
    for event in events {
        let version = event["version"].as_i64().unwrap();
        assert_eq!(event["skipped"] == true, skipped.contains(&version), "{event}");
    }
    let clock: Value = row
        .get_document("clock")
        .unwrap()
        .iter()
        .map(|(c, n)| (c.clone(), json!(n.as_i64())))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!((&missing["next_clock"], &missing["clock"]), (&clock, &clock));
    let at = ask(daemon, "GET", &format!("{path}?at_version={version}")).await.json;
    let now = ask(daemon, "GET", &path).await.json;
    assert_eq!((&at["state"], &at["clock"]), (&now["state"], &now["clock"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_document_is_listed_and_goes_on_once_its_event_is_skipped() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    append_parked(&scene, "a").await;
    scene.parked("a", 4).await;
    let listed = ask(&daemon, "GET", QUARANTINE).await.json;
    assert_eq!(
        (&listed["next"], listed["quarantine"].as_array().unwrap().len()),
        (&Value::Null, 1)
    );
    let first = &listed["quarantine"][0];
    assert_eq!(
        (&first["document"], &first["version"], &first["class"]),
        (&json!("a"), &json!(4), &json!("bad_patch"))
    );
    assert_eq!(ask(&daemon, "GET", GAPS).await.json, json!({ "gaps": [], "next": null }));

    // It parks again: nothing has changed.
    let retried = ask(&daemon, "POST", &format!("{QUARANTINE}/a/retry")).await;
    assert_eq!(
        (retried.status, &retried.json["result"]["waits"]["version"]),
        (200, &json!(4)),
        "{retried:?}"
    );
    let since = ask(&daemon, "GET", QUARANTINE).await.json["quarantine"][0]["since"].clone();
    assert_eq!(since, first["since"], "it waits since the first time");

    let skipped = ask(&daemon, "POST", &format!("{QUARANTINE}/a/skip?version=4")).await;
    assert_eq!(skipped.status, 200, "{skipped:?}");
    assert_eq!(
        skipped.json["result"],
        json!({ "skipped": 4, "client": "y", "version": 6, "waits": null })
    );
    let row = scene.reached("a", 6).await;
    assert_eq!(row.get_document("clock").unwrap(), &doc! { "x": 5_i64, "y": 1_i64 });
    assert_eq!(row.get_document("state").unwrap(), &doc! { "n": 5 });
    scene.record("a", |record| record.is_none()).await;
    let on_record = scene.collection("alluvium.skips").find_one(doc! {}).await.unwrap().unwrap();
    assert_eq!(
        on_record.get_document("_id").unwrap(),
        &doc! { "c": "games", "d": "a", "s": 4_i64 }
    );
    assert_eq!(
        (on_record.get_str("client").ok(), on_record.get_str("class").ok()),
        (Some("y"), Some("bad_patch"))
    );
    assert!(on_record.get_datetime("skipped_at").is_ok() && on_record.get_str("reason").is_ok());
    assert_eq!(daemon.metric("events_skipped_total", "reason=\"operator\""), Some(1.0));
    daemon.says("nothing is parked", |status| status.quarantined == Some(0)).await;
    let history = ask(&daemon, "GET", "/v1/collections/games/documents/a/events").await.json;
    assert_eq!(
        (&history["events"][3]["skipped"], &history["events"][4]["skipped"]),
        (&json!(true), &Value::Null)
    );
    agree(&scene, &daemon, "a").await;
    // The same again is done already.
    let again = ask(&daemon, "POST", &format!("{QUARANTINE}/a/skip?version=4")).await;
    assert_eq!(
        (again.status, &again.json["type"]),
        (404, &json!("urn:alluvium:problem:not-waiting"))
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_may_be_wrong_with_an_event_it_can_be_skipped() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    let bad = [
        doc! { "op": "delete", "client": "a.b" },
        doc! { "op": "delete", "client": 5 },
        doc! { "op": "delete", "at": "now" },
        doc! { "op": "update", "patch": {}, "merge": {} },
        doc! { "op": "create", "state": {} },
    ];
    for (number, fields) in bad.iter().enumerate() {
        let id = format!("d{number}");
        scene.append(events(id.as_str(), 1..=2)).await;
        scene.append([change(id.as_str(), 3, fields.clone()), event(id.as_str(), 4)]).await;
        scene.parked(id.as_str(), 3).await;
        let skipped = run(&scene, &["quarantine", "skip", "games", &id]).await;
        assert_eq!(skipped.code, Some(0), "{skipped:?}");
        assert!(skipped.out.contains("is at version 4, and waits for nothing"), "{skipped:?}");
        agree(&scene, &daemon, &id).await;
    }
    let clock =
        async |id: &str| scene.row(id).await.unwrap().get_document("clock").unwrap().clone();
    assert_eq!(clock("d0").await, doc! { "?": 1_i64, "x": 3_i64 });
    assert_eq!(clock("d2").await, doc! { "x": 4_i64 });

    // The first event of a document that has no row: what follows may be a create.
    let first = change("e", 1, doc! { "op": "update", "patch": {} });
    scene.append([first, change("e", 2, doc! { "op": "create", "state": { "n": 9 } })]).await;
    scene.recorded("e", "bad_event", 1).await;
    let skipped = run(&scene, &["quarantine", "skip", "games", "e", "--if-version", "1"]).await;
    assert_eq!(skipped.code, Some(0), "{skipped:?}");
    scene.reached("e", 2).await;
    agree(&scene, &daemon, "e").await;
    // And of one that has nothing else: it is as good as deleted.
    scene.append([change("f", 1, doc! { "op": "update", "patch": {}, "at": 1 })]).await;
    scene.recorded("f", "bad_event", 1).await;
    let skipped = ask(&daemon, "POST", &format!("{QUARANTINE}/f/skip")).await;
    assert_eq!(skipped.status, 200, "{skipped:?}");
    let row = scene.reached("f", 1).await;
    assert_eq!(
        row,
        doc! { "_id": "f", "version": 1_i64, "clock": { "x": 1_i64 }, "deleted": true }
    );
    agree(&scene, &daemon, "f").await;
    let snapshot = ask(&daemon, "POST", "/v1/collections/games/documents/f/snapshot").await;
    assert_eq!((snapshot.status, &snapshot.json["deleted"]), (201, &json!(true)), "{snapshot:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skip_holds_for_every_later_fold_also_of_an_event_that_could_be_applied() {
    let scene = Scene::new().await;
    let validator = doc! { "state.n": { "$ne": 3 } };
    scene.db.run_command(doc! { "create": "games", "validator": validator }).await.unwrap();
    let daemon = scene.start().await;
    scene.append(events("a", 1..=2)).await;
    scene.reached("a", 2).await;
    scene.append([event("a", 3)]).await;
    scene.parked("a", 3).await;
    let skipped = ask(&daemon, "POST", &format!("{QUARANTINE}/a/skip")).await;
    assert_eq!(
        (skipped.status, &skipped.json["result"]["version"]),
        (200, &json!(3)),
        "{skipped:?}"
    );
    scene.db.run_command(doc! { "collMod": "games", "validator": {} }).await.unwrap();
    scene.append([event("a", 4)]).await;
    let row = scene.reached("a", 4).await;
    assert_eq!(row.get_document("state").unwrap(), &doc! { "n": 3 });
    agree(&scene, &daemon, "a").await;
    // Folded again from its first event: by the one that is there, and by one that comes.
    scene.collection("games").delete_one(doc! { "_id": "a" }).await.unwrap();
    scene.append([event("a", 5)]).await;
    assert_eq!(scene.reached("a", 5).await.get_document("state").unwrap(), &doc! { "n": 4 });
    daemon.stop().await;
    scene.collection("games").delete_many(doc! {}).await.unwrap();
    scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
    let daemon = scene.start().await;
    assert_eq!(scene.reached("a", 5).await.get_document("state").unwrap(), &doc! { "n": 4 });
    agree(&scene, &daemon, "a").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_right_goes_on_when_it_is_retried() {
    let mut scene = Scene::new().await;
    let before = scene.games_config().max_state_bytes;
    scene.games_config().max_state_bytes = 8_000;
    let daemon = scene.start().await;
    let large = doc! { "op": "update", "merge": { "text": "x".repeat(9_000) } };
    for id in ["a", "b", "c"] {
        scene.append(events(id, 1..=2)).await;
        scene.append([change(id, 3, large.clone()), event(id, 4), event(id, 5)]).await;
        scene.recorded(id, "too_large", 3).await;
    }
    append_parked(&scene, "p").await;
    scene.record("p", |record| record.is_some()).await;
    let mut pages = Vec::new();
    let mut next = String::new();
    loop {
        let page = ask(&daemon, "GET", &format!("{QUARANTINE}?limit=3{next}")).await.json;
        let waiting = page["quarantine"].as_array().unwrap();
        pages.push(
            waiting
                .iter()
                .map(|row| row["document"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>(),
        );
        let Some(after) = page["next"].as_str() else { break };
        next = format!("&after={after}");
    }
    assert_eq!(pages, [vec!["a", "b", "c"], vec!["p"]]);
    daemon.stop().await;
    scene.games_config().max_state_bytes = before;
    let daemon = scene.start().await;
    daemon.says("it knows what waits", |status| status.quarantined == Some(4)).await;
    let one = ask(&daemon, "POST", &format!("{QUARANTINE}/b/retry")).await;
    assert_eq!(
        (one.status, &one.json["result"]),
        (200, &json!({ "version": 5, "waits": null })),
        "{one:?}"
    );
    let all = run(&scene, &["quarantine", "retry", "games"]).await;
    assert_eq!(
        (all.code, all.out.as_str()),
        (Some(0), "3 documents looked at again, 2 are parked no more\n")
    );
    for id in ["a", "c"] {
        scene.reached(id, 5).await;
    }
    scene.parked("p", 4).await;
    let listed = run(&scene, &["quarantine", "list", "games"]).await;
    assert!(
        listed.out.starts_with("p  version 4  since ") && listed.out.lines().count() == 1,
        "{listed:?}"
    );
    agree(&scene, &daemon, "a").await;
    agree(&scene, &daemon, "p").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_how_a_document_waits_is_refused_with_the_reason() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    append_parked(&scene, "parked").await;
    scene.append([event("gap", 1), event("gap", 3)]).await;
    scene.append(events("fine", 1..=2)).await;
    scene.parked("parked", 4).await;
    scene.recorded("gap", "gap", 2).await;
    scene.reached("fine", 2).await;
    for (path, status, told) in [
        (format!("{QUARANTINE}/fine/skip"), 404, "waits for nothing"),
        (format!("{QUARANTINE}/fine/retry"), 404, "waits for nothing"),
        (format!("{QUARANTINE}/nobody/skip"), 404, "waits for nothing"),
        (format!("{GAPS}/fine/fill"), 404, "waits for nothing"),
        (format!("{QUARANTINE}/gap/skip"), 409, "a gap is filled"),
        (format!("{GAPS}/parked/fill"), 409, "retried or skipped"),
        (format!("{QUARANTINE}/parked/skip?version=3"), 409, "waits for version 4, and not for 3"),
        (format!("{GAPS}/gap/fill?version=1"), 409, "waits for version 2, and not for 1"),
        (format!("{GAPS}/gap/fill"), 409, "may be closed from"),
        (format!("{GAPS}/gap/fill?version=0"), 400, "from 1 on"),
        (format!("{QUARANTINE}/parked/skip?versoin=3"), 400, "versoin"),
        (format!("{GAPS}/%7B/fill"), 400, "the id"),
        ("/v1/collections/gmaes/gaps/a/fill".into(), 404, "gmaes"),
    ] {
        let answer = ask(&daemon, "POST", &path).await;
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(answer.status == status && detail.contains(told), "{path}: {answer:?}");
    }
    for (arguments, told) in [
        (["quarantine", "skip", "games", "gap"], "is not parked"),
        (["quarantine", "skip", "games", "fine"], "waits for nothing"),
        (["quarantine", "retry", "games", "fine"], "waits for nothing"),
        (["gap", "fill", "games", "parked"], "is behind no gap"),
        (["gap", "fill", "games", "gap"], "may be closed from"),
        (["gap", "fill", "gmaes", "gap"], "has ever led `gmaes`"),
    ] {
        let ended = run(&scene, &arguments).await;
        assert!(ended.code == Some(1) && ended.err.contains(told), "{arguments:?}: {ended:?}");
    }
    for row in [
        doc! { "kind": "skip", "collection": "games" },
        doc! { "kind": "skip", "collection": "games", "document": "parked", "version": 9 },
        doc! { "kind": "gap_fill", "collection": "games", "document": "nobody" },
    ] {
        let id = insert(&scene, row).await;
        let failed = became(&scene, &id, "failed").await;
        assert!(!failed.get_str("error").unwrap().is_empty());
    }
    assert!(scene.skipped("games").await.is_empty());
    assert_eq!(scene.judged().await.filled, 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_by_hand_do_the_same_and_a_daemon_that_dies_in_between_is_followed_by_another() {
    let scene = hasty().await;
    for id in ["s", "r"] {
        append_parked(&scene, id).await;
    }
    scene.append([event("f", 1), event("f", 3)]).await;
    let daemon = scene.start().await;
    for (id, version) in [("s", 4), ("r", 4)] {
        scene.parked(id, version).await;
    }
    scene.recorded("f", "gap", 2).await;
    daemon.crash().await;
    // Each is begun, and its daemon has died behind the first step: the version is on record.
    let mut begun = Vec::new();
    for (kind, document, version) in [("skip", "s", 4), ("gap_fill", "f", 2)] {
        let row = doc! {
            "kind": kind, "collection": "games", "document": document, "state": "running", "owner": "dead",
            "epoch": 0_i64, "beat": 3_i64, "place": document, "tally": { "version": version },
        };
        begun.push(insert(&scene, row).await);
    }
    let waiting = doc! { "kind": "retry", "collection": "games", "document": "r" };
    begun.push(insert(&scene, waiting).await);
    scene.forget_leases().await;
    let daemon = scene.start().await;
    for id in &begun {
        became(&scene, id, "done").await;
    }
    assert_eq!(
        job(&scene, &begun[2]).await.get_document("result").unwrap().get_i64("version").ok(),
        Some(3)
    );
    scene.reached("s", 6).await;
    scene.reached("f", 3).await;
    agree(&scene, &daemon, "s").await;
    // Begun and done, with only the end not saved: done again it changes nothing.
    let skips = scene.skipped("games").await;
    scene
        .collection("alluvium.jobs")
        .update_many(
            doc! { "kind": { "$in": ["skip", "gap_fill"] } },
            vec![doc! { "$set": {
                "state": "running", "owner": "dead", "epoch": 0_i64, "place": "$document",
                "tally": { "version": { "$cond": [{ "$eq": ["$kind", "skip"] }, 4, 2] } },
            } }],
        )
        .await
        .unwrap();
    for id in &begun {
        became(&scene, id, "done").await;
    }
    assert_eq!(scene.skipped("games").await, skips);
    agree(&scene, &daemon, "f").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skip_that_no_projector_has_heard_of_is_taken_up_by_the_next_one() {
    let scene = Scene::new().await;
    append_parked(&scene, "a").await;
    let daemon = scene.start().await;
    scene.parked("a", 4).await;
    let paused = ask(&daemon, "POST", "/v1/collections/games/pause").await;
    assert_eq!(paused.status, 200);
    daemon.says("it pauses", |status| status.phase == alluvium::status::Phase::Paused).await;
    let skip =
        insert(&scene, doc! { "kind": "skip", "collection": "games", "document": "a" }).await;
    let row = scene.reached("a", 4).await;
    assert!(!row.contains_key("quarantine") && scene.skipped("games").await.len() == 1);
    daemon.crash().await;
    ask_to_resume(&scene).await;
    scene.forget_leases().await;
    let daemon = scene.start().await;
    became(&scene, &skip, "done").await;
    scene.reached("a", 6).await;
    scene.record("a", |record| record.is_none()).await;
    agree(&scene, &daemon, "a").await;
    daemon.stop().await;
}

async fn ask_to_resume(scene: &Scene) {
    let resumed = run(scene, &["resume", "games"]).await;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
}
