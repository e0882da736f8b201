//! Versions are dense: whatever follows a hole waits, on record and in sight, until the hole is filled,
//! and nobody else waits with it.

use std::time::Duration;

use bson::doc;

use crate::scene::{Running, Scene, event, events};

/// Waits until so many documents stand behind holes, by status and metrics alike.
async fn says_gaps(daemon: &Running, gaps: u64) {
    let shown = [("version_gaps", ""), ("quarantined_documents", "class=\"gap\"")];
    daemon
        .says(&format!("{gaps} gaps"), |status| {
            status.version_gaps == Some(gaps)
                && shown.map(|(name, labels)| daemon.metric(name, labels)) == [Some(gaps as f64); 2]
        })
        .await;
    assert_eq!(daemon.status().quarantined, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_hole_waits_on_record_and_goes_on_when_it_is_filled() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    // `a` waits for 3; `b`, which has no row yet, for 1; `c` for nothing.
    scene.append(events("a", 1..=2)).await;
    scene.append(events("a", 4..=5)).await;
    scene.append(events("b", 2..=3)).await;
    scene.append(events("c", 1..=3)).await;
    scene.recorded("a", "gap", 3).await;
    scene.recorded("b", "gap", 1).await;
    scene.reached("a", 2).await;
    scene.reached("c", 3).await;
    assert_eq!(scene.row("b").await, None);
    says_gaps(&daemon, 2).await;
    assert_eq!(scene.judged().await.holes, 2);

    scene.append([event("a", 3)]).await;
    scene.append([event("b", 1)]).await;
    scene.level("games").await;
    scene.record("a", |record| record.is_none()).await;
    scene.record("b", |record| record.is_none()).await;
    says_gaps(&daemon, 0).await;
    assert_eq!(scene.judged().await.holes, 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_with_two_holes_stops_at_each() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.append([event("a", 1), event("a", 3), event("a", 5)]).await;
    scene.recorded("a", "gap", 2).await;
    scene.append([event("a", 2)]).await;
    scene.recorded("a", "gap", 4).await;
    scene.reached("a", 3).await;
    scene.append([event("a", 4)]).await;
    scene.reached("a", 5).await;
    says_gaps(&daemon, 0).await;
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_outlives_a_restart_and_is_in_sight_at_once() {
    for crash in [false, true] {
        let scene = Scene::new().await;
        let daemon = scene.start().await;
        scene.append([event("a", 1), event("a", 3), event("b", 2)]).await;
        scene.append(events("c", 1..=3)).await;
        scene.recorded("a", "gap", 2).await;
        scene.recorded("b", "gap", 1).await;
        scene.reached("c", 3).await;
        if crash {
            daemon.crash().await;
            scene.forget_leases().await;
        } else {
            daemon.stop().await;
        }
        let daemon = scene.start().await;
        says_gaps(&daemon, 2).await;
        // Alive: the others go on while the two wait.
        scene.append([event("c", 4)]).await;
        scene.reached("c", 4).await;
        assert_eq!(scene.judged().await.holes, 2);
        scene.append([event("a", 2), event("b", 1)]).await;
        scene.level("games").await;
        says_gaps(&daemon, 0).await;
        daemon.stop().await;
        scene.judged().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_filled_while_the_daemon_was_down_heals_at_the_next_start() {
    let scene = Scene::new().await;
    let daemon = scene.start().await;
    scene.append([event("a", 1), event("a", 3), event("b", 2)]).await;
    scene.recorded("a", "gap", 2).await;
    scene.recorded("b", "gap", 1).await;
    daemon.stop().await;
    scene.append([event("a", 2), event("b", 1)]).await;
    let daemon = scene.start().await;
    scene.level("games").await;
    says_gaps(&daemon, 0).await;
    scene.record("a", |record| record.is_none()).await;
    scene.record("b", |record| record.is_none()).await;
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_puts_the_holes_that_it_meets_on_record() {
    let scene = Scene::new().await;
    scene.append([event("a", 1), event("a", 3), event("b", 2)]).await;
    scene.append(events("c", 1..=3)).await;
    let daemon = scene.start().await;
    scene.recorded("a", "gap", 2).await;
    scene.recorded("b", "gap", 1).await;
    scene.reached("c", 3).await;
    says_gaps(&daemon, 2).await;
    scene.append([event("a", 2), event("b", 1)]).await;
    scene.level("games").await;
    says_gaps(&daemon, 0).await;
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_may_deliver_later_versions_first() {
    let scene = Scene::new().await;
    scene.append(events("a", 1..=2)).await;
    let daemon = scene.start().await;
    scene.reached("a", 2).await;
    let mut session = scene.db.client().start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let log = scene.collection("games.events");
    for event in [event("a", 5), event("b", 2), event("a", 4), event("b", 1), event("a", 3)] {
        log.insert_one(event).session(&mut session).await.unwrap();
    }
    session.commit_transaction().await.unwrap();
    scene.level("games").await;
    says_gaps(&daemon, 0).await;
    scene.record("a", |record| record.is_none()).await;
    daemon.stop().await;
    scene.judged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_older_than_its_grace_is_told_with_what_to_do() {
    let mut scene = Scene::new().await;
    scene.games_config().gap_grace = Duration::from_secs(1);
    let daemon = scene.start().await;
    scene.append([event("a", 1), event("a", 3)]).await;
    daemon
        .says("the hole is overdue", |status| {
            status.last_error.as_ref().is_some_and(|error| {
                error.class == "gap" && error.message.contains("waits for version 2")
            })
        })
        .await;
    assert!(daemon.status().last_error.unwrap().advice.contains("writer"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_other_collections_does_not_matter() {
    let scene = Scene::new().await;
    scene.make_log("strangers").await;
    let daemon = scene.start().await;
    scene.append(events("a", 1..=2)).await;
    scene.append_to("strangers", [event("a", 3), event("a", 4)]).await;
    scene.collection("games").insert_one(doc! { "_id": "by hand" }).await.unwrap();
    scene.collection("games").delete_one(doc! { "_id": "by hand" }).await.unwrap();
    scene.collection("strangers.events").drop().await.unwrap();
    scene.append(events("a", 3..=4)).await;
    scene.level("games").await;
    says_gaps(&daemon, 0).await;
    assert_eq!(daemon.status().last_error, None);
    daemon.stop().await;
    scene.judged().await;
}
