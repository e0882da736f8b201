//! The commands that only read, run as a user runs them: the real binary on a real server, for people
//! and for machines.

mod common;

use std::process::Command;

use alluvium::{config::CollectionConfig, log::create::Differing, setup::prepare};
use bson::{DateTime, Document, doc, oid::ObjectId};
use common::{TestDatabase, database};
use serde_json::{Value, json};

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn run(db: &TestDatabase, arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    command.args(arguments).args(["--uri", &db.uri, "--database", &db.name]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn json_of(db: &TestDatabase, arguments: &[&str]) -> Value {
    let ended = run(db, &[arguments, &["--json"]].concat()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {}", ended.out))
}

async fn text_of(db: &TestDatabase, arguments: &[&str]) -> String {
    let ended = run(db, arguments).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    ended.out
}

/// A log with one document of three events by three clients, a second apart.
async fn filled(id: ObjectId) -> TestDatabase {
    let db = database().await;
    prepare(&db.db, &[CollectionConfig::new("games")], Differing::Warn).await.unwrap();
    let event = |version: i64, client: &str, fields: Document| {
        let at = DateTime::from_millis(version * 1000);
        let mut event = doc! { "_id": { "d": id, "s": version }, "client": client, "at": at };
        event.extend(fields);
        event
    };
    let events = [
        event(1, "game-server", doc! { "op": "create", "state": { "gold": 0, "level": 1 } }),
        event(2, "admin-panel", doc! { "op": "update", "patch": { "$inc": { "gold": 50 } } }),
        event(3, "mobile-client", doc! { "op": "update", "merge": { "level": 2 } }),
    ];
    db.db.collection::<Document>("games.events").insert_many(events).await.unwrap();
    db
}

#[tokio::test]
async fn get_shows_a_document_now_and_as_it_was() {
    let id = ObjectId::new();
    let db = filled(id).await;
    let get = ["get", "games", &id.to_hex()];
    let now = json_of(&db, &get).await;
    assert_eq!(
        now,
        json!({
            "id": { "$oid": id.to_hex() },
            "version": 3,
            "clock": { "admin-panel": 1, "game-server": 1, "mobile-client": 1 },
            "state": { "gold": 50, "level": 2 },
            "deleted": false,
            "updated_at": "1970-01-01T00:00:03Z",
            "waits": null,
        })
    );
    let then = json_of(&db, &[&get[..], &["--at-version", "1"]].concat()).await;
    assert_eq!(then["state"], json!({ "gold": 0, "level": 1 }));
    let then = json_of(&db, &[&get[..], &["--at-time", "1970-01-01T00:00:02Z"]].concat()).await;
    assert_eq!(then["version"], 2);
    let text = text_of(&db, &get).await;
    assert!(text.contains("version  3\n") && text.contains("\"gold\": 50"), "{text}");
    assert!(text.contains("3 of its events are not projected yet"), "{text}");
}

#[tokio::test]
async fn history_pages_through_the_events() {
    let id = ObjectId::new();
    let db = filled(id).await;
    let history = ["history", "games", &id.to_hex(), "--limit", "2"];
    let first = json_of(&db, &history).await;
    assert_eq!(first["events"][1]["client"], "admin-panel");
    assert_eq!(first["next"], 2);
    let rest = json_of(&db, &[&history[..], &["--after-version", "2"]].concat()).await;
    assert_eq!(rest["events"][0]["merge"], json!({ "level": 2 }));
    assert_eq!(rest["next"], Value::Null);
    let text = text_of(&db, &history).await;
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("there are more: --after-version 2"), "{text}");
}

#[tokio::test]
async fn missing_shows_exactly_what_the_clock_lacks() {
    let id = ObjectId::new();
    let db = filled(id).await;
    let missing = ["missing", "games", &id.to_hex(), "--clock", r#"{"game-server":1}"#];
    let answer = json_of(&db, &missing).await;
    let clients: Vec<&Value> =
        answer["events"].as_array().unwrap().iter().map(|event| &event["client"]).collect();
    assert_eq!(clients, ["admin-panel", "mobile-client"]);
    assert_eq!(answer["more"], false);
    let text = text_of(&db, &missing).await;
    assert!(text.contains("admin-panel") && !text.contains("game-server  "), "{text}");

    let ahead = ["missing", "games", &id.to_hex(), "--clock", r#"{"game-server":2}"#];
    let ended = run(&db, &ahead).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("claims 2 events of client `game-server`"), "{}", ended.err);
}

#[tokio::test]
async fn a_document_that_does_not_exist_is_an_error_that_says_what_to_check() {
    let db = filled(ObjectId::new()).await;
    for command in [
        &["get", "games", "nobody"][..],
        &["history", "games", "nobody"],
        &["missing", "games", "nobody", "--clock", "{}"],
    ] {
        let ended = run(&db, command).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{command:?}: {}", ended.err);
        assert!(ended.err.contains("nobody of `games` does not exist"), "{}", ended.err);
        let ended = run(&db, &[command, &["--json"]].concat()).await;
        let error: Value = serde_json::from_str(&ended.err).unwrap();
        assert!(error["error"].as_str().unwrap().contains("nobody"), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_is() {
    let db = filled(ObjectId::new()).await;
    for command in [&["get"][..], &["history"], &["missing", "--clock", "{}"]] {
        let ended = run(&db, &[command, &["nope", "x"]].concat()).await;
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        let told =
            "has no collection `nope`, whose log is `nope.events`; those that are there: games";
        assert!(ended.err.contains(told), "{}", ended.err);
    }
    for command in [&["history"][..], &["missing", "--clock", "{}"]] {
        let ended = run(&db, &[command, &["games", "x", "--archive"]].concat()).await;
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        assert!(ended.err.contains("`games` has no archive"), "{}", ended.err);
    }
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_ends_with_2() {
    let db = database().await;
    for command in [
        &["get", "games"][..],
        &["get", "games", "{nope"],
        &["get", "games", "a", "--at-version", "0"],
        &["get", "games", "a", "--at-version", "1", "--at-time", "1970-01-01T00:00:00Z"],
        &["missing", "games", "a", "--clock", r#"{"a":-1}"#],
        &["nonsense"],
    ] {
        let ended = run(&db, command).await;
        assert_eq!(ended.code, Some(2), "{command:?}: {}", ended.err);
    }
}
