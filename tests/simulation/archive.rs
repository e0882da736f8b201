//! An archive of the in-memory replica set: its index as `store::mongo` keeps it, and objects that are lost or damaged when
//! a scene says so. Both outlive everything.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};

use super::{
    bases::first_of,
    executor::Owner,
    node::Node,
    store::SimStore,
    world::{COLLECTION, World},
};
use crate::{
    archive::{self, Archive, Objects},
    database::Result,
    model::{
        id::{DocumentId, integral},
        position::LogId,
    },
    store::{ArchiveRows, Archived},
};

type Index = BTreeMap<(DocumentId, i64, String), Archived>;

/// What there is of archives.
#[derive(Clone, Debug, Default)]
pub(super) struct Archives {
    index: Index,
    pub(super) objects: BTreeMap<String, Vec<u8>>,
    /// What is created is cut to half of its size, as by a disk that lies.
    pub(super) truncates: bool,
    /// Whoever this is comes to nothing with what he creates until he is let go.
    pub(super) held_back: Option<Owner>,
    /// What was cut.
    cut: Vec<String>,
    /// Documents that are held.
    pub(super) held: HashSet<(LogId, DocumentId)>,
}

impl Archives {
    /// The disk lies no longer, and somebody deletes what it has cut.
    pub(super) fn heal(&mut self) {
        self.truncates = false;
        for name in self.cut.drain(..) {
            self.objects.remove(&name);
        }
    }
}

fn key(row: &Archived) -> (DocumentId, i64, String) {
    (row.id.clone(), row.from, row.segment.clone())
}

impl SimStore {
    async fn on_index<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&mut Index) -> T + Send + 'static,
    ) -> Result<T> {
        let world = self.node.world.clone();
        self.node.call(name, async move { Ok(work(&mut world.state().archives.index)) }).await
    }
}

impl ArchiveRows for SimStore {
    async fn note_archived(&self, rows: &[Archived]) -> Result<()> {
        let rows = rows.to_vec();
        self.on_index("note_archived", move |index| {
            for row in rows {
                index.entry(key(&row)).or_insert(row);
            }
        })
        .await
    }

    async fn prove_archived(&self, rows: &[Archived]) -> Result<i64> {
        let rows = rows.to_vec();
        self.on_index("prove_archived", move |index| {
            let mut proven = 0;
            for row in &rows {
                if let Some(row) = index.get_mut(&key(row)) {
                    (row.is_proven, proven) = (true, proven + 1);
                }
            }
            proven
        })
        .await
    }

    async fn doubt_archived(&self, rows: &[Archived]) -> Result<()> {
        let rows = rows.to_vec();
        self.on_index("doubt_archived", move |index| {
            for row in &rows {
                if let Some(row) = index.get_mut(&key(row)) {
                    row.is_proven = false;
                }
            }
        })
        .await
    }

    async fn archived(&self, ids: &[DocumentId]) -> Result<Vec<Archived>> {
        let ids = ids.to_vec();
        self.on_index("archived", move |index| {
            let rows = index.values().filter(|row| ids.contains(&row.id));
            rows.cloned().collect()
        })
        .await
    }

    async fn rows_of_segment(&self, segment: &str) -> Result<Vec<Archived>> {
        let segment = segment.to_owned();
        self.on_index("rows_of_segment", move |index| {
            index.values().filter(|row| row.segment == segment).cloned().collect()
        })
        .await
    }

    async fn segments(&self, after: Option<&str>) -> Result<Vec<Archived>> {
        let after = after.unwrap_or_default().to_owned();
        self.on_index("segments", move |index| {
            let rows = index.values().filter(|row| row.segment > after);
            let mut rows: Vec<Archived> = rows.cloned().collect();
            rows.sort_by(|one, other| one.segment.cmp(&other.segment));
            rows
        })
        .await
    }

    async fn erased(&self, log: LogId, ids: &[DocumentId]) -> Result<HashMap<DocumentId, i64>> {
        let (world, named, ids) = (self.node.world.clone(), self.named(log), ids.to_vec());
        let work = async move {
            world.named(&named).await?;
            let newest = world.state().last();
            world.causal(newest.time).await;
            let state = world.state();
            let through = |id: &DocumentId| {
                let first = first_of(&state.visible, id)?.get("erased_through").ok()??;
                Some((id.clone(), integral(first)?))
            };
            Ok(ids.iter().filter_map(through).collect())
        };
        self.node.call("erased", work).await
    }

    async fn forget_archived(&self, rows: &[Archived]) -> Result<()> {
        let rows = rows.to_vec();
        self.on_index("forget_archived", move |index| {
            for row in &rows {
                index.remove(&key(row));
            }
        })
        .await
    }
}

impl Archives {
    /// Every segment as it is read.
    pub(super) fn contents(&self) -> impl Iterator<Item = (&String, Vec<u8>)> {
        let segments = self.objects.iter().filter(|(name, _)| name.starts_with("segments/"));
        segments.filter_map(|(name, bytes)| Some((name, zstd::decode_all(&bytes[..]).ok()?)))
    }
}

/// The objects, as one process reaches them.
struct SimObjects(Node);

impl SimObjects {
    fn on<'a, T: Send + 'static>(
        &'a self,
        name: String,
        work: impl FnOnce(&World) -> T + Send + 'static,
    ) -> BoxFuture<'a, archive::Result<T>> {
        let world = self.0.world.clone();
        async move { Ok(self.0.call(&name, async move { Ok(work(&world)) }).await?) }.boxed()
    }
}

impl Objects for SimObjects {
    fn create<'a>(
        &'a self,
        name: &'a str,
        mut bytes: Vec<u8>,
    ) -> BoxFuture<'a, archive::Result<bool>> {
        let (name, node) = (name.to_owned(), self.0.clone());
        let work = self.on(format!("create {name}"), move |world| {
            let archives = &mut world.state().archives;
            if archives.objects.contains_key(&name) {
                return false;
            }
            if archives.truncates && name.starts_with("segments/") {
                bytes.truncate(bytes.len() / 2);
                archives.cut.push(name.clone());
            }
            archives.objects.insert(name, bytes);
            true
        });
        async move {
            while node.world.state().archives.held_back == Some(node.owner) {
                node.sim().sleep(Duration::from_millis(10)).await;
            }
            work.await
        }
        .boxed()
    }

    fn read<'a>(&'a self, name: &'a str) -> BoxFuture<'a, archive::Result<Option<Vec<u8>>>> {
        let name = name.to_owned();
        self.on(format!("read {name}"), move |world| {
            world.state().archives.objects.get(&name).cloned()
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, archive::Result<()>> {
        let name = name.to_owned();
        self.on(format!("delete {name}"), move |world| {
            world.state().archives.objects.remove(&name);
        })
    }
}

/// The archive of the log, as one process reaches it.
pub(super) fn archive_of(node: &Node) -> Archive {
    Archive::over(Arc::new(SimObjects(node.clone())), "simulated", COLLECTION)
}
