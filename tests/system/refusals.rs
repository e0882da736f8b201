//! What the server refuses, for whatever reason, parks its own document and nothing else; what it refuses of everybody
//! parks nobody. And what refused a row may be gone later, also by an event of another document in the same flush.

use alluvium::embedded::{Mongod, Options};
use bson::{Bson, Document, RawDocumentBuf, doc, raw::cstr, rawdoc};
use mongodb::{Client, IndexModel, options::IndexOptions};

use crate::{
    common::wait_until,
    scene::{Running, Scene, change, event, events},
    trouble::{fail, failpoint, set_failpoint, struck},
};

fn create(state: Document) -> Document {
    doc! { "op": "create", "state": state }
}

fn merge(fields: Document) -> Document {
    doc! { "op": "update", "merge": fields }
}

impl Scene {
    /// An index on the projected documents, as a user makes one.
    async fn index(&self, keys: Document, is_unique: bool) {
        let options = IndexOptions::builder().name("theirs".to_owned()).unique(is_unique);
        let options = options.sparse(is_unique).build();
        let index = IndexModel::builder().keys(keys).options(options).build();
        self.collection("games").create_index(index).await.unwrap();
    }

    async fn drop_index(&self) {
        self.collection("games").drop_index("theirs").await.unwrap();
    }

    /// Waits until nothing of `games` waits.
    async fn nothing_waits(&self) {
        let records = self.collection("alluvium.quarantine");
        let count = async || records.count_documents(doc! {}).await.unwrap();
        wait_until("nothing waits", async || count().await == 0).await;
    }

    /// Asks for a job on a document, as anybody may.
    async fn order(&self, kind: &str, id: &str) {
        let job = doc! { "kind": kind, "collection": "games", "document": id };
        self.collection("alluvium.jobs").insert_one(job).await.unwrap();
    }
}

/// An event whose patch has a name twice, as no driver makes one.
fn names_twice() -> RawDocumentBuf {
    let mut inner = rawdoc! { "x": 1 };
    inner.append(cstr!("x"), 2);
    rawdoc! {
        "_id": { "d": "a", "s": 2 }, "client": "x", "op": "update",
        "at": bson::DateTime::from_millis(2), "patch": { "$set": { "a": inner } },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_has_a_name_twice_parks_its_document_and_the_server_lives() {
    let mongod = Mongod::start(Options::default()).await.unwrap();
    let client = Client::with_uri_str(mongod.uri()).await.unwrap();
    let scene = Scene::on(mongod.uri().to_owned(), client.database("t")).await;
    let daemon = scene.start().await;
    scene.append([change("a", 1, create(doc! { "a": { "y": 0 } }))]).await;
    scene.reached("a", 1).await;
    let log = scene.db.collection::<RawDocumentBuf>("games.events");
    log.insert_one(names_twice()).await.unwrap();
    scene.recorded("a", "bad_event", 2).await;
    scene.parked("a", 2).await;
    scene.append([event("a", 3)]).await;
    scene.append(events("healthy", 1..=2)).await;
    scene.reached("healthy", 2).await;
    // A restart folds it anew, and so does a scan.
    daemon.stop().await;
    scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
    let daemon = scene.start().await;
    scene.append([event("healthy", 3)]).await;
    scene.reached("healthy", 3).await;
    parked(&daemon, 1).await;
    let answer = client.database("admin").run_command(doc! { "ping": 1 }).await;
    assert!(answer.is_ok(), "{answer:?}");
    daemon.stop().await;
    mongod.stop().await.unwrap();
}

async fn parked(daemon: &Running, count: u64) {
    daemon.says("so many are parked", |status| status.quarantined == Some(count)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_code_an_index_refuses_a_row_with_parks_only_that_document() {
    let cases = [
        (doc! { "state.name": "text" }, doc! { "name": "n", "language": "mn" }, "17262"),
        (doc! { "state.name": "text" }, doc! { "name": "n", "language": 5 }, "17261"),
        (doc! { "state.tag": "hashed" }, doc! { "tag": ["a", "b"] }, "16766"),
    ];
    for (keys, state, code) in cases {
        let scene = Scene::new().await;
        scene.index(keys, false).await;
        let daemon = scene.start().await;
        // One that has no row, and two that have one.
        scene.append([change("new", 1, create(state.clone()))]).await;
        for id in ["a", "b"] {
            scene.append([event(id, 1), change(id, 2, merge(state.clone())), event(id, 3)]).await;
        }
        for (id, version) in [("new", 1), ("a", 2), ("b", 2)] {
            scene.recorded(id, "rejected", version).await;
            let says_code = |record: Option<&Document>| {
                record.unwrap().get_str("reason").unwrap().contains(code)
            };
            scene.record(id, says_code).await;
        }
        scene.append(events("healthy", 1..=3)).await;
        scene.reached("healthy", 3).await;
        parked(&daemon, 3).await;
        scene.order("skip", "b").await;
        scene.reached("b", 3).await;
        scene.drop_index().await;
        scene.order("retry", "new").await;
        scene.reached("new", 1).await;
        // The other one is not asked for.
        scene.reached("a", 3).await;
        scene.nothing_waits().await;
        daemon.stop().await;
        scene.judged().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_beyond_what_the_server_stores_parks_its_document_and_no_other() {
    let mut scene = Scene::new().await;
    // As 9,990 clients with long names would leave it; the base row saves writing their events.
    let clients = 9_990;
    let clock: Document =
        (0..clients).map(|client| (format!("{client:0>128}"), Bson::Int64(1))).collect();
    let row = doc! {
        "_id": "large", "version": i64::from(clients), "clock": clock, "state": { "n": 1 },
        "updated_at": bson::DateTime::from_millis(0),
    };
    scene.collection("games").insert_one(row).await.unwrap();
    let base = i64::from(clients);
    // So that it is not ahead of its log.
    scene.append([event("large", base)]).await;
    scene.append(events("healthy", 1..=2)).await;
    let games = scene.games_config();
    (games.max_event_bytes, games.max_state_bytes, games.max_clients) =
        (15 << 20, 15 << 20, 10_000);
    let daemon = scene.start().await;
    scene.reached("healthy", 2).await;
    // The state keeps its limit, and so does the clock; only together they are too much.
    for (version, field, bytes) in [(base + 1, "one", 7_340_032), (base + 2, "two", 8_200_000)] {
        let text = "x".repeat(bytes);
        scene.append([change("large", version, merge(doc! { field: text }))]).await;
    }
    scene.recorded("large", "rejected", base + 2).await;
    scene.append([event("healthy", 3), event("other", 1)]).await;
    scene.reached("healthy", 3).await;
    scene.reached("other", 1).await;
    parked(&daemon, 1).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_takes_no_write_parks_nobody_and_says_so_until_it_does() {
    let _turn = failpoint().await;
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.write_on(150, 1..=1).await;
    scene.level("games").await;
    daemon.is_ready(true).await;
    // No list knows this code.
    let data = doc! {
        "failCommands": ["insert", "update", "delete"], "errorCode": 7_777_777,
        "appName": scene.db.name(), "namespace": format!("{}.games", scene.db.name()),
    };
    set_failpoint(&scene, "alwaysOn".into(), data).await;
    scene.write_on(150, 2..=2).await;
    scene.append(events("new", 1..=2)).await;
    let reasons = daemon.is_ready(false).await;
    assert!(reasons[0].contains("nothing can be written to `games`"), "{reasons:?}");
    assert!(reasons[0].contains("7777777"), "{reasons:?}");
    daemon
        .says("it says so", |status| {
            status.last_error.as_ref().is_some_and(|error| error.class == "unwritable")
        })
        .await;
    daemon.is_alive().await;
    assert!(struck(&scene).await > 0);
    scene.level("games").await;
    daemon.is_ready(true).await;
    assert_eq!(scene.collection("alluvium.quarantine").count_documents(doc! {}).await.unwrap(), 0);
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_error_of_a_whole_command_that_passes_parks_nobody() {
    let _turn = failpoint().await;
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.write_on(300, 1..=1).await;
    scene.level("games").await;
    let namespace = format!("{}.games", scene.db.name());
    let how = doc! { "errorCode": 7_777_777, "namespace": namespace };
    // Enough for the transaction, and for everything down to one row and its probe.
    fail(&scene, &["insert", "update"], 12, how).await;
    scene.write_on(300, 2..=2).await;
    scene.level("games").await;
    assert!(struck(&scene).await > 0);
    assert_eq!(scene.collection("alluvium.quarantine").count_documents(doc! {}).await.unwrap(), 0);
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_whose_words_are_cut_within_a_character_parks_its_document() {
    let scene = Scene::new().await;
    scene.index(doc! { "state.name": 1 }, true).await;
    let daemon = scene.start().await;
    let name = "😀".repeat(400);
    for pad in ["", "x", "xx", "xxx"] {
        let name = format!("{pad}{name}");
        let (first, second) = (format!("first{pad}"), format!("second{pad}"));
        scene.append([change(first.as_str(), 1, create(doc! { "name": &name }))]).await;
        scene.reached(first.as_str(), 1).await;
        // One that is inserted, and one that is replaced.
        scene.append([change(second.as_str(), 1, create(doc! { "name": &name }))]).await;
        scene.recorded(&second, "rejected", 1).await;
        let third = format!("third{pad}");
        scene.append([event(third.as_str(), 1)]).await;
        scene.reached(third.as_str(), 1).await;
        scene.append([change(third.as_str(), 2, merge(doc! { "name": &name }))]).await;
        scene.recorded(&third, "rejected", 2).await;
        scene.parked(third.as_str(), 2).await;
    }
    parked(&daemon, 8).await;
    assert_eq!(daemon.status().last_error, None);
    daemon.is_ready(true).await;
    let (_, listed) = daemon.get("/v1/collections/games/quarantine").await;
    for row in listed["quarantine"].as_array().unwrap() {
        let reason = row["reason"].as_str().unwrap();
        assert!(reason.contains("11000") && reason.chars().count() < 400, "{reason}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_documents_hand_on_or_swap_in_one_flush_park_nobody() {
    const PAIRS: i32 = 20;
    let scene = Scene::new().await;
    scene.index(doc! { "state.name": 1 }, true).await;
    for pair in 0..PAIRS {
        for side in ["a", "b"] {
            let id = format!("{side}{pair}");
            scene.append([change(id.as_str(), 1, create(doc! { "name": &id }))]).await;
        }
    }
    let daemon = scene.start().await;
    scene.level("games").await;
    daemon.stop().await;
    // Folded together, since all of them are there when the next daemon comes.
    let take = |id: &str, name: &str| change(id, 2, merge(doc! { "name": name }));
    for pair in 0..PAIRS {
        let (a, b) = (format!("a{pair}"), format!("b{pair}"));
        let given = if pair % 2 == 0 { format!("c{pair}") } else { a.clone() };
        // A chain in one order or the other, or a swap; and a new document takes what was given up.
        scene.append([take(&a, &b), take(&b, &given)]).await;
        if pair % 2 == 0 {
            scene.append([change(format!("n{pair}"), 1, create(doc! { "name": &a }))]).await;
        }
    }
    scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
    let daemon = scene.start().await;
    scene.level("games").await;
    scene.nothing_waits().await;
    assert_eq!(daemon.status().quarantined, Some(0));
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_swap_are_not_held_up_by_others_that_are_refused() {
    let scene = Scene::new().await;
    scene.index(doc! { "state.name": 1 }, true).await;
    let others: Vec<String> = (0..30).map(|other| format!("other{other}")).collect();
    let ids = ["holder", "swap a", "swap b"].map(str::to_owned);
    for id in ids.iter().chain(&others) {
        scene.append([change(id.as_str(), 1, create(doc! { "name": id }))]).await;
    }
    let daemon = scene.start().await;
    scene.level("games").await;
    daemon.stop().await;
    let take = |id: &str, name: &str| change(id, 2, merge(doc! { "name": name }));
    scene.append(others.iter().map(|id| take(id, "holder"))).await;
    scene.append([take("swap a", "swap b"), take("swap b", "swap a")]).await;
    scene.collection("alluvium.checkpoints").delete_many(doc! {}).await.unwrap();
    let daemon = scene.start().await;
    scene.reached("swap a", 2).await;
    scene.reached("swap b", 2).await;
    parked(&daemon, 30).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_heals_by_itself_when_another_gives_up_what_it_takes() {
    let scene = Scene::new().await;
    scene.index(doc! { "state.name": 1 }, true).await;
    let daemon = scene.start().await;
    scene.append([change("holder", 1, create(doc! { "name": "x" }))]).await;
    scene.reached("holder", 1).await;
    scene.append([change("taker", 1, create(doc! { "name": "y" }))]).await;
    scene.append([change("taker", 2, merge(doc! { "name": "x" })), event("taker", 3)]).await;
    scene.recorded("taker", "rejected", 2).await;
    // One that is known from the record only.
    daemon.stop().await;
    let daemon = scene.start().await;
    parked(&daemon, 1).await;
    scene.append([change("holder", 2, merge(doc! { "name": "z" }))]).await;
    scene.reached("taker", 3).await;
    // Each waits for what the other one has, and did not come with it.
    scene.append([change("taker", 4, merge(doc! { "name": "z" })), event("taker", 5)]).await;
    scene.recorded("taker", "rejected", 4).await;
    scene.append([change("holder", 3, merge(doc! { "name": "x" })), event("holder", 4)]).await;
    scene.reached("taker", 5).await;
    scene.reached("holder", 4).await;
    scene.nothing_waits().await;
    daemon.stop().await;
    scene.judged().await;
}
