//! What a pattern says, read as far as the two engines read it differently. What only PCRE2 knows, or
//! takes for something else than the server's PCRE does, is refused or written in a way that both
//! understand; everything else is left to PCRE2. On the way it is counted what a match may take.

mod class;
mod escape;
mod group;

use group::Group;

/// The options of a pattern.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    pub(super) ignore_case: bool,
    pub(super) multi_line: bool,
    pub(super) dot_all: bool,
    pub(super) extended: bool,
}

impl Flags {
    /// Reads the letters that stand beside a pattern; nothing when there is one that the server has not.
    pub(super) fn read(options: &[u8]) -> Option<Self> {
        let mut flags = Self::default();
        for option in options {
            match option {
                b'i' => flags.ignore_case = true,
                b'm' => flags.multi_line = true,
                b's' => flags.dot_all = true,
                b'x' => flags.extended = true,
                b'u' => {}
                _ => return None,
            }
        }
        Some(flags)
    }
}

/// A pattern that both engines read alike.
#[derive(Clone, Debug)]
pub(super) struct Syntax {
    /// As PCRE2 is given it.
    pub(super) pattern: String,
    /// The options beside it.
    pub(super) flags: Flags,
    /// Whether case is ignored anywhere in it.
    pub(super) folds: bool,
    /// Whether it asks for the properties of characters.
    pub(super) properties: bool,
    /// The most characters that can be compared between two branches, but for what `unbounded` is about.
    run: usize,
    /// How many groups it has: their ends are copied at every branch.
    groups: usize,
    /// Whether a branch can look through the whole text without being counted: what repeats without
    /// giving back, looks around or refers back.
    unbounded: bool,
    /// Whether it can match at the beginning of a text only.
    anchored: bool,
}

/// What can be compared or copied in about the time of one step.
const STEP_CHARACTERS: usize = 16;

impl Syntax {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What in it cannot be used.
    pub(super) fn read(source: &str, flags: Flags) -> Result<Self, String> {
        let mut rest = source;
        // Said by the pattern what holds anyway.
        while let Some(after) =
            ["(*UTF8)", "(*UTF)", "(*LF)"].iter().find_map(|verb| rest.strip_prefix(verb))
        {
            rest = after;
        }
        let mut reader = Reader {
            rest,
            out: String::with_capacity(rest.len()),
            flags,
            groups: vec![Group::default()],
            seen: Seen::default(),
        };
        reader.seen.note(flags);
        while let Some(next) = reader.take() {
            reader.one(next)?;
        }
        let begins = rest.starts_with('^') || rest.starts_with("\\A");
        let Reader { out, groups, seen, .. } = reader;
        let alternatives = groups.first().is_none_or(|whole| whole.alternatives);
        Ok(Self {
            pattern: out,
            flags,
            folds: seen.ignore_case,
            properties: seen.properties,
            run: groups.iter().fold(0, |run, group| run.saturating_add(group.longest())),
            groups: seen.groups,
            unbounded: seen.unbounded,
            anchored: begins && !alternatives && !seen.multi_line,
        })
    }

    /// The steps of matching a text of so many bytes with so many branches at each place, at most.
    pub(super) fn work(&self, text: usize, branches: usize) -> usize {
        let places = if self.anchored { 1 } else { text + 1 };
        let looked_through = if self.unbounded { text } else { 0 };
        let characters = self.run.saturating_add(self.groups).saturating_add(looked_through);
        let branch = 1 + characters / STEP_CHARACTERS;
        places.saturating_mul(branches).saturating_mul(branch)
    }
}

/// What has come up in a pattern so far.
#[derive(Default)]
struct Seen {
    ignore_case: bool,
    multi_line: bool,
    properties: bool,
    unbounded: bool,
    groups: usize,
}

impl Seen {
    fn note(&mut self, flags: Flags) {
        self.ignore_case |= flags.ignore_case;
        self.multi_line |= flags.multi_line;
    }
}

type Done = Result<(), String>;

fn unsupported(what: &str) -> Done {
    Err(format!("{what} is not supported; write it without"))
}

struct Reader<'s> {
    rest: &'s str,
    out: String,
    flags: Flags,
    /// The groups that are open, the whole pattern first.
    groups: Vec<Group>,
    seen: Seen,
}

/// Deepest nesting of parentheses that the server takes.
const NESTED_MAX: usize = 249;

/// White space that only PCRE2 passes over where option x is on.
const NEW_SPACE: [char; 5] = ['\u{85}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'];

impl<'s> Reader<'s> {
    fn one(&mut self, next: char) -> Done {
        match next {
            '\\' => self.escape(),
            '[' => self.class(),
            '(' if self.groups.len() > NESTED_MAX => {
                Err(format!("it nests parentheses deeper than {NESTED_MAX}"))
            }
            '(' => self.open(),
            ')' => {
                self.out.push(')');
                self.close();
                Ok(())
            }
            '|' => {
                self.out.push('|');
                self.alternative()
            }
            '*' | '+' | '?' => {
                self.out.push(next);
                self.repeated(None)
            }
            '{' => self.brace(),
            '#' if self.flags.extended => {
                self.out.push('#');
                // Without an end it would reach over what the server writes behind the pattern.
                self.copy_through("\n").map(drop)
            }
            ' ' | '\t'..='\r' if self.flags.extended => {
                self.out.push(next);
                Ok(())
            }
            _ if self.flags.extended && NEW_SPACE.contains(&next) => {
                unsupported("white space beyond ASCII where option x is on")
            }
            _ => {
                self.out.push(next);
                self.item(1);
                self.known_case(next, next)
            }
        }
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        Some(next)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Copies what is next, so many bytes of it.
    fn copy(&mut self, bytes: usize) -> &'s str {
        let (copied, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.out.push_str(copied);
        self.rest = rest;
        copied
    }

    /// Copies what is next, with what it begins and ends with. Returns what is between these.
    fn copy_within(&mut self, begin: &str, end: &str) -> Result<&'s str, String> {
        let inner = self.rest.strip_prefix(begin).and_then(|inner| inner.split_once(end));
        let Some((inner, rest)) = inner else { return Err(format!("a {end:?} is missing")) };
        self.out.extend([begin, inner, end]);
        self.rest = rest;
        Ok(inner)
    }

    /// Copies what goes on up to an end, and that.
    fn copy_through(&mut self, end: &str) -> Result<&'s str, String> {
        self.copy_within("", end)
    }

    /// A brace, which repeats what is before it or means itself.
    fn brace(&mut self) -> Done {
        let counts = self.rest.split_once('}').and_then(|(inner, _)| {
            let (least, most) = inner.split_once(',').unwrap_or((inner, inner));
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let is_count = !least.is_empty() && digits(least) && digits(most);
            is_count.then_some((inner.len() + 1, least, least == most))
        });
        let Some((bytes, least, exactly)) = counts else {
            // PCRE2 reads {,3} and { 2 } as counts.
            self.out.push_str("\\{");
            self.item(1);
            return Ok(());
        };
        self.out.push('{');
        self.copy(bytes);
        let least = least.parse().unwrap_or(usize::MAX);
        self.repeated(Some((least, exactly)))
    }

    /// The last item is repeated: as often as is said, or any number of times.
    fn repeated(&mut self, count: Option<(usize, bool)>) -> Done {
        if self.is_behind() && count.is_none_or(|(least, exactly)| !exactly || least == 0) {
            return unsupported("looking behind at what has no fixed length");
        }
        if let Some((least, _)) = count {
            self.group().repeat(least);
        }
        match self.peek() {
            Some('+') => {
                self.seen.unbounded = true;
                self.copy(1);
            }
            Some('?') => {
                self.copy(1);
            }
            _ => {}
        }
        Ok(())
    }
}
