//! A collection in parts, as its operator sees it: the command, the status, and jobs of the whole collection.

use std::time::Duration;

use bson::doc;

use crate::{
    ask, became,
    common::wait_until,
    count, documents, insert, run,
    scene::{Running, Scene, change, event},
    snapshots,
};

async fn lead(daemons: &[&Running], parts: usize) {
    let led = async || daemons.iter().map(|daemon| daemon.leads()).sum::<usize>() == parts;
    wait_until(&format!("{parts} parts are led"), led).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_is_divided_by_a_command_and_every_daemon_follows_and_tells() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    lead(&[&daemon], 1).await;
    let one = run(&scene, &["parts", "games"]).await;
    assert!(one.out.starts_with("`games` is in one part\n  0/1    led by "), "{one:?}");
    let status = ask(&daemon, "GET", "/v1/status").await.json;
    assert!(status["collections"][0].get("parts").is_none(), "{status}");

    let divided = run(&scene, &["parts", "games", "3"]).await;
    assert_eq!((divided.code, divided.out.as_str()), (Some(0), "`games` is now in 3 parts\n"));
    lead(&[&daemon], 3).await;
    assert_eq!(daemon.metric("parts_led", ""), Some(3.0));
    assert_eq!(daemon.metric("leader", ""), Some(1.0));
    let again = run(&scene, &["parts", "games", "3", "--json"]).await;
    assert!(again.out.contains("\"changed\": false"), "{again:?}");
    let shown = run(&scene, &["parts", "games", "--json"]).await;
    assert!(shown.out.contains("\"parts\": 3") && !shown.out.contains("null"), "{shown:?}");
    let ready = async || ask(&daemon, "GET", "/readyz").await.status == 200;
    wait_until("all parts are caught up", ready).await;
    let status = ask(&daemon, "GET", "/v1/status").await.json;
    let games = &status["collections"][0];
    assert_eq!(games["role"], "leader", "{games}");
    let parts = games["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 3);
    assert_eq!(
        parts[1].to_string(),
        r#"{"part":1,"of":3,"role":"leader","phase":"tailing","lag_seconds":0.0,"lag_events":0}"#
    );
    let health = ask(&daemon, "GET", "/healthz").await.json;
    let loops: Vec<&str> =
        health["loops"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert!(loops.contains(&"projector of games 2/3"), "{loops:?}");
    assert!(!loops.contains(&"projector of games"), "it was told to end: {loops:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_number_of_parts_is_refused_and_changes_nothing() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    lead(&[&daemon], 1).await;
    for number in ["0", "65", "-1", "two"] {
        let refused = run(&scene, &["parts", "games", number]).await;
        assert_eq!(refused.code, Some(2), "{number}: {refused:?}");
    }
    let unknown = run(&scene, &["parts", "gmaes", "2"]).await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("no daemon has ever led `gmaes`"), "{unknown:?}");
    // As somebody writes it by hand.
    let row = doc! { "_id": { "parts": "games" }, "of": "two" };
    scene.collection("alluvium.meta").insert_one(row).await.unwrap();
    daemon
        .says("it says what is wrong", |status| {
            let last = status.last_error.as_ref();
            last.is_some_and(|last| last.message.contains("`alluvium parts games N` sets it"))
        })
        .await;
    assert_eq!(daemon.leads(), 1, "it goes on as it was");
    let shown = run(&scene, &["parts", "games"]).await;
    assert!(
        shown.code == Some(1) && shown.err.contains("\"two\" stands for the number"),
        "{shown:?}"
    );
    run(&scene, &["parts", "games", "2"]).await;
    lead(&[&daemon], 2).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_does_about_a_document_is_done_by_whoever_leads_its_part() {
    let mut scene = Scene::new().await;
    scene.lease_time = Duration::from_secs(60);
    scene.divide(4).await;
    let (first, second) = (scene.start().await, scene.start().await);
    wait_until("both lead", async || first.leads() == 2 && second.leads() == 2).await;
    let names: Vec<String> = (0..8).map(|number| format!("d{number}")).collect();
    let poison = || doc! { "op": "update", "patch": { "$inc": { "n": "one" } } };
    for name in &names {
        let poison = change(name.clone(), 2, poison());
        scene.append([event(name.clone(), 1), poison, event(name.clone(), 3)]).await;
    }
    for name in &names {
        scene.parked(name.clone(), 2).await;
    }
    // Whoever leads the first part asks the other one about its documents.
    let retry = insert(&scene, doc! { "kind": "retry", "collection": "games" }).await;
    let done = became(&scene, &retry, "done").await;
    assert_eq!(count(done.get_document("result").unwrap(), "documents"), 8);
    for name in &names {
        let skip = doc! { "kind": "skip", "collection": "games", "document": name };
        let skip = insert(&scene, skip).await;
        let done = became(&scene, &skip, "done").await;
        assert_eq!(count(done.get_document("result").unwrap(), "version"), 3, "{done}");
    }
    first.stop().await;
    second.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_divided_collection_is_done_once_and_for_all_of_it() {
    let mut scene = Scene::new().await;
    scene.lease_time = Duration::from_secs(60);
    scene.divide(4).await;
    let (first, second) = (scene.start().await, scene.start().await);
    wait_until("both lead", async || first.leads() == 2 && second.leads() == 2).await;
    documents(&scene, 200, 3).await;
    let job = insert(&scene, doc! { "kind": "snapshot", "collection": "games" }).await;
    let done = became(&scene, &job, "done").await;
    assert_eq!(count(done.get_document("result").unwrap(), "taken"), 200);
    assert_eq!(snapshots(&scene).await, 200);
    let finished = |daemon: &Running| {
        daemon.metric("jobs_finished_total", "kind=\"snapshot\",outcome=\"done\"").unwrap()
    };
    wait_until("one of them has done it", async || finished(&first) + finished(&second) == 1.0)
        .await;
    // Who leads the first part of another division does the next one, at once.
    scene.divide(3).await;
    lead(&[&first, &second], 3).await;
    let job = insert(&scene, doc! { "kind": "verify", "collection": "games" }).await;
    let done = became(&scene, &job, "done").await;
    assert_eq!(count(done.get_document("result").unwrap(), "documents"), 200);
    first.stop().await;
    second.stop().await;
    scene.judged().await;
}
