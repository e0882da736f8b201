//! The pure heart: events, clocks, patches and the fold. No async, no I/O, no wall clock and no
//! client, so that everything here can be tested as mathematics and run in a simulation unchanged.

pub mod diff;
pub mod patch;
pub mod state;
