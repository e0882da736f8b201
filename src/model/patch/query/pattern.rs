//! Regular expressions. The server matches with PCRE, which takes exponential time on hostile
//! patterns; here they are translated for an engine that takes linear time. What that engine cannot
//! express (looking around, back references) or would read differently is refused, not guessed at.

mod translate;

use std::cell::Cell;
use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

use crate::model::patch::steps::{Halt, Steps};
use crate::model::shown::shown;
use crate::model::state::raw::{RawValue, tag};

/// A compiled pattern.
#[derive(Clone)]
pub(crate) struct Pattern<'p> {
    source: &'p [u8],
    options: &'p [u8],
    regex: Regex,
}

/// Largest compiled pattern, in bytes. Matching with it takes up to four times as much.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Most patterns in one patch: together with their size it bounds what they take.
const PATTERNS_MAX: usize = 64;

/// How many patterns a patch may still have.
pub(crate) struct Patterns(Cell<usize>);

impl Default for Patterns {
    fn default() -> Self {
        Self(Cell::new(PATTERNS_MAX))
    }
}

impl<'p> Pattern<'p> {
    /// Compiles a pattern, one of those that are left.
    pub(crate) fn new(
        source: &'p [u8],
        options: &'p [u8],
        left: &Patterns,
    ) -> Result<Self, String> {
        let refuse = |reason: &str| {
            Err(format!("regular expression {:?} cannot be used: {reason}", shown(source)))
        };
        match left.0.get().checked_sub(1) {
            Some(fewer) => left.0.set(fewer),
            None => {
                return refuse(&format!("there are more than {PATTERNS_MAX}; split the patch"));
            }
        }
        if source.contains(&0) || options.contains(&0) {
            return refuse("it has a zero byte in it");
        }
        let Ok(text) = std::str::from_utf8(source) else { return refuse("it is not UTF-8") };
        let mut flags = translate::Flags::default();
        for option in options {
            match option {
                b'i' => flags.ignore_case = true,
                b'm' => flags.multi_line = true,
                b's' => flags.dot_all = true,
                b'x' => flags.extended = true,
                b'u' => {}
                _ => return refuse("its options can only be i, m, s, x and u"),
            }
        }
        let translated = match translate::translate(text, flags) {
            Ok(translated) => translated,
            Err(reason) => return refuse(&reason),
        };
        let built = RegexBuilder::new(&translated)
            .case_insensitive(flags.ignore_case)
            .multi_line(flags.multi_line)
            .dot_matches_new_line(flags.dot_all)
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .build();
        match built {
            Ok(regex) => Ok(Self { source, options, regex }),
            Err(regex::Error::CompiledTooBig(_)) => refuse("it is too large"),
            Err(_) => refuse("it is not one, or uses what is not supported"),
        }
    }

    /// Whether a text matches. A regular expression in the state matches when it is this one.
    pub(crate) fn matches(&self, value: RawValue<'_>, steps: &Steps) -> Result<bool, Halt> {
        Ok(match value.tag {
            tag::STRING | tag::SYMBOL => {
                // Byte by byte, unlike all other looking.
                steps.take(value.text().len())?;
                self.regex.is_match(value.text())
            }
            tag::REGEX => value.regex() == (self.source, self.options),
            _ => false,
        })
    }
}

impl fmt::Debug for Pattern<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "/{}/{}", shown(self.source), shown(self.options))
    }
}
