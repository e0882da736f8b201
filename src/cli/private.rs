//! What `demo` and `dev` share: a MongoDB server of their own, connected, with its collections made.

use std::path::PathBuf;

use mongodb::Database;

use super::Globals;
use crate::{
    config::{CollectionConfig, Config, ConfigError, Expect, Sources, load},
    embedded::{Mongod, Options},
    log::create::Differing,
    setup::prepare,
};

/// The collection when no configuration names others.
const COLLECTION: &str = "games";

/// A private server with what a daemon needs in it.
pub(super) struct Private {
    pub(super) mongod: Mongod,
    pub(super) database: Database,
    pub(super) config: Config,
}

/// Options that have no meaning here.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrivateError {
    #[error("this command starts a MongoDB server of its own: leave out --uri")]
    Uri,
    #[error("this command plays on a collection of its own: leave out --config")]
    Config,
}

impl Private {
    /// Starts the server, with its data in `data_dir` or in a temporary folder. The collections are those
    /// of the configuration, if one was given.
    pub(super) async fn start(
        globals: &Globals,
        database: &str,
        data_dir: Option<PathBuf>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        if globals.uri.is_some() {
            return Err(PrivateError::Uri.into());
        }
        let mongod = Mongod::start(Options { data_dir, ..Options::default() }).await?;
        let config = config(globals, mongod.uri(), database)?;
        let connected = globals.open(&config.mongodb).await?;
        prepare(&connected.database, &config.collections, Differing::Replace).await?;
        Ok(Self { mongod, database: connected.database, config })
    }
}

/// The configuration that was given, if one was, on the private server.
fn config(globals: &Globals, uri: &str, database: &str) -> Result<Config, ConfigError> {
    let default_name = globals.config.is_none().then(|| database.to_owned());
    let sources = Sources {
        file: globals.config.clone(),
        uri: Some(uri.to_owned()),
        database: globals.database.clone().or(default_name),
        ..Sources::default()
    };
    let mut config = load(&sources.with_process_environment(), Expect::Connection)?;
    if config.collections.is_empty() {
        config.collections.push(CollectionConfig::new(COLLECTION));
    }
    Ok(config)
}
