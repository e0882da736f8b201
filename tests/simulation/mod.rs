//! The deterministic simulation: the real projector over an in-memory replica set, with virtual time,
//! in which one seed decides everything that happens and everything that goes wrong. See README.md beside this file.

mod archive;
mod archived;
mod away;
mod backlogs;
mod bases;
mod compacted;
mod compaction;
mod conformance;
mod daemon;
mod ending;
mod executor;
mod layouts;
mod leases;
mod liveness;
mod log;
mod monitor;
mod naming;
mod node;
mod operator;
mod plan;
mod reader;
mod refused;
mod regressions;
mod restoring;
mod elsewhere;
mod run;
mod seeds;
mod shrink;
mod skips;
mod stragglers;
mod store;
mod touching;
mod whole;
mod world;
mod writer;
