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

/// Waits until each collection has one leader and the leaderships are spread like this, in any order.
async fn spread(daemons: &[&Running], expected: &[usize]) {
    let what = format!("{expected:?} leaderships");
    wait_until(&what, async || {
        let roles: Vec<_> = daemons.iter().map(|daemon| daemon.roles()).collect();
        let leads = |role: &Option<Role>| *role == Some(Role::Leader);
        let one_each = (0..roles[0].len())
            .all(|at| roles.iter().filter(|roles| leads(&roles[at])).count() == 1);
        let mut counts: Vec<usize> =
            roles.iter().map(|roles| roles.iter().filter(|role| leads(role)).count()).collect();
        counts.sort_unstable();
        one_each && counts == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaderships_of_several_collections_spread_as_instances_come_and_go() {
    let mut scene = Scene::new().await.with("users").await.with("orders").await;
    scene.lease_time = Duration::from_secs(5);
    let names = ["games", "users", "orders"];
    let mut version = 0;
    let mut project = async || {
        version += 1;
        for name in names {
            scene.append_to(name, [event("a", version)]).await;
        }
        for name in names {
            scene.level(name).await;
        }
    };
    let first = scene.start().await;
    spread(&[&first], &[3]).await;
    project().await;
    let second = scene.start().await;
    spread(&[&first, &second], &[1, 2]).await;
    project().await;
    let third = scene.start().await;
    spread(&[&first, &second, &third], &[1, 1, 1]).await;
    project().await;
    first.stop().await;
    spread(&[&second, &third], &[1, 2]).await;
    project().await;
    second.crash().await;
    spread(&[&third], &[3]).await;
    project().await;
    third.stop().await;
    for name in names {
        assert_eq!(scene.judged_as(name, Vec::new()).await.events, 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_answers_reads_and_waits_for_what_the_leader_projects() {
    let mut scene = Scene::new().await;
    scene.lease_time = Duration::from_secs(600);
    let leader = scene.start().await;
    scene.append([event("a", 1), event("a", 2)]).await;
    scene.reached("a", 2).await;
    let standby = scene.start().await;
    has_role(&standby, Role::Standby).await;
    standby.is_ready(true).await;
    let document = "/v1/collections/games/documents/a";
    let (status, body) = standby.get(document).await;
    assert_eq!((status, &body["version"]), (200, &2.into()), "{body}");
    let (status, body) = standby.get(&format!("{document}/missing?clock=%7B%22x%22%3A1%7D")).await;
    assert_eq!((status, &body["events"][0]["version"]), (200, &2.into()), "{body}");
    // Asked before the event is there.
    let wait = format!("{document}?min_version=3&wait=30s");
    let (answer, ()) = tokio::join!(standby.get(&wait), async {
        scene.append([event("a", 3)]).await;
    });
    assert_eq!((answer.0, &answer.1["version"]), (200, &3.into()), "{answer:?}");
    let (status, body) = standby.get(&format!("{document}?min_version=4&wait=300ms")).await;
    assert_eq!((status, &body["version"]), (504, &3.into()), "{body}");
    assert_eq!(standby.status().role, Some(Role::Standby));
    standby.stop().await;
    leader.stop().await;
    assert_eq!(scene.judged().await.events, 3);
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
    keeper.run(stop).await.unwrap();
    assert_eq!(*standing.borrow(), Standing::Unknown);
    let row = leases.find_one(doc! { "_id.c": "games" }).await.unwrap().unwrap();
    assert_eq!(row.get("holder"), Some(&bson::Bson::Null), "{row}");
    assert_eq!(row.get_i64("epoch").unwrap(), 3);
}
