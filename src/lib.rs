//! Alluvium tails a log of events in MongoDB and leaves behind, for every document, its current
//! state and its vector clock.
//!
//! ```text
//! games.events --change stream--> tail -> fold -> flush -> games    (live)
//! games.events --ordered scan---> scan -> fold -> flush -> games    (catch-up)
//! client clock -> events the client lacks -> answer                 (sync)
//! ```

// Here and not in Cargo.toml, because tests and examples may do what a daemon must not.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::string_slice
    )
)]

pub mod model;
pub mod time;
pub mod retry;
pub mod database;
pub mod log;
pub mod store;
pub mod setup;
pub mod status;
pub mod observe;
pub mod stream;
pub mod projector;
pub mod lease;
pub mod logging;
pub mod metrics;
pub mod upkeep;
pub mod read;
pub mod health;
pub mod headroom;
pub mod access;
pub mod api;
pub mod writer;
pub mod import;
pub mod config;
pub mod daemon;
pub mod cli;
pub mod embedded;
pub mod bench;

mod planted;

// Test helpers that stand in `tests` know the crate by its name.
#[cfg(test)]
extern crate self as alluvium;

// The judge and the simulation stand in `tests`, and see what is private here.
#[cfg(test)]
#[path = "../tests/judge/mod.rs"]
mod judge;
#[cfg(test)]
#[path = "../tests/simulation/mod.rs"]
mod simulation;
