//! The layout of the one collection on the in-memory replica set, as those of `store::mongo` are kept. What this
//! claims is checked in `conformance`.

use std::collections::BTreeMap;

use super::{
    leases::{LEASES, roster},
    node::Node,
    store::{CHECKPOINTS, saved},
    world::{COLLECTION, Data, Key, Op, Row, World},
};
use crate::{
    database::Result,
    model::part::Part,
    store::{Layout, Layouts},
};

pub(super) const META: &str = "alluvium.meta";

/// The layouts as one process reaches them.
#[derive(Clone)]
pub(super) struct SimLayouts {
    pub(super) node: Node,
}

impl Layouts for SimLayouts {
    async fn load_layouts(&self) -> Result<BTreeMap<String, (Layout, Option<String>)>> {
        let world = self.node.world.clone();
        let work = async move { Ok(layout(&world.state().visible)) };
        let found = self.node.call("next of the layouts", work).await?;
        Ok(BTreeMap::from([(COLLECTION.to_owned(), (Layout::Parts(found), None))]))
    }

    async fn set_layout(&self, _collection: &str, of: u32, _by: &str) -> Result<()> {
        let world = self.node.world.clone();
        let work = async move { world.majority(world.divide(of)).await };
        self.node.call("set_layout", work).await
    }

    async fn retire_layouts(&self, _collection: &str, of: u32) -> Result<bool> {
        let world = self.node.world.clone();
        let look = async move { Ok(saved(&world.state().visible)) };
        let saved = self.node.call("next of the checkpoints", look).await?;
        let has_place = |part| {
            saved.iter().any(|(saved, checkpoint)| *saved == part && checkpoint.position.is_some())
        };
        let world = self.node.world.clone();
        let look = async move { Ok(layout(&world.state().visible)) };
        if !Part::all(of).all(has_place) || self.node.call("layout", look).await? != of {
            return Ok(false);
        }
        let others = saved.iter().map(|(part, _)| *part);
        let others = others.filter(|part| part.of != of && *part != Part::WHOLE);
        let keys = others.map(Key::Checkpoint).collect();
        self.forget("retire checkpoints", CHECKPOINTS, move |_| keys).await?;
        let others = move |data: &Data| {
            let names = roster(data).leases.into_iter().map(|lease| lease.name);
            names.filter(|name| name.part.of != of).map(Key::Lease).collect()
        };
        self.forget("retire leases", LEASES, others).await?;
        Ok(true)
    }
}

impl SimLayouts {
    /// Deletes the rows that are found when the request arrives.
    async fn forget(
        &self,
        name: &str,
        collection: &'static str,
        keys: impl FnOnce(&Data) -> Vec<Key> + Send + 'static,
    ) -> Result<()> {
        let world = self.node.world.clone();
        let work = async move {
            let keys = keys(&world.state().latest);
            let mut last = world.state().last();
            for key in keys {
                last = world.apply(vec![Op::Delete { collection: collection.into(), key }]);
            }
            world.majority(last).await
        };
        self.node.call(name, work).await
    }
}

/// Into how many parts the collection is divided.
pub(super) fn layout(data: &Data) -> u32 {
    match data.get(META, &Key::Layout) {
        Some(Row::Layout(of)) => *of,
        _ => 1,
    }
}

impl World {
    /// Somebody divides the collection anew.
    pub(super) fn divide(&self, of: u32) -> super::world::Ticket {
        let (collection, key) = (META.into(), Key::Layout);
        self.apply(vec![Op::Put { collection, key, row: Row::Layout(of) }])
    }
}
