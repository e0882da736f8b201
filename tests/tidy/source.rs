//! Reads the project's files, and blanks what is not code so that rules can look for plain words.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of the project.
pub(super) struct Source {
    /// Relative to the project's folder, with `/`.
    pub(super) path: String,
    /// As it is.
    pub(super) text: String,
    /// The same length in lines, with comments and literals blanked (Rust files only).
    pub(super) code: String,
    /// For each line, whether it is compiled into tests only.
    pub(super) is_test: Vec<bool>,
}

/// Every text file of the project in the order of their paths, without what tools leave there.
pub(super) fn all() -> Vec<Source> {
    let mut paths = Vec::new();
    walk(Path::new(env!("CARGO_MANIFEST_DIR")), &mut paths);
    paths.sort();
    paths.iter().filter_map(|path| Source::read(path)).collect()
}

/// The Rust files under any of these folders (or with these names).
pub(super) fn rust(scopes: &[&str]) -> Vec<Source> {
    let within = |path: &str| scopes.iter().any(|scope| is_within(path, scope));
    all().into_iter().filter(|file| file.path.ends_with(".rs") && within(&file.path)).collect()
}

/// `src/log` holds `src/log/mod.rs` and also `src/log.rs`.
pub(super) fn is_within(path: &str, scope: &str) -> bool {
    path == scope
        || path.strip_prefix(scope).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_foreign = name.starts_with('.') && name != ".ci" || name == "target";
        if path.is_dir() && !is_foreign {
            walk(&path, paths);
        } else if path.is_file() && name != ".git" {
            paths.push(path);
        }
    }
}

impl Source {
    fn read(path: &Path) -> Option<Source> {
        // What is not UTF-8 is not text.
        let text = String::from_utf8(fs::read(path).unwrap()).ok()?;
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = path.to_string_lossy().replace('\\', "/");
        Some(Source::new(path, text))
    }

    /// A file that need not exist.
    pub(super) fn new(path: String, text: String) -> Source {
        let code = if path.ends_with(".rs") { blank(&text) } else { text.clone() };
        let is_test = test_lines(&path, &code);
        Source { path, text, code, is_test }
    }

    /// The name of this file's module right under the crate's root.
    pub(super) fn module(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or_default();
        path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// The modules right under the crate's root that this file names, each with its line.
    pub(super) fn uses(&self) -> Vec<(usize, String)> {
        let is_root = self.path.ends_with("/mod.rs") && self.path.matches('/').count() == 2
            || self.path.matches('/').count() == 1;
        let roots: &[&str] = if is_root { &["crate::", "super::"] } else { &["crate::"] };
        let mut uses = Vec::new();
        for root in roots {
            for (start, _) in self.code.match_indices(root) {
                for name in first_names(&self.code[start + root.len()..]) {
                    uses.push((line_of(&self.code, start), name));
                }
            }
        }
        uses
    }

    /// Every function: its first line, its name and how many lines it has.
    pub(super) fn functions(&self) -> Vec<(usize, String, usize)> {
        let mut functions = Vec::new();
        for (start, _) in self.code.match_indices("fn ") {
            let before = self.code[..start].chars().next_back();
            let rest = &self.code[start + 3..];
            let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
            if name.is_empty() || before.is_some_and(is_word) {
                continue;
            }
            if let Some(end) = end_of_item(rest).filter(|end| rest.as_bytes()[*end] == b'}') {
                let lines = rest[..end].matches('\n').count() + 1;
                functions.push((line_of(&self.code, start), name, lines));
            }
        }
        functions
    }
}

/// The line, from 1, of a byte position.
pub(super) fn line_of(text: &str, position: usize) -> usize {
    text[..position].matches('\n').count() + 1
}

/// Whether this character can be part of a name.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `a::b` names `a`; `{a::b, c}` names `a` and `c`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| is_word(*c)).collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut names = vec![name(group)];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(name(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    // Behind a last comma there is none.
    names.retain(|name| !name.is_empty());
    names
}

/// Where the item that begins here ends: its closing brace, or its semicolon.
fn end_of_item(code: &str) -> Option<usize> {
    let (mut braces, mut others) = (0, 0);
    for (at, c) in code.char_indices() {
        match c {
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at),
            '}' => braces -= 1,
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            ';' if braces == 0 && others == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn test_lines(path: &str, code: &str) -> Vec<bool> {
    let is_test_file = path.starts_with("tests/") || path.ends_with("/tests.rs");
    let mut lines = vec![is_test_file; code.lines().count()];
    let mark = "#[cfg(test)]";
    for (start, _) in code.match_indices(mark) {
        let after = start + mark.len();
        let length = end_of_item(&code[after..]).unwrap_or(code.len() - after - 1);
        let (first, last) = (line_of(code, start), line_of(code, after + length));
        lines[first - 1..last.min(code.lines().count())].fill(true);
    }
    lines
}

/// Replaces comments and the contents of literals by spaces, and keeps every line break.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (kept, blanked) = token(rest, code.chars().next_back());
        let (shown, length) = (&rest[..kept], kept + blanked);
        code.push_str(shown);
        code.extend(rest[kept..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[length.max(c.len_utf8())..];
    }
    code
}

/// How many bytes of code are next, and how many after them to blank.
fn token(rest: &str, before: Option<char>) -> (usize, usize) {
    let first = rest.chars().next().map_or(0, char::len_utf8);
    if rest.starts_with("//") {
        return (0, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (0, rest.find("*/").map_or(rest.len(), |end| end + 2));
    }
    if rest.starts_with('"') {
        return (0, end_of_string(rest, '"'));
    }
    if rest.starts_with('r') && !before.is_some_and(|c| is_word(c) && c != 'b') {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            return (0, rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()));
        }
    }
    if let Some(after) = rest.strip_prefix('\'') {
        // A lifetime has no second quote right behind its first character.
        let length = after.chars().next().map_or(0, char::len_utf8);
        if after.starts_with('\\') || after[length..].starts_with('\'') {
            return (0, end_of_string(rest, '\''));
        }
    }
    (first, 0)
}

fn end_of_string(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}
