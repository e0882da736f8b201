//! The project's rules about its own sources, as tables that a few checks read. Whoever has a good
//! reason to break a rule adds an exception to its table, with the reason.

mod circles;
mod methods;
mod source;

use std::fmt::Write;

use source::Source;

/// Words that must not appear in some files.
struct Words {
    rule: &'static str,
    scopes: &'static [&'static str],
    words: &'static [&'static str],
    /// Whether the rule holds in code that is compiled into tests only.
    in_tests: bool,
    except: &'static [(&'static str, &'static str)],
    remedy: &'static str,
}

const PURE_MODEL: Words = Words {
    rule: "the model is pure",
    scopes: &["src/model"],
    words: &[
        "async",
        "await",
        "tokio",
        "mongodb",
        "axum",
        "fastrand",
        "std::fs",
        "std::net",
        "std::io",
        "std::env",
        "std::process",
        "std::thread",
        "Instant",
        "SystemTime",
        "now()",
    ],
    in_tests: false,
    except: &[],
    remedy: "take it as an argument, or do it in the module that calls the model",
};

const SPAWNING: Words = Words {
    rule: "only the daemon spawns tasks and threads",
    scopes: &["src"],
    words: &[
        "tokio::spawn",
        "task::spawn",
        "spawn_local",
        "JoinSet",
        "TaskTracker",
        "thread::spawn",
    ],
    in_tests: false,
    except: &[
        ("src/daemon", "it owns every task and the order of stopping"),
        ("src/database/ahead.rs", "the reader of a walk ends with the walk"),
        ("src/cli/mod.rs", "a command runs beside the signals that end it, and ends with them"),
    ],
    remedy: "hand a future to the daemon, or join futures in place",
};

const EXITING: Words = Words {
    rule: "only main ends the process",
    scopes: &["src"],
    words: &["process::exit", "process::abort"],
    in_tests: true,
    except: &[("src/main.rs", "the one place that turns an outcome into an exit code")],
    remedy: "return an error, and let main choose the exit code",
};

const PANICKING: Words = Words {
    rule: "no panics outside tests",
    scopes: &["src"],
    words: &[
        ".unwrap()",
        ".expect(",
        "panic!(",
        "todo!(",
        "unimplemented!(",
        "unreachable!(",
        "dbg!(",
    ],
    in_tests: false,
    except: &[],
    remedy: "return a typed error, or write the code so that the case does not exist",
};

const SLEEPING: Words = Words {
    rule: "tests wait on a condition",
    scopes: &["src", "tests"],
    words: &["thread::sleep", "time::sleep", "sleep_until", "sleep_ms"],
    in_tests: true,
    except: &[
        ("tests/common/wait.rs", "the one place that waits, with a deadline"),
        ("src/time.rs", "the machine's clock behind the handed time"),
        ("src/embedded", "waits for a server that starts, where no time is handed"),
        ("src/log/append.rs", "a writer pauses in its user's process, outside any simulation"),
    ],
    remedy: "in tests use `wait_until` of tests/common, elsewhere the `Time` that was handed",
};

const TELLING_TIME: Words = Words {
    rule: "what runs in the simulation takes the time that it is handed",
    scopes: &["src/projector", "src/upkeep", "src/lease", "src/retry"],
    words: &["tokio::time", "Instant::now", "SystemTime::now", "DateTime::now"],
    in_tests: false,
    except: &[],
    remedy: "use the `Time` that was handed",
};

const IGNORING: Words = Words {
    rule: "no test skips itself",
    scopes: &["src", "tests"],
    words: &["#[ignore"],
    in_tests: true,
    except: &[],
    remedy: "a test target that needs other tools says `required-features` in Cargo.toml",
};

const NAMING_THE_LOG: Words = Words {
    rule: "`log` owns every command on a log",
    scopes: &["src"],
    words: &["events_collection"],
    in_tests: false,
    except: &[
        ("src/log", "it builds the commands, and attaches the log's identity to each"),
        ("src/model/names.rs", "it says what a log is called"),
        ("src/setup.rs", "makes the log"),
        ("src/cli/roles.rs", "prints rights on it"),
        ("src/projector", "knows by name what the stream tells of"),
        (
            "src/store/mongo",
            "one transaction writes to the log and to the bookkeeping, and names the log",
        ),
        ("src/bench", "measures the server itself, beside the daemon"),
    ],
    remedy: "open the log, and read it through `NamedLog` or `EventLog`",
};

const UNBOUNDED: Words = Words {
    rule: "every queue is bounded",
    scopes: &["src"],
    words: &["unbounded_channel", "mpsc::unbounded", "UnboundedSender"],
    in_tests: false,
    except: &[],
    remedy: "use a bounded channel, with its limit in the configuration",
};

/// The modules that a module must not name, whatever it may use otherwise.
const DIRECTIONS: &[(&str, &[&str], &str)] = &[
    ("src/log", &["store"], "the log and the store meet in the projector and in upkeep"),
    ("src/store", &["log"], "the log and the store meet in the projector and in upkeep"),
    ("src/database", ABOVE_DATABASE, "it only knows MongoDB"),
    ("src/log", ABOVE_STORAGE, "storage does not know who uses it"),
    ("src/store", ABOVE_STORAGE, "storage does not know who uses it"),
    (
        "src/projector",
        &["api", "cli", "daemon", "embedded"],
        "a loop does not know its surroundings",
    ),
    ("src/upkeep", &["api", "cli", "daemon", "embedded"], "a loop does not know its surroundings"),
    ("src/api", &["cli", "daemon", "embedded"], "the daemon hands the interface what it shows"),
    ("src/daemon", &["cli", "embedded"], "the daemon does not care who started it"),
    (
        "src/writer",
        &["api", "cli", "daemon", "embedded", "projector", "upkeep"],
        "a writer needs no daemon",
    ),
];
const ABOVE_DATABASE: &[&str] =
    &["log", "store", "projector", "upkeep", "api", "cli", "daemon", "embedded", "writer"];
const ABOVE_STORAGE: &[&str] =
    &["projector", "upkeep", "api", "cli", "daemon", "embedded", "writer"];
/// Modules that use nothing else of the crate.
const LEAVES: &[&str] = &["src/model", "src/embedded", "src/time"];

/// The longest file and the longest function, in lines.
const LENGTHS: &[(&str, usize, usize)] =
    &[("src", 400, 70), ("tests", 500, 100), ("examples", 400, 70), ("benches", 400, 70)];

/// Functions that are nothing but a table of cases.
const TABLES: &[(&str, &str)] =
    &[("tests/differential/named.rs", "corners"), ("tests/validator.rs", "bad")];

/// Fails with every finding, one a line, and what to do.
fn check(rule: &str, remedy: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}; {remedy}:\n{}", findings.join("\n"));
}

/// Where a word stands by itself: `Instant` is not in `Instantiate`.
fn positions<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |c: Option<char>| c.is_some_and(source::is_word);
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let starts_clean =
            !is_word(word.chars().next()) || !is_word(code[..*at].chars().next_back());
        let after = code[at + word.len()..].chars().next();
        starts_clean && (!is_word(word.chars().next_back()) || !is_word(after))
    })
}

fn forbidden(words: &Words, files: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        if words.except.iter().any(|(path, _)| source::is_within(&file.path, path)) {
            continue;
        }
        for word in words.words {
            for at in positions(&file.code, word) {
                let line = source::line_of(&file.code, at);
                if words.in_tests || !file.is_test[line - 1] {
                    findings.push(format!("{}:{line}: `{word}`", file.path));
                }
            }
        }
    }
    findings
}

fn check_words(words: &Words) {
    check(words.rule, words.remedy, &forbidden(words, &source::rust(words.scopes)));
}

#[test]
fn the_model_is_pure() {
    check_words(&PURE_MODEL);
}

#[test]
fn only_the_daemon_spawns() {
    check_words(&SPAWNING);
}

#[test]
fn only_main_exits() {
    check_words(&EXITING);
}

#[test]
fn nothing_panics_outside_tests() {
    check_words(&PANICKING);
}

#[test]
fn nobody_sleeps() {
    check_words(&SLEEPING);
}

#[test]
fn the_simulated_code_takes_the_time_it_is_handed() {
    check_words(&TELLING_TIME);
}

#[test]
fn no_test_is_ignored() {
    check_words(&IGNORING);
}

#[test]
fn every_queue_is_bounded() {
    check_words(&UNBOUNDED);
}

#[test]
fn only_the_log_knows_its_collection() {
    check_words(&NAMING_THE_LOG);
}

#[test]
fn nothing_imports_in_a_circle() {
    let findings = circles::circles(&source::rust(&["src"]));
    check("nothing imports in a circle", "move what both need below them", &findings);
}

#[test]
fn modules_depend_in_one_direction() {
    let mut findings = Vec::new();
    for (scope, never, why) in DIRECTIONS {
        for file in source::rust(&[scope]) {
            for (line, name) in file.uses().into_iter().filter(|(_, n)| never.contains(&&**n)) {
                findings.push(format!("{}:{line}: `{name}` ({why})", file.path));
            }
        }
    }
    check("modules depend in one direction", "move the code to where both are known", &findings);
}

#[test]
fn the_leaves_use_nothing_else_of_the_crate() {
    let library = source::rust(&["src/lib.rs"]);
    let declared = |name: &str| library[0].code.contains(&format!("mod {name};"));
    let mut findings = Vec::new();
    for file in source::rust(LEAVES) {
        for (line, name) in file.uses() {
            if declared(&name) && name != file.module() {
                findings.push(format!("{}:{line}: `{name}`", file.path));
            }
        }
    }
    check("a leaf uses nothing else of the crate", "move the code, or what it needs", &findings);
}

#[test]
fn files_and_functions_are_short() {
    let mut findings = Vec::new();
    for (scope, longest_file, longest_function) in LENGTHS {
        for file in source::rust(&[scope]) {
            let lines = file.text.lines().count();
            if lines > *longest_file {
                findings.push(format!("{}:1: {lines} of {longest_file} lines", file.path));
            }
            for (line, name, lines) in file.functions() {
                let is_table =
                    TABLES.iter().any(|(path, table)| file.path == *path && name == *table);
                if lines > *longest_function && !is_table {
                    let path = &file.path;
                    let limit = longest_function;
                    findings.push(format!("{path}:{line}: `{name}` has {lines} of {limit} lines"));
                }
            }
        }
    }
    check("files and functions are short", "split by what changes together", &findings);
}

#[test]
fn every_module_says_why_it_exists() {
    let mut findings = Vec::new();
    for file in source::rust(&["src", "tests", "examples", "benches"]) {
        if !file.text.starts_with("//!") {
            findings.push(format!("{}:1", file.path));
        }
    }
    check("every module begins with `//!`", "say in a paragraph why it exists", &findings);
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let checkout = env!("CARGO_MANIFEST_DIR").to_owned();
    let home = std::env::var("HOME").unwrap_or_default();
    // A home of `/` would be found in every path.
    let places: Vec<String> =
        [checkout, home].into_iter().filter(|place| place.len() > 1).collect();
    let mut findings = Vec::new();
    for file in source::all() {
        for (number, line) in file.text.lines().enumerate() {
            for place in places.iter().filter(|place| line.contains(&format!("{place}/"))) {
                findings.push(format!("{}:{}: `{place}`", file.path, number + 1));
            }
        }
    }
    let remedy = "use a relative path, a setting, or the tool's own default";
    check("no file knows the machine it was written on", remedy, &findings);
}

/// Dashboards, alerts and prose name only metrics that there are; `tests/metrics.rs` compares the
/// catalogue itself with the code.
#[test]
fn every_metric_that_is_named_is_in_the_catalogue() {
    let files = source::all();
    let catalogue = files.iter().find(|file| file.path == "metrics/README.md").unwrap();
    let known = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"].into_iter();
        let whole = parts.fold(name, |name, part| name.strip_suffix(part).unwrap_or(name));
        catalogue.text.contains(&format!("`{name}`"))
            || catalogue.text.contains(&format!("`{whole}`"))
    };
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.path.ends_with(".rs")) {
        for at in positions(&file.text, "alluvium_") {
            let name: String =
                file.text[at..].chars().take_while(|c| source::is_word(*c)).collect();
            // The bare prefix is no name.
            if name != "alluvium_" && !known(&name) {
                let line = source::line_of(&file.text, at);
                findings.push(format!("{}:{line}: `{name}`", file.path));
            }
        }
    }
    let remedy = "correct the name, or add the metric to the code and the catalogue";
    check("only metrics that exist are named", remedy, &findings);
}

/// The checks above would also pass if they saw nothing: one planted offence for each kind.
mod the_checks_can_fail {
    use super::*;

    fn file(path: &str, text: &str) -> Source {
        Source::new(path.to_owned(), text.to_owned())
    }

    #[test]
    fn words_are_found_in_code_only() {
        let text = "//! Not here: x.unwrap()\nfn f() { a(\"x.unwrap()\", 'a', b'\\''); }\n\
                    fn g<'a>(x: &'a X) { x.unwrap() }\n#[cfg(test)]\nmod tests {\n\
                    fn h() { x.unwrap() }\n}\nfn i() { r#\"}\"#.x.unwrap() }\n";
        let found = forbidden(&PANICKING, &[file("src/a.rs", text)]);
        assert_eq!(found, ["src/a.rs:3: `.unwrap()`", "src/a.rs:8: `.unwrap()`"]);
        let model = [file("src/model/a.rs", "fn now_or() { Instantiate; x.now() }")];
        assert_eq!(forbidden(&PURE_MODEL, &model), ["src/model/a.rs:1: `now()`"]);
        assert!(forbidden(&SPAWNING, &[file("src/daemon/x.rs", "tokio::spawn(f)")]).is_empty());
        assert_eq!(forbidden(&SPAWNING, &[file("src/x.rs", "tokio::spawn(f)")]).len(), 1);
        assert_eq!(forbidden(&SLEEPING, &[file("tests/x.rs", "thread::sleep(a)")]).len(), 1);
    }

    #[test]
    fn uses_are_found_in_groups() {
        let text =
            "use crate::{\n    log::{a, store},\n    model,\n};\nfn f() { crate::api::g() }\n";
        let uses = file("src/store/mongo/a.rs", text).uses();
        let named: Vec<_> = uses.iter().map(|(line, name)| (*line, &**name)).collect();
        assert_eq!(named, [(1, "log"), (1, "model"), (5, "api")]);
        let of_root = file("src/store/mod.rs", "use super::log;").uses();
        assert_eq!(of_root, [(1, "log".to_owned())]);
    }

    #[test]
    fn circles_are_found_among_modules_and_among_files() {
        let files = [
            file("src/a/mod.rs", "mod one;\nmod two;\n"),
            file("src/a/one.rs", "use super::{two::{X, Y}, Item};\n"),
            file("src/a/two.rs", "#[cfg(test)]\nmod tests { use super::super::one::Z; }\n"),
            file("src/b.rs", "use crate::a::Item;\nuse crate::{c::D, log};\n"),
            file("src/c/mod.rs", "fn f() { crate::b::g() }\n"),
        ];
        let found = circles::circles(&files);
        assert_eq!(found, ["src: b -> c (src/b.rs:2), c -> b (src/c/mod.rs:1)"]);
        let mut files = files;
        files[2] = file("src/a/two.rs", "fn f() { super::one::g() }\n");
        let expected = "src/a: one -> two (src/a/one.rs:1), two -> one (src/a/two.rs:1)";
        assert_eq!(circles::circles(&files)[1], expected);
    }

    #[test]
    fn functions_are_measured() {
        let mut text = String::from("trait T { fn none(&self); }\nasync fn long(a: [u8; 3]) {\n");
        for _ in 0..10 {
            writeln!(text, "    if a {{ b(\"{{\") }}").unwrap();
        }
        text.push_str("}\nfn short() {}\n");
        let functions = file("src/a.rs", &text).functions();
        let found: Vec<_> =
            functions.iter().map(|(line, n, lines)| (*line, &**n, *lines)).collect();
        assert_eq!(found, [(2, "long", 12), (14, "short", 1)]);
    }
}
