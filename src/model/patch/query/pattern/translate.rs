//! From PCRE's syntax to that of the `regex` crate, for what both can express. The differences that
//! matter: `\d`, `\w`, `\s` and `\b` are ASCII in the server, `$` also matches before a newline at
//! the end, and in a class `[`, `&`, `~` and `-` mean themselves.

use std::iter::Peekable;
use std::str::Chars;

/// The options that change what a pattern means.
#[derive(Clone, Copy, Default)]
pub(super) struct Flags {
    pub(super) ignore_case: bool,
    pub(super) multi_line: bool,
    pub(super) dot_all: bool,
    pub(super) extended: bool,
}

type Translated = Result<(), String>;

/// The pattern in the other syntax, or why there is none.
pub(super) fn translate(pattern: &str, flags: Flags) -> Result<String, String> {
    let mut translator = Translator { rest: pattern.chars().peekable(), out: String::new(), flags };
    while let Some(next) = translator.rest.next() {
        translator.one(next)?;
    }
    Ok(translator.out)
}

struct Translator<'p> {
    rest: Peekable<Chars<'p>>,
    out: String,
    flags: Flags,
}

fn unsupported(what: &str) -> Translated {
    Err(format!("{what} is not supported; write it without"))
}

impl Translator<'_> {
    fn one(&mut self, next: char) -> Translated {
        match next {
            '\\' => self.escape(),
            '[' => self.class(),
            '(' => self.group(),
            '$' => self.end(),
            '*' | '+' | '?' => self.quantifier(next),
            '{' => self.repetition(),
            '#' if self.flags.extended => {
                while self.rest.next().is_some_and(|skipped| skipped != '\n') {}
                Ok(())
            }
            ' ' | '\t'..='\r' if self.flags.extended => Ok(()),
            '}' | ']' => {
                self.out.push('\\');
                self.push(next)
            }
            _ => self.push(next),
        }
    }

    fn push(&mut self, next: char) -> Translated {
        self.out.push(next);
        Ok(())
    }

    fn end(&mut self) -> Translated {
        if self.flags.multi_line {
            return self.push('$');
        }
        if !matches!(self.rest.peek(), None | Some('|' | ')')) {
            return unsupported("$ in the middle");
        }
        self.out.push_str(r"(?:\n?\z)");
        Ok(())
    }

    fn quantifier(&mut self, next: char) -> Translated {
        self.out.push(next);
        match self.rest.peek() {
            Some('+') => unsupported("a possessive quantifier"),
            _ => Ok(()),
        }
    }

    fn repetition(&mut self) -> Translated {
        let mut counts = String::new();
        for next in self.rest.by_ref() {
            counts.push(next);
            if next == '}' {
                break;
            }
        }
        let inner = counts.strip_suffix('}').unwrap_or_default();
        let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
        let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
        if least.is_empty() || !digits(least) || !digits(most) {
            return unsupported("a { that begins no repetition");
        }
        if self.rest.peek() == Some(&'+') {
            return unsupported("a possessive quantifier");
        }
        self.out.push('{');
        self.out.push_str(&counts);
        Ok(())
    }

    fn group(&mut self) -> Translated {
        self.out.push('(');
        if self.rest.peek() == Some(&'*') {
            return unsupported("a verb in (*…)");
        }
        if self.rest.peek() != Some(&'?') {
            return Ok(());
        }
        self.rest.next();
        match self.rest.peek() {
            Some(':') => {
                self.out.push('?');
                Ok(())
            }
            _ => unsupported("a group that begins with (? but not with (?:"),
        }
    }

    fn escape(&mut self) -> Translated {
        let Some(next) = self.rest.next() else { return Err("it ends in a backslash".to_owned()) };
        let meaning = match next {
            'd' => "(?-i:[0-9])",
            'D' => "(?-i:[^0-9])",
            'w' => "(?-i:[0-9A-Za-z_])",
            'W' => "(?-i:[^0-9A-Za-z_])",
            's' => r"(?-i:[\t\n\x0B\x0C\r ])",
            'S' => r"(?-i:[^\t\n\x0B\x0C\r ])",
            'b' => r"(?-u:\b)",
            'B' => r"(?-u:\B)",
            'A' => r"\A",
            'z' => r"\z",
            'n' => r"\n",
            'r' => r"\r",
            't' => r"\t",
            'f' => r"\f",
            'N' if !self.flags.dot_all => ".",
            _ if next.is_ascii_alphanumeric() => return unsupported(&format!("\\{next}")),
            _ if next.is_ascii() => {
                self.out.push_str(&literal(next));
                return Ok(());
            }
            _ => return self.push(next),
        };
        self.out.push_str(meaning);
        Ok(())
    }

    fn class(&mut self) -> Translated {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some(next) = self.rest.next() else {
                return Err("a [ has no matching ]".to_owned());
            };
            match next {
                ']' if !first => return self.push(']'),
                '[' if matches!(self.rest.peek(), Some(':' | '.' | '=')) => {
                    return unsupported("a named class in [: :]");
                }
                '\\' => self.escape_in_class()?,
                '-' => self.push('-')?,
                _ if next.is_ascii_punctuation() || next.is_ascii_whitespace() => {
                    self.out.push_str(&literal(next));
                }
                _ => self.push(next)?,
            }
            first = false;
            if self.rest.peek() == Some(&'-') {
                self.range()?;
            }
        }
    }

    /// A `-` in a class: either between two ends, or meaning itself.
    fn range(&mut self) -> Translated {
        self.rest.next();
        match self.rest.peek() {
            Some(']') => {
                self.out.push_str("\\-");
                Ok(())
            }
            Some('[' | '\\' | '-') => unsupported("a range that does not end in a plain character"),
            _ => self.push('-'),
        }
    }

    fn escape_in_class(&mut self) -> Translated {
        let Some(next) = self.rest.next() else { return Err("it ends in a backslash".to_owned()) };
        let meaning = match next {
            'd' => "0-9",
            'w' => "0-9A-Za-z_",
            's' => r"\t\n\x0B\x0C\r ",
            'n' => r"\n",
            'r' => r"\r",
            't' => r"\t",
            'f' => r"\f",
            _ if next.is_ascii_alphanumeric() => {
                return unsupported(&format!("\\{next} in a class"));
            }
            _ if next.is_ascii() => {
                self.out.push_str(&literal(next));
                return Ok(());
            }
            _ => return self.push(next),
        };
        self.out.push_str(meaning);
        if matches!(next, 'd' | 'w' | 's') && self.rest.peek() == Some(&'-') {
            return unsupported("a range that begins with a class");
        }
        Ok(())
    }
}

/// A character that means itself, whatever it is.
fn literal(next: char) -> String {
    format!("\\x{{{:X}}}", u32::from(next))
}
