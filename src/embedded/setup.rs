//! Turns a server that listens into one that takes writes: initiates the replica set, or moves
//! it to a new port, creates the login, and waits for the election.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, Credential, ServerAddress};
use mongodb::{Client, Database};

use super::EmbeddedError;
use super::options::{Options, Prior};

const POLL_INTERVAL: Duration = Duration::from_millis(10);
const ALREADY_INITIALIZED: i32 = 23;
const NOT_YET_INITIALIZED: i32 = 94;
const INTERRUPTED_BY_STATE_CHANGE: i32 = 11602;

/// Returns when the server takes writes.
pub(super) async fn until_writable(
    options: &Options,
    port: u16,
    prior: Prior,
) -> Result<(), EmbeddedError> {
    // On new data the server lets a first connection of this machine in without a login.
    let client = connect(port, options, prior == Prior::Data)?;
    let admin = client.database("admin");
    let result = loop {
        match attempt(&admin, options, port, prior).await {
            Err(error) if passes(&error) => tokio::time::sleep(POLL_INTERVAL).await,
            result => break result,
        }
    };
    client.shutdown().immediate(true).await;
    Ok(result?)
}

/// Every step may find that an earlier attempt has done it.
async fn attempt(
    admin: &Database,
    options: &Options,
    port: u16,
    prior: Prior,
) -> Result<(), Error> {
    match (&options.replica_set, prior) {
        (Some(name), Prior::Nothing) => initiate(admin, name, port).await?,
        (Some(_), Prior::Data) => move_to(admin, port).await?,
        (None, _) => {}
    }
    until_primary(admin).await?;
    if let (Some(login), Prior::Nothing) = (&options.login, prior) {
        let (user, password) = (&login.user, &login.password);
        let create = doc! {"createUser": user, "pwd": password, "roles": ["root"]};
        admin.run_command(create).await?;
    }
    Ok(())
}

/// A server listens a moment before it has read its own configuration, and closes its
/// connections whenever its role in the set changes.
fn passes(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => true,
        _ => matches!(code(error), Some(NOT_YET_INITIALIZED | INTERRUPTED_BY_STATE_CHANGE)),
    }
}

fn connect(port: u16, options: &Options, login: bool) -> Result<Client, Error> {
    let host = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(port) };
    let credential = options.login.as_ref().filter(|_| login).map(|login| {
        let (user, password) = (login.user.clone(), login.password.clone());
        Credential::builder().username(user).password(password).build()
    });
    let mut client = ClientOptions::builder().hosts(vec![host]).direct_connection(true).build();
    client.server_selection_timeout = Some(Duration::from_secs(10));
    client.credential = credential;
    Client::with_options(client)
}

async fn initiate(admin: &Database, name: &str, port: u16) -> Result<(), Error> {
    let member = doc! {"_id": 0, "host": format!("127.0.0.1:{port}")};
    let config = doc! {"_id": name, "members": [member]};
    match admin.run_command(doc! {"replSetInitiate": config}).await {
        // An earlier start got this far and was killed.
        Err(error) if code(&error) == Some(ALREADY_INITIALIZED) => Ok(()),
        answer => answer.map(drop),
    }
}

/// A set of one member that was served on another port does not know itself any more.
async fn move_to(admin: &Database, port: u16) -> Result<(), Error> {
    let answer = admin.run_command(doc! {"replSetGetConfig": 1}).await?;
    let mut config = answer.get_document("config")?.clone();
    let members = config.get_array_mut("members")?;
    let Some(member) = members.first_mut().and_then(bson::Bson::as_document_mut) else {
        return Ok(());
    };
    let host = format!("127.0.0.1:{port}");
    if member.get_str("host").is_ok_and(|former| former == host) {
        return Ok(());
    }
    member.insert("host", host);
    admin.run_command(doc! {"replSetReconfig": config, "force": true}).await.map(drop)
}

async fn until_primary(admin: &Database) -> Result<(), Error> {
    loop {
        let hello: Document = admin.run_command(doc! {"hello": 1}).await?;
        if hello.get_bool("isWritablePrimary").unwrap_or(false) {
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}
