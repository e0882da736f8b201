//! What makes it safe to lose a daemon, to have two, or to have the server take back what it said:
//! the filters on every write, and majority reads.

use std::time::Duration;

use bson::{Document, Regex, Timestamp, doc, raw::CString};
use futures::TryStreamExt;
use mongodb::{
    Client,
    options::{CollectionOptions, WriteConcern},
};

use alluvium::embedded::{Mongod, Options};

use crate::{
    common::{wait_for, wait_until},
    scene::{Scene, change, event},
};

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_majority_holds_is_projected() {
    let options = Options {
        args: ["--setParameter", "enableTestCommands=1"].map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let mut mongod = Mongod::start(options).await.unwrap();
    let client = Client::with_uri_str(mongod.uri()).await.unwrap();
    let mut scene = Scene::on(mongod.uri().to_owned(), client.database("t")).await;
    // Renewing a lease waits for the majority as well.
    scene.lease_time = Duration::from_secs(600);
    let daemon = scene.start().await;
    scene.append([event("a", 1)]).await;
    scene.reached("a", 1).await;

    // From here on nothing is journaled, so that nothing more becomes majority-committed.
    let admin = client.database("admin");
    let pause = doc! { "configureFailPoint": "pauseJournalFlusherBeforeFlush", "mode": "alwaysOn" };
    admin.run_command(pause).await.unwrap();
    let options = CollectionOptions::builder().write_concern(WriteConcern::nodes(1)).build();
    let unsafely = scene.db.collection_with_options("games.events", options);
    unsafely.insert_one(event("a", 2)).await.unwrap();
    unsafely.insert_one(event("b", 1)).await.unwrap();
    let turns = async || {
        let status = admin.run_command(doc! { "serverStatus": 1 }).await.unwrap();
        status.get_document("opcounters").unwrap().get("getmore").and_then(number).unwrap()
    };
    let before = turns().await;
    wait_until("the stream has turned a few times", async || turns().await > before + 6).await;
    assert_eq!(scene.row("b").await, None);
    assert_eq!(scene.row("a").await.unwrap().get_i64("version").unwrap(), 1);

    // The server dies, and with it what only it had.
    mongod.kill().await.unwrap();
    mongod.restart().await.unwrap();
    let log = scene.collection("games.events");
    let count = wait_for("the server", async || log.count_documents(doc! {}).await.ok()).await;
    assert_eq!(count, 1, "the test needs events that were not durable");
    // Others take the versions that are free again.
    scene.append([change("a", 2, doc! { "op": "delete" })]).await;
    scene.append([change("b", 1, doc! { "op": "create", "state": { "other": true } })]).await;
    scene.level("games").await;
    scene.judged().await;
    daemon.stop().await;
    mongod.stop().await.unwrap();
}

fn number(value: &bson::Bson) -> Option<i64> {
    value.as_i64().or_else(|| value.as_i32().map(i64::from))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_that_both_lead_do_no_harm() {
    let scene = Scene::new().await;
    scene.write_on(40, 1..=5).await;
    let first = scene.start().await;
    scene.level("games").await;
    // Leases are thrown away again and again, so that leaders lead on without knowing of each other.
    let second = scene.start().await;
    for version in 6..=40 {
        scene.forget_leases().await;
        scene.write_on(40, version..=version).await;
    }
    // A hole and a poison for both of them, and rows that nobody expects to change.
    scene.append([event("hole", 1), event("hole", 3), event("d0", 41)]).await;
    let poison = doc! { "op": "update", "patch": { "$push": { "n": 1 } } };
    scene.append([event("poison", 1), change("poison", 2, poison)]).await;
    scene.recorded("hole", "gap", 2).await;
    scene.recorded("poison", "bad_patch", 2).await;
    scene.reached("poison", 1).await;
    for document in 1..40 {
        scene.reached(format!("d{document}"), 40).await;
    }
    scene.reached("d0", 41).await;
    scene.append([event("hole", 2)]).await;
    scene.reached("hole", 3).await;
    second.stop().await;
    first.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_a_later_epoch_is_never_overwritten_and_its_owner_is_not_disturbed() {
    let mut scene = Scene::new().await;
    // So long that the lease is not renewed meanwhile, which would take it anew above that epoch.
    scene.lease_time = Duration::from_secs(600);
    scene.write_on(3, 1..=3).await;
    let daemon = scene.start().await;
    scene.level("games").await;
    let checkpoints = scene.collection("alluvium.checkpoints");
    let filter = doc! { "_id": "games" };
    wait_for("a checkpoint", async || checkpoints.find_one(filter.clone()).await.unwrap()).await;
    let raise = doc! { "$set": { "epoch": 1_000_000_i64 } };
    checkpoints.update_one(filter.clone(), raise).await.unwrap();
    let theirs = checkpoints.find_one(filter.clone()).await.unwrap();
    scene.write_on(3, 4..=6).await;
    daemon
        .says("it notices", |status| {
            status.last_error.as_ref().is_some_and(|error| error.message.contains("taken over"))
        })
        .await;
    assert_eq!(checkpoints.find_one(filter).await.unwrap(), theirs);
    // It may have noticed before it had folded everything; a later attempt writes the rest.
    scene.level("games").await;
    drop(daemon);
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_folds_of_the_same_events_give_the_same_bytes() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.write_on(10, 1..=5).await;
    let clients = ["b", "a", "\u{7e}", "Z"];
    for (client, version) in clients.iter().zip(6..) {
        let update = doc! { "op": "update", "merge": { *client: version }, "client": *client };
        scene.append([change("d0", version, update)]).await;
    }
    scene.level("games").await;
    daemon.stop().await;
    let rows = async || -> Vec<Document> {
        let all = scene.collection("games").find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
        all.try_collect().await.unwrap()
    };
    let before = rows().await;
    scene.collection("games").drop().await.unwrap();
    scene.collection("alluvium.checkpoints").drop().await.unwrap();
    let daemon = scene.start().await;
    scene.level("games").await;
    daemon.stop().await;
    assert_eq!(rows().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_looks_like_expressions_is_written_as_it_is() {
    let scene = Scene::new().await;
    let text = |text: &str| CString::try_from(text).unwrap();
    let state = doc! {
        "path": "$version", "root": "$$ROOT", "sum": { "$add": [1, 2] }, "literal": { "$literal": 1 },
        "a.b": ["$$at", { "$cond": [true, 1, 2] }, Timestamp { time: 0, increment: 0 }],
        "nan": f64::NAN, "zero": -0.0, "": Regex { pattern: text("$x"), options: text("i") },
    };
    let daemon = scene.start().await;
    scene.append([change("a", 1, doc! { "op": "create", "state": state })]).await;
    scene.reached("a", 1).await;
    let more = doc! { "op": "update", "merge": { "more": "$$expected" } };
    scene.append([change("a", 2, more)]).await;
    scene.reached("a", 2).await;
    daemon.stop().await;
    scene.judged().await;
}
