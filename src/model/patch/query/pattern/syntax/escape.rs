//! What begins with a backslash.

use super::{Done, Reader, unsupported};
use crate::model::patch::query::pattern::characters::has_unknown_case;

/// The properties that both engines know by the same name. Scripts are not among them: PCRE2 counts
/// characters to more than one.
const PROPERTIES: [&str; 42] = [
    "C", "Cc", "Cf", "Cn", "Co", "Cs", "L", "L&", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me",
    "Mn", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk",
    "Sm", "So", "Z", "Zl", "Zp", "Zs", "Any", "Xan", "Xps", "Xsp",
];

impl Reader<'_> {
    /// An escape outside a class.
    pub(super) fn escape(&mut self) -> Done {
        self.out.push('\\');
        let Some(next) = self.take() else { return Err("it ends in a backslash".to_owned()) };
        self.out.push(next);
        match next {
            'Q' => self.quoted(),
            'E' => Ok(()),
            'X' | 'C' | 'R' => unsupported(&format!("\\{next}")),
            'g' | 'k' => self.group_reference(next),
            '1'..='9' => self.refers_back(),
            'N' if self.peek() == Some('{') => unsupported("\\N{"),
            _ => {
                self.character(next)?;
                self.item(1);
                Ok(())
            }
        }
    }

    /// What follows the letter of an escape that stands for one character, or for a set of them.
    pub(super) fn character(&mut self, letter: char) -> Done {
        match letter {
            'p' | 'P' => self.property(),
            // Whatever follows belongs to it.
            'c' => {
                if let Some(next) = self.take() {
                    self.out.push(next);
                }
                Ok(())
            }
            'x' | 'o' if self.peek() == Some('{') => {
                let number = self.copy_within("{", "}")?;
                let radix = if letter == 'x' { 16 } else { 8 };
                match u32::from_str_radix(number, radix).ok().and_then(char::from_u32) {
                    Some(character) if !number.starts_with('+') => {
                        self.known_case(character, character)
                    }
                    _ => unsupported(&format!("\\{letter}{{ without the number of a character")),
                }
            }
            _ => Ok(()),
        }
    }

    /// Refuses characters of which the server does not know the case, where case is ignored.
    pub(super) fn known_case(&self, first: char, last: char) -> Done {
        if self.flags.ignore_case && has_unknown_case(first, last) {
            return unsupported("ignoring the case of a character that MongoDB 6.0 does not know");
        }
        Ok(())
    }

    /// What is quoted means itself, up to `\E`.
    pub(super) fn quoted(&mut self) -> Done {
        for character in self.copy_through("\\E")?.chars() {
            self.known_case(character, character)?;
            self.item(1);
        }
        Ok(())
    }

    fn property(&mut self) -> Done {
        self.seen.properties = true;
        let name = match self.peek() {
            Some('{') => {
                let name = self.copy_within("{", "}")?;
                name.strip_prefix('^').unwrap_or(name)
            }
            Some(letter) if letter.is_ascii() => self.copy(1),
            _ => "",
        };
        if self.flags.ignore_case && ["Lu", "Ll", "Lt"].contains(&name) {
            return unsupported("\\p{Lu}, \\p{Ll} or \\p{Lt} where case is ignored");
        }
        if PROPERTIES.contains(&name) {
            return Ok(());
        }
        unsupported("\\p with a script, or another name than those of general categories,")
    }

    /// `\g` and `\k`, which mean what a group has matched. `\g<name>` calls the group anew, and that is
    /// where the engines differ.
    fn group_reference(&mut self, letter: char) -> Done {
        let named = match (letter, self.peek()) {
            (_, Some('{')) => self.copy_within("{", "}")?,
            ('k', Some('<')) => self.copy_within("<", ">")?,
            ('k', Some('\'')) => self.copy_within("'", "'")?,
            ('g', Some('0'..='9' | '-')) => "",
            _ => return unsupported("\\g and \\k, but for \\g{1}, \\g1 and \\k<name>,"),
        };
        if named.contains([' ', '\t', '+']) {
            return unsupported("a reference with spaces or + in it");
        }
        self.refers_back()
    }
}
