//! Finding out why no server could be had: what the driver has seen of each, and what a bare connection to it
//! shows.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bson::{Bson, Document, doc};
use mongodb::{
    Client,
    error::{Error as DriverError, ErrorKind},
    event::{EventHandler, sdam::SdamEvent},
    options::{ClientOptions, ServerAddress, Tls},
};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    refusal::{ConnectError, check_hello, refusal},
    words,
};

/// How long one server may take to answer when it is asked for itself.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// How long a bare connection may take, and an answer on it.
const REACH_TIME: Duration = Duration::from_secs(1);
/// How long a server that takes no more connections needs to close one.
const CLOSE_TIME: Duration = Duration::from_millis(300);
/// MongoDB's.
const DEFAULT_PORT: u16 = 27017;

/// What an answer in TLS begins with: a handshake or an alert.
const TLS_RECORDS: [u8; 2] = [22, 21];

/// The last failure at each server.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<HashMap<ServerAddress, DriverError>>>);

impl Seen {
    /// Sees what befalls clients that are made with these options.
    pub(super) fn by(options: &mut ClientOptions) -> Self {
        let seen = Self::default();
        let noting = seen.clone();
        options.sdam_event_handler = Some(EventHandler::callback(move |event| {
            if let SdamEvent::ServerHeartbeatFailed(failed) = event {
                noting.failures().insert(failed.server_address, failed.failure);
            }
        }));
        seen
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<ServerAddress, DriverError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, host: &ServerAddress) -> Option<DriverError> {
        self.failures().get(host).cloned()
    }
}

/// Finds out why a first command failed.
pub(super) async fn explain(
    error: &DriverError,
    options: &ClientOptions,
    hosts: &str,
    seen: &Seen,
) -> ConnectError {
    if !matches!(*error.kind, ErrorKind::ServerSelection { .. }) {
        return refusal(error, hosts);
    }
    let mut reason = None;
    for host in &options.hosts {
        if let Some(problem) = seen.at(host).and_then(|error| certificate(&error, hosts)) {
            return problem;
        }
        let hello = match reach(host, options, hosts).await {
            Reached::Refuses(problem) => return problem,
            Reached::Not(why) => {
                reason = reason.or(Some(why));
                continue;
            }
            Reached::Answers(hello) => hello,
        };
        if let Err(problem) = check_hello(&hello, options.repl_set_name.as_deref(), hosts) {
            // A secondary's view is no reason while the primary that it names is what cannot be reached.
            let primary = hello.get_str("primary").is_ok();
            if !(primary && matches!(problem, ConnectError::NoPrimary { .. })) {
                return problem;
            }
        }
        if let Ok(members) = hello.get_array("hosts") {
            let members: Vec<&str> = members.iter().filter_map(Bson::as_str).collect();
            let (hosts, members) = (hosts.to_owned(), members.join(", "));
            return ConnectError::MembersUnreachable { hosts, members };
        }
    }
    let reason = reason.unwrap_or_else(|| words::of(error));
    ConnectError::Unreachable { hosts: hosts.to_owned(), reason }
}

/// What is wrong with the server's certificate, if that is what failed.
fn certificate(error: &DriverError, hosts: &str) -> Option<ConnectError> {
    use CertificateError as Cert;
    let ErrorKind::Io(ref error) = *error.kind else { return None };
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(problem) = error else { return None };
    let hosts = hosts.to_owned();
    Some(match problem {
        Cert::Expired
        | Cert::ExpiredContext { .. }
        | Cert::NotValidYet
        | Cert::NotValidYetContext { .. } => ConnectError::Expired { hosts },
        Cert::NotValidForName | Cert::NotValidForNameContext { .. } => {
            ConnectError::OtherName { hosts }
        }
        Cert::UnknownIssuer => {
            let reason = "who signed it is not known".to_owned();
            ConnectError::Untrusted { hosts, reason }
        }
        other => ConnectError::Untrusted { hosts, reason: other.to_string() },
    })
}

/// How far one gets towards a server.
enum Reached {
    /// It says this of itself.
    Answers(Document),
    /// It lets nobody in like that.
    Refuses(ConnectError),
    /// No further than this.
    Not(String),
}

async fn reach(host: &ServerAddress, options: &ClientOptions, hosts: &str) -> Reached {
    let tls = matches!(options.tls, Some(Tls::Enabled(_)));
    let refuses = |problem: fn(String) -> ConnectError| Reached::Refuses(problem(hosts.to_owned()));
    if let ServerAddress::Tcp { host, port } = host {
        let address = (host.as_str(), port.unwrap_or(DEFAULT_PORT));
        match begin(address).await {
            Err(why) => return Reached::Not(why),
            Ok(Begun::Closed) => return refuses(|hosts| ConnectError::Full { hosts }),
            Ok(Begun::Tls) if !tls => {
                return refuses(|hosts| ConnectError::TlsDemanded { hosts });
            }
            Ok(Begun::Other) if tls => {
                return refuses(|hosts| ConnectError::NoTls { hosts });
            }
            Ok(Begun::Tls | Begun::Other) => {}
        }
    }
    match ask_alone(host, options).await {
        Ok(hello) => Reached::Answers(hello),
        Err(seen) => match (tls, seen.as_ref()) {
            (true, Some(error)) => match certificate(error, hosts) {
                Some(problem) => Reached::Refuses(problem),
                None if is_cut_off(error) => {
                    refuses(|hosts| ConnectError::ClientCertificate { hosts })
                }
                None => Reached::Not(words::of(error)),
            },
            _ => Reached::Not("what listens there does not answer as MongoDB does".into()),
        },
    }
}

/// Whether a server that speaks TLS hung up on somebody.
fn is_cut_off(error: &DriverError) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ErrorKind::Io(ref error) = *error.kind else { return false };
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
        || matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// What a server does with a bare connection.
enum Begun {
    /// It closes it before anything was said.
    Closed,
    /// It answers in TLS.
    Tls,
    /// It does neither, as MongoDB without TLS.
    Other,
}

async fn begin(address: (&str, u16)) -> Result<Begun, String> {
    let mut stream = match timeout(REACH_TIME, TcpStream::connect(address)).await {
        Err(_) => return Err("the connection is not answered".into()),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(stream)) => stream,
    };
    let mut first = [0];
    if let Ok(read) = timeout(CLOSE_TIME, stream.read(&mut first)).await {
        return Ok(if matches!(read, Ok(1)) { Begun::Other } else { Begun::Closed });
    }
    let hello = client_hello().unwrap_or_default();
    let answer = async {
        stream.write_all(&hello).await?;
        stream.read(&mut first).await
    };
    let speaks = matches!(timeout(REACH_TIME, answer).await, Ok(Ok(1)));
    Ok(if speaks && TLS_RECORDS.contains(&first[0]) { Begun::Tls } else { Begun::Other })
}

/// What begins a conversation in TLS. It goes no further than to see whether it is answered, so that nobody has to
/// be trusted.
fn client_hello() -> Result<Vec<u8>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(hello)
}

/// What one server says of itself when it is asked directly and without a login, or how that failed.
async fn ask_alone(
    host: &ServerAddress,
    options: &ClientOptions,
) -> Result<Document, Option<DriverError>> {
    let mut alone = ClientOptions::default();
    alone.app_name.clone_from(&options.app_name);
    alone.tls.clone_from(&options.tls);
    alone.hosts = vec![host.clone()];
    alone.direct_connection = Some(true);
    alone.server_selection_timeout = Some(PROBE_TIME);
    alone.connect_timeout = Some(PROBE_TIME);
    let seen = Seen::by(&mut alone);
    let client = Client::with_options(alone).map_err(Some)?;
    let answer = client.database("admin").run_command(doc! { "hello": 1 }).await;
    answer.map_err(|_| seen.at(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_is_a_handshake() {
        let hello = client_hello().unwrap();
        assert_eq!(hello[..2], [TLS_RECORDS[0], 3]);
    }
}
