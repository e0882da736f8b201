//! Who leads: one of many at a time, and another one soon after it has gone.

use std::time::Duration;

use bson::doc;
use tokio_util::sync::CancellationToken;

use alluvium::{
    lease::{Keeper, Leaderships, LeaseSettings, Standing},
    model::part::Part,
    status::Role,
    store::{LeaseName, mongo::MongoLeases},
    time::SystemTime,
};

use crate::{
    common::wait_until,
    scene::{Running, Scene, event},
};

async fn has_role(daemon: &Running, role: Role) {
    daemon.says(&format!("it is a {role:?}"), |status| status.role == Some(role)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_stands_by_and_takes_over_from_one_that_stops_or_dies() {
    let mut scene = Scene::new().await;
    scene.lease_time = Duration::from_secs(20);
    scene.write_on(20, 1..=5).await;
    let first = scene.start().await;
    has_role(&first, Role::Leader).await;
    let second = scene.start().await;
    has_role(&second, Role::Standby).await;
    scene.write_on(20, 6..=10).await;
    scene.level("games").await;
    assert_eq!(second.status().role, Some(Role::Standby));
    first.stop().await;
    has_role(&second, Role::Leader).await;
    scene.write_on(20, 11..=15).await;
    scene.level("games").await;
    let third = scene.start().await;
    has_role(&third, Role::Standby).await;
    second.crash().await;
    scene.write_on(20, 16..=20).await;
    scene.level("games").await;
    has_role(&third, Role::Leader).await;
    third.stop().await;
    assert_eq!(scene.judged().await.events, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_daemons_that_start_at_once_one_leads_each_time() {
    let mut scene = Scene::new().await;
    scene.lease_time = Duration::from_secs(600);
    for version in 1..=50 {
        let (one, other) = tokio::join!(scene.start(), scene.start());
        scene.append([event("a", version)]).await;
        scene.reached("a", version).await;
        let roles = || [one.status().role, other.status().role];
        wait_until("both know who leads", async || roles().iter().all(Option::is_some)).await;
        let leaders = roles().iter().filter(|role| **role == Some(Role::Leader)).count();
        assert_eq!(leaders, 1, "{version}");
        tokio::join!(one.stop(), other.stop());
    }
    assert_eq!(scene.judged().await.events, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_taken_without_an_answer_is_given_back_at_the_stop() {
    let scene = Scene::new().await;
    let key = doc! { "c": "games", "p": 0_i64, "of": 1_i64 };
    let row = doc! { "_id": key, "holder": "me", "epoch": 3_i64, "beat": 0_i64 };
    let leases = scene.collection("alluvium.leases");
    leases.insert_one(row).await.unwrap();
    let leaderships = Leaderships::default();
    let name = LeaseName { collection: "games".into(), part: Part::WHOLE };
    let standing = leaderships.want(name);
    let keeper = Keeper::new(
        MongoLeases::new(&scene.db),
        SystemTime::new(),
        LeaseSettings { instance: "me".into(), lease_time: Duration::from_secs(600) },
        leaderships,
    );
    let stop = CancellationToken::new();
    stop.cancel();
    keeper.run(stop).await;
    assert_eq!(*standing.borrow(), Standing::Unknown);
    let row = leases.find_one(doc! { "_id.c": "games" }).await.unwrap().unwrap();
    assert_eq!(row.get("holder"), Some(&bson::Bson::Null), "{row}");
    assert_eq!(row.get_i64("epoch").unwrap(), 3);
}
