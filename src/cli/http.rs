//! What `health` and `top` share: where the daemon of this machine answers, how TLS is judged, and what went wrong in
//! words.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, ClientBuilder, Url};

use crate::config::HttpConfig;

/// How long a daemon may take to answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A file that an option names and that cannot be used. Nothing of what it holds is shown.
#[derive(Debug, thiserror::Error)]
#[error("{option}: {file} {problem}", file = file.display())]
pub(super) struct FileError {
    option: &'static str,
    file: PathBuf,
    problem: String,
}

/// Where the daemon with this configuration can be reached from this machine.
pub(super) fn own(http: &HttpConfig) -> String {
    let scheme = if http.tls_cert.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", reachable(http.listen))
}

/// The address at which a server that listens there can be reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// What asks daemons.
pub(super) fn client() -> ClientBuilder {
    // There may be one already, which is the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    // What is asked with a token is nobody else's, and mostly on this machine.
    reqwest::Client::builder().timeout(ANSWER_MAX).no_proxy()
}

/// The same, which trusts what the certificates in this file have signed, and nothing else.
///
/// # Errors
/// When there is none in it.
pub(super) fn trusting(client: ClientBuilder, file: &Path) -> Result<ClientBuilder, FileError> {
    let refused = |problem| FileError { option: "--ca", file: file.to_owned(), problem };
    let text = fs::read(file).map_err(|error| refused(format!("cannot be read: {error}")))?;
    let rule = "holds no certificate; it has to be those of the authorities, in PEM";
    match Certificate::from_pem_bundle(&text) {
        Ok(authorities) if !authorities.is_empty() => Ok(client.tls_certs_only(authorities)),
        _ => Err(refused(rule.into())),
    }
}

/// The token that a file holds.
///
/// # Errors
/// When there is none in it.
pub(super) fn token(file: &Path) -> Result<String, FileError> {
    let refused = |problem| FileError { option: "--token-file", file: file.to_owned(), problem };
    let text =
        fs::read_to_string(file).map_err(|error| refused(format!("cannot be read: {error}")))?;
    match text.trim() {
        "" => Err(refused("is empty; write the token into it, as its only line".into())),
        token => Ok(token.to_owned()),
    }
}

/// What went wrong, without the library's own words around it.
pub(super) fn words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", ANSWER_MAX.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let said = cause.to_string();
    let is_plain = error.url().map(Url::scheme) == Some("http");
    match cause.downcast_ref::<hyper::Error>().filter(|_| is_plain) {
        Some(error) if error.is_parse() => {
            format!("{said}; if it speaks TLS, its address begins with https://")
        }
        _ if said.contains("UnknownIssuer") => {
            format!("{said}: name the certificates of whoever has signed it with --ca FILE")
        }
        _ => said,
    }
}
