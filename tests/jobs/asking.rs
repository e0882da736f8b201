//! Asking for jobs over HTTP and on the command line.

use bson::doc;
use serde_json::{Value, json};

use crate::{
    ask, ask_with,
    common::wait_for,
    documents, insert, run,
    scene::{Running, Scene},
    snapshots,
};

/// Waits until a job is done, as HTTP tells it.
async fn done(daemon: &Running, location: &str) -> Value {
    wait_for(&format!("{location} is done"), async || {
        let job = ask(daemon, "GET", location).await.json;
        (job["state"] == "done").then_some(job)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn http_asks_for_jobs_shows_them_and_lists_them_page_by_page() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 5, 2).await;
    let asked = ask(&daemon, "POST", "/v1/collections/games/snapshot").await;
    assert_eq!(asked.status, 202, "{asked:?}");
    let id = asked.json["id"].as_str().unwrap().to_owned();
    assert_eq!(asked.location, format!("/v1/jobs/{id}"));
    assert_eq!(
        asked.json,
        json!({
            "id": id, "kind": "snapshot", "collection": "games", "document": null, "by": "http",
            "state": "queued",
            "progress": { "done": 0, "total": null }, "result": null, "error": null,
            "started_at": null, "finished_at": null,
        })
    );
    let job = done(&daemon, &asked.location).await;
    assert_eq!(job["result"]["taken"], 5);
    assert_eq!(job["progress"], json!({ "done": 5, "total": 5 }));
    let asked = ask(&daemon, "POST", "/v1/collections/games/verify").await;
    let job = done(&daemon, &asked.location).await;
    assert_eq!(
        job["result"],
        json!({ "documents": 5, "events": 10, "differences": 0, "findings": [] })
    );

    let page = ask(&daemon, "GET", "/v1/jobs?collection=games&state=done&limit=1").await.json;
    assert_eq!((&page["jobs"][0]["kind"], page["jobs"][1].is_null()), (&json!("verify"), true));
    let before = page["next"].as_str().unwrap();
    let page = ask(&daemon, "GET", &format!("/v1/jobs?limit=1&before={before}")).await.json;
    assert_eq!((&page["jobs"][0]["id"], &page["next"]), (&json!(id), &Value::Null));

    for (method, path, status, name) in [
        ("POST", "/v1/collections/gmaes/verify", 404, "unknown-collection"),
        ("GET", "/v1/jobs/6921c1d2e3f405162738495a", 404, "unknown-job"),
        ("DELETE", "/v1/jobs/6921c1d2e3f405162738495a", 404, "unknown-job"),
        ("DELETE", asked.location.as_str(), 409, "job-finished"),
        ("GET", "/v1/jobs/%7B", 400, "malformed-id"),
        ("GET", "/v1/jobs?collection=gmaes", 404, "unknown-collection"),
        ("GET", "/v1/jobs?state=soon", 400, "malformed-query"),
        ("PUT", "/v1/jobs", 405, "method-not-allowed"),
    ] {
        let answer = ask(&daemon, method, path).await;
        let expected = format!("urn:alluvium:problem:{name}");
        assert_eq!((answer.status, &answer.json["type"]), (status, &json!(expected)), "{path}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_option_that_is_not_where_it_is_looked_for_is_refused_and_nothing_is_done() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 1, 2).await;
    let in_body = ["compact", "documents/d0001/compact", "verify"];
    let nowhere = ["rebuild", "snapshot", "restore", "archive/check", "documents/d0001/restore"];
    let others = ["documents/d0001/erase", "quarantine/d0001/retry", "pause", "resume"];
    let by_query = ["documents/d0001/snapshot", "quarantine/d0001/skip", "gaps/d0001/fill"];
    let all = in_body.iter().chain(&nowhere).chain(&others).chain(&by_query);
    for path in all {
        let path = format!("/v1/collections/games/{path}");
        let answer = ask(&daemon, "POST", &format!("{path}?dry_run=true")).await;
        let kind = &answer.json["type"];
        assert_eq!((answer.status, kind), (400, &json!("urn:alluvium:problem:malformed-query")));
        assert!(answer.json["detail"].as_str().unwrap().contains("`dry_run`"), "{answer:?}");
        let answer = ask_with(&daemon, "POST", &path, r#"{"wet_run": true}"#).await;
        let kind = &answer.json["type"];
        assert_eq!((answer.status, kind), (400, &json!("urn:alluvium:problem:malformed-body")));
        assert!(answer.json["detail"].as_str().unwrap().contains("`wet_run`"), "{answer:?}");
    }
    let answer = ask(&daemon, "POST", "/v1/collections/games/compact?dry_run=true").await;
    let detail = answer.json["detail"].as_str().unwrap();
    assert!(detail.contains("goes into the body"), "{detail}");
    let answer = ask(&daemon, "DELETE", "/v1/jobs/mine?dry_run=true").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let jobs = scene.collection("alluvium.jobs").count_documents(doc! {}).await.unwrap();
    assert_eq!(jobs, 0, "no job was asked for");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_insert_a_job_and_follow_it_and_a_difference_ends_verify_with_3() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 5, 2).await;
    let one = run(&scene, &["snapshot", "games", "d0003"]).await;
    assert_eq!((one.code, one.out.as_str()), (Some(0), "snapshot of d0003 at version 2: taken\n"));
    let all = run(&scene, &["snapshot", "games", "--json"]).await;
    let job: Value = serde_json::from_str(&all.out).unwrap();
    assert_eq!((&job["result"]["taken"], &job["result"]["existed"]), (&json!(4), &json!(1)));
    assert_eq!(snapshots(&scene).await, 5);
    let clean = run(&scene, &["verify", "games"]).await;
    assert_eq!(clean.code, Some(0), "{clean:?}");
    assert_eq!(clean.out, "5 documents of 10 events compared, 0 differ\n");

    let update = doc! { "$set": { "state.n": 7 } };
    scene.collection("games").update_one(doc! { "_id": "d0003" }, update).await.unwrap();
    let found = run(&scene, &["verify", "games"]).await;
    assert_eq!((found.code, found.err.as_str()), (Some(3), ""));
    assert!(found.out.contains("d0003  version 2  `state.n` differs"), "{found:?}");
    let found = run(&scene, &["verify", "games", "--json"]).await;
    let job: Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!((found.code, &job["result"]["differences"]), (Some(3), &json!(1)));

    let failed = run(&scene, &["snapshot", "games", "nobody"]).await;
    assert_eq!((failed.code, failed.out.as_str()), (Some(1), ""));
    assert!(failed.err.contains("failed: document nobody has no projected row"), "{failed:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_about_a_collection_that_no_daemon_has_led_is_refused_and_leaves_no_job() {
    let scene = Scene::new().await;
    let one_and_all = [
        "verify gmaes",
        "verify gmaes d",
        "rebuild gmaes",
        "compact gmaes",
        "snapshot gmaes",
        "erase gmaes d --yes",
        "restore gmaes",
        "archive check gmaes",
        "quarantine retry gmaes",
        "quarantine skip gmaes d",
        "gap fill gmaes d",
        "quarantine list gmaes",
        "gap list gmaes",
        "quarantine list gmaes --late",
        "jobs list --collection gmaes",
    ];
    for line in one_and_all {
        let arguments: Vec<&str> = line.split(' ').collect();
        let ended = run(&scene, &arguments).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{line}: {ended:?}");
        assert!(ended.err.contains("no daemon has ever led `gmaes`"), "{line}: {ended:?}");
    }
    let jobs = scene.collection("alluvium.jobs").count_documents(doc! {}).await.unwrap();
    assert_eq!(jobs, 0, "no job was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_shows_and_cancels_jobs() {
    let scene = Scene::new().await;
    let id = insert(&scene, doc! { "_id": "mine", "kind": "verify", "collection": "games" }).await;
    let id = id.as_str().unwrap();
    let list = run(&scene, &["jobs", "list"]).await;
    assert!(list.out.starts_with("mine  queued     verify    games"), "{list:?}");
    let shown = run(&scene, &["jobs", "show", id]).await;
    let job: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!((&job["id"], &job["state"]), (&json!("mine"), &json!("queued")));
    let cancelled = run(&scene, &["jobs", "cancel", id]).await;
    assert_eq!((cancelled.code, cancelled.out.as_str()), (Some(0), "cancelled mine\n"));
    let again = run(&scene, &["jobs", "cancel", id]).await;
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("is cancelled and cannot be cancelled"), "{again:?}");
    let list = run(&scene, &["jobs", "list", "--state", "cancelled", "--json"]).await;
    let listed: Value = serde_json::from_str(&list.out).unwrap();
    assert_eq!(listed["jobs"][0]["id"], "mine");
}
