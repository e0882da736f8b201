//! Logs: for people on a terminal, as JSON for whatever collects them otherwise. Always on standard
//! error, since standard output is for results.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging. Without effect when something has started it before.
pub(super) fn start(filter: EnvFilter) {
    let logs = fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if io::stderr().is_terminal() {
        logs.with_target(false).try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    };
    // The only error: a subscriber is there already, and it is the one that was asked for first.
    drop(started);
}
