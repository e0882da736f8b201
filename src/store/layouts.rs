//! Into how many parts each collection is divided: in the database, so that it is the same for every instance.

use std::{collections::BTreeMap, future::Future};

use crate::database::Result;

/// Into how many parts a collection is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// So many.
    Parts(u32),
    /// What is stored is no such number; this.
    Damaged(String),
}

/// The layouts of a database.
pub trait Layouts: Clone + Send + Sync + 'static {
    /// Those of the collections that have one, as the majority holds them. Any other collection is one part.
    fn load_layouts(&self) -> impl Future<Output = Result<BTreeMap<String, Layout>>> + Send;

    /// Divides a collection into `of` parts, at majority.
    fn set_layout(&self, collection: &str, of: u32) -> impl Future<Output = Result<()>> + Send;

    /// Forgets the checkpoints and the leases of all other divisions of a collection that is divided into `of`
    /// parts, unless they are still needed: one of these parts has no place of its own yet, or the collection
    /// is divided differently by now. Whether they are forgotten. The checkpoint of the whole stays, which says
    /// which log the documents come from.
    ///
    /// What is forgotten was true and is merely old: a part without a checkpoint begins with a scan at the worst.
    fn retire_layouts(
        &self,
        collection: &str,
        of: u32,
    ) -> impl Future<Output = Result<bool>> + Send;
}
