//! The options of every command: where the configuration comes from, and how results are printed.

use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, ConfigError, Expect, Sources, load},
    database::{Connected, connect},
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
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<EnvFilter>,
}

impl Globals {
    /// Reads the configuration: the file, the environment, and the command line over both.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn load(&self, expect: Expect) -> Result<Config, ConfigError> {
        let Self { config, uri, database, json: _, log_level: _ } = self.clone();
        let sources = Sources { file: config, uri, database, ..Sources::default() };
        load(&sources.with_process_environment(), expect)
    }

    /// Reads the configuration and connects: for commands that name their collection themselves.
    ///
    /// # Errors
    /// Mistakes in the configuration, or why there is no connection.
    pub async fn connect(&self) -> Result<Connected, Box<dyn std::error::Error + Send + Sync>> {
        open(&self.load(Expect::Connection)?).await
    }
}

/// Connects to data that this version can read.
///
/// # Errors
/// Why there is no connection, or that a later version has taken the data over.
pub(super) async fn open(
    config: &Config,
) -> Result<Connected, Box<dyn std::error::Error + Send + Sync>> {
    let connected = connect(&config.mongodb).await?;
    FormatWatch::new(&connected.database).check().await?;
    Ok(connected)
}
