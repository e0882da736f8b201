//! One table of the configuration while it is being read: every key is taken out by the name of its
//! setting, and what is left at the end is unknown. Mistakes are collected, never returned early.

use std::fmt;

use serde_json::{Map, Value};

use super::{redact::named, values::Setting};

/// How the message begins about a key that has no default and is absent.
pub(super) const MISSING: &str = "is missing";

/// One mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted, or the name of the file or of the environment variable.
    pub key: String,
    /// What is wrong with it and what to do.
    pub message: String,
}

/// Everything that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The mistakes, at least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("the configuration has a mistake:")?,
            count => write!(f, "the configuration has {count} mistakes:")?,
        }
        for Problem { key, message } in &self.problems {
            write!(f, "\n  {key}: {message}")?;
        }
        Ok(())
    }
}

/// A table, the path to it, and the place where mistakes go.
pub(super) struct Section<'a> {
    path: String,
    known: Vec<&'static str>,
    fields: Map<String, Value>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        path: impl Into<String>,
        fields: Map<String, Value>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self { path: path.into(), known: Vec::new(), fields, problems }
    }

    /// The value of a key that has a default.
    pub(super) fn optional<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.take(key).unwrap_or(default)
    }

    /// The value of a key that need not be there.
    pub(super) fn given<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        self.take(key)
    }

    /// The value of a key that has a default and bounds, both inclusive.
    pub(super) fn bounded<T: Setting + PartialOrd>(
        &mut self,
        key: &'static str,
        default: T,
        (least, most): (T, T),
    ) -> T {
        match self.take::<T>(key) {
            Some(value) if value < least || value > most => {
                let (value, least, most) = (value.show(), least.show(), most.show());
                self.problem(key, format!("must be from {least} to {most}, not {value}"));
                default
            }
            Some(value) => value,
            None => default,
        }
    }

    /// The value of a key without a default; `missing` says what to do when it is absent.
    pub(super) fn required<T: Setting>(&mut self, key: &'static str, missing: &str) -> Option<T> {
        if !self.fields.contains_key(key) {
            self.known.push(key);
            self.problem(key, format!("{MISSING}; {missing}"));
            return None;
        }
        self.take(key)
    }

    /// The table under a key; empty when it is absent.
    pub(super) fn table(&mut self, key: &'static str) -> Map<String, Value> {
        self.known.push(key);
        match self.fields.remove(key) {
            Some(Value::Object(table)) => table,
            None => Map::new(),
            Some(_) => {
                self.problem(key, format!("must be a table, written as [{key}]"));
                Map::new()
            }
        }
    }

    /// The table under a key, to be read before this one is closed; empty when it is absent.
    pub(super) fn within(&mut self, key: &'static str) -> Section<'_> {
        let path = format!("{}.{key}", self.path);
        let fields = self.table(key);
        Section::new(path, fields, self.problems)
    }

    /// The array of tables under a key, each with its path; empty when it is absent.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<(String, Map<String, Value>)> {
        self.known.push(key);
        let values = match self.fields.remove(key) {
            Some(Value::Array(values)) => values,
            None => return Vec::new(),
            Some(other) => vec![other],
        };
        let mut tables = Vec::new();
        for (at, value) in values.into_iter().enumerate() {
            match value {
                Value::Object(table) => tables.push((format!("{key}[{at}]"), table)),
                _ => self.problem(key, format!("must be tables, each written as [[{key}]]")),
            }
        }
        tables
    }

    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        let key = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        self.problems.push(Problem { key, message: message.into() });
    }

    /// Reports the keys that nobody took.
    pub(super) fn close(mut self) {
        let known = self.known.join(", ");
        for key in std::mem::take(&mut self.fields).keys() {
            self.problem(&named(key), format!("is unknown; the keys here are {known}"));
        }
    }

    fn take<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        self.known.push(key);
        match T::parse(&self.fields.remove(key)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(key, message);
                None
            }
        }
    }
}
