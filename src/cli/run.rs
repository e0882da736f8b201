//! `alluvium run`: the service. Waits for MongoDB if it is away, makes what is missing, projects and serves until
//! SIGTERM, SIGINT or SIGHUP; then flushes, saves how far it came, and ends with 0. A second signal ends it at once,
//! which is safe.

use std::time::Duration;

use clap::Args;
use mongodb::Database;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{CommandResult, Globals, Signals};
use crate::{
    config::{Config, Expect},
    daemon::{Daemon, Front},
    database::{ConnectError, create::CreateError},
    log::create::Differing,
    setup::prepare,
    time::{SystemTime, Time},
};

/// The pauses between attempts to begin: they grow from the one to the other.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

#[derive(Args, Debug)]
pub(super) struct Run {
    /// End with exit code 1 when MongoDB is away at the start, instead of waiting for it
    #[arg(long)]
    require_database: bool,
}

/// Why there is no beginning yet.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Create(#[from] CreateError),
}

impl NotYet {
    fn is_passing(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_passing(),
            Self::Create(error) => error.is_passing(),
        }
    }
}

impl Run {
    pub(super) async fn run(self, globals: &Globals, mut signals: Signals) -> CommandResult {
        let config = globals.load(Expect::Collections)?;
        for warning in config.warnings() {
            warn!("{warning}");
        }
        let front = Front::open(&config)?;
        let began = tokio::select! {
            biased;
            signal = signals.next() => {
                info!(%signal, "stopped before MongoDB could be used");
                return Ok(());
            }
            began = self.begin(globals, &config, &front) => began?,
        };
        let daemon = Daemon::start_behind(front, &began, &config).await?;
        serve(daemon, &mut signals).await
    }

    /// Connects and makes what is missing. Waits for as long as what keeps it from that may pass.
    async fn begin(
        &self,
        globals: &Globals,
        config: &Config,
        front: &Front,
    ) -> Result<Database, NotYet> {
        let (time, (mut pause, longest)) = (SystemTime::new(), PAUSES);
        let mut told = String::new();
        loop {
            let error = match attempt(globals, config).await {
                Ok(database) => return Ok(database),
                Err(error) if self.require_database || !error.is_passing() => return Err(error),
                Err(error) => error.to_string(),
            };
            globals.clients.shut_down().await;
            if error != told {
                warn!("waiting for MongoDB: {error}");
                told.clone_from(&error);
            }
            let advice = "nothing else to do: it goes on by itself once MongoDB can be used";
            front.waits("unavailable", error, advice);
            time.sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }
}

async fn attempt(globals: &Globals, config: &Config) -> Result<Database, NotYet> {
    let connected = globals.open(&config.mongodb).await?;
    let report = prepare(&connected.database, &config.collections, Differing::Warn).await?;
    for name in &report.created {
        info!(name, "created");
    }
    for warning in &report.warnings {
        warn!("{warning}");
    }
    Ok(connected.database)
}

/// Runs the daemon until the first signal, and for as long as it then needs to stop or until the second.
pub(super) async fn serve(daemon: Daemon, signals: &mut Signals) -> CommandResult {
    let stopping = CancellationToken::new();
    let stopped = daemon.run_until(stopping.clone().cancelled_owned());
    tokio::pin!(stopped);
    tokio::select! {
        ended = &mut stopped => return Ok(ended?),
        signal = signals.next() => {
            info!(%signal, "asked to stop");
            stopping.cancel();
        }
    }
    tokio::select! {
        ended = &mut stopped => Ok(ended?),
        _ = signals.next() => {
            warn!("a second signal: ending at once; the next start repeats what was not saved");
            Ok(())
        }
    }
}
