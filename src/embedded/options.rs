//! How a private server is to be: the options, and the command line and files they turn into.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{EmbeddedError, journal};

const KEY_FILE: &str = "keyfile";
const PORT_FILE: &str = "port";

/// How to start a private server. The default is a throwaway one-node replica set `rs0`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `mongod` binary. `None`: the one in `ALLUVIUM_MONGOD`, on PATH, in the cache, or
    /// fetched into the cache.
    pub path: Option<PathBuf>,
    /// Where the data is kept. `None`: in a temporary folder that is removed at the end.
    pub data_dir: Option<PathBuf>,
    /// The port on 127.0.0.1. `None`: the one that the kept data had before, or any free one.
    pub port: Option<u16>,
    /// The replica set's name. `None`: a standalone server, which has no change streams.
    pub replica_set: Option<String>,
    /// Further arguments, such as `--setParameter`, `enableTestCommands=1`.
    pub args: Vec<String>,
    /// The size of WiredTiger's cache, in MiB (at least 256).
    pub cache_mib: u32,
    /// The size of the oplog, in MiB (at least 1). Matters only when the data is new.
    pub oplog_mib: u32,
    /// Demands a login, and creates this one with the role `root`. `None`: open to this machine.
    pub login: Option<Login>,
}

/// A name and a password.
#[derive(Clone)]
pub struct Login {
    /// The user's name, in the database `admin`.
    pub user: String,
    /// The password. It appears in [`super::Mongod::uri`] and in no log.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            path: None,
            data_dir: None,
            port: None,
            replica_set: Some("rs0".to_owned()),
            args: Vec::new(),
            cache_mib: 256,
            oplog_mib: 256,
            login: None,
        }
    }
}

/// What was in the data folder before this start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prior {
    /// A server was ready on it once: replica set and login exist.
    Data,
    /// Nothing.
    Nothing,
}

impl Options {
    pub(super) fn arguments(&self, folder: &Path, port: u16) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec!["--dbpath".into(), folder.join("data").into()];
        all.extend(["--logpath".into(), folder.join(journal::FILE).into(), "--logappend".into()]);
        all.extend(["--bind_ip", "127.0.0.1", "--port"].map(OsString::from));
        all.push(port.to_string().into());
        // A socket in the temporary folder of the machine would outlive a killed server.
        all.push("--nounixsocket".into());
        let cache_gb = f64::from(self.cache_mib) / 1024.0;
        all.extend(["--wiredTigerCacheSizeGB".into(), cache_gb.to_string().into()]);
        let quiet = "diagnosticDataCollectionEnabled=false";
        all.extend(["--setParameter", quiet].map(OsString::from));
        if let Some(name) = &self.replica_set {
            all.extend(["--replSet".into(), name.into()]);
            all.extend(["--oplogSize".into(), self.oplog_mib.to_string().into()]);
            // A primary alone has nobody to wait for when it steps down (15 s by default).
            let step_down = "shutdownTimeoutMillisForSignaledShutdown=100";
            all.extend(["--setParameter", step_down].map(OsString::from));
        }
        if self.login.is_some() {
            all.push("--auth".into());
            if self.replica_set.is_some() {
                all.extend(["--keyFile".into(), folder.join(KEY_FILE).into()]);
            }
        }
        all.extend(self.args.iter().map(OsString::from));
        all
    }

    /// Makes the folder and what the server needs in it.
    pub(super) fn prepare(&self, folder: &Path) -> Result<Prior, EmbeddedError> {
        let work = || -> io::Result<Prior> {
            let data = folder.join("data");
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&data)?;
            let key = folder.join(KEY_FILE);
            if self.login.is_some() && !key.exists() {
                let mut file =
                    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(key)?;
                // The key only ties the members of a set to each other, and this set has one.
                write!(file, "{:032x}", fastrand::u128(..))?;
            }
            // Written when everything else is there.
            let prior = folder.join(PORT_FILE).exists();
            Ok(if prior { Prior::Data } else { Prior::Nothing })
        };
        work().map_err(EmbeddedError::io(format!("prepare {}", folder.display())))
    }

    pub(super) fn uri(&self, port: u16) -> String {
        let login = self.login.as_ref().map(|login| {
            let [user, password] = [&login.user, &login.password]
                .map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string());
            format!("{user}:{password}@")
        });
        let how = match &self.replica_set {
            Some(name) => format!("replicaSet={}", utf8_percent_encode(name, NON_ALPHANUMERIC)),
            None => "directConnection=true".to_owned(),
        };
        format!("mongodb://{}127.0.0.1:{port}/?{how}", login.unwrap_or_default())
    }
}

/// The port that the data in this folder was served on before.
pub(super) fn former_port(folder: &Path) -> Option<u16> {
    fs::read_to_string(folder.join(PORT_FILE)).ok()?.trim().parse().ok()
}

/// Lets the next start on this folder have the same port.
pub(super) fn remember_port(folder: &Path, port: u16) -> io::Result<()> {
    fs::write(folder.join(PORT_FILE), port.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uri_names_the_replica_set_and_escapes_the_login() {
        let mut options = Options::default();
        assert_eq!(options.uri(4000), "mongodb://127.0.0.1:4000/?replicaSet=rs0");
        options.login = Some(Login { user: "a".to_owned(), password: "p@:/".to_owned() });
        options.replica_set = None;
        let uri = "mongodb://a:p%40%3A%2F@127.0.0.1:4000/?directConnection=true";
        assert_eq!(options.uri(4000), uri);
    }

    #[test]
    fn a_password_is_not_shown_by_debug() {
        let login = Login { user: "a".to_owned(), password: "secret".to_owned() };
        assert!(!format!("{login:?}").contains("secret"));
    }
}
