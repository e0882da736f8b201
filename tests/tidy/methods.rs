//! Where a type's methods stand: with the type. A type whose methods are spread over many files is entered by reading all
//! of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{check, source, source::Source};

/// Types that read better in several files, and why.
const SPREAD: &[(&str, &str)] = &[
    ("Compactor", "it looks, and it prunes"),
    ("Decimal", "converting it is longer than calculating with it"),
    ("Document", "how it is stored as a row is another matter than the fold"),
    ("Documents", "to read the log on takes a file"),
    ("EventKey", "how it is written stands with the other fields of a new event"),
    ("EventSourced", "its reads need nothing of its writes"),
    ("MongoStore", "each collection of the bookkeeping has a file of its own"),
    ("Observer", "what is told of compaction is another matter than a projection"),
    ("Performance", "each kind of job has a file of its own"),
    ("Quarantine", "it is stored with the row"),
    ("Reader", "each kind of read has a file of its own"),
    ("Run", "how it folds is apart from when it does what"),
    ("State", "the tree, its encoding and its journal are three matters"),
    ("Walk", "each operator of a patch has a file of its own"),
];

/// A type or an inherent `impl` by its name: the word behind `keyword`, generics left out.
fn named<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(keyword)?;
    let rest = match rest.strip_prefix('<') {
        Some(generics) => behind_generics(generics)?,
        None => rest.strip_prefix(' ')?,
    };
    let end = rest.find(|c| !source::is_word(c)).unwrap_or(rest.len());
    Some(&rest[..end]).filter(|name| !name.is_empty())
}

fn behind_generics(text: &str) -> Option<&str> {
    let mut depth = 1;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            // The head of an arrow ends nothing.
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        before = c;
        if depth == 0 {
            return text[at + 1..].strip_prefix(' ');
        }
    }
    None
}

fn findings(files: &[Source]) -> Vec<String> {
    let mut defined: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in files {
        for line in file.code.lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("pub").map_or(line, |rest| {
                let rest = rest
                    .strip_prefix('(')
                    .and_then(|rest| rest.split_once(')'))
                    .map_or(rest, |(_, rest)| rest);
                rest.trim_start()
            });
            if let Some(name) = named(line, "struct").or_else(|| named(line, "enum")) {
                defined.entry(name).or_default().insert(&file.path);
            }
        }
    }
    let mut findings = Vec::new();
    for file in files {
        for (number, line) in
            file.code.lines().enumerate().filter(|(_, line)| !line.contains(" for "))
        {
            let Some(name) = named(line, "impl") else { continue };
            let homes = defined.get(name);
            let is_home = homes.is_none_or(|homes| homes.contains(&*file.path));
            if !is_home && !SPREAD.iter().any(|(spread, _)| *spread == name) {
                findings.push(format!("{}:{}: methods of `{name}`", file.path, number + 1));
            }
        }
    }
    findings
}

#[test]
fn methods_stand_with_their_type() {
    let remedy = "move them there, or give what they need a type of its own";
    check("methods stand with their type", remedy, &findings(&source::rust(&["src"])));
}

#[test]
fn methods_elsewhere_are_found() {
    let file = |path: &str, text: &str| Source::new(path.to_owned(), text.to_owned());
    let files = [
        file("src/a.rs", "pub(super) struct Here<T>(T);\nimpl<T: Fn() -> u8> Here<T> {}\n"),
        file("src/b.rs", "impl<T> Here<T> {}\nimpl<T> Clone for Here<T> {}\nimpl Reader {}\n"),
    ];
    assert_eq!(findings(&files), ["src/b.rs:1: methods of `Here`"]);
}
