//! Which collections an operator has paused: durable, and the same for every instance.

use std::{collections::BTreeMap, future::Future};

use crate::database::Result;

/// The name under which the compaction of a collection is paused, and not the collection: no collection can be called so.
pub fn compaction_of(collection: &str) -> String {
    format!("{collection}$compaction")
}

/// The pauses of a database.
pub trait Pauses: Clone + Send + Sync + 'static {
    /// The collections that are paused, and who has paused each, where that is known.
    fn load_pauses(&self) -> impl Future<Output = Result<BTreeMap<String, Option<String>>>> + Send;

    /// Pauses a collection, or has it go on, at majority, on behalf of `by`; whether that changed anything.
    fn set_paused(
        &self,
        collection: &str,
        paused: bool,
        by: &str,
    ) -> impl Future<Output = Result<bool>> + Send;
}
