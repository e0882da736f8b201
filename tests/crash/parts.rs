//! Daemons that share a divided collection are killed, or frozen and woken late, while the number of parts changes.

use crate::{Stage, common::Daemon, writers::Writers};

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_die_or_sleep_while_the_collection_is_divided_anew_lose_and_double_nothing() {
    let mut stage = Stage::new().await;
    stage.scene.divide(3).await;
    let writers = Writers::start(&stage.scene, stage.rng.fork());
    let mut daemons: Vec<Daemon> = vec![stage.daemon(), stage.daemon()];
    for of in [4, 1, 3, 2, 4, 1, 2] {
        stage.progress().await;
        writers.wrote(stage.rng.usize(0..150)).await;
        let (victim, sleeps) = (stage.rng.usize(0..2), stage.rng.bool());
        if sleeps {
            daemons[victim].signal("STOP");
        }
        writers.wrote(stage.rng.usize(0..100)).await;
        stage.scene.divide(of).await;
        if stage.rng.bool() {
            // Long enough for the other one to have followed, and for it to have begun.
            writers.wrote(stage.rng.usize(0..500)).await;
        }
        if sleeps {
            // Another leads before it knows.
            stage.scene.forget_leases().await;
            stage.progress().await;
            writers.wrote(stage.rng.usize(0..150)).await;
            daemons[victim].signal("CONT");
            writers.wrote(stage.rng.usize(50..150)).await;
        } else {
            stage.replace(&mut daemons[victim]).await;
        }
    }
    let mut last = daemons.remove(0);
    stage.replace(&mut last).await;
    drop(daemons);
    stage.scene.forget_leases().await;
    stage.settle(last, writers).await;
}
