//! The leases on the in-memory replica set, as those of `store::mongo` are kept: by filtered majority
//! writes. What this claims is checked in `conformance`.

use std::collections::BTreeMap;

use super::{
    executor::Owner,
    layouts::layout,
    node::Node,
    store::{saved, saved_of},
    world::{Data, Key, Op, Row, State, World},
};
use crate::{
    database::Result,
    model::part::Part,
    planted::{Bug, planted},
    store::{Lease, LeaseName, Leases, Presence, Roster},
};

pub(super) const LEASES: &str = "alluvium.leases";
const META: &str = "alluvium.meta";

/// The leases as one process reaches them.
#[derive(Clone)]
pub(super) struct SimLeases {
    pub(super) node: Node,
}

impl Leases for SimLeases {
    async fn load_roster(&self) -> Result<Roster> {
        let world = self.node.world.clone();
        let work = async move { Ok(roster(&world.state().visible)) };
        self.node.call("next of the roster", work).await
    }

    async fn epoch_floor(&self, name: &LeaseName) -> Result<i64> {
        let (world, part) = (self.node.world.clone(), name.part);
        let floor = move || saved_of(&world.state().visible, part).map_or(0, |saved| saved.epoch);
        self.node.call("epoch_floor", async move { Ok(floor()) }).await
    }

    async fn take_lease(&self, lease: &Lease, seen: Option<&Lease>) -> Result<bool> {
        let (world, lease, seen) = (self.node.world.clone(), lease.clone(), seen.cloned());
        let name = self.node.name(|| format!("take_lease {} {:?}", lease.epoch, lease.holder));
        let work = async move {
            let stored = stored(&world.state(), &lease.name);
            let place = |lease: &Lease| (lease.epoch, lease.beat);
            let as_seen = stored.as_ref().map(place) == seen.as_ref().map(place);
            if !as_seen && !planted(Bug::LeaseTakenUnseen) {
                return Ok(false);
            }
            let rises = stored.is_none_or(|stored| stored.epoch < lease.epoch);
            world.insist(rises.then_some(()).ok_or("a lease changes hands at one epoch".into()));
            world.majority(world.apply(vec![put(lease)])).await?;
            Ok(true)
        };
        self.node.call(&name, work).await
    }

    async fn renew_lease(&self, lease: &Lease) -> Result<bool> {
        let (world, lease) = (self.node.world.clone(), lease.clone());
        let name = self.node.name(|| match &lease.holder {
            Some(_) => "next beat of a lease".into(),
            None => "give back the lease".into(),
        });
        let work = async move {
            let stored = stored(&world.state(), &lease.name);
            if stored.is_none_or(|stored| stored.epoch != lease.epoch) {
                return Ok(false);
            }
            world.majority(world.apply(vec![put(lease)])).await?;
            Ok(true)
        };
        self.node.call(&name, work).await
    }

    async fn load_format(&self) -> Result<Option<i64>> {
        let world = self.node.world.clone();
        let format = move || match world.state().visible.get(META, &Key::Format) {
            Some(Row::Format(format)) => Some(*format),
            _ => None,
        };
        self.node.call("next look at the format", async move { Ok(format()) }).await
    }

    async fn server_time(&self) -> Result<bson::DateTime> {
        let sim = self.node.sim().clone();
        self.node.call("next look at the clock", async move { Ok(sim.wall()) }).await
    }

    async fn show_presence(&self, presence: &Presence) -> Result<()> {
        let key = Key::Presence(presence.instance.clone());
        let row = Row::Presence(presence.clone());
        self.presence("next sign of life", Op::Put { collection: LEASES.into(), key, row }).await
    }

    async fn remove_presence(&self, instance: &str) -> Result<()> {
        let key = Key::Presence(instance.to_owned());
        self.presence("remove_presence", Op::Delete { collection: LEASES.into(), key }).await
    }
}

impl SimLeases {
    async fn presence(&self, name: &str, op: Op) -> Result<()> {
        let world = self.node.world.clone();
        let work = async move { world.majority(world.apply(vec![op])).await };
        self.node.call(name, work).await
    }
}

fn put(lease: Lease) -> Op {
    let key = Key::Lease(lease.name.clone());
    Op::Put { collection: LEASES.into(), key, row: Row::Lease(lease) }
}

fn stored(state: &State, name: &LeaseName) -> Option<Lease> {
    match state.latest.get(LEASES, &Key::Lease(name.clone())) {
        Some(Row::Lease(lease)) => Some(lease.clone()),
        _ => None,
    }
}

/// All leases and presences.
pub(super) fn roster(data: &Data) -> Roster {
    let mut roster = Roster::default();
    for row in data.collections.get(LEASES).into_iter().flat_map(|found| found.rows.values()) {
        match row {
            Row::Lease(lease) => roster.leases.push(lease.clone()),
            Row::Presence(presence) => roster.instances.push(presence.clone()),
            _ => {}
        }
    }
    roster
}

impl World {
    /// A later version of the program takes the data over.
    pub(super) fn put_format(&self, format: i64) {
        let (key, row) = (Key::Format, Row::Format(format));
        self.apply(vec![Op::Put { collection: META.into(), key, row }]);
    }

    /// Somebody deletes all leases and all signs of life.
    pub(super) fn lose_leases(&self) {
        let keys: Vec<Key> = {
            let state = self.state();
            let found = state.latest.collections.get(LEASES);
            found.into_iter().flat_map(|found| found.rows.keys().cloned()).collect()
        };
        let delete = |key| Op::Delete { collection: LEASES.into(), key };
        for key in keys {
            self.apply(vec![delete(key)]);
        }
    }
}

/// What is wrong with who leads: exactly one has to lead each part, as its lease says, and its checkpoints are
/// saved, under a later epoch than `before`. Of other divisions nothing is left.
pub(super) fn misled(
    world: &World,
    daemons: &[Node],
    before: &BTreeMap<Part, i64>,
) -> Option<String> {
    let leaders: Vec<(Owner, Part, i64)> = daemons
        .iter()
        .flat_map(|daemon| {
            daemon.leads().into_iter().map(|(part, epoch)| (daemon.owner, part, epoch))
        })
        .collect();
    let state = world.state();
    let (saved, leases) = (saved(&state.visible), roster(&state.visible).leases);
    let is_led = |part: Part| {
        let of_part: Vec<_> = leaders.iter().filter(|(_, led, _)| *led == part).collect();
        let [(owner, _, epoch)] = of_part[..] else { return false };
        let instance = format!("{owner:?}.");
        let says = |lease: &Lease| {
            let holds = lease.holder.as_ref().is_some_and(|holder| holder.starts_with(&instance));
            lease.name.part == part && lease.epoch == *epoch && holds
        };
        let is_saved =
            saved.iter().any(|(of, checkpoint)| *of == part && checkpoint.epoch == *epoch);
        leases.iter().any(says) && is_saved && before.get(&part).is_none_or(|before| epoch > before)
    };
    let of = layout(&state.visible);
    let only = saved.iter().all(|(part, _)| part.of == of || *part == Part::WHOLE)
        && leases.iter().all(|lease| lease.name.part.of == of)
        && leaders.iter().all(|(_, part, _)| part.of == of);
    if Part::all(of).all(is_led) && only {
        return None;
    }
    let saved: Vec<_> = saved.iter().map(|(part, saved)| (*part, saved.epoch)).collect();
    Some(format!(
        "{leaders:?} lead, not one each of {of} parts, later than {before:?}; the checkpoints are of {saved:?}, the leases {leases:?}"
    ))
}
