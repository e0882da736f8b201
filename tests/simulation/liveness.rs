//! Liveness while the database is away for long: every loop goes on turning, whatever it was at when the
//! answers stayed away, and everything goes on by itself afterwards. Each daemon of a simulation watches its own
//! hearts (`daemon.rs`), so that nothing has to be said here but what happens.

use std::time::Duration;

use super::{
    executor::Owner,
    node::Node,
    regressions::{Scene, create, update},
    world::World,
};

/// Many times as long as a loop may be silent.
const AWAY: Duration = Duration::from_secs(900);
/// Within so many milliseconds it begins: while the daemon starts, scans, tails, flushes.
const MOMENTS: u64 = 2_500;
const EVENTS: i64 = 40;
const SEEDS: u64 = 4;

/// How a database is away.
#[derive(Clone, Copy, Debug)]
enum Away {
    /// Nothing is answered.
    Frozen,
    /// No connection can be made.
    Cut,
    /// The majority acknowledges nothing.
    Stalled,
}

impl Away {
    async fn happen(self, world: World, node: Node) {
        let sim = world.sim.clone();
        match self {
            Self::Frozen => world.freeze(AWAY),
            Self::Cut => node.cut(sim.now() + AWAY),
            Self::Stalled => {
                world.state().stalled = true;
                sim.sleep(AWAY).await;
                world.state().stalled = false;
            }
        }
        sim.changed();
    }
}

fn survives(seed: u64, lease_time: Option<Duration>, cache_bytes: usize, away: Away) {
    let mut scene = Scene::with_cache(seed, lease_time, cache_bytes);
    let mut rng = scene.sim.rng(1);
    let (sim, world, node) = (scene.sim.clone(), scene.world.clone(), scene.node.clone());
    let moment = Duration::from_millis(rng.u64(0..MOMENTS));
    scene.sim.spawn(Owner::World, async move {
        sim.sleep(moment).await;
        away.happen(world, node).await;
    });
    let (sim, world) = (scene.sim.clone(), scene.world.clone());
    scene.sim.spawn(Owner::World, async move {
        world.apply(vec![Scene::event(1, &create())]);
        for version in 2..=EVENTS {
            sim.sleep(Duration::from_millis(rng.u64(0..100))).await;
            world.apply(vec![Scene::event(version, &update())]);
        }
    });
    let what = format!("seed {seed}, {lease_time:?}, {cache_bytes} bytes of cache, {away:?}");
    scene.within(AWAY * 2, &what, |world| Scene::is_at(world, EVENTS));
}

#[test]
fn a_database_that_is_away_for_long_turns_no_loop_dead_and_is_followed_again() {
    // A leader steps down soon, only after long, or never.
    let lease_times = [Some(Duration::from_secs(4)), Some(Duration::from_secs(600)), None];
    for away in [Away::Frozen, Away::Cut, Away::Stalled] {
        for lease_time in lease_times {
            for seed in 0..SEEDS {
                // So small that the projection waits for every flush.
                for cache_bytes in [2, 1 << 20] {
                    survives(seed, lease_time, cache_bytes, away);
                }
            }
        }
    }
}
