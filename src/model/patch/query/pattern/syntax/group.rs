//! Groups, and whatever else begins with a parenthesis.

use super::{Done, Flags, Reader, unsupported};

/// A group that is open.
#[derive(Default)]
pub(super) struct Group {
    /// The flags to go back to at its end.
    outer: Flags,
    /// Whether it looks behind.
    behind: bool,
    /// Whether it has more than one alternative.
    pub(super) alternatives: bool,
    /// What is compared in the present alternative, in characters.
    run: usize,
    /// The same of the longest alternative before it.
    before: usize,
    /// The same of the last item.
    last: usize,
}

impl Group {
    /// What is compared in the longest alternative.
    pub(super) fn longest(&self) -> usize {
        self.run.max(self.before)
    }

    fn add(&mut self, characters: usize) {
        self.last = characters;
        self.run = self.run.saturating_add(characters);
    }

    /// The last item is there so many times.
    pub(super) fn repeat(&mut self, times: usize) {
        let more = self.last.saturating_mul(times.saturating_sub(1));
        self.run = self.run.saturating_add(more);
    }
}

/// The names of groups that both engines take.
fn is_name(name: &str) -> bool {
    name.len() <= 32
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Reader<'_> {
    /// The innermost group.
    pub(super) fn group(&mut self) -> &mut Group {
        if self.groups.is_empty() {
            self.groups.push(Group::default());
        }
        let innermost = self.groups.len() - 1;
        &mut self.groups[innermost]
    }

    /// Something that compares so many characters.
    pub(super) fn item(&mut self, characters: usize) {
        self.group().add(characters);
    }

    /// Whether this looks behind.
    pub(super) fn is_behind(&self) -> bool {
        self.groups.iter().any(|group| group.behind)
    }

    pub(super) fn alternative(&mut self) -> Done {
        if self.is_behind() && !self.group().behind {
            return unsupported("looking behind at what has no fixed length");
        }
        let group = self.group();
        group.before = group.longest();
        group.run = 0;
        group.alternatives = true;
        Ok(())
    }

    pub(super) fn close(&mut self) {
        // One too many is left to PCRE2.
        if self.groups.len() > 1
            && let Some(group) = self.groups.pop()
        {
            self.flags = group.outer;
            self.item(group.longest());
        }
    }

    fn begin(&mut self, behind: bool) {
        self.seen.groups += 1;
        let outer = self.flags;
        self.groups.push(Group { outer, behind, ..Group::default() });
    }

    pub(super) fn open(&mut self) -> Done {
        self.out.push('(');
        if self.rest.starts_with('*') {
            return self.verb();
        }
        if !self.rest.starts_with('?') {
            self.begin(false);
            return Ok(());
        }
        self.copy(1);
        const LOOKING: [&str; 5] = [">", "=", "!", "<=", "<!"];
        if let Some(kind) = LOOKING.iter().find(|kind| self.rest.starts_with(**kind)) {
            self.copy(kind.len());
            self.seen.unbounded = true;
            self.begin(kind.starts_with('<'));
            return Ok(());
        }
        match self.peek() {
            Some(':' | '|') => {
                self.copy(1);
                self.begin(false);
                Ok(())
            }
            Some('#') => self.copy_through(")").map(drop),
            Some('C') => self.callout(),
            Some('<') => self.named("<", ">"),
            Some('\'') => self.named("'", "'"),
            Some('P') if self.rest.starts_with("P<") => self.named("P<", ">"),
            Some('P') if self.rest.starts_with("P=") => {
                self.refers_back()?;
                self.copy_through(")").map(drop)
            }
            Some('(') => self.condition(),
            _ => self.options(),
        }
    }

    fn verb(&mut self) -> Done {
        match ["*FAIL)", "*F)"].iter().find(|verb| self.rest.starts_with(**verb)) {
            Some(verb) => {
                self.copy(verb.len());
                Ok(())
            }
            None => unsupported("what is written as (*…), but for (*FAIL),"),
        }
    }

    /// A call of the program that matches, which has none: it does nothing.
    fn callout(&mut self) -> Done {
        let number = self.copy_within("C", ")")?;
        if number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(());
        }
        unsupported("(?C with anything but a number")
    }

    fn named(&mut self, begin: &str, end: &str) -> Done {
        let name = self.copy_within(begin, end)?;
        if !is_name(name) {
            return unsupported("a name of a group that is not 1 to 32 of A-Z, a-z, 0-9 and _");
        }
        self.begin(false);
        Ok(())
    }

    /// Something means what a group has matched.
    pub(super) fn refers_back(&mut self) -> Done {
        if self.is_behind() {
            return unsupported("looking behind at what has no fixed length");
        }
        self.seen.unbounded = true;
        self.item(1);
        Ok(())
    }

    fn condition(&mut self) -> Done {
        if self.rest.starts_with("(?") {
            // The condition is a group of its own, which comes next.
            self.begin(false);
            return Ok(());
        }
        let number = self.copy_within("(", ")")?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return unsupported("a condition other than (?(1) or a look around");
        }
        self.begin(false);
        Ok(())
    }

    /// `(?i)` or `(?i:`.
    fn options(&mut self) -> Done {
        let mut flags = self.flags;
        let mut on = true;
        let mut extended = false;
        while let Some(letter) = self.take() {
            self.out.push(letter);
            match letter {
                'i' => flags.ignore_case = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_all = on,
                'x' if !extended => (flags.extended, extended) = (on, true),
                'U' => {}
                '-' if on => on = false,
                ')' => {
                    self.flags = flags;
                    self.seen.note(flags);
                    return Ok(());
                }
                ':' => {
                    self.begin(false);
                    self.flags = flags;
                    self.seen.note(flags);
                    return Ok(());
                }
                _ => break,
            }
        }
        unsupported("a group that begins with (? and goes on like this")
    }
}
