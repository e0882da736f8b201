//! The daemon over a real server: each file proves one part of what it promises, each test is named
//! by the guarantee or the sharp edge that it proves. The judge has the last word over the documents.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/dump.rs"]
mod dump;
#[path = "../judge/mod.rs"]
mod judge;
#[path = "../common/scene.rs"]
mod scene;

mod backlog;
mod formats;
mod gaps;
mod headroom;
mod health;
mod identity;
mod leases;
mod parts;
mod poison;
mod refusals;
mod safety;
mod sizes;
mod starting;
mod stragglers;
mod touched;
mod transactions;
mod trouble;
