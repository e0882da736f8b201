//! Certificates for servers and clients, signed by an authority of the test.

use std::{fs, path::PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

/// An authority and what it has signed, as files.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One that nobody has heard of. Its certificate is the file `ca.pem`.
    pub fn new() -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Authority { folder, issuer: Issuer::new(params, key) }
    }

    /// A file of its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate of `subject` for a host, valid until a year begins, and its key.
    pub fn issue(&self, subject: &str, host: &str, until: i32) -> (Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A certificate of a server with its key in one file.
    pub fn sign(&self, file: &str, host: &str) -> PathBuf {
        self.sign_for(file, "server of a test", host)
    }

    /// The same of `subject`.
    pub fn sign_for(&self, file: &str, subject: &str, host: &str) -> PathBuf {
        let (certificate, key) = self.issue(subject, host, 2090);
        let path = self.path(file);
        fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
        path
    }
}
