//! The connection, and the questions that must be answered before anything else is tried: is there a
//! server, does it let us in, and is it one that this program can work with. Each refusal is one
//! sentence with what to do.

use std::time::Duration;

use bson::doc;
use mongodb::{
    Client, Database,
    options::{
        ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, ServerAddress, WriteConcern,
    },
};

use super::{
    diagnose::{Seen, explain},
    refusal::{ConnectError, check_hello, check_version, refusal},
};
use crate::config::MongoConfig;

/// How long connecting with all its checks may take.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long the driver may look for a primary; what remains is for finding out why there is none.
const SELECTION_TIME: Duration = Duration::from_secs(5);

/// A connection that has passed the checks.
#[derive(Clone, Debug)]
pub struct Connected {
    /// The client. Reads and writes go through the primary and the majority unless told otherwise.
    pub client: Client,
    /// The configured database.
    pub database: Database,
}

/// Connects and checks that this program can work with the server, within ten seconds.
///
/// # Errors
/// [`ConnectError`]
pub async fn connect(config: &MongoConfig) -> Result<Connected, ConnectError> {
    let mut hosts = config.uri.to_string();
    let attempt = async {
        let mut options = options(config).await?;
        hosts = list(&options.hosts);
        let seen = Seen::by(&mut options);
        attempt(&options, config, &hosts, &seen).await
    };
    match tokio::time::timeout(CONNECT_TIME, attempt).await {
        Ok(result) => result,
        Err(_) => {
            let reason = format!("there is no answer within {} s", CONNECT_TIME.as_secs());
            Err(ConnectError::Unreachable { hosts, reason })
        }
    }
}

async fn options(config: &MongoConfig) -> Result<ClientOptions, ConnectError> {
    let mut options = ClientOptions::parse(config.uri.reveal())
        .await
        .map_err(|error| ConnectError::Uri { reason: error.kind.to_string() })?;
    options.app_name.get_or_insert_with(|| format!("alluvium/{}", env!("CARGO_PKG_VERSION")));
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.read_concern = Some(ReadConcern::majority());
    options.write_concern = Some(WriteConcern::majority());
    shorten(&mut options.server_selection_timeout);
    shorten(&mut options.connect_timeout);
    Ok(options)
}

fn shorten(time: &mut Option<Duration>) {
    *time = Some(time.map_or(SELECTION_TIME, |time| time.min(SELECTION_TIME)));
}

async fn attempt(
    options: &ClientOptions,
    config: &MongoConfig,
    hosts: &str,
    seen: &Seen,
) -> Result<Connected, ConnectError> {
    let client = Client::with_options(options.clone())
        .map_err(|error| ConnectError::Uri { reason: error.kind.to_string() })?;
    let admin = client.database("admin");
    let hello = match admin.run_command(doc! { "hello": 1 }).await {
        Ok(hello) => hello,
        Err(error) => return Err(explain(&error, options, hosts, seen).await),
    };
    check_hello(&hello, options.repl_set_name.as_deref(), hosts)?;
    let refused = |error| refusal(&error, hosts);
    let build = admin.run_command(doc! { "buildInfo": 1 }).await.map_err(refused)?;
    check_version(&build, hosts)?;
    let database = client.database(&config.database);
    // The cheapest command that a server with access control refuses to somebody without a login.
    let list = doc! { "listCollections": 1, "nameOnly": true, "authorizedCollections": true };
    database.run_command(list).await.map_err(refused)?;
    Ok(Connected { client, database })
}

fn list(hosts: &[ServerAddress]) -> String {
    hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
