//! Who may come in, and how: the tokens, and the certificate by which the server is known. Both stand in files that are
//! read again when they change.

mod files;
mod tls;
mod tokens;

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;

use crate::{
    config::{CollectionConfig, HttpConfig},
    time::Time,
};
pub use files::FileError;
use files::{Held, Holder, NamedFile, hold};
pub use tokens::{Role, Token, mint};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// All tokens of a file.
type Tokens = Arc<[Arc<Token>]>;

/// What the files say now. Without a file of tokens none are asked for, and without a certificate there is no TLS.
#[derive(Clone, Debug, Default)]
pub struct Access {
    tokens: Option<Held<Tokens>>,
    certificate: Option<Held<Arc<ServerConfig>>>,
}

/// Looks after the files.
#[derive(Debug, Default)]
pub struct AccessWatch {
    tokens: Option<Holder<Tokens, 1>>,
    certificate: Option<Holder<Arc<ServerConfig>, 2>>,
}

impl Access {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// When one cannot be read, or is not as it must be.
    pub fn open(http: &HttpConfig) -> Result<(Self, AccessWatch), FileError> {
        let (mut access, mut watch) = (Self::default(), AccessWatch::default());
        if let Some(path) = &http.tokens_file {
            let file = NamedFile::new("http.tokens_file", path).holding("hashes of tokens");
            let (held, holder) = hold([file], tokens::parse)?;
            (access.tokens, watch.tokens) = (Some(held), Some(holder));
        }
        if let Some((cert, key)) = http.tls_cert.as_ref().zip(http.tls_key.as_ref()) {
            let key = NamedFile::new("http.tls_key", key).holding("a private key");
            let (held, holder) = hold([NamedFile::new("http.tls_cert", cert), key], tls::parse)?;
            (access.certificate, watch.certificate) = (Some(held), Some(holder));
        }
        Ok((access, watch))
    }

    /// What is wrong with the files that the configuration names: all of it, where [`Access::open`] ends with the first.
    pub fn problems(http: &HttpConfig) -> Vec<FileError> {
        let mut found = Vec::new();
        if let Some(path) = &http.tokens_file {
            found.extend(hold([NamedFile::new("http.tokens_file", path)], tokens::parse).err());
        }
        if let Some((cert, key)) = http.tls_cert.as_ref().zip(http.tls_key.as_ref()) {
            let files =
                [NamedFile::new("http.tls_cert", cert), NamedFile::new("http.tls_key", key)];
            let alone = tls::problems(&files);
            match alone.is_empty() {
                true => found.extend(hold(files, tls::parse).err()),
                false => found.extend(alone),
            }
        }
        found
    }

    /// Whether anybody may do anything.
    pub fn is_open(&self) -> bool {
        self.tokens.is_none()
    }

    /// The token with this secret.
    pub fn token(&self, secret: &str) -> Option<Arc<Token>> {
        tokens::find(&self.tokens.as_ref()?.get(), secret)
    }

    /// Whether this token, which was let in before, would be now.
    pub fn knows(&self, token: &Token) -> bool {
        self.tokens.as_ref().is_some_and(|held| held.get().iter().any(|known| known.is(token)))
    }

    /// Which tokens name a collection that is not among these: it opens nothing, and may be a typo.
    pub fn warnings(&self, collections: &[CollectionConfig]) -> Vec<String> {
        let tokens = self.tokens.as_ref().map(Held::get);
        let is_known = |name: &str| collections.iter().any(|known| known.name == name);
        let mut warnings = Vec::new();
        for token in tokens.iter().flat_map(|tokens| tokens.iter()) {
            let names = token.collections.iter().flatten();
            warnings.extend(names.filter(|name| !is_known(name)).map(|name| {
                let token = &token.name;
                format!("http.tokens_file: the token `{token}` names the collection {name:?}, which is not configured")
            }));
        }
        warnings
    }

    /// How TLS is spoken, if it is.
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.certificate.as_ref().map(Held::get)
    }

    /// Why a file cannot be used as it is now, while that lasts.
    pub fn last_error(&self) -> Option<FileError> {
        let tokens = self.tokens.as_ref().and_then(Held::error);
        tokens.or_else(|| self.certificate.as_ref().and_then(Held::error))
    }
}

impl AccessWatch {
    /// Reads the files again whenever they have changed.
    pub async fn run(mut self, time: impl Time) {
        loop {
            time.sleep(LOOK_INTERVAL).await;
            self.look();
        }
    }

    fn look(&mut self) {
        self.tokens.as_mut().map(Holder::look);
        self.certificate.as_mut().map(Holder::look);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_token_for_a_collection_that_is_not_configured_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.toml");
        let names = ["games", "gmaes"].map(str::to_owned);
        let (_, all) = mint("all", Role::Read, None).unwrap();
        let (_, some) = mint("some", Role::Read, Some(&names)).unwrap();
        fs::write(&file, all + &some).unwrap();
        let tokens_file = Some(file.to_str().unwrap().to_owned());
        let (access, _) =
            Access::open(&HttpConfig { tokens_file, ..HttpConfig::default() }).unwrap();
        let warnings = access.warnings(&[CollectionConfig::new("games")]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("`some` names the collection \"gmaes\""), "{warnings:?}");
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            file.to_str().unwrap().to_owned()
        };
        let (tokens, cert) = (file("tokens.toml", "[[tokens"), file("tls.crt", "no PEM"));
        let http = HttpConfig {
            tokens_file: Some(tokens),
            tls_cert: Some(cert.clone()),
            tls_key: Some("/nonexistent".into()),
            ..HttpConfig::default()
        };
        let keys = |http: &HttpConfig| {
            Access::problems(http).iter().map(FileError::key).collect::<Vec<_>>()
        };
        assert_eq!(keys(&http), ["http.tokens_file", "http.tls_cert", "http.tls_key"]);
        let http = HttpConfig { tls_key: Some(cert), ..http };
        assert_eq!(keys(&http), ["http.tokens_file", "http.tls_cert", "http.tls_key"]);
    }

    #[test]
    fn a_file_that_becomes_unusable_changes_nothing_but_what_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.toml");
        let (first, lines) = mint("first", Role::Read, None).unwrap();
        fs::write(&file, &lines).unwrap();
        let tokens_file = Some(file.to_str().unwrap().to_owned());
        let (access, mut watch) =
            Access::open(&HttpConfig { tokens_file, ..HttpConfig::default() }).unwrap();
        for unusable in ["", "[[tokens"] {
            fs::write(&file, unusable).unwrap();
            watch.look();
            assert!(access.token(&first).is_some() && access.last_error().is_some());
        }
        fs::write(&file, lines).unwrap();
        watch.look();
        assert_eq!(access.last_error(), None, "it is what it was before");
        fs::remove_file(&file).unwrap();
        watch.look();
        assert!(access.token(&first).is_some() && access.last_error().is_some());
        let (second, lines) = mint("second", Role::Read, None).unwrap();
        // How a mounted secret changes: another file under the same name.
        let other = folder.path().join("other");
        fs::write(&other, lines).unwrap();
        std::os::unix::fs::symlink(&other, &file).unwrap();
        watch.look();
        assert!(access.token(&first).is_none() && access.token(&second).is_some());
        assert_eq!(access.last_error(), None);
    }
}
