//! What the collections of a configured collection are called, and the bookkeeping of all of them.

/// The suffix of the collection that holds the log of a configured collection.
pub const EVENTS_SUFFIX: &str = ".events";

/// The suffix of the collection that holds the snapshots of a configured collection.
pub const SNAPSHOTS_SUFFIX: &str = ".snapshots";

/// What the names of the bookkeeping's collections begin with.
pub const BOOKKEEPING_PREFIX: &str = "alluvium";

/// The name of the collection that holds the log of `collection`.
pub fn events_collection(collection: &str) -> String {
    format!("{collection}{EVENTS_SUFFIX}")
}

/// The name of the collection that holds the snapshots of `collection`.
pub fn snapshots_collection(collection: &str) -> String {
    format!("{collection}{SNAPSHOTS_SUFFIX}")
}
