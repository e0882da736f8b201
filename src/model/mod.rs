//! The pure heart: events, clocks, patches and the fold. No async, no I/O, no wall clock and no
//! client, so that everything here can be tested as mathematics and run in a simulation unchanged.

pub mod id;
pub mod clock;
pub mod event;
pub mod new_event;
pub mod state;
pub mod sound;
pub mod patch;
pub mod diff;
pub mod quarantine;
pub mod document;
pub mod row;
pub mod skip;
pub mod snapshot;
pub mod base;
pub mod compaction;
pub mod job;
pub mod names;
pub mod missing;
pub mod place;
pub mod position;
pub mod part;
pub(crate) mod shown;
