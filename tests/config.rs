//! Configurations, good and bad: every mistake is reported at once, by its key, with what to do.

use std::{ffi::OsString, io::Write, os::unix::ffi::OsStringExt, path::Path, time::Duration};

use alluvium::config::{
    CollectionConfig, Config, ConfigError, DaemonConfig, Expect, HttpConfig, Sources, load,
};

const GOOD: &str = r#"
[mongodb]
uri = "mongodb://localhost/"
database = "game"
[[collections]]
name = "games"
"#;

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let sources = Sources { file: Some(file.path().to_owned()), environment, ..Sources::default() };
    load(&sources, Expect::Collections)
}

/// Reads a configuration that must give exactly these problems: their keys, and a part of each message.
#[track_caller]
fn check(text: &str, environment: &[(&str, &str)], expected: &[(&str, &str)]) {
    let error = read(text, environment).unwrap_err();
    let found: Vec<&str> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
    let keys: Vec<&str> = expected.iter().map(|(key, _)| *key).collect();
    assert_eq!(found, keys, "{error}");
    for (problem, (key, part)) in error.problems.iter().zip(expected) {
        assert!(problem.message.contains(part), "{key}: `{}` lacks `{part}`", problem.message);
    }
}

#[test]
fn without_a_file_it_is_told_that_none_was_named() {
    let error = load(&Sources::default(), Expect::Connection).unwrap_err().to_string();
    for part in ["mongodb.uri: is missing", "--config: names no file, and none is looked for"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let sources = Sources {
        file: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alluvium.toml")),
        ..Sources::default()
    };
    let Config { mongodb, http, daemon, collections } =
        load(&sources, Expect::Collections).unwrap();
    assert_eq!(mongodb.uri.to_string(), "mongodb://localhost:27017/?replicaSet=rs0");
    assert_eq!(http, HttpConfig::default());
    assert_eq!(daemon, DaemonConfig::default());
    assert_eq!(collections, [CollectionConfig::new("games")]);

    let text = std::fs::read_to_string(sources.file.unwrap()).unwrap();
    let listed = format!("{http:?}{daemon:?}{:?}{mongodb:?}", collections[0]);
    let keys = listed.split([' ', '{', '(']).filter_map(|word| word.strip_suffix(':'));
    for key in keys {
        let is_there = text.contains(&format!("\n{key} = "))
            || text.contains(&format!("\n# {key} = "))
            || text.contains(&format!("\n[collections.{key}]\n"));
        assert!(is_there, "the example lacks {key}");
    }
}

#[test]
fn every_mistake_is_reported_at_once_with_its_key() {
    check(
        r#"
        colour = "red"
        [mongodb]
        uri = "http://localhost"
        database = "a b"
        hosts = []
        [http]
        listen = "0.0.0.0:8750"
        connections_max = 3
        tokens_file = 5
        metrics_token = "perhaps"
        [daemon]
        instance = "two words"
        checkpoint_interval = 5
        shutdown_timeout = "2h"
        liveness_limit = "5s"
        max_ready_lag = 30
        [[collections]]
        name = "games.events"
        flush_interval = "soon"
        cache_bytes = "64"
        max_event_bytes = "16MiB"
        max_clients = "many"
        [collections.snapshots]
        every_events = -1
        every = "10ms"
        keep = 0
        kept = 3
        [[collections]]
        flush = "1s"
        [collections.compaction]
        every = "10ms"
        archive = "ftp://bucket"
        "#,
        &[],
        &[
            ("colour", "is unknown; the keys here are mongodb, http, daemon, collections"),
            ("mongodb.uri", "must be a MongoDB connection string"),
            ("mongodb.database", "is no name of a database"),
            ("mongodb.hosts", "is unknown; the keys here are uri_file, uri, database"),
            ("http.tokens_file", "must be text, not 5"),
            ("http.metrics_token", "must be true or false"),
            ("http.listen", "listen on a loopback address"),
            ("http.connections_max", "must be from 8 to 100000, not 3"),
            ("daemon.instance", "and underscores, not \"two words\""),
            ("daemon.checkpoint_interval", "must be a duration with its unit"),
            ("daemon.shutdown_timeout", "must be from \"1s\" to \"10m\", not \"2h\""),
            ("daemon.max_ready_lag", "must be a duration with its unit"),
            ("daemon.liveness_limit", "must be from \"1m\" to \"1h\", not \"5s\""),
            ("collections[0].name", "give the name without `.events`"),
            ("collections[0].flush_interval", "must be a duration with its unit"),
            ("collections[0].cache_bytes", "must be a size with its unit"),
            ("collections[0].max_event_bytes", "to \"15 MiB\", not \"16 MiB\""),
            ("collections[0].max_clients", "must be a whole number"),
            ("collections[0].snapshots.every_events", "must be a whole number"),
            ("collections[0].snapshots.every", "must be at least \"1s\""),
            ("collections[0].snapshots.keep", "must be from 1 to 10000, not 0"),
            ("collections[0].snapshots.kept", "the keys here are every_events, every, keep"),
            ("collections[1].name", "is missing"),
            ("collections[1].compaction.every", "must be at least \"1s\""),
            (
                "collections[1].compaction.archive",
                "or \"s3://bucket/prefix\", not a text of 12 bytes",
            ),
            ("collections[1].flush", "is unknown"),
        ],
    );
}

#[test]
fn what_must_be_there_is_asked_for() {
    check(
        "",
        &[],
        &[
            ("collections", "add a table [[collections]]"),
            ("mongodb.uri", "ALLUVIUM_MONGODB__URI"),
            ("mongodb.database", "--database"),
        ],
    );
}

#[test]
fn collections_are_told_apart_and_from_the_bookkeeping() {
    let twice = format!("{GOOD}[[collections]]\nname = \"games\"");
    check(&twice, &[], &[("collections[1].name", "is there twice")]);
    for (name, part) in [
        ("games.snapshots", "without `.snapshots`"),
        ("alluvium", "kept for bookkeeping"),
        ("alluvium_games", "kept for bookkeeping"),
        ("system.games", "belongs to MongoDB itself"),
        ("ga$mes", "is no name of a collection"),
        ("", "needs a name"),
    ] {
        check(&GOOD.replace("games", name), &[], &[("collections[0].name", part)]);
    }
}

#[test]
fn tables_and_values_are_not_confused() {
    check(
        "mongodb = 5\nhttp = \"x\"\ncollections = [1]",
        &[],
        &[
            ("mongodb", "must be a table, written as [mongodb]"),
            ("http", "must be a table"),
            ("collections", "each written as [[collections]]"),
            ("collections", "there is none"),
            ("mongodb.uri", "is missing"),
            ("mongodb.database", "is missing"),
        ],
    );
}

#[test]
fn the_connection_string_may_stand_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("uri");
    let name = path.to_str().unwrap();
    let in_file = GOOD.replace("uri = \"mongodb://localhost/\"", &format!("uri_file = {name:?}"));
    check(&in_file, &[], &[("mongodb.uri_file", "write the connection string into it")]);
    std::fs::write(&path, " \n").unwrap();
    check(&in_file, &[], &[("mongodb.uri_file", "is empty; write the connection string into it")]);
    std::fs::write(&path, "hunter2").unwrap();
    let error = read(&in_file, &[]).unwrap_err().to_string();
    assert!(error.contains("must be a MongoDB connection string"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    std::fs::write(&path, "mongodb://u:hunter2@file/\n").unwrap();
    let uri = |text: &str, environment: &[(&str, &str)]| {
        read(text, environment).unwrap().mongodb.uri.reveal().to_owned()
    };
    assert_eq!(uri(&in_file, &[]), "mongodb://u:hunter2@file/");
    let (direct, indirect) = ("ALLUVIUM_MONGODB__URI", "ALLUVIUM_MONGODB__URI_FILE");
    // Of two sources the stronger one, whichever of the keys it has.
    assert_eq!(uri(&in_file, &[(direct, "mongodb://variable/")]), "mongodb://variable/");
    assert_eq!(uri(GOOD, &[(indirect, name)]), "mongodb://u:hunter2@file/");
    let sources = Sources {
        environment: vec![(indirect.into(), name.into())],
        uri: Some("mongodb://flag/".into()),
        database: Some("game".into()),
        ..Sources::default()
    };
    let config = load(&sources, Expect::Connection).unwrap();
    assert_eq!(config.mongodb.uri.reveal(), "mongodb://flag/");
    // Of one source there is no saying which.
    let twice = GOOD.replace("[mongodb]\n", &format!("[mongodb]\nuri_file = {name:?}\n"));
    check(&twice, &[], &[("mongodb.uri_file", "remove one of them")]);
    let both = [(direct, "mongodb://variable/"), (indirect, name)];
    check(GOOD, &both, &[("mongodb.uri_file", "remove one of them")]);
}

#[test]
fn an_environment_variable_wins_over_the_file_and_the_command_line_over_both() {
    let environment = [
        ("ALLUVIUM_MONGODB__URI", "mongodb://elsewhere/"),
        ("ALLUVIUM_MONGODB__DATABASE", "other"),
        ("ALLUVIUM_HTTP__LISTEN", "[::1]:1"),
        ("ALLUVIUM_DAEMON__CHECKPOINT_INTERVAL", "5s"),
        ("ALLUVIUM_DAEMON__SHUTDOWN_TIMEOUT", "5s"),
    ];
    let config = read(GOOD, &environment).unwrap();
    assert_eq!(config.mongodb.uri.reveal(), "mongodb://elsewhere/");
    assert_eq!(config.mongodb.database, "other");
    assert_eq!(config.http.listen.to_string(), "[::1]:1");
    assert_eq!(config.daemon.checkpoint_interval, Duration::from_secs(5));
    assert_eq!(config.daemon.shutdown_timeout, Duration::from_secs(5));

    let environment = environment.map(|(name, value)| (name.into(), value.into()));
    let sources = Sources {
        file: None,
        environment: environment.to_vec(),
        uri: Some("mongodb://third/".into()),
        database: Some("third".into()),
    };
    let config = load(&sources, Expect::Connection).unwrap();
    assert_eq!(config.mongodb.uri.reveal(), "mongodb://third/");
    assert_eq!(config.mongodb.database, "third");
}

#[test]
fn an_age_at_which_events_may_go_before_their_writers_are_done_is_warned_of() {
    assert_eq!(read(GOOD, &[]).unwrap().warnings(), Vec::<String>::new());
    let warnings = |age: &str| {
        let young = format!("{GOOD}[collections.compaction]\nmin_age = {age:?}\n");
        read(&young, &[]).unwrap().warnings()
    };
    assert_eq!(warnings("2h"), Vec::<String>::new());
    let told = warnings("90m");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("collections[0].compaction.min_age is 1h 30m"), "{told:?}");
}

#[test]
fn variables_that_kubernetes_makes_for_a_service_are_passed_over() {
    let environment = [
        ("ALLUVIUM_SERVICE_HOST", "10.0.0.1"),
        ("ALLUVIUM_PORT", "tcp://10.0.0.1:8750"),
        ("PATH", "/bin"),
    ];
    assert_eq!(read(GOOD, &environment), read(GOOD, &[]));
}

#[test]
fn a_variable_that_sets_no_scalar_key_is_refused_by_its_own_name() {
    check(
        GOOD,
        &[("ALLUVIUM_MONGODB__URL", "x")],
        &[("ALLUVIUM_MONGODB__URL", "those are ALLUVIUM_MONGODB__URI,")],
    );
    check(
        GOOD,
        &[("ALLUVIUM_COLLECTIONS__NAME", "x")],
        &[("ALLUVIUM_COLLECTIONS__NAME", "is not a variable of alluvium")],
    );
}

#[test]
fn a_variable_that_is_not_unicode_is_refused_and_not_ignored() {
    let name = "ALLUVIUM_MONGODB__DATABASE";
    let value = OsString::from_vec(b"game\xff".to_vec());
    let environment = vec![(OsString::from(name), value.clone()), ("PATH".into(), value)];
    let sources = Sources { environment, ..Sources::default() };
    let error = load(&sources, Expect::Connection).unwrap_err();
    let problem = error.problems.iter().find(|problem| problem.key == name).unwrap();
    assert!(problem.message.contains("not Unicode"), "{error}");
    assert!(!error.to_string().contains("PATH"), "{error}");
}

#[test]
fn no_value_that_may_hold_a_password_is_shown_whatever_key_it_got_into() {
    let uri = "mongodb://u:hunter2@h/?w=1";
    for value in [uri, "u:hunter2@h", "mongodb://?password=hunter2", "?password=hunter2"] {
        for name in [
            "ALLUVIUM_MONGODB__URI",
            "ALLUVIUM_MONGODB__DATABASE",
            "ALLUVIUM_HTTP__LISTEN",
            "ALLUVIUM_HTTP__CONNECTIONS_MAX",
            "ALLUVIUM_DAEMON__LEASE_TIME",
            "ALLUVIUM_DAEMON__INSTANCE",
            "ALLUVIUM_DAEMON__PASSWORD",
        ] {
            let error = match read(GOOD, &[(name, value)]) {
                Err(error) => error.to_string(),
                Ok(config) => format!("{config:?}"),
            };
            assert!(!error.contains("hunter2"), "{name}={value}: {error}");
        }
        let text = GOOD.replace("\"games\"", &format!("\"{value}\"\ncache_bytes = \"{value}\""));
        let error = read(&text, &[]).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn control_characters_are_refused_by_name() {
    check(
        GOOD,
        &[("ALLUVIUM_MONGODB__DATABASE", "game\n")],
        &[("mongodb.database", "ends with a line feed")],
    );
    check(
        GOOD,
        &[("ALLUVIUM_MONGODB__URI", "mongodb://h/\n")],
        &[("mongodb.uri", "ends with a line feed")],
    );
    let text = GOOD.replace("\"games\"", "\"ga\\tmes\"");
    check(&text, &[], &[("collections[0].name", "contains a tab")]);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    assert_eq!(read(GOOD, &[("ALLUVIUM_MONGODB__URI", "")]), read(GOOD, &[]));
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_the_place_and_without_its_text() {
    let text = "[mongodb]\nuri = \"mongodb://u:secret@h/\ndatabase = 1";
    let error = read(text, &[]).unwrap_err().to_string();
    assert!(error.contains("is not valid TOML: line 2"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let sources = Sources { file: Some("/nonexistent/alluvium.toml".into()), ..Sources::default() };
    let error = load(&sources, Expect::Collections).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    assert_eq!(error.problems[0].key, "/nonexistent/alluvium.toml");
}

#[test]
fn no_password_is_ever_printed() {
    let uri = "mongodb://user:secret@localhost/";
    let config = read(&GOOD.replace("mongodb://localhost/", uri), &[]).unwrap();
    assert!(!format!("{config:?}").contains("secret"));
    let error = read(&GOOD.replace("mongodb://localhost/", "mongodb://u:%secret@h/"), &[]);
    assert!(!error.unwrap_err().to_string().contains("secret"));
}
