//! The tokens of a file, which holds no secret but the SHA-256 of each.

use std::{collections::HashSet, sync::Arc};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    Tokens,
    files::{FileError, NamedFile},
};
use crate::config::collection_problem;

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
    /// Whether the same secret belongs to both.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }

    /// Whether it opens this collection.
    pub fn opens(&self, collection: &str) -> bool {
        self.collections.as_ref().is_none_or(|names| names.iter().any(|name| name == collection))
    }
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

/// The token with this secret.
pub(super) fn find(tokens: &[Arc<Token>], secret: &str) -> Option<Arc<Token>> {
    let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
    // All are compared, so that the time says nothing about which one it was.
    tokens.iter().fold(None, |found, token| {
        let is_same = bool::from(token.sha256.as_slice().ct_eq(hash.as_slice()));
        if is_same { Some(token.clone()) } else { found }
    })
}

/// A new secret, and the lines of the file for it.
///
/// # Errors
/// When the system has no random numbers, or a name cannot be used.
pub fn mint(
    name: &str,
    role: Role,
    collections: Option<&[String]>,
) -> Result<(String, String), String> {
    name_problem(name).map_or(Ok(()), |problem| Err(format!("the name {problem}")))?;
    // In which database they are is not known here.
    let problem = collections.into_iter().flatten().find_map(|name| collection_problem(name, ""));
    problem.map_or(Ok(()), |problem| Err(format!("--collections: {problem}")))?;
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    let secret = format!("alluvium_{}", hex(&bytes));
    let sha256 = hex(&Sha256::digest(secret.as_bytes()));
    let mut lines = format!("[[tokens]]\nname = \"{name}\"\nrole = \"{}\"\n", role.name());
    if let Some(collections) = collections {
        let names = collections.iter().map(|name| toml::Value::from(name.as_str()));
        lines += &format!("collections = {}\n", toml::Value::Array(names.collect()));
    }
    // Last, since a file that is cut short opens nothing without it.
    lines += &format!("sha256 = \"{sha256}\"\n");
    Ok((secret, lines))
}

pub(super) fn parse([file]: &[NamedFile; 1], [bytes]: [&[u8]; 1]) -> Result<Tokens, FileError> {
    const ADVICE: &str = "`alluvium token new` prints the lines for a token";
    let text = str::from_utf8(bytes).map_err(|_| file.refused(format!("is no text; {ADVICE}")))?;
    if text.trim().is_empty() {
        return Err(file.refused(format!("is empty; {ADVICE}")));
    }
    let read: File = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let rule =
            "is no list of [[tokens]] with `name`, `role`, `sha256` and perhaps `collections`";
        file.refused(format!("{rule} (line {line}); {ADVICE}"))
    })?;
    if read.tokens.is_empty() {
        return Err(file.refused(format!("has no [[tokens]]; {ADVICE}")));
    }
    let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
    let mut tokens = Vec::new();
    for (at, row) in read.tokens.into_iter().enumerate() {
        let token = token(row)
            .map_err(|problem| file.refused(format!("tokens[{at}] {problem}; {ADVICE}")))?;
        if !names.insert(token.name.clone()) || !hashes.insert(token.sha256) {
            let problem = "has the name or the sha256 of one before it; each can stand there once";
            return Err(file.refused(format!("tokens[{at}] {problem}")));
        }
        tokens.push(Arc::new(token));
    }
    Ok(tokens.into())
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

    fn read(text: &str) -> Result<Tokens, FileError> {
        parse(&[NamedFile::new("http.tokens_file", "t")], [text.as_bytes()])
    }

    #[test]
    fn a_minted_token_is_found_by_its_secret_alone() {
        let collections = ["games".to_owned(), "a \"b\"".to_owned()];
        let (secret, lines) = mint("backend", Role::Client, Some(&collections)).unwrap();
        assert!(!lines.contains(&secret));
        let tokens = read(&lines).unwrap();
        let token = find(&tokens, &secret).unwrap();
        // Wherever the file is cut, it opens nothing more.
        let whole = lines.trim_end().len();
        assert!((1..whole).all(|length| lines.get(..length).is_none_or(|cut| read(cut).is_err())));
        assert_eq!((token.name.as_str(), token.role), ("backend", Role::Client));
        assert!(token.opens("games") && token.opens("a \"b\"") && !token.opens("others"));
        assert!(find(&tokens, &format!("{secret}0")).is_none() && find(&tokens, "").is_none());
    }

    #[test]
    fn a_token_for_what_can_be_no_collection_is_not_minted() {
        for names in [["games", ""], ["games", "ga$mes"], ["games", "games.events"]] {
            let names = names.map(str::to_owned);
            let said = mint("backend", Role::Read, Some(&names)).unwrap_err();
            assert!(said.starts_with("--collections: "), "{said}");
        }
    }

    #[test]
    fn what_is_no_file_of_tokens_is_refused_without_showing_what_it_holds() {
        let row = |name: &str, role: &str, sha256: &str| {
            format!("[[tokens]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n")
        };
        let hash = "0".repeat(64);
        let good = row("a", "read", &hash);
        assert!(read(&good).is_ok());
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
            let said = read(&text).unwrap_err().to_string();
            assert!(said.contains(wanted), "{said}");
            assert!(!said.contains("marker"), "{said}");
        }
    }
}
