//! Random regular expressions: whatever is accepted here means the same to the server. Some grow out of
//! syntax, others are known ones with a character more, less or elsewhere.

use bson::{Document, doc};
use fastrand::Rng;

use crate::generate::{Case, chance, pick};
use crate::sides::{self, Outcome, Server};
use crate::{BATCH, setting, shown};

/// Texts that patterns are tried on, beside random ones.
const TEXTS: [&str; 44] = [
    "", "\n", "a", "a\n", "a\n\n", "\na", "a\nb", "a\nb\n", "b", "ab", "aa", "aab", "abab", "a b",
    "a-b", "-", "[", "]", "^", "`", "Z", "A", ".", "_", "a_b", "é", "É", "x\ny", "a\r\n", "\r",
    "#", "a#b", "{", "a{,3}", "a{2", "1", "0", "a\u{0}b", "\u{b}", "\u{212a}", "ſ", "日本", "a日",
    "😀",
];

const ATOMS: [&str; 60] = [
    "a",
    "b",
    "c",
    "-",
    " ",
    ",",
    "é",
    "日",
    "]",
    "}",
    "{",
    "#",
    "\n",
    "\t",
    ".",
    "^",
    "$",
    "\\A",
    "\\z",
    "\\Z",
    "\\b",
    "\\B",
    "\\G",
    "\\d",
    "\\D",
    "\\w",
    "\\W",
    "\\s",
    "\\S",
    "\\h",
    "\\H",
    "\\v",
    "\\V",
    "\\R",
    "\\N",
    "\\K",
    "\\n",
    "\\r",
    "\\t",
    "\\a",
    "\\e",
    "\\f",
    "\\0",
    "\\07",
    "\\x41",
    "\\x{61}",
    "\\x",
    "\\o{101}",
    "\\cA",
    "\\c[",
    "\\1",
    "\\2",
    "\\g1",
    "\\g{-1}",
    "\\k<n>",
    "\\p{L}",
    "\\pN",
    "\\P{^Lu}",
    "\\Qa.b\\E",
    "\\101",
];

const QUANTIFIERS: [&str; 20] = [
    "*", "+", "?", "*?", "+?", "??", "*+", "++", "?+", "{2}", "{1,2}", "{0}", "{0,1}?", "{1,}",
    "{,2}", "{ 1}", "{1,2", "{}", "{2}+", " +",
];

const OPENINGS: [&str; 26] = [
    "(", "(", "(", "(?:", "(?:", "(?>", "(?=", "(?!", "(?<=", "(?<!", "(?<n>", "(?P<n>", "(?'n'",
    "(?|", "(?i:", "(?x:", "(?s-i:", "(?(1)", "(?m)", "(?i)", "(?x)", "(?-i)", "(?#c", "(?(?=a)",
    "(?U)", "( ?",
];

const IN_CLASSES: [&str; 40] = [
    "a",
    "b",
    "z",
    "A",
    "-",
    "-",
    "-",
    "]",
    "[",
    "^",
    "\\",
    " ",
    "#",
    "&&",
    "~~",
    "é",
    "日",
    "\\d",
    "\\w",
    "\\W",
    "\\s",
    "\\h",
    "\\v",
    "\\b",
    "\\]",
    "\\-",
    "\\x41",
    "\\x{e9}",
    "\\n",
    "\\Q-\\E",
    "[:alpha:]",
    "[:^space:]",
    "[:punct:]",
    "[:word:]",
    "[:x",
    "[.a.]",
    "\\p{Lu}",
    "\\07",
    "0-9",
    "a-c",
];

/// Whole patterns to begin with, beside those of the cases.
const PATTERNS: [&str; 30] = [
    "^(a|b)*$",
    "(a+)+b",
    "a(?=b)",
    "(?<=a)b",
    "(?<!a)b",
    "(.)\\1",
    "a++b",
    "[[:alpha:]]",
    "a$\\n",
    "\\bab\\b",
    "(*FAIL)",
    "(*ACCEPT)a",
    "a(*F)|b",
    "(?:a|ab)(?:c|b)",
    "^[^\\]]+$",
    "(?<n>a)\\k<n>",
    "(?P<n>a)(?P=n)",
    "((a)|b)*\\2",
    "(a)?b\\1",
    "(?i)k",
    "\\Qa",
    "(a)(?(1)b|c)",
    "(?C1)a",
    "(?>a|ab)c",
    "(?=(a))\\1b",
    "a{1,2}{2}",
    "(?:a?)*b",
    "(a*)*b",
    "(a|)+c",
    "(?s).",
];

fn one(rng: &mut Rng, from: &[&'static str]) -> &'static str {
    pick::<&'static str>(rng, from)
}

fn grown(rng: &mut Rng, depth: usize) -> String {
    let mut pattern = String::new();
    for at in 0..rng.usize(1..4) {
        if at > 0 && chance(rng, 20) {
            pattern.push('|');
        }
        match rng.u8(..10) {
            0..2 if depth > 0 => {
                pattern.push_str(one(rng, &OPENINGS));
                pattern.push_str(&grown(rng, depth - 1));
                pattern.push(')');
            }
            2 => {
                pattern.push_str(one(rng, &["[", "[^"]));
                (0..rng.usize(..4)).for_each(|_| pattern.push_str(one(rng, &IN_CLASSES)));
                pattern.push(']');
            }
            3..7 => pattern.push_str(one(rng, &["a", "b", "ab", ".", "a b"])),
            _ => pattern.push_str(one(rng, &ATOMS)),
        }
        if chance(rng, 35) {
            pattern.push_str(one(rng, &QUANTIFIERS));
        }
    }
    pattern
}

fn changed(rng: &mut Rng, known: &[String]) -> String {
    let mut characters: Vec<char> = pick(rng, known).chars().collect();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..=characters.len());
        let other: Vec<char> = pick(rng, known).chars().collect();
        match rng.u8(..4) {
            0 if at < characters.len() => drop(characters.remove(at)),
            1 if !other.is_empty() => characters.insert(at, *pick(rng, &other)),
            2 => {
                let part = rng.usize(..=other.len());
                characters.splice(at..at, other[..part].iter().copied());
            }
            _ => characters.insert(
                at,
                *pick(rng, &['(', ')', '?', '*', '+', '{', '}', '\\', '[', ']', '|', '#', ' ']),
            ),
        }
    }
    characters.into_iter().filter(|character| *character != '\0').take(60).collect()
}

fn case(seed: u64, known: &[String]) -> Case {
    let mut rng = Rng::with_seed(seed);
    let pattern = if rng.bool() { grown(&mut rng, 3) } else { changed(&mut rng, known) };
    let options = *pick(&mut rng, &["", "", "i", "m", "s", "x", "im", "ix", "ms"]);
    let random = (0..20).map(|_| {
        (0..rng.usize(..8))
            .map(|_| *pick(&mut rng, &['a', 'b', 'a', 'b', 'A', ' ', '\n', 'c', '1']))
            .collect()
    });
    let texts: Vec<String> = random.collect();
    let texts: Vec<String> = TEXTS.iter().map(|text| (*text).to_owned()).chain(texts).collect();
    let patch = doc! {"$pull": {"a": {"$regex": pattern, "$options": options}}};
    Case { state: doc! {"a": texts}, patch, filters: Vec::new() }
}

fn pattern(case: &Case) -> &Document {
    case.patch.get_document("$pull").and_then(|pull| pull.get_document("a")).unwrap()
}

#[tokio::test]
async fn patterns_mean_what_the_server_means_or_are_refused() {
    let known: Vec<String> =
        crate::cases::patterns().chain(PATTERNS.iter().map(|&known| known.to_owned())).collect();
    let mut server = Server::start().await;
    let first = setting("ALLUVIUM_SEED", 1);
    let count = setting("ALLUVIUM_PATTERNS", 600);
    let seeds: Vec<u64> = (first..first + count).collect();
    let (mut equal, mut both_refuse, mut refused) = (0, 0, 0);
    let mut wrong = Vec::new();
    for seeds in seeds.chunks(BATCH) {
        let cases: Vec<Case> = seeds.iter().map(|seed| case(*seed, &known)).collect();
        for (case, theirs) in cases.iter().zip(server.outcomes(&cases).await) {
            let ours = sides::ours(case);
            match (&ours, &theirs) {
                (Outcome::Refused(_), Outcome::Refused(_)) => both_refuse += 1,
                (Outcome::Refused(reason), _) => {
                    refused += 1;
                    if setting("ALLUVIUM_SHOW", 0) == 1 {
                        println!(
                            "{}",
                            reason.rsplit("cannot be used: ").next().unwrap_or_default()
                        );
                    }
                }
                _ if ours.agrees(&theirs) => equal += 1,
                _ => wrong.push(format!(
                    "{}\n  ours   {}\n  theirs {}",
                    pattern(case),
                    shown(&ours),
                    shown(&theirs)
                )),
            }
        }
    }
    let told = format!("{equal} equal, {both_refuse} refused by both, {refused} here only");
    println!("{told}");
    assert!(wrong.is_empty(), "{told}, {} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(equal * 2 > count, "too few patterns are compared: {told}");
}
