//! Classes of characters in brackets.

use super::{Done, Reader, unsupported};

impl Reader<'_> {
    /// What follows the opening bracket.
    pub(super) fn class(&mut self) -> Done {
        self.out.push('[');
        for first in ["^", "]"] {
            if self.rest.starts_with(first) {
                self.copy(1);
            }
        }
        // Whether what came last stands for many characters, and so cannot begin a range.
        let mut many = false;
        // Where a class has both, the server adds what is beyond Latin-1 to the properties.
        let (mut property, mut negated) = (false, false);
        // The character that a range would begin with.
        let mut begin = None;
        while let Some(next) = self.take() {
            match next {
                ']' => {
                    self.out.push(']');
                    self.item(1);
                    return Ok(());
                }
                '[' if self.rest.starts_with([':', '.', '=']) => {
                    negated |= self.rest.starts_with(":^");
                    self.named_class()?;
                    many = true;
                }
                '\\' => {
                    property |= self.rest.starts_with(['p', 'P']);
                    negated |= self.rest.starts_with(['D', 'W', 'S', 'H', 'V']);
                    many = self.escape_in_class()?;
                }
                '-' if let Some(begin) = begin.take()
                    && self.flags.ignore_case
                    && !self.rest.starts_with(']') =>
                {
                    self.out.push('-');
                    self.range_of_case(begin)?;
                }
                '-' if many && !self.rest.starts_with(']') => {
                    if self.rest.starts_with('-') {
                        return unsupported("a - behind a - in a class");
                    }
                    // It means itself there, which PCRE2 wants to be told.
                    self.out.push_str("\\-");
                    many = false;
                }
                _ => {
                    self.out.push(next);
                    self.known_case(next, next)?;
                    begin = Some(next);
                    many = false;
                    continue;
                }
            }
            begin = None;
            if property && negated {
                return unsupported("a class with both \\p and a negated class");
            }
        }
        Err("a [ has no matching ]".to_owned())
    }

    /// The end of a range, where case is ignored.
    fn range_of_case(&mut self, begin: char) -> Done {
        match self.peek() {
            Some('\\') if ["\\x{", "\\o{"].iter().any(|long| self.rest.starts_with(long)) => {
                unsupported("a range up to \\x{ or \\o{ where case is ignored")
            }
            Some(end) => self.known_case(begin, end.max(begin)),
            None => Ok(()),
        }
    }

    fn named_class(&mut self) -> Done {
        let name = self.rest.strip_prefix(':').and_then(|rest| rest.split_once(":]"));
        let name = name.map(|(name, _)| name.strip_prefix('^').unwrap_or(name));
        if !name.is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())
        }) {
            return unsupported("a [ that begins no named class like [:alpha:], within a class,");
        }
        self.out.push('[');
        self.copy_through("]").map(drop)
    }

    /// Whether it stands for many characters.
    fn escape_in_class(&mut self) -> Result<bool, String> {
        self.out.push('\\');
        let Some(next) = self.take() else { return Err("it ends in a backslash".to_owned()) };
        self.out.push(next);
        match next {
            'Q' => self.quoted()?,
            'E' => {}
            _ => self.character(next)?,
        }
        Ok(matches!(next, 'd' | 'D' | 'w' | 'W' | 's' | 'S' | 'h' | 'H' | 'v' | 'V' | 'p' | 'P'))
    }
}
