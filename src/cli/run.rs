//! `alluvium run`: the service. Connects, makes what is missing, projects and serves until SIGTERM or
//! Ctrl-C; then flushes, saves how far it came, and ends with 0. A second signal ends it at once, which is safe.

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{CommandResult, Globals};
use crate::{
    config::Expect, daemon::Daemon, database::connect, log::create::Differing, setup::prepare,
};

#[derive(Args, Debug)]
pub(super) struct Run {}

impl Run {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let config = globals.load(Expect::Collections)?;
        let connected = connect(&config.mongodb).await?;
        let report = prepare(&connected.database, &config.collections, Differing::Warn).await?;
        for name in &report.created {
            info!(name, "created");
        }
        for warning in &report.warnings {
            warn!("{warning}");
        }
        let daemon = Daemon::start(&connected.database, &config).await?;
        serve(daemon, &mut Signals::new()?).await
    }
}

/// Runs the daemon until the first signal, and for as long as it then needs to stop or until the second.
pub(super) async fn serve(daemon: Daemon, signals: &mut Signals) -> CommandResult {
    let stopping = CancellationToken::new();
    let stopped = daemon.run_until(stopping.clone().cancelled_owned());
    tokio::pin!(stopped);
    tokio::select! {
        ended = &mut stopped => return Ok(ended?),
        () = signals.next() => stopping.cancel(),
    }
    tokio::select! {
        ended = &mut stopped => Ok(ended?),
        () = signals.next() => {
            warn!("a second signal: ending at once; the next start repeats what was not saved");
            Ok(())
        }
    }
}

/// The signals that ask a service to stop.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
