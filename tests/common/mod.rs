//! What the system tests share: one private MongoDB server per test binary, a database of its own
//! for every test, the real daemon as a process, and the one way to wait.

#![allow(dead_code, reason = "every test binary uses a part of this")]
#![allow(unreachable_pub, reason = "a helper is as public as its test binary")]

pub mod api;
mod authority;
mod daemon;
mod guarded;
pub mod history;
mod proxy;
mod server;
mod wait;

#[allow(unused_imports, reason = "every test binary uses a part of this")]
pub use self::{
    authority::Authority,
    daemon::{Daemon, free_port},
    guarded::Guarded,
    proxy::Proxy,
    server::{TestDatabase, database, server_uri},
    wait::{wait_for, wait_until},
};
