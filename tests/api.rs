//! The HTTP API on a real server: the shapes of its answers, and a table of what it refuses.

mod common;

use std::time::Duration;

use alluvium::{
    api::{
        ApiLimits,
        problem::{CONTENT_TYPE, Kind},
    },
    model::part::Part,
    model::{document::Document, id::DocumentId},
    status::{LastError, Phase},
};
use bson::{DateTime, doc};
use common::{
    api::{Answer, Api},
    history::{append, event, folded, make_log, project},
};
use mongodb::Database;
use serde_json::{Value, json};

const GAME: &str = "/v1/collections/games/documents/65a000000000000000000001";

/// The scenario: a game is created, given gold and experience, and levels up. Projected.
async fn scenario(db: &Database) -> Document {
    let id = DocumentId::from_text("65a000000000000000000001").unwrap();
    let state = doc! { "name": "Aria", "gold": 100_i64, "level": 1, "experience": 0.5, "last": DateTime::from_millis(0) };
    let log = [
        event(&id, 1, "game-server", doc! { "op": "create", "state": state, "type": "created" }),
        event(&id, 2, "admin-panel", doc! { "op": "update", "patch": { "$inc": { "gold": 50 } } }),
        event(
            &id,
            3,
            "mobile-client",
            doc! { "op": "update", "merge": { "level": 2 }, "id": 7_i64 },
        ),
    ];
    append(db, "games", &log).await;
    let document = folded(&id, &log);
    project(db, "games", &document).await;
    document
}

async fn games() -> (Database, Api) {
    let db = common::database().await.db;
    make_log(&db, "games", true).await;
    let api = Api::start(&db, ApiLimits { body_bytes_max: 4_096, ..ApiLimits::default() }).await;
    (db, api)
}

#[track_caller]
fn check_problem(answer: &Answer, kind: Kind, part: &str) {
    assert_eq!(answer.status, kind.status().as_u16(), "{answer:?}");
    assert_eq!(answer.header("content-type"), CONTENT_TYPE, "{answer:?}");
    let wait = if answer.status == 503 { "1" } else { "" };
    assert_eq!(answer.header("retry-after"), wait, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["type"], format!("urn:alluvium:problem:{}", kind.name()));
    assert_eq!(body["status"], answer.status);
    assert_eq!(body["title"], kind.title());
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains(part), "`{detail}` does not say `{part}`");
}

#[tokio::test]
async fn a_document_is_given_in_its_shape() {
    let (db, api) = games().await;
    scenario(&db).await;
    let expected = r#"{"id":{"$oid":"65a000000000000000000001"},"version":3,"#.to_owned()
        + r#""clock":{"admin-panel":1,"game-server":1,"mobile-client":1},"#
        + r#""state":{"name":"Aria","gold":150,"level":2,"experience":0.5,"last":{"$date":"1970-01-01T00:00:00Z"}},"#
        + r#""deleted":false,"updated_at":"1970-01-01T00:00:03Z","waits":null}"#;
    let answer = api.get(GAME).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, expected.as_str()));
    assert_eq!(answer.header("content-type"), "application/json");

    let canonical = api.get(&format!("{GAME}?ejson=canonical")).await.json();
    assert_eq!(canonical["state"]["gold"], json!({ "$numberLong": "150" }));
    assert_eq!(canonical["version"], 3);

    let head = api.ask("HEAD", GAME, &[], None).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
}

#[tokio::test]
async fn earlier_versions_and_times_are_given() {
    let (db, api) = games().await;
    scenario(&db).await;
    for (query, version, gold) in [
        ("at_version=1", 1, 100),
        ("at_version=2&ejson=relaxed", 2, 150),
        ("at_time=1970-01-01T00:00:01.999Z", 1, 100),
        ("at_time=1970-01-01T01:00:02%2B01:00", 2, 150),
        ("at_time=1970-01-01T01:00:02+01:00", 2, 150),
        ("min_version=3", 3, 150),
    ] {
        let answer = api.get(&format!("{GAME}?{query}")).await.json();
        assert_eq!(
            (&answer["version"], &answer["state"]["gold"]),
            (&json!(version), &json!(gold)),
            "{query}"
        );
    }
}

#[tokio::test]
async fn every_kind_of_id_is_reached_by_its_path() {
    let (db, api) = games().await;
    for (path, id) in [
        ("plain", json!("plain")),
        ("with%2Fslash%20and%20%C3%A9", json!("with/slash and é")),
        ("65a000000000000000000001", json!({ "$oid": "65a000000000000000000001" })),
        ("%2265a000000000000000000001%22", json!("65a000000000000000000001")),
        ("%7B%22$numberLong%22:%2242%22%7D", json!(42)),
        ("%7B%22$uuid%22:%2200000000-0000-4000-8000-000000000001%22%7D", Value::Null),
        ("42", json!("42")),
    ] {
        let text = percent_encoding::percent_decode_str(path).decode_utf8().unwrap();
        let parsed = DocumentId::from_text(&text).unwrap();
        let log = [event(&parsed, 1, "c", doc! { "op": "create", "state": {} })];
        append(&db, "games", &log).await;
        project(&db, "games", &folded(&parsed, &log)).await;
        let answer = api.get(&format!("/v1/collections/games/documents/{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(id.is_null() || answer.json()["id"] == id, "{path}: {answer:?}");
        let events = api.get(&format!("/v1/collections/games/documents/{path}/events")).await;
        assert_eq!(events.json()["events"].as_array().unwrap().len(), 1, "{path}: {events:?}");
    }
}

#[tokio::test]
async fn a_deleted_document_answers_with_its_clock() {
    let (db, api) = games().await;
    let id = DocumentId::from_text("gone").unwrap();
    let log = [
        event(&id, 1, "c", doc! { "op": "create", "state": { "n": 1 } }),
        event(&id, 2, "c", doc! { "op": "delete" }),
    ];
    append(&db, "games", &log).await;
    project(&db, "games", &folded(&id, &log)).await;
    let answer = api.get("/v1/collections/games/documents/gone").await;
    let expected = r#"{"id":"gone","version":2,"clock":{"c":2},"state":null,"deleted":true,"updated_at":"1970-01-01T00:00:02Z","waits":null}"#;
    assert_eq!((answer.status, answer.text.as_str()), (200, expected));
}

#[tokio::test]
async fn history_comes_in_pages() {
    let (db, api) = games().await;
    scenario(&db).await;
    let page = api.get(&format!("{GAME}/events?limit=2")).await.json();
    assert_eq!(page["next"], 2);
    let versions: Vec<_> =
        page["events"].as_array().unwrap().iter().map(|event| &event["version"]).collect();
    assert_eq!(versions, [1, 2]);
    let rest = api.get(&format!("{GAME}/events?limit=2&after_version=2")).await;
    let expected =
        r#"{"events":[{"version":3,"client":"mobile-client","op":"update","merge":{"level":2},"#
            .to_owned()
            + r#""at":"1970-01-01T00:00:03Z","id":7}],"next":null}"#;
    assert_eq!(rest.text, expected);
    let end = api.get(&format!("{GAME}/events?after_version=3")).await;
    assert_eq!((end.status, end.text.as_str()), (200, r#"{"events":[],"next":null}"#));
}

#[tokio::test]
async fn a_client_gets_exactly_the_events_it_is_missing() {
    let (db, api) = games().await;
    scenario(&db).await;
    let path = format!("{GAME}/missing");
    let answer = api.post(&path, r#"{"clock": {"game-server": 1}, "limit": 1}"#).await;
    let log = answer.json()["log"].as_str().unwrap().to_owned();
    let expected = format!(r#"{{"answer":"events","log":"{log}","version":3,"#)
        + r#""clock":{"admin-panel":1,"game-server":1,"mobile-client":1},"#
        + r#""events":[{"version":2,"client":"admin-panel","seq":1,"op":"update","patch":{"$inc":{"gold":50}},"at":"1970-01-01T00:00:02Z"}],"#
        + r#""next_clock":{"admin-panel":1,"game-server":1},"more":true,"skips":[],"waits":null}"#;
    assert_eq!(answer.text, expected);

    let both = api
        .post(&path, &format!(r#"{{"clock": {{"game-server": 1}}, "log": "{log}"}}"#))
        .await
        .json();
    let clients: Vec<_> =
        both["events"].as_array().unwrap().iter().map(|event| &event["client"]).collect();
    assert_eq!(clients, ["admin-panel", "mobile-client"]);
    assert_eq!((&both["more"], &both["next_clock"]), (&json!(false), &both["clock"]));

    let other = r#"{"clock": {"nobody": 9}, "log": "00000000-0000-4000-8000-000000000000"}"#;
    let snapshot = api.post(&path, other).await.json();
    assert_eq!(snapshot["answer"], "snapshot");
    let fields: Vec<_> = snapshot["snapshot"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["version", "clock", "state", "deleted", "taken_at", "reason"]);
    assert_eq!(snapshot["snapshot"]["state"]["gold"], 150);

    let none = api.post(&path, &json!({ "clock": both["clock"] }).to_string()).await.json();
    assert_eq!((&none["events"], &none["more"]), (&json!([]), &json!(false)));

    let text = api.get("/metrics").await.text;
    for (answer, count) in [("events", 2), ("snapshot", 1), ("none", 1), ("ahead", 0)] {
        let line = format!(
            "alluvium_missing_requests_total{{answer=\"{answer}\",collection=\"games\"}} {count}\n"
        );
        assert!(text.contains(&line), "no {line} in {text}");
    }
    assert!(text.contains("alluvium_missing_seconds_count{collection=\"games\"} 4\n"));
}

#[tokio::test]
async fn asking_again_costs_nothing_while_nothing_happens() {
    let (db, api) = games().await;
    let document = scenario(&db).await;
    let path = format!("{GAME}/missing?clock=%7B%22game-server%22:1%7D");
    let first = api.get(&path).await;
    let tag = first.header("etag").to_owned();
    assert_eq!((first.status, first.json()["events"].as_array().unwrap().len()), (200, 2));

    let known = [("if-none-match", tag.as_str())];
    let again = api.ask("GET", &path, &known, None).await;
    assert_eq!((again.status, again.text.as_str(), again.header("etag")), (304, "", tag.as_str()));
    let another_question = api.ask("GET", &format!("{path}&limit=1"), &known, None).await;
    assert_eq!(another_question.status, 200);

    let next = event(&document.id, 4, "mobile-client", doc! { "op": "update", "patch": {} });
    append(&db, "games", &[next]).await;
    let changed = api.ask("GET", &path, &known, None).await;
    assert_eq!((changed.status, changed.json()["events"].as_array().unwrap().len()), (200, 3));
}

#[tokio::test]
async fn a_wait_ends_when_the_version_is_applied() {
    let (db, api) = games().await;
    let mut document = scenario(&db).await;
    let path = format!("{GAME}?min_version=4&wait=30s");
    let waiting = api.get(&path);
    let applying = async {
        document.version = 4;
        document.clock.increment("mobile-client");
        project(&db, "games", &document).await;
        api.status.send_modify(|status| status.flushes += 1);
    };
    let (answer, ()) = tokio::join!(waiting, applying);
    assert_eq!((answer.status, &answer.json()["version"]), (200, &json!(4)));
    let expired = api.get(&format!("{GAME}?min_version=5&wait=1ms")).await;
    check_problem(&expired, Kind::WaitExpired, "up to version 4, not yet 5");
    assert_eq!(expired.json()["version"], 4);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let db = common::database().await.db;
    make_log(&db, "games", true).await;
    let limits = ApiLimits { request_max: Duration::from_millis(50), ..ApiLimits::default() };
    let api = Api::start(&db, limits).await;
    let answer = api.get(&format!("{GAME}?min_version=1&wait=30s")).await;
    check_problem(&answer, Kind::RequestTimeout, "time limit");
}

#[tokio::test]
async fn what_is_refused_is_a_problem_that_says_why() {
    use Kind::*;
    let (db, api) = games().await;
    scenario(&db).await;
    let game = |rest: &str| format!("{GAME}{rest}");
    let documents = |rest: &str| format!("/v1/collections/games/documents/{rest}");
    for (path, kind, part) in [
        ("/v2".to_owned(), NotFound, "`/v2` is no path"),
        ("/v1/collections/games".to_owned(), NotFound, "documents are at"),
        ("/v1/collections/chess/documents/a".to_owned(), UnknownCollection, "collections: games"),
        (documents("nobody"), UnknownDocument, "nobody of `games` was never written"),
        (documents("nobody/events"), UnknownDocument, "no event above 0"),
        (documents("nobody/missing?clock={}"), UnknownDocument, "never written"),
        (documents("nobody?at_version=1"), UnknownDocument, "never written"),
        (documents("%7Bnope"), MalformedId, "not valid JSON"),
        (documents("%7B%22$numberDouble%22:%221.5%22%7D"), MalformedId, "an integer within"),
        (documents("%FF"), MalformedId, "UTF-8"),
        (documents(&"x".repeat(1025)), MalformedId, "1 to 1024 bytes"),
        (game("?at_version=x"), MalformedQuery, "at_version: invalid digit"),
        (game("?at_version=0"), MalformedQuery, "versions begin at 1"),
        (game("?at_version=1.5"), MalformedQuery, "at_version"),
        (game("?at_version=1&at_time=x"), MalformedQuery, "one of"),
        (game("?at_time=yesterday"), MalformedQuery, "RFC 3339"),
        (game("?min_version=-1"), MalformedQuery, "versions begin at 1"),
        (game("?min_version=1&wait=soon"), MalformedQuery, "such as 500ms"),
        (game("?min_version=1&wait=1h"), MalformedQuery, "at most 30s"),
        (game("?wait=1s"), MalformedQuery, "goes with `min_version`"),
        (game("?ejson=fancy"), MalformedQuery, "ejson"),
        (game("?version=1"), MalformedQuery, "unknown field `version`"),
        (game("?min_version=9"), WaitExpired, "up to version 3"),
        (game("?at_version=9"), VersionAhead, "has come to version 3"),
        (game("?at_time=1970-01-01T00:00:00Z"), UnknownDocument, "no event yet at"),
        (game("/events?limit=0"), MalformedQuery, "`limit` is 0"),
        (game("/events?limit=-1"), MalformedQuery, "limit"),
        (game("/events?after_version=-1"), MalformedQuery, "counts from 0"),
        (game("/events?archive=true"), MalformedQuery, "`games` has no archive"),
        (game("/missing?clock={}&archive=true"), MalformedQuery, "`games` has no archive"),
        (game("/missing"), MalformedQuery, "`clock` is missing"),
        (game("/missing?clock=%7B%22a%22:-1%7D"), MalformedQuery, "client `a`"),
        (game("/missing?clock=%7B%22a%22:1.5%7D"), MalformedQuery, "not 1.5"),
        (game("/missing?clock=3"), MalformedQuery, "expected a clock"),
        (game("/missing?clock=%7B%7D&log=x"), MalformedQuery, "not the UUID"),
        (game("/missing?clock=%7B%22a%22:1%7D"), ClockAhead, "claims 1 events of client `a`"),
    ] {
        let path = path.replace('{', "%7B").replace('}', "%7D");
        let answer = api.get(&path).await;
        check_problem(&answer, kind, part);
        assert!(!answer.json()["detail"].as_str().unwrap().contains("deserialize"), "{answer:?}");
    }
    for (body, kind, part) in [
        ("", MalformedBody, "EOF"),
        ("{}", MalformedBody, "`clock` is missing"),
        (r#"{"clock": {"a": "1"}}"#, MalformedBody, "client `a`"),
        (r#"{"clock": {"a.b": 1}}"#, MalformedBody, "no client name"),
        (r#"{"clock": {}, "limit": 0}"#, MalformedBody, "`limit` is 0"),
        (r#"{"clock": {}, "limits": 1}"#, MalformedBody, "unknown field `limits`"),
        (r#"{"clock": {}, "log": "x"}"#, MalformedBody, "not the UUID"),
        (r#"{"clock": {"game-server": 2}}"#, ClockAhead, "has 1"),
        (&format!(r#"{{"clock": {{}}, "log": "{}"}}"#, "x".repeat(5_000)), TooLarge, "limit"),
    ] {
        check_problem(&api.post(&game("/missing"), body).await, kind, part);
    }
    let put = api.ask("PUT", GAME, &[], Some("{}")).await;
    check_problem(&put, MethodNotAllowed, "`Allow`");
    assert!(put.header("allow").contains("GET"), "{put:?}");
}

#[tokio::test]
async fn an_answer_below_the_floor_names_the_floor() {
    let (db, api) = games().await;
    scenario(&db).await;
    let log = db.collection::<bson::Document>("games.events");
    log.delete_one(doc! { "_id.s": 1_i64 }).await.unwrap();
    let answer = api.get(&format!("{GAME}?at_version=2")).await;
    check_problem(&answer, Kind::BelowFloor, "oldest version it can answer for is 3");
    assert_eq!(answer.json()["floor_version"], 3);
}

#[tokio::test]
async fn a_refused_collection_says_what_to_do_and_turns_readiness_red() {
    let (db, api) = games().await;
    scenario(&db).await;
    assert_eq!(api.get("/readyz").await.status, 200);
    api.status.send_modify(|status| {
        status.phase = Phase::Refused;
        status.last_error = Some(LastError {
            part: Part::WHOLE,
            at: DateTime::from_millis(0),
            class: "refused",
            message: "the log is another one".into(),
            advice: "restore it".into(),
        });
    });
    check_problem(
        &api.get(GAME).await,
        Kind::CollectionRefused,
        "the log is another one; restore it",
    );
    let ready = api.get("/readyz").await;
    assert_eq!((ready.status, ready.header("retry-after")), (503, "1"));
    assert_eq!(ready.json()["reasons"], json!(["`games` is refused: the log is another one"]));
    assert_eq!(api.get("/healthz").await.status, 200);
    let status = api.get("/v1/status").await;
    let expected = r#"{"instance":"test","version":""#.to_owned()
        + env!("CARGO_PKG_VERSION")
        + r#"","collections":[{"name":"games","role":"leader","paused":false,"phase":"refused","version_gaps":null,"quarantined":null,"#
        + r#""lag_seconds":0.0,"lag_events":null,"oplog_headroom_seconds":null,"checkpoint_lost_in_seconds":null,"#
        + r#""compaction":{"events":0,"bytes":0,"late_events":0,"kept":null},"#
        + r#""last_error":{"at":"1970-01-01T00:00:00Z","class":"refused","message":"the log is another one","advice":"restore it"}}]}"#;
    assert_eq!(status.text, expected);
}

#[tokio::test]
async fn liveness_turns_red_when_a_loop_stops_turning() {
    let (_db, api) = games().await;
    let _alive = api.heartbeats.register("tail", Duration::from_secs(600), Duration::ZERO);
    assert_eq!(api.get("/healthz").await.status, 200);
    drop(api.heartbeats.register("flush", Duration::ZERO, Duration::ZERO));
    let red = common::wait_for("liveness is red", async || {
        let answer = api.get("/healthz").await;
        (answer.status == 503).then_some(answer)
    });
    let loops = red.await.json();
    assert_eq!(loops["alive"], false);
    let state: Vec<_> = loops["loops"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pulse| (pulse["name"].as_str().unwrap(), pulse["alive"].as_bool().unwrap()))
        .collect();
    assert_eq!(state, [("tail", true), ("flush", false)]);
}

#[tokio::test]
async fn a_database_that_is_away_is_told_apart() {
    let uri = "mongodb://127.0.0.1:1/?directConnection=true&serverSelectionTimeoutMS=50";
    let client = mongodb::Client::with_uri_str(uri).await.unwrap();
    let api = Api::start(&client.database("away"), ApiLimits::default()).await;
    for path in [GAME.to_owned(), format!("{GAME}/events"), format!("{GAME}/missing?clock=%7B%7D")]
    {
        check_problem(&api.get(&path).await, Kind::DatabaseAway, "try again in a moment");
    }
    assert_eq!(api.get("/healthz").await.status, 200);
}
