//! Alluvium tails a log of events in MongoDB and leaves behind, for every document, its current
//! state and its vector clock.
//!
//! ```text
//! games.events --change stream--> tail -> fold -> flush -> games    (live)
//! games.events --ordered scan---> scan -> fold -> flush -> games    (catch-up)
//! client clock -> events the client lacks -> answer                 (sync)
//! ```

pub mod model;
pub mod time;
pub mod database;
pub mod log;
pub mod store;
pub mod setup;
pub mod status;
pub mod config;
pub mod embedded;
