//! The options of every command: where the configuration comes from, and how results are printed.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use mongodb::Client;
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::{
    config::{Config, ConfigError, Expect, MongoConfig, Sources, load},
    database::{ConnectError, Connected, connect},
    store::format::FormatWatch,
};

/// Options that every command takes.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// The configuration, a TOML file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The MongoDB connection string; wins over the file and ALLUVIUM_MONGODB__URI
    #[arg(long, global = true, value_name = "URI")]
    pub uri: Option<String>,
    /// The database; wins over the file and ALLUVIUM_MONGODB__DATABASE
    #[arg(long, global = true, value_name = "NAME")]
    pub database: Option<String>,
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What is logged on standard error: error, warn, info, debug, trace, or directives such as
    /// "info,alluvium::projector=debug" [default: info, and warn for `demo` and `dev`]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = log_level)]
    pub log_level: Option<Targets>,
    /// The connections of this command
    #[arg(skip)]
    pub clients: Clients,
}

/// Reads what is to be logged. A word alone must be a level: as the name of a module it would log everything of that, and
/// so a typo nothing.
fn log_level(text: &str) -> Result<Targets, String> {
    let mut alone = text.split(',').map(str::trim).filter(|directive| !directive.contains('='));
    if let Some(word) = alone.find(|word| word.is_empty() || word.parse::<LevelFilter>().is_err()) {
        return Err(format!(
            "{word:?} is no level: error, warn, info, debug, trace and off are, and MODULE=LEVEL is a directive"
        ));
    }
    text.parse().map_err(|error| format!("{error}; a directive is MODULE=LEVEL"))
}

/// How long the end of a command waits for its connections to be closed.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// The clients that a command has made, to be shut down before the process ends. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Clients(Arc<Mutex<Vec<Client>>>);

impl Clients {
    /// Closes their cursors, sessions and connections, in that order. A server that does not answer is not waited
    /// for.
    pub async fn shut_down(&self) {
        let clients = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let all = futures::future::join_all(clients.into_iter().map(|client| async {
            client.shutdown().await;
        }));
        // What is not closed by then is closed by the end of the process.
        drop(tokio::time::timeout(CLOSE_TIME, all).await);
    }
}

impl Globals {
    /// Reads the configuration: the file, the environment, and the command line over both.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn load(&self, expect: Expect) -> Result<Config, ConfigError> {
        let Self { config, uri, database, json: _, log_level: _, clients: _ } = self.clone();
        let sources = Sources { file: config, uri, database, ..Sources::default() };
        load(&sources.with_process_environment(), expect)
    }

    /// Reads the configuration and connects: for commands that name their collection themselves.
    ///
    /// # Errors
    /// Mistakes in the configuration, or why there is no connection.
    pub async fn connect(&self) -> Result<Connected, Box<dyn std::error::Error + Send + Sync>> {
        self.open_known(&self.load(Expect::Connection)?.mongodb).await
    }

    /// Connects to data that this version can read.
    ///
    /// # Errors
    /// Why there is no connection, or that a later version has taken the data over.
    pub async fn open_known(
        &self,
        config: &MongoConfig,
    ) -> Result<Connected, Box<dyn std::error::Error + Send + Sync>> {
        let connected = self.open(config).await?;
        FormatWatch::new(&connected.database).check().await?;
        Ok(connected)
    }

    /// Connects. What is opened is closed at the end of the command.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open(&self, config: &MongoConfig) -> Result<Connected, ConnectError> {
        let connected = connect(config).await?;
        let mut clients = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.push(connected.client.clone());
        drop(clients);
        Ok(connected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_and_no_directive_is_refused() {
        for good in ["warn", "OFF", "info,alluvium::projector=debug", "alluvium=trace, warn"] {
            log_level(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in ["inof", "", "info,alluvium::projector", "alluvium=inof", "a=b=c"] {
            let error = log_level(bad).unwrap_err();
            assert!(error.contains("MODULE=LEVEL"), "{bad}: {error}");
        }
    }
}
