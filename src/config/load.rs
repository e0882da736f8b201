//! Where the configuration comes from: a TOML file, over it the environment, over both the command line.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs,
    path::PathBuf,
};

use config::{Environment, File, FileFormat};
use serde_json::{Map, Value};

use super::{
    Config,
    read::{self, SCALAR_KEYS},
    redact::unreadable,
    section::{ConfigError, MISSING, Problem},
};

const PREFIX: &str = "ALLUVIUM_";
const SEPARATOR: &str = "__";

/// What the configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// The environment's variables.
    pub environment: Vec<(OsString, OsString)>,
    /// `--uri`
    pub uri: Option<String>,
    /// `--database`
    pub database: Option<String>,
}

impl Sources {
    /// Takes the environment of this process.
    pub fn with_process_environment(mut self) -> Self {
        self.environment = std::env::vars_os().collect();
        self
    }
}

/// What the configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A daemon: there must be collections.
    Collections,
    /// A command that only talks to the database.
    Connection,
}

/// Reads and judges the configuration.
///
/// # Errors
/// Every mistake at once.
pub fn load(sources: &Sources, expect: Expect) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    // What an unreadable source would have set cannot be judged.
    let config =
        merge(sources, &mut problems).and_then(|values| read::read(values, expect, &mut problems));
    if sources.file.is_none() && problems.iter().any(|problem| problem.message.starts_with(MISSING))
    {
        let message = "names no file, and none is looked for by itself; name one, such as \
                       /etc/alluvium/alluvium.toml";
        problems.push(Problem { key: "--config".to_owned(), message: message.to_owned() });
    }
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(ConfigError { problems }),
    }
}

/// The merged tables; `None` with a problem when a source is unreadable.
fn merge(sources: &Sources, problems: &mut Vec<Problem>) -> Option<Map<String, Value>> {
    let mut builder = config::Config::builder();
    if let Some(path) = &sources.file {
        let key = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => builder = builder.add_source(File::from_str(&text, FileFormat::Toml)),
            Err(error) => {
                let message = unreadable(&error, Some("give an existing file to --config"));
                problems.push(Problem { key, message });
                return None;
            }
        }
    }
    let variables = environment(&sources.environment, problems);
    let weaker = weaker_uri(sources, &variables);
    let environment = Environment::with_prefix(PREFIX.trim_end_matches('_'))
        .prefix_separator("_")
        .separator(SEPARATOR)
        .ignore_empty(true)
        .source(Some(variables));
    let built = builder
        .add_source(environment)
        .set_override_option("mongodb.uri", sources.uri.clone())
        .and_then(|builder| {
            builder.set_override_option("mongodb.database", sources.database.clone())
        })
        .and_then(|builder| builder.build())
        .and_then(|config| config.try_deserialize::<Map<String, Value>>());
    match built {
        Ok(mut values) => {
            if let (Some(key), Some(Value::Object(mongodb))) = (weaker, values.get_mut("mongodb")) {
                drop(mongodb.remove(key));
            }
            Some(values)
        }
        Err(error) => {
            let key = sources.file.as_ref().map(|path| path.display().to_string());
            let key = key.unwrap_or_else(|| "the configuration".into());
            let text = sources.file.as_ref().and_then(|path| fs::read_to_string(path).ok());
            let message = describe(&error, &text.unwrap_or_default());
            problems.push(Problem { key, message });
            None
        }
    }
}

/// Which of the two keys of the connection string does not count, since a stronger source has the other one.
fn weaker_uri(sources: &Sources, variables: &HashMap<String, String>) -> Option<&'static str> {
    let is_set = |key| variables.get(&variable(key)).is_some_and(|value| !value.is_empty());
    match (is_set("mongodb.uri"), is_set("mongodb.uri_file")) {
        _ if sources.uri.is_some() => Some("uri_file"),
        (true, false) => Some("uri_file"),
        (false, true) => Some("uri"),
        _ => None,
    }
}

/// Those variables that are meant for us. Names without `__` are not: Kubernetes sets
/// `ALLUVIUM_SERVICE_HOST` and the like for a service called alluvium.
fn environment(
    variables: &[(OsString, OsString)],
    problems: &mut Vec<Problem>,
) -> HashMap<String, String> {
    let mut ours = HashMap::new();
    for (name, value) in variables {
        match variable_of(name, value) {
            None => {}
            Some(Ok((name, value))) => drop(ours.insert(name, value)),
            Some(Err(problem)) => problems.push(problem),
        }
    }
    ours
}

/// A variable, if it is meant for us. What it holds is never shown.
fn variable_of(name: &OsStr, value: &OsStr) -> Option<Result<(String, String), Problem>> {
    let shown = name.to_string_lossy();
    let rest = shown.strip_prefix(PREFIX).filter(|rest| rest.contains(SEPARATOR))?;
    let key = rest.replace(SEPARATOR, ".").to_lowercase();
    let refused = |message| Some(Err(Problem { key: shown.to_string(), message }));
    if !SCALAR_KEYS.contains(&key.as_str()) {
        let known: Vec<String> = SCALAR_KEYS.iter().map(|key| variable(key)).collect();
        return refused(format!("is not a variable of alluvium; those are {}", known.join(", ")));
    }
    match value.to_str() {
        Some(value) => Some(Ok((shown.to_string(), value.to_owned()))),
        None => refused("has a value that is not Unicode; write it as UTF-8".into()),
    }
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', SEPARATOR).to_uppercase())
}

/// The error without the excerpt of the file, which may show a password.
fn describe(error: &config::ConfigError, text: &str) -> String {
    let config::ConfigError::FileParse { cause, .. } = error else {
        return "cannot be read as tables of keys and values".into();
    };
    let Some(toml) = cause.downcast_ref::<toml::de::Error>() else {
        return "is not valid TOML".into();
    };
    let message = toml.message();
    match toml.span().and_then(|span| text.get(..span.start)) {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!("is not valid TOML: line {line}, column {column}: {message}")
        }
        None => format!("is not valid TOML: {message}"),
    }
}
