//! What the daemon does beside projecting: snapshots, comparing the projection with its log, and what an operator
//! wants done about documents that wait. Everything here may be stopped at any moment and begun again.

pub mod desk;
pub mod compact;
mod compare;
pub(crate) mod erase;
mod fold;
mod jobs;
pub mod layout;
pub mod operate;
pub mod pause;
pub mod policy;
pub(crate) mod restore;
pub mod snapshot;
pub mod ward;
