//! The certificate that the HTTP server shows, and its key: judged before anybody comes, so that what is wrong is one
//! sentence at the start and not a handshake that fails.

use std::{net::Ipv4Addr, sync::Arc};

use bson::DateTime;
use rustls::{
    CertificateError, Error, RootCertStore, ServerConfig, client::WebPkiServerVerifier,
    client::danger::ServerCertVerifier, crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

use super::files::{FileError, NamedFile};

pub(super) fn parse(
    [cert, key]: &[NamedFile; 2],
    [certs, keys]: [&[u8]; 2],
) -> Result<Arc<ServerConfig>, FileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, secret) = (chain(cert, certs, &provider)?, secret(key, keys)?);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| cert.refused(format!("cannot be used: {error}")))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| match error {
            Error::InconsistentKeys(_) => key.refused(format!(
                "does not belong to the certificate in {}; name the key that it was made for",
                cert.path().display()
            )),
            other => key.refused(format!("cannot be used: {other}")),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What is wrong with each of the two files by itself.
pub(super) fn problems([cert, key]: &[NamedFile; 2]) -> Vec<FileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = cert.read().and_then(|certs| chain(cert, &certs, &provider).map(drop));
    let secret = key.read().and_then(|keys| secret(key, &keys).map(drop));
    [chain, secret].into_iter().filter_map(Result::err).collect()
}

fn chain(
    cert: &NamedFile,
    certs: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certs)
        .map(|certificate| certificate.map(CertificateDer::into_owned))
        .collect::<Result<_, _>>()
        .map_err(|_| cert.refused("is no PEM; it has to be the server's certificate and those that signed it, in this order"))?;
    let Some(first) = chain.first() else {
        let rule = "holds no certificate; it has to be the server's in PEM, and those that signed it after it";
        return Err(cert.refused(rule));
    };
    valid_now(first, provider).map_err(|problem| cert.refused(problem))?;
    Ok(chain)
}

fn secret(key: &NamedFile, keys: &[u8]) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(keys).map_err(|_| {
        key.refused("holds no private key that can be used; it has to be one in PEM (PKCS #8, PKCS #1 or SEC1) without a passphrase")
    })
}

/// Refuses a certificate that nobody takes any more, or yet. Who signed it is for whoever connects to judge.
fn valid_now(
    certificate: &CertificateDer<'_>,
    provider: &Arc<CryptoProvider>,
) -> Result<(), String> {
    let unreadable = "holds a certificate that cannot be read";
    let mut roots = RootCertStore::empty();
    roots
        .add(certificate.clone().into_owned())
        .map_err(|error| format!("{unreadable}: {error}"))?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.build().map_err(|error| format!("{unreadable}: {error}"))?;
    let (name, now) =
        (ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST)), UnixTime::now());
    // Its dates are looked at before anything else.
    match verifier.verify_server_cert(certificate, &[], &name, &[], now) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Err(format!("expired at {}; have it renewed", shown(not_after)))
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => Err(format!(
            "is not valid before {}; see whether the clock of this machine is right",
            shown(not_before)
        )),
        Err(Error::InvalidCertificate(CertificateError::BadEncoding)) => Err(unreadable.into()),
        _ => Ok(()),
    }
}

fn shown(time: UnixTime) -> String {
    let millis = i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000);
    DateTime::from_millis(millis).try_to_rfc3339_string().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate that is valid in these years, and its key.
    fn made(from: i32, until: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_pair_that_nobody_could_use_is_refused_in_a_sentence_without_showing_the_key() {
        let files = [("http.tls_cert", "c.pem"), ("http.tls_key", "k.pem")]
            .map(|(key, path)| NamedFile::new(key, path));
        let judged = |cert: &str, key: &str| parse(&files, [cert.as_bytes(), key.as_bytes()]);
        let ((cert, key), (_, other)) = (made(2020, 2090), made(2020, 2090));
        assert!(judged(&cert, &key).is_ok());
        let both = format!("{cert}{key}");
        assert!(judged(&both, &both).is_ok(), "both may stand in one file");
        let (broken, locked) =
            (cert.replace("MI", "NI"), key.replace("PRIVATE", "ENCRYPTED PRIVATE"));
        let (expired, early) = (made(2020, 2021), made(2080, 2090));
        for ((cert, key), wanted) in [
            ((&*cert, &*other), "http.tls_key: k.pem does not belong to the certificate in c.pem"),
            ((&expired.0, &expired.1), "http.tls_cert: c.pem expired at 2021-01-01T00:00:00Z"),
            ((&early.0, &early.1), "http.tls_cert: c.pem is not valid before 2080-01-01T00:00:00Z"),
            (("", &key), "http.tls_cert: c.pem holds no certificate"),
            ((&key, &key), "http.tls_cert: c.pem holds no certificate"),
            ((&broken, &key), "http.tls_cert: c.pem holds a certificate that cannot be read"),
            (("-----BEGIN CERTIFICATE-----\nmarker", &key), "http.tls_cert: c.pem is no PEM"),
            ((&cert, ""), "http.tls_key: k.pem holds no private key"),
            ((&cert, &cert), "http.tls_key: k.pem holds no private key"),
            ((&cert, &locked), "http.tls_key: k.pem holds no private key"),
        ] {
            let said = judged(cert, key).unwrap_err().to_string();
            assert!(said.starts_with(wanted), "{said}");
            let secret = key.lines().nth(1).unwrap_or("marker");
            assert!(!said.contains(secret) && !said.contains("marker"), "{said}");
        }
    }
}
