//! Alluvium tails a log of events in MongoDB and leaves behind, for every document, its current
//! state and its vector clock.

pub mod embedded;
pub mod model;
