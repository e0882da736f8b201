//! What the daemon does beside projecting: snapshots, and comparing the projection with its log. Everything here
//! may be stopped at any moment and begun again, and writes nothing that a projection depends on.

pub mod desk;
mod compare;
mod fold;
pub mod layout;
pub mod pause;
mod perform;
pub mod policy;
pub mod snapshot;
mod tally;
