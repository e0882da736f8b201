//! Who may come in: the tokens of a file, which holds no secret but the SHA-256 of each. The file is read again
//! when it changes, also when it is a mounted secret whose link is exchanged. A file that has become unusable
//! changes nothing: the tokens before it go on, and what is wrong is told.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::time::Time;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// What a token is good for. A later one may do all that an earlier one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Everything that changes nothing.
    Read,
    /// Also to say what a client has.
    Client,
    /// Everything.
    Admin,
}

impl Role {
    /// As it is written in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Client => "client",
            Self::Admin => "admin",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Read, Self::Client, Self::Admin].into_iter().find(|role| role.name() == name)
    }
}

/// One token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is called: who did something.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// Where it is good for that; `None` is everywhere.
    pub collections: Option<Vec<String>>,
    sha256: [u8; 32],
}

impl Token {
    /// Whether it opens this collection.
    pub fn opens(&self, collection: &str) -> bool {
        self.collections.as_ref().is_none_or(|names| names.iter().any(|name| name == collection))
    }
}

/// Why a file of tokens cannot be used. Nothing of what it holds is shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("http.tokens_file: {file} {problem}", file = file.display())]
pub struct AccessError {
    file: PathBuf,
    problem: String,
}

/// The tokens as they are now, or that none are asked for.
#[derive(Clone, Debug, Default)]
pub struct Access(Option<watch::Receiver<Loaded>>);

/// Looks after the file.
#[derive(Debug)]
pub struct AccessWatch {
    file: PathBuf,
    seen: Result<String, AccessError>,
    loaded: watch::Sender<Loaded>,
}

#[derive(Clone, Debug)]
struct Loaded {
    tokens: Vec<Arc<Token>>,
    last_error: Option<AccessError>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokens: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    role: String,
    sha256: String,
    collections: Option<Vec<String>>,
}

impl Access {
    /// Reads the tokens of `file`.
    ///
    /// # Errors
    /// When it cannot be read, or is not as it must be.
    pub fn open(file: &Path) -> Result<(Self, AccessWatch), AccessError> {
        let text = read(file)?;
        let tokens = parse(file, &text)?;
        if fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0) {
            warn!(file = %file.display(), "`http.tokens_file` can be read by everybody on this machine; it holds hashes of tokens: chmod o-r");
        }
        let (loaded, seen) = watch::channel(Loaded { tokens, last_error: None });
        Ok((Self(Some(seen)), AccessWatch { file: file.to_owned(), seen: Ok(text), loaded }))
    }

    /// Whether anybody may do anything.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// The token with this secret.
    pub fn token(&self, secret: &str) -> Option<Arc<Token>> {
        let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let loaded = self.0.as_ref()?.borrow();
        // All are compared, so that the time says nothing about which one it was.
        loaded.tokens.iter().fold(None, |found, token| {
            let is_same = bool::from(token.sha256.as_slice().ct_eq(hash.as_slice()));
            if is_same { Some(token.clone()) } else { found }
        })
    }

    /// Why the file could not be read again, while that lasts.
    pub fn last_error(&self) -> Option<AccessError> {
        self.0.as_ref()?.borrow().last_error.clone()
    }
}

impl AccessWatch {
    /// Reads the file again whenever it has changed.
    pub async fn run(mut self, time: impl Time) {
        loop {
            time.sleep(LOOK_INTERVAL).await;
            self.look();
        }
    }

    fn look(&mut self) {
        let read = read(&self.file);
        if read == self.seen {
            return;
        }
        let parsed = read.clone().and_then(|text| parse(&self.file, &text));
        self.seen = read;
        match parsed {
            Ok(tokens) => {
                info!(file = %self.file.display(), tokens = tokens.len(), "read the tokens again");
                self.loaded.send_replace(Loaded { tokens, last_error: None });
            }
            Err(error) => {
                warn!("{error}; the tokens from before it changed stay");
                self.loaded.send_modify(|loaded| loaded.last_error = Some(error));
            }
        }
    }
}

/// A new secret, and the lines of the file for it.
///
/// # Errors
/// When the system has no random numbers, or the name cannot be used.
pub fn mint(
    name: &str,
    role: Role,
    collections: Option<&[String]>,
) -> Result<(String, String), String> {
    name_problem(name).map_or(Ok(()), |problem| Err(format!("the name {problem}")))?;
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    let secret = format!("alluvium_{}", hex(&bytes));
    let sha256 = hex(&Sha256::digest(secret.as_bytes()));
    let mut lines = format!(
        "[[tokens]]\nname = \"{name}\"\nrole = \"{}\"\nsha256 = \"{sha256}\"\n",
        role.name()
    );
    if let Some(collections) = collections {
        let names = collections.iter().map(|name| toml::Value::from(name.as_str()));
        lines += &format!("collections = {}\n", toml::Value::Array(names.collect()));
    }
    Ok((secret, lines))
}

fn read(file: &Path) -> Result<String, AccessError> {
    fs::read_to_string(file).map_err(|error| refused(file, format!("cannot be read: {error}")))
}

fn refused(file: &Path, problem: impl Into<String>) -> AccessError {
    AccessError { file: file.to_owned(), problem: problem.into() }
}

fn parse(file: &Path, text: &str) -> Result<Vec<Arc<Token>>, AccessError> {
    const ADVICE: &str = "`alluvium token new` prints the lines for a token";
    if text.trim().is_empty() {
        return Err(refused(file, format!("is empty; {ADVICE}")));
    }
    let read: File = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let rule =
            "is no list of [[tokens]] with `name`, `role`, `sha256` and perhaps `collections`";
        refused(file, format!("{rule} (line {line}); {ADVICE}"))
    })?;
    if read.tokens.is_empty() {
        return Err(refused(file, format!("has no [[tokens]]; {ADVICE}")));
    }
    let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
    let mut tokens = Vec::new();
    for (at, row) in read.tokens.into_iter().enumerate() {
        let token = token(row)
            .map_err(|problem| refused(file, format!("tokens[{at}] {problem}; {ADVICE}")))?;
        if !names.insert(token.name.clone()) || !hashes.insert(token.sha256) {
            let problem = "has the name or the sha256 of one before it; each can stand there once";
            return Err(refused(file, format!("tokens[{at}] {problem}")));
        }
        tokens.push(Arc::new(token));
    }
    Ok(tokens)
}

fn token(row: Row) -> Result<Token, String> {
    let Row { name, role, sha256, collections } = row;
    if let Some(problem) = name_problem(&name) {
        return Err(format!("has a name that {problem}"));
    }
    let role = Role::from_name(&role).ok_or("has a role that is not read, client or admin")?;
    let sha256 = unhex(&sha256).ok_or("has a sha256 that is not 64 hexadecimal digits")?;
    if collections.as_ref().is_some_and(Vec::is_empty) {
        return Err("opens no collection; name some in `collections`, or leave it out".into());
    }
    Ok(Token { name, role, collections, sha256 })
}

fn name_problem(name: &str) -> Option<String> {
    let is_fine = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let rule = "is not 1 to 128 letters, digits, dots, dashes and underscores";
    (!is_fine).then(|| rule.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_is_found_by_its_secret_alone() {
        let collections = ["games".to_owned(), "a \"b\"".to_owned()];
        let (secret, lines) = mint("backend", Role::Client, Some(&collections)).unwrap();
        assert!(!lines.contains(&secret));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.toml");
        fs::write(&file, &lines).unwrap();
        let (access, _watch) = Access::open(&file).unwrap();
        let token = access.token(&secret).unwrap();
        assert_eq!((token.name.as_str(), token.role), ("backend", Role::Client));
        assert!(token.opens("games") && token.opens("a \"b\"") && !token.opens("others"));
        assert!(access.token(&format!("{secret}0")).is_none() && access.token("").is_none());
    }

    #[test]
    fn what_is_no_file_of_tokens_is_refused_without_showing_what_it_holds() {
        let row = |name: &str, role: &str, sha256: &str| {
            format!("[[tokens]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n")
        };
        let hash = "0".repeat(64);
        let good = row("a", "read", &hash);
        assert!(parse(Path::new("t"), &good).is_ok());
        for (text, wanted) in [
            (" \n".to_owned(), "is empty"),
            ("tokens = []".to_owned(), "has no [[tokens]]"),
            ("tokens = \"marker\"".to_owned(), "is no list of [[tokens]]"),
            (format!("{good}marker = 1"), "(line 5)"),
            (row("a", "marker", &hash), "has a role that is not"),
            (row("a", "read", "marker"), "has a sha256 that is not"),
            (row("", "read", &hash), "has a name that"),
            (row("marker \\n", "read", &hash), "has a name that"),
            (format!("{good}{}", row("b", "read", &hash)), "tokens[1] has the name or the sha256"),
            (format!("{good}collections = []"), "opens no collection"),
        ] {
            let said = parse(Path::new("t"), &text).unwrap_err().to_string();
            assert!(said.contains(wanted), "{said}");
            assert!(!said.contains("marker"), "{said}");
        }
    }

    #[test]
    fn a_file_that_becomes_unusable_changes_nothing_but_what_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.toml");
        let (first, lines) = mint("first", Role::Read, None).unwrap();
        fs::write(&file, lines).unwrap();
        let (access, mut watch) = Access::open(&file).unwrap();
        for unusable in ["", "[[tokens"] {
            fs::write(&file, unusable).unwrap();
            watch.look();
            assert!(access.token(&first).is_some() && access.last_error().is_some());
        }
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
