//! Regular expressions. The server (6.0) matches with PCRE, here its successor PCRE2 does, so that a pattern
//! means the same on both sides. What the two read differently is refused ([`syntax`]), and so is a text
//! with characters that only the newer one knows ([`characters`]).
//!
//! Matching takes exponential time on hostile patterns. The server gives up at some point and goes on as
//! if nothing matched; here the whole patch is refused, some way before that point. What a match may
//! take is counted, not measured, so that every fold comes to the same end.

mod characters;
mod syntax;

use std::cell::Cell;
use std::fmt;

use pcre2::bytes::{Regex, RegexBuilder};

use crate::model::patch::steps::{Halt, Steps};
use crate::model::shown::shown;
use crate::model::state::raw::{RawValue, tag};

use syntax::{Flags, Syntax};

/// A compiled pattern.
#[derive(Clone)]
pub(crate) struct Pattern<'p> {
    source: &'p [u8],
    options: &'p [u8],
    syntax: Syntax,
    /// Compiled with the first of [`TRIES`], which is enough for nearly every text.
    quick: Regex,
}

/// Longest pattern, in bytes. The server's limit is twice that.
const PATTERN_BYTES_MAX: usize = 16 * 1024;

/// Most patterns in one patch: together with their size it bounds what they take.
const PATTERNS_MAX: usize = 64;

/// How often a match may branch at one place of a text. A text for which a number is too small is matched
/// again with the next one. The server gives up at 200,000, counted a little differently.
const TRIES: [usize; 4] = [32, 512, 8_192, 65_536];

/// How many branches of a match may be open at once. The server gives up at 4,000, and sometimes
/// counts one and a half where this engine counts one.
const OPEN_MAX: usize = 2_500;

/// Memory for the open branches, in KiB: of the first try, which is kept for every pattern, and of later ones.
const OPEN_KIB_MAX: [usize; 2] = [256, 8 * 1024];

/// What PCRE2 answers when a limit is reached: on branches, and on their memory. A later try has more of both.
const LIMITS: [i32; 2] = [-47, -63];

const GAVE_UP: Halt = Halt::Pattern(
    "its regular expression takes too many tries on a text of the state; write it with fewer ways to match",
);

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
        let refuse = |reason: &str| Err(format!("the regular expression cannot be used: {reason}"));
        match left.0.get().checked_sub(1) {
            Some(fewer) => left.0.set(fewer),
            None => {
                return refuse(&format!("there are more than {PATTERNS_MAX}; split the patch"));
            }
        }
        if source.len() > PATTERN_BYTES_MAX {
            return refuse(&format!("it is longer than {PATTERN_BYTES_MAX} bytes"));
        }
        if source.contains(&0) {
            return refuse("it has a zero byte in it; write \\x00");
        }
        let Ok(text) = std::str::from_utf8(source) else { return refuse("it is not UTF-8") };
        let Some(flags) = Flags::read(options) else {
            return refuse("its options can only be i, m, s, x and u");
        };
        let syntax = match Syntax::read(text, flags) {
            Ok(syntax) => syntax,
            Err(reason) => return refuse(&reason),
        };
        match compile(&syntax, TRIES[0], OPEN_KIB_MAX[0]) {
            Ok(quick) => Ok(Self { source, options, syntax, quick }),
            Err(error) => refuse(&said(&error)),
        }
    }

    /// Whether a text matches. A regular expression in the state matches when it is this one.
    pub(crate) fn matches(&self, value: RawValue<'_>, steps: &Steps) -> Result<bool, Halt> {
        match value.tag {
            tag::STRING | tag::SYMBOL => self.finds(value.text(), steps),
            tag::REGEX => Ok(value.regex() == (self.source, self.options)),
            _ => Ok(false),
        }
    }

    fn finds(&self, text: &[u8], steps: &Steps) -> Result<bool, Halt> {
        steps.take(text.len())?;
        // Where the server finds that a text is not UTF-8, it does not match.
        let Ok(readable) = std::str::from_utf8(text) else { return Ok(false) };
        if let Some(reason) =
            characters::unknown(readable, self.syntax.folds, self.syntax.properties)
        {
            return Err(Halt::Pattern(reason));
        }
        steps.take(self.syntax.work(text.len(), TRIES[0]))?;
        let mut outcome = self.quick.is_match(text);
        for tries in &TRIES[1..] {
            if !matches!(&outcome, Err(error) if LIMITS.contains(&error.code())) {
                break;
            }
            let compiling = 16 * self.syntax.pattern.len();
            steps.take(self.syntax.work(text.len(), *tries).saturating_add(compiling))?;
            // Not kept: what it takes is bounded, but 64 times that would be too much.
            outcome = compile(&self.syntax, *tries, OPEN_KIB_MAX[1])
                .and_then(|regex| regex.is_match(text));
        }
        outcome.map_err(|_| GAVE_UP)
    }
}

fn compile(syntax: &Syntax, tries: usize, open_kib: usize) -> Result<Regex, pcre2::Error> {
    let Flags { ignore_case, multi_line, dot_all, extended } = syntax.flags;
    // What repeats must be counted each time, so nothing may be made possessive on the way.
    let pattern = format!(
        "(*NO_AUTO_POSSESS)(*LIMIT_MATCH={tries})(*LIMIT_DEPTH={OPEN_MAX})(*LIMIT_HEAP={open_kib}){}",
        syntax.pattern
    );
    RegexBuilder::new()
        .utf(true)
        .caseless(ignore_case)
        .multi_line(multi_line)
        .dotall(dot_all)
        .extended(extended)
        .build(&pattern)
}

/// What PCRE2 has against a pattern, without the place: that counts what is written before the pattern.
fn said(error: &pcre2::Error) -> String {
    let message = error.to_string();
    message.rsplit_once(": ").map_or(&*message, |(_, said)| said).to_owned()
}

impl fmt::Debug for Pattern<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "/{}/{}", shown(self.source), shown(self.options))
    }
}
