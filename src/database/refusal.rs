//! Why there is no connection: each reason in one sentence that says what to do.

use bson::{Bson, Document};
use mongodb::error::{Error as DriverError, ErrorKind};

use super::{code, words};

/// The oldest server that has what is needed: clustered collections, and snapshot reads on them.
const OLDEST_VERSION: (i32, i32) = (6, 0);

/// Why there is no connection. Each message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The connection string cannot be used.
    #[error("mongodb.uri cannot be used: {reason}; correct it in the configuration")]
    Uri {
        /// The driver's words.
        reason: String,
    },
    /// No server answers.
    #[error(
        "MongoDB at {hosts} cannot be reached: {reason}; check that it runs, the host and port in \
         mongodb.uri, TLS, and that no firewall is in between"
    )]
    Unreachable {
        /// The hosts of the connection string.
        hosts: String,
        /// The driver's words.
        reason: String,
    },
    /// It closes connections as soon as they are opened.
    #[error(
        "MongoDB at {hosts} closes every connection at once, as it does when its limit on connections is reached; \
         raise the limit (`--maxConns`, `net.maxIncomingConnections`), or end connections that others keep open"
    )]
    Full {
        /// The hosts of the connection string.
        hosts: String,
    },
    /// The server's certificate.
    #[error(
        "MongoDB at {hosts} shows a certificate that is not trusted ({reason}); name the certificate of the \
         authority that signed it as tlsCAFile in mongodb.uri"
    )]
    Untrusted {
        /// The hosts of the connection string.
        hosts: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server's certificate, by its time.
    #[error(
        "MongoDB at {hosts} shows a certificate that has expired or is not valid yet; renew it at the server, or set \
         the clock of this machine right"
    )]
    Expired {
        /// The hosts of the connection string.
        hosts: String,
    },
    /// The server's certificate, by its name.
    #[error(
        "MongoDB at {hosts} shows a certificate for another name; put a host name that is in the certificate into \
         mongodb.uri, or issue the certificate for this one"
    )]
    OtherName {
        /// The hosts of the connection string.
        hosts: String,
    },
    /// The server speaks nothing but TLS.
    #[error(
        "MongoDB at {hosts} demands TLS, which mongodb.uri does not ask for; add tls=true to it, and tlsCAFile if the \
         certificate is signed by an authority of your own"
    )]
    TlsDemanded {
        /// The hosts of the connection string.
        hosts: String,
    },
    /// The server does not speak TLS.
    #[error(
        "MongoDB at {hosts} does not speak TLS, which mongodb.uri asks for; remove tls=true from it, or turn on TLS at \
         the server"
    )]
    NoTls {
        /// The hosts of the connection string.
        hosts: String,
    },
    /// The server lets only those in who show a certificate.
    #[error(
        "MongoDB at {hosts} demands a client's certificate that it trusts; name one, with its key, as \
         tlsCertificateKeyFile in mongodb.uri"
    )]
    ClientCertificate {
        /// The hosts of the connection string.
        hosts: String,
    },
    /// The name and password are not accepted.
    #[error(
        "MongoDB at {hosts} refuses the login: {reason}; check user name, password \
         (percent-encoded) and authSource in mongodb.uri, or in the file that mongodb.uri_file names"
    )]
    Login {
        /// The hosts of the connection string.
        hosts: String,
        /// The server's words.
        reason: String,
    },
    /// The user may not do what is needed.
    #[error(
        "MongoDB at {hosts} lets us in but forbids what is needed: {reason}; put a user into \
         mongodb.uri and grant it the role that `alluvium init --roles` prints"
    )]
    Forbidden {
        /// The hosts of the connection string.
        hosts: String,
        /// The server's words.
        reason: String,
    },
    /// The server is not part of a replica set.
    #[error(
        "MongoDB at {hosts} is a standalone server, which has no change streams; start it with \
         `--replSet rs0` and run `rs.initiate()` once in mongosh (a replica set of one is enough)"
    )]
    Standalone {
        /// The hosts of the connection string.
        hosts: String,
    },
    /// A replica set without a primary.
    #[error(
        "MongoDB at {hosts} belongs to a replica set without a primary: {state}; run \
         `rs.initiate()` in mongosh if the set is new, otherwise `rs.status()` to see why"
    )]
    NoPrimary {
        /// The hosts of the connection string.
        hosts: String,
        /// What the server says of itself.
        state: String,
    },
    /// The set has another name than the connection string says.
    #[error(
        "MongoDB at {hosts} belongs to the replica set `{found}`, but mongodb.uri says \
         replicaSet={asked}; correct the one that is wrong"
    )]
    OtherSet {
        /// The hosts of the connection string.
        hosts: String,
        /// The set's name.
        found: String,
        /// The name in the connection string.
        asked: String,
    },
    /// A server answers, but the addresses of its set do not.
    #[error(
        "MongoDB at {hosts} answers, but its replica set gives {members} as the addresses of its \
         members, and the primary cannot be reached there; make these names resolve on this \
         machine, or add directConnection=true to mongodb.uri if it names the primary itself"
    )]
    MembersUnreachable {
        /// The hosts of the connection string.
        hosts: String,
        /// The members as the set knows them.
        members: String,
    },
    /// A router of a sharded cluster.
    #[error(
        "MongoDB at {hosts} is a mongos of a sharded cluster, which this version does not support; \
         put the hosts of a replica set into mongodb.uri"
    )]
    Sharded {
        /// The hosts of the connection string.
        hosts: String,
    },
    /// The server is too old.
    #[error("MongoDB at {hosts} is version {version}; upgrade it to 6.0 or later")]
    TooOld {
        /// The hosts of the connection string.
        hosts: String,
        /// The server's version.
        version: String,
    },
}

impl ConnectError {
    /// Whether it may pass by itself, so that waiting is of use.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Full { .. }
            | Self::NoPrimary { .. }
            | Self::MembersUnreachable { .. } => true,
            Self::Uri { .. }
            | Self::Untrusted { .. }
            | Self::Expired { .. }
            | Self::OtherName { .. }
            | Self::TlsDemanded { .. }
            | Self::NoTls { .. }
            | Self::ClientCertificate { .. }
            | Self::Login { .. }
            | Self::Forbidden { .. }
            | Self::Standalone { .. }
            | Self::OtherSet { .. }
            | Self::Sharded { .. }
            | Self::TooOld { .. } => false,
        }
    }
}

/// The server answered, and refuses.
pub(super) fn refusal(error: &DriverError, hosts: &str) -> ConnectError {
    let (hosts, reason) = (hosts.to_owned(), words::of(error));
    match *error.kind {
        ErrorKind::Authentication { .. } => ConnectError::Login { hosts, reason },
        ErrorKind::Command(ref command) => match command.code {
            18 | 8000 => ConnectError::Login { hosts, reason },
            code::UNAUTHORIZED => ConnectError::Forbidden { hosts, reason },
            _ => ConnectError::Unreachable { hosts, reason },
        },
        ErrorKind::InvalidTlsConfig { .. } | ErrorKind::InvalidArgument { .. } => {
            ConnectError::Uri { reason }
        }
        _ => ConnectError::Unreachable { hosts, reason },
    }
}

/// Judges what a server says of itself.
///
/// # Errors
/// [`ConnectError`] when it is a router, stands alone, has another set's name, or is not a primary.
pub fn check_hello(hello: &Document, asked: Option<&str>, hosts: &str) -> Result<(), ConnectError> {
    let hosts = hosts.to_owned();
    if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        return Err(ConnectError::Sharded { hosts });
    }
    let Ok(found) = hello.get_str("setName") else {
        if hello.get_bool("isreplicaset").unwrap_or(false) {
            let state = "the set has not been initiated".into();
            return Err(ConnectError::NoPrimary { hosts, state });
        }
        return Err(ConnectError::Standalone { hosts });
    };
    if let Some(asked) = asked.filter(|asked| *asked != found) {
        let (found, asked) = (found.to_owned(), asked.to_owned());
        return Err(ConnectError::OtherSet { hosts, found, asked });
    }
    if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
        let state = match hello.get_str("primary") {
            Ok(primary) => format!("this server is not the primary, {primary} is"),
            Err(_) => "no primary is known to it".into(),
        };
        return Err(ConnectError::NoPrimary { hosts, state });
    }
    Ok(())
}

/// Judges a server's answer to `buildInfo`.
///
/// # Errors
/// [`ConnectError::TooOld`], also when the answer has no version.
pub fn check_version(build: &Document, hosts: &str) -> Result<(), ConnectError> {
    let part = |at: usize| match build.get_array("versionArray").ok()?.get(at)? {
        Bson::Int32(number) => Some(*number),
        _ => None,
    };
    let recent = part(0).zip(part(1)).is_some_and(|version| version >= OLDEST_VERSION);
    if recent {
        return Ok(());
    }
    let version = build.get_str("version").unwrap_or("unknown").to_owned();
    Err(ConnectError::TooOld { hosts: hosts.to_owned(), version })
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[track_caller]
    fn check<T>(result: Result<T, ConnectError>, part: Option<&str>) {
        match (result, part) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) => {
                assert!(error.to_string().contains(part), "{error} does not say {part}");
            }
            (Ok(_), Some(part)) => panic!("passed, instead of: {part}"),
            (Err(error), None) => panic!("{error}"),
        }
    }

    #[test]
    fn only_a_primary_of_the_named_set_will_do() {
        let primary = doc! { "setName": "rs0", "isWritablePrimary": true };
        check(check_hello(&primary, None, "h"), None);
        check(check_hello(&primary, Some("rs0"), "h"), None);
        check(check_hello(&primary, Some("rs1"), "h"), Some("replicaSet=rs1"));
        let secondary = doc! { "setName": "rs0", "isWritablePrimary": false, "primary": "a:1" };
        check(check_hello(&secondary, None, "h"), Some("a:1 is"));
        let electing = doc! { "setName": "rs0", "isWritablePrimary": false };
        check(check_hello(&electing, None, "h"), Some("no primary is known"));
        let new = doc! { "isreplicaset": true, "isWritablePrimary": false };
        check(check_hello(&new, None, "h"), Some("rs.initiate()"));
        check(check_hello(&doc! { "isWritablePrimary": true }, None, "h"), Some("--replSet"));
        check(check_hello(&doc! { "msg": "isdbgrid" }, None, "h"), Some("mongos"));
    }

    #[test]
    fn servers_before_6_0_are_refused() {
        for (version, array, part) in [
            ("6.0.0", vec![6, 0, 0, 0], None),
            ("6.0.5", vec![6, 0, 5, 0], None),
            ("8.2.1", vec![8, 2, 1, 0], None),
            ("10.0.0", vec![10, 0, 0, 0], None),
            ("5.3.2", vec![5, 3, 2, 0], Some("is version 5.3.2; upgrade it to 6.0")),
            ("4.4.29", vec![4, 4, 29, 0], Some("4.4.29")),
        ] {
            check(check_version(&doc! { "version": version, "versionArray": array }, "h"), part);
        }
        check(check_version(&doc! {}, "h"), Some("version unknown"));
    }
}
