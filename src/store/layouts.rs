//! Into how many parts each collection is divided: in the database, so that it is the same for every instance.

use std::{collections::BTreeMap, future::Future};

use crate::database::Result;

/// Into how many parts a collection is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// So many.
    Parts(u32),
    /// What is stored is no number of parts. This is stored instead.
    Damaged(String),
}

/// The layouts of a database.
pub trait Layouts: Clone + Send + Sync + 'static {
    /// The layouts that are stored, as the majority holds them, and who has set each, where that is known. A
    /// collection that is not among them is one part.
    fn load_layouts(
        &self,
    ) -> impl Future<Output = Result<BTreeMap<String, (Layout, Option<String>)>>> + Send;

    /// Divides a collection into `of` parts, at majority, on behalf of `by`.
    fn set_layout(
        &self,
        collection: &str,
        of: u32,
        by: &str,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Forgets the checkpoints and leases of earlier divisions of a collection that is now divided into
    /// `of` parts. Keeps them while they are needed: until each of these parts has a place of its own,
    /// or when the collection has been divided differently meanwhile. Returns whether they were
    /// forgotten. The checkpoint of the whole always stays: it says which log the documents come from.
    ///
    /// To forget them is safe. A part without a checkpoint begins with a scan at the worst.
    fn retire_layouts(
        &self,
        collection: &str,
        of: u32,
    ) -> impl Future<Output = Result<bool>> + Send;
}
