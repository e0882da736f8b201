//! Events near the server's limit of 16 MB: the stream and the scan carry them, and those above the
//! configured size park their document.

use alluvium::embedded::{Mongod, Options};
use bson::{Document, doc};
use mongodb::Client;

use crate::scene::{Scene, change, event, events};

/// A server whose cache has room for transactions of such a size.
async fn roomy() -> (Mongod, Scene) {
    let mongod = Mongod::start(Options { cache_mib: 1024, ..Options::default() }).await.unwrap();
    let client = Client::with_uri_str(mongod.uri()).await.unwrap();
    let scene = Scene::on(mongod.uri().to_owned(), client.database("t")).await;
    (mongod, scene)
}

/// An update whose event has about so many bytes.
fn large(id: &str, version: i64, bytes: usize) -> Document {
    let merge = doc! { "merge": { "large": "x".repeat(bytes) }, "op": "update" };
    change(id, version, merge)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_near_the_servers_limit_is_projected() {
    let (mongod, mut scene) = roomy().await;
    scene.games_config().max_event_bytes = 15 << 20;
    scene.games_config().max_state_bytes = 15 << 20;
    let long = "\0".repeat(1024);
    let daemon = scene.start().await;
    scene.append(events(long.as_str(), 1..=2)).await;
    scene.reached(long.as_str(), 2).await;
    // The change holds the id as well, twice as long in the token: beyond the limit for documents.
    scene.append([large(&long, 3, (15 << 20) - 2_000)]).await;
    let small = doc! { "op": "update", "merge": { "large": null } };
    scene.append([change(long.as_str(), 4, small)]).await;
    scene.append(events("other", 1..=3)).await;
    scene.reached("other", 3).await;
    let row = scene.reached(long.as_str(), 4).await;
    assert!(!row.contains_key("quarantine"));
    daemon.stop().await;
    scene.judged().await;
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_the_servers_full_size_does_not_stop_the_stream() {
    let (mongod, scene) = roomy().await;
    let daemon = scene.start().await;
    let long = "\0".repeat(1024);
    scene.append(events(long.as_str(), 1..=2)).await;
    // 16 MiB less the rest of the event, and so beyond `max_event_bytes`.
    scene.append([large(&long, 3, (16 << 20) - 1_200)]).await;
    scene.append([event(long.as_str(), 4)]).await;
    scene.append(events("other", 1..=3)).await;
    scene.reached("other", 3).await;
    scene.recorded(&long, "too_large", 3).await;
    scene.parked(long.as_str(), 3).await;
    // And it goes on beyond it, also after a restart.
    daemon.stop().await;
    let daemon = scene.start().await;
    scene.append([event("other", 4)]).await;
    scene.reached("other", 4).await;
    daemon.stop().await;
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_meets_large_events_as_well() {
    let (mongod, mut scene) = roomy().await;
    scene.games_config().max_event_bytes = 15 << 20;
    scene.games_config().cache_bytes = 1 << 20;
    for id in ["a", "b", "c"] {
        scene.append([event(id, 1), large(id, 2, (15 << 20) - 2_000), event(id, 3)]).await;
        let small = doc! { "op": "update", "merge": { "large": null } };
        scene.append([change(id, 4, small)]).await;
    }
    let daemon = scene.start().await;
    scene.level("games").await;
    daemon.stop().await;
    scene.judged().await;
    mongod.stop().await.unwrap();
}
