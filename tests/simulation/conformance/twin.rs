//! The in-memory replica set as a server of the test bodies.

use std::{future::Future, pin::Pin, time::Duration};

use bson::RawDocumentBuf;

use super::Server;
use crate::{
    model::{
        compaction::{LiveClient, Mark},
        event::EventKey,
        id::DocumentId,
        part::Part,
        position::LogId,
    },
    simulation::{
        bases::late_on_record,
        executor::{Executor, Owner, Sim},
        layouts::SimLayouts,
        leases::SimLeases,
        log::SimLogSource,
        monitor::Monitor,
        node::Node,
        store::SimStore,
        world::{COLLECTION, EVENTS, Key, Op, Row, World},
    },
};

pub(super) struct Twin {
    node: Node,
}

/// Runs a body under several seeds, since the order of things differs with them.
pub(super) fn run(body: impl Fn(Twin) -> Pin<Box<dyn Future<Output = ()> + Send>>) {
    for seed in 0..20 {
        let sim = Sim::new(seed, false);
        let world = World::new(&sim);
        sim.spawn(Owner::World, world.clone().replicate());
        sim.spawn(Owner::World, world.clone().heartbeat());
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (body, end) = (body(Twin { node: Node::new(&world, Owner::World, &[]) }), done.clone());
        sim.spawn(Owner::World, async move {
            body.await;
            end.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let done = || done.load(std::sync::atomic::Ordering::Relaxed);
        assert!(Executor::new(&sim).run(Duration::from_secs(600), done), "seed {seed} hangs");
    }
}

/// Where an event sorts. One whose key is none, since its number is no whole one, stands at the next version.
fn place(event: &RawDocumentBuf) -> EventKey {
    EventKey::from_event(event).unwrap_or_else(|_| {
        let key = event.get_document("_id").unwrap();
        let document = DocumentId::from_raw(key.get("d").unwrap().unwrap()).unwrap();
        EventKey { document, version: key.get_f64("s").unwrap().ceil() as i64 }
    })
}

impl Twin {
    async fn put(&self, collection: &str, events: &[RawDocumentBuf], together: bool) {
        let world = &self.node.world;
        let puts = events.iter().map(|event| Op::Put {
            collection: collection.into(),
            key: Key::Event(place(event)),
            row: Row::Raw(event.clone()),
        });
        let entries: Vec<Vec<Op>> =
            if together { vec![puts.collect()] } else { puts.map(|put| vec![put]).collect() };
        for entry in entries {
            world.majority(world.apply(entry)).await.unwrap();
        }
    }

    async fn change(&self, op: Op) {
        let world = &self.node.world;
        world.majority(world.apply(vec![op])).await.unwrap();
    }
}

impl Server for Twin {
    type Source = SimLogSource;
    type Store = SimStore;
    type Leases = SimLeases;
    type Layouts = SimLayouts;

    const NOT_READ_AHEAD: i64 = 300;
    const LARGE_EVENT: usize = 350;

    fn source(&self) -> SimLogSource {
        SimLogSource { node: self.node.clone() }
    }

    fn store_of(&self, part: Part) -> SimStore {
        SimStore::new(self.node.clone(), Monitor::blind(), part)
    }

    fn layouts(&self) -> SimLayouts {
        SimLayouts { node: self.node.clone() }
    }

    fn leases(&self) -> SimLeases {
        SimLeases { node: self.node.clone() }
    }

    async fn append(&self, events: &[RawDocumentBuf]) {
        self.put(EVENTS, events, false).await;
    }

    async fn append_together(&self, events: &[RawDocumentBuf]) {
        self.put(EVENTS, events, true).await;
    }

    async fn append_carelessly(&self, event: &RawDocumentBuf) {
        let key = Key::Event(EventKey::from_event(event).unwrap());
        let put = Op::Put { collection: EVENTS.into(), key, row: Row::Raw(event.clone()) };
        self.node.world.apply(vec![put]);
    }

    async fn append_elsewhere(&self, event: &RawDocumentBuf) {
        self.put("others.events", std::slice::from_ref(event), false).await;
    }

    async fn drop_log(&self) {
        self.change(Op::Drop { collection: EVENTS.into() }).await;
    }

    async fn make_log(&self) {
        self.node.world.make_log();
    }

    async fn rename_log(&self) {
        self.change(Op::Rename { from: EVENTS.into(), to: "old.events".into() }).await;
    }

    async fn rename_log_back(&self) {
        self.change(Op::Rename { from: "old.events".into(), to: EVENTS.into() }).await;
    }

    async fn delete_row(&self) {
        let key = Key::Document(DocumentId::String("a".into()));
        self.change(Op::Delete { collection: COLLECTION.into(), key }).await;
    }

    async fn put_row(&self, row: &RawDocumentBuf) {
        let key = Key::Document(DocumentId::String("a".into()));
        let row = Row::Raw(row.clone());
        self.change(Op::Put { collection: COLLECTION.into(), key, row }).await;
    }

    async fn drop_rows(&self) {
        self.change(Op::Drop { collection: COLLECTION.into() }).await;
    }

    async fn refuse_name(&self, name: &str) {
        self.node.world.state().refused_name = Some(name.into());
    }

    async fn mark(&self, log: LogId, id: &DocumentId, marks: &[Mark]) {
        marks.iter().for_each(|mark| self.node.world.mark(log, id, *mark, marks.len()));
    }

    async fn acknowledge(&self, id: &DocumentId, client: LiveClient) {
        self.node.world.acknowledge(id, client);
    }

    async fn late_on_record(&self) -> Vec<RawDocumentBuf> {
        late_on_record(&self.node.world.state().visible)
    }
}
