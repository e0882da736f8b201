//! Rows of `alluvium.jobs`: done, survived, refused and cancelled.

use bson::{Bson, Document, doc};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    became,
    common::wait_until,
    count, documents, insert, job,
    scene::{Scene, event},
    snapshots,
};

/// Hinders inserts by the daemon of one scene, until it is over. There is one such switch per
/// server, so whoever needs it waits for its turn.
pub(crate) struct Hindered {
    scene: Scene,
    _turn: MutexGuard<'static, ()>,
}

impl Hindered {
    /// Every insert fails after so many.
    async fn failing_after(scene: &Scene, passed: i32) -> Self {
        // No code by which the driver takes the whole server to be away: others are asked meanwhile.
        let how = doc! { "errorCode": 6 };
        Self::new(scene, "games.snapshots", doc! { "skip": passed }.into(), how).await
    }

    /// Every insert takes longer by so much.
    pub(crate) async fn slow(scene: &Scene, millis: i32) -> Self {
        Self::slow_on(scene, "games.snapshots", millis).await
    }

    /// The same of inserts into another collection.
    pub(crate) async fn slow_on(scene: &Scene, collection: &str, millis: i32) -> Self {
        let how = doc! { "blockConnection": true, "blockTimeMS": millis };
        Self::new(scene, collection, "alwaysOn".into(), how).await
    }

    async fn new(scene: &Scene, collection: &str, mode: Bson, how: Document) -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let mut data = doc! {
            "failCommands": ["insert"], "appName": scene.db.name(),
            "namespace": format!("{}.{collection}", scene.db.name()),
        };
        data.extend(how);
        let on = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        scene.db.client().database("admin").run_command(on).await.unwrap();
        Self { scene: scene.clone(), _turn: turn }
    }

    pub(crate) async fn over(self) {
        let off = doc! { "configureFailPoint": "failCommand", "mode": "off" };
        self.scene.db.client().database("admin").run_command(off).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_inserted_by_any_driver_is_done_by_whoever_leads() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 300, 3).await;
    let whole = insert(&scene, doc! { "kind": "snapshot", "collection": "games" }).await;
    let done = became(&scene, &whole, "done").await;
    let result = done.get_document("result").unwrap();
    assert_eq!(count(result, "taken"), 300);
    assert_eq!(count(result, "events"), 900);
    assert_eq!(count(result, "differences"), 0);
    let progress = done.get_document("progress").unwrap();
    assert_eq!((count(progress, "done"), count(progress, "total")), (300, 300));
    assert!(done.get_datetime("finished_at").is_ok());
    assert_eq!(snapshots(&scene).await, 300);

    // With an id of its own, about one document, and another kind.
    let one =
        doc! { "_id": "mine", "kind": "snapshot", "collection": "games", "document": "d0007" };
    let one = insert(&scene, one).await;
    let result = became(&scene, &one, "done").await;
    assert_eq!(count(result.get_document("result").unwrap(), "existed"), 1);
    let verify = insert(&scene, doc! { "kind": "verify", "collection": "games" }).await;
    let result = became(&scene, &verify, "done").await;
    let result = result.get_document("result").unwrap();
    assert_eq!((count(result, "documents"), count(result, "differences")), (300, 0));
    wait_until("the jobs are counted", async || {
        let finished = |labels| daemon.metric("jobs_finished_total", labels).unwrap();
        (
            finished("kind=\"snapshot\",outcome=\"done\""),
            finished("kind=\"verify\",outcome=\"done\""),
        ) == (2.0, 1.0)
    })
    .await;
    assert_eq!(daemon.metric("snapshots_taken_total", "reason=\"request\""), Some(300.0));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_daemon_was_killed_is_taken_again_and_goes_on_at_its_place() {
    let scene = Scene::new().await;
    let first = scene.start().await;
    documents(&scene, 700, 1).await;
    let broken = Hindered::failing_after(&scene, 1).await;
    let id = insert(&scene, doc! { "kind": "snapshot", "collection": "games" }).await;
    wait_until("one step is done", async || {
        let row = job(&scene, &id).await;
        row.get_document("progress").is_ok_and(|progress| count(progress, "done") == 256)
    })
    .await;
    first.crash().await;
    broken.over().await;
    let left = job(&scene, &id).await;
    assert_eq!(left.get_str("state").unwrap(), "running");
    assert_eq!(left.get_str("place").unwrap(), "d0255");

    // What lies before its place is not looked at again.
    let removed = scene.collection("games.snapshots").delete_many(doc! {}).await.unwrap();
    assert_eq!(removed.deleted_count, 256);
    scene.forget_leases().await;
    let second = scene.start().await;
    let done = became(&scene, &id, "done").await;
    assert!(count(&done, "epoch") > count(&left, "epoch"));
    let result = done.get_document("result").unwrap();
    assert_eq!((count(result, "documents"), count(result, "taken")), (700, 700));
    assert_eq!(snapshots(&scene).await, 700 - 256);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_whether_it_waits_or_runs() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 300, 1).await;
    let broken = Hindered::failing_after(&scene, 1).await;
    let order = doc! { "kind": "snapshot", "collection": "games" };
    let (running, waiting) = (insert(&scene, order.clone()).await, insert(&scene, order).await);
    became(&scene, &running, "running").await;
    for id in [&waiting, &running] {
        let cancelled = crate::ask(&daemon, "DELETE", &format!("/v1/jobs/{}", text(id))).await;
        assert_eq!((cancelled.status, &cancelled.json["state"]), (200, &"cancelled".into()));
        let again = crate::ask(&daemon, "DELETE", &format!("/v1/jobs/{}", text(id))).await;
        assert_eq!(again.status, 409);
        assert_eq!(again.json["type"], "urn:alluvium:problem:job-finished");
    }
    broken.over().await;
    // The next one is begun, so the cancelled one has been left.
    let next = insert(&scene, doc! { "kind": "verify", "collection": "games" }).await;
    became(&scene, &next, "done").await;
    for id in [&waiting, &running] {
        assert_eq!(job(&scene, id).await.get_str("state").unwrap(), "cancelled");
    }
    assert!(snapshots(&scene).await <= 256);
    let counted = daemon.metric("jobs_finished_total", "kind=\"snapshot\",outcome=\"cancelled\"");
    assert_eq!(counted, Some(1.0));
    daemon.stop().await;
}

fn text(id: &Bson) -> String {
    id.as_object_id().unwrap().to_hex()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_job_fails_with_the_reason_and_stops_nobody() {
    let scene = Scene::new().await;
    scene.append([event("a", 1)]).await;
    let bad = |row: Document, reason: &'static str| (row, reason);
    let bad = [
        bad(doc! { "_id": 1, "kind": "erase", "collection": "games" }, "\"erase\""),
        bad(doc! { "_id": 2, "collection": "games" }, "`kind` is missing"),
        bad(doc! { "_id": 3, "kind": "verify", "collection": "gmaes" }, "`gmaes` is not among"),
        bad(doc! { "_id": 4, "kind": "verify", "collection": 5 }, "`collection` is of type Int32"),
        bad(doc! { "_id": 5, "kind": "verify", "collection": ["games"] }, "of type Array"),
        bad(
            doc! { "_id": 6, "kind": "verify", "collection": "games", "state": 1 },
            "`state` is of",
        ),
        bad(
            doc! { "_id": 7, "kind": "snapshot", "collection": "games", "document": {} },
            "`document`",
        ),
        bad(
            doc! { "_id": 8, "kind": "snapshot", "collection": "games", "document": "b" },
            "no projected row",
        ),
        bad(
            doc! { "_id": { "a": [1] }, "kind": "verify", "collection": "games", "dry_run": true },
            "`dry_run`",
        ),
        bad(doc! { "_id": 9, "progress": 5, "beat": "x" }, "`kind` is missing"),
    ];
    for (row, _) in &bad {
        insert(&scene, row.clone()).await;
    }
    // Fields of the leader, set by somebody else, mean nothing.
    let odd = doc! {
        "_id": "odd", "kind": "snapshot", "collection": "games", "state": "running", "epoch": "first",
        "beat": [], "owner": 5, "progress": { "done": "all" }, "place": null, "tally": [],
    };
    let odd = insert(&scene, odd).await;
    let daemon = scene.start().await;
    let done = became(&scene, &odd, "done").await;
    assert_eq!(count(done.get_document("result").unwrap(), "taken"), 1);
    for (row, reason) in bad {
        let failed = became(&scene, row.get("_id").unwrap(), "failed").await;
        let error = failed.get_str("error").unwrap();
        assert!(error.contains(reason), "{row}: {error}");
    }
    let listed = crate::ask(&daemon, "GET", "/v1/jobs?state=failed&limit=5").await;
    assert_eq!(listed.json["jobs"].as_array().unwrap().len(), 5);
    assert!(!listed.json["next"].is_null());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_can_never_succeed_is_given_up_and_the_next_one_begins() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    documents(&scene, 3, 1).await;
    // Whoever reads what is skipped fails, with a code that could pass by itself.
    let skips = scene.collection("alluvium.skips");
    skips.drop().await.unwrap();
    let view = doc! {
        "create": "alluvium.skips", "viewOn": "games",
        "pipeline": [{ "$project": { "broken": { "$toInt": "x" } } }],
    };
    scene.db.run_command(view).await.unwrap();
    let verify = insert(&scene, doc! { "kind": "verify", "collection": "games" }).await;
    let retry = insert(&scene, doc! { "kind": "retry", "collection": "games" }).await;
    let failed = became(&scene, &verify, "failed").await;
    let error = failed.get_str("error").unwrap();
    assert!(error.contains("given up after 10 tries") && error.contains("code 241"), "{error}");
    became(&scene, &retry, "done").await;
    skips.drop().await.unwrap();
    let verify = insert(&scene, doc! { "kind": "verify", "collection": "games" }).await;
    became(&scene, &verify, "done").await;
    daemon.stop().await;
}
