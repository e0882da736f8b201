//! The append procedure on a real server, one test for each of its sentences.

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use alluvium::{
    log::{
        append::{AppendError, AppendLimits, Appended, Appender},
        mongo::NamedLog,
    },
    model::{
        id::DocumentId,
        new_event::{NewChange, NewEvent},
    },
};
use bson::{DateTime, Document, doc, rawdoc};
use common::{Proxy, TestDatabase, database};
use futures::TryStreamExt;
use mongodb::{Client, Collection, Database, event::EventHandler, options::ClientOptions};
use tokio::sync::MutexGuard;

const GAMES: &str = "games";

fn game() -> DocumentId {
    DocumentId::String("chess".into())
}

fn event(client: &str) -> NewEvent {
    let patch = rawdoc! { "$inc": { "gold": 1 } };
    let change = NewChange::Patch { patch, array_filters: None };
    NewEvent::new(client, change, DateTime::now())
}

async fn clustered_log(test: &TestDatabase) -> Collection<Document> {
    let key = mongodb::options::ClusteredIndex::default();
    test.db.create_collection("games.events").clustered_index(key).await.unwrap();
    test.db.collection("games.events")
}

async fn limited(db: &Database, limits: AppendLimits) -> Appender {
    let log = NamedLog::open(db, GAMES).await.unwrap().unwrap();
    Appender::new(log, limits)
}

async fn appender(db: &Database) -> Appender {
    limited(db, AppendLimits::default()).await
}

async fn clients(log: &Collection<Document>) -> Vec<(i64, String)> {
    let events: Vec<Document> =
        log.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap().try_collect().await.unwrap();
    let place = |event: &Document| event.get_document("_id").unwrap().get_i64("s").unwrap();
    let client = |event: &Document| event.get_str("client").unwrap().to_owned();
    events.iter().map(|event| (place(event), client(event))).collect()
}

/// The same database, reached in another way.
async fn through(
    test: &TestDatabase,
    uri: &str,
    change: impl FnOnce(&mut ClientOptions),
) -> Database {
    let mut options = ClientOptions::parse(uri).await.unwrap();
    // After a broken connection the driver looks for the server at this pace.
    options.heartbeat_freq = Some(Duration::from_millis(500));
    change(&mut options);
    Client::with_options(options).unwrap().database(&test.name)
}

/// Lets inserts of clients with this application name fail on purpose, as long as the guard lives: a
/// server has one failpoint of this kind.
async fn fail_inserts(
    test: &TestDatabase,
    app: &str,
    mode: Document,
    mut failure: Document,
) -> MutexGuard<'static, ()> {
    static FAILPOINT: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let guard = FAILPOINT.lock().await;
    failure.insert("failCommands", ["insert"]);
    failure.insert("appName", app);
    let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": failure };
    test.client.database("admin").run_command(command).await.unwrap();
    guard
}

#[tokio::test]
async fn the_next_version_is_the_last_one_plus_one() {
    let test = database().await;
    let log = clustered_log(&test).await;
    let appender = appender(&test.db).await;
    assert_eq!(appender.last_version(&game()).await.unwrap(), 0);
    for version in 1..=12 {
        let appended = appender.append(&game(), event("a")).await.unwrap();
        assert_eq!(appended, Appended::At(version));
    }
    // Neither a neighbour in the order of ids nor another type of id is taken for this document.
    for other in [DocumentId::String("ches".into()), DocumentId::Integer(7)] {
        assert_eq!(appender.append(&other, event("a")).await.unwrap(), Appended::At(1));
    }
    assert_eq!(appender.last_version(&game()).await.unwrap(), 12);
    assert_eq!(clients(&log).await.len(), 14);
}

#[tokio::test]
async fn only_one_of_two_writers_gets_a_version() {
    let test = database().await;
    let log = clustered_log(&test).await;
    let (a, b) = (appender(&test.db).await, appender(&test.db).await);
    for version in 0..20 {
        let id = game();
        let (a, b) = tokio::join!(
            a.insert(&id, version, vec![event("a")]),
            b.insert(&id, version, vec![event("b")]),
        );
        assert_eq!(a.unwrap() + b.unwrap(), 1);
    }
    let versions: Vec<i64> = clients(&log).await.into_iter().map(|(version, _)| version).collect();
    assert_eq!(versions, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_taken_version_with_anothers_id_is_a_conflict_and_with_our_own_a_success() {
    let test = database().await;
    let log = clustered_log(&test).await;
    let appender = appender(&test.db).await;
    let first = event("a").id("mark");
    assert_eq!(appender.insert(&game(), 0, vec![first.clone()]).await.unwrap(), 1);
    assert_eq!(appender.insert(&game(), 0, vec![event("b").id("other")]).await.unwrap(), 0);
    assert_eq!(appender.insert(&game(), 0, vec![event("b")]).await.unwrap(), 0);
    assert_eq!(appender.insert(&game(), 0, vec![first]).await.unwrap(), 1);
    assert_eq!(clients(&log).await, [(1, "a".to_owned())]);
}

#[tokio::test]
async fn a_lost_answer_leaves_exactly_one_event() {
    let test = database().await;
    let log = clustered_log(&test).await;
    let proxy = Proxy::before(&test.uri, "insert").await;
    // Once without the driver's own retrying and once with it, when it loses its second answer too.
    for (version, retry_writes, losses) in [(1, false, 1), (2, false, 3), (3, true, 2)] {
        let db =
            through(&test, proxy.uri(), |options| options.retry_writes = Some(retry_writes)).await;
        let appender = appender(&db).await;
        assert_eq!(appender.last_version(&game()).await.unwrap(), version - 1);
        let lost = proxy.lost();
        proxy.lose(losses);
        let appended = appender.append(&game(), event("a")).await.unwrap();
        assert_eq!((appended, proxy.lost()), (Appended::At(version), lost + losses));
    }
    assert_eq!(clients(&log).await.len(), 3);
}

#[tokio::test]
async fn a_failed_write_concern_is_settled_by_reading_back() {
    let test = database().await;
    let log = clustered_log(&test).await;
    let app = "failed-write-concern";
    let db = through(&test, &test.uri, |options| options.app_name = Some(app.into())).await;
    // 64 is WriteConcernFailed: the event is there, but perhaps not for ever.
    let failure =
        doc! { "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } };
    let _failing = fail_inserts(&test, app, doc! { "times": 2 }, failure).await;
    assert_eq!(appender(&db).await.append(&game(), event("a")).await.unwrap(), Appended::At(1));
    assert_eq!(clients(&log).await, [(1, "a".to_owned())]);
}

#[tokio::test]
async fn what_stays_uncertain_is_reported_after_a_bounded_number_of_attempts() {
    let test = database().await;
    let log = clustered_log(&test).await;
    let app = "never-certain";
    let db = through(&test, &test.uri, |options| options.app_name = Some(app.into())).await;
    let _failing =
        fail_inserts(&test, app, doc! { "times": 1_000 }, doc! { "errorCode": 91 }).await;
    let limits = AppendLimits { attempts: 2, timeout: Duration::from_secs(5) };
    let error = limited(&db, limits).await.append(&game(), event("a")).await.unwrap_err();
    assert!(matches!(error, AppendError::Uncertain { attempts: 2, .. }), "{error}");
    assert!(error.to_string().contains("read the document's history"), "{error}");
    assert_eq!(clients(&log).await, []);
}

#[tokio::test]
async fn several_events_go_in_order_and_stop_before_the_first_taken_version() {
    let test = database().await;
    let log = clustered_log(&test).await;
    let ours = appender(&test.db).await;
    let batch = || vec![event("a"), event("a"), event("a")];
    assert_eq!(ours.insert(&game(), 0, batch()).await.unwrap(), 3);
    assert_eq!(ours.insert(&game(), 4, vec![event("b")]).await.unwrap(), 1);
    assert_eq!(ours.insert(&game(), 3, batch()).await.unwrap(), 1);
    let expected = [(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "b")];
    assert_eq!(clients(&log).await, expected.map(|(version, client)| (version, client.into())));

    let proxy = Proxy::before(&test.uri, "insert").await;
    let db = through(&test, proxy.uri(), |options| options.retry_writes = Some(false)).await;
    proxy.lose(1);
    assert_eq!(appender(&db).await.insert(&game(), 5, batch()).await.unwrap(), 3);
    assert_eq!((clients(&log).await.len(), proxy.lost()), (8, 1));
}

#[tokio::test]
async fn the_servers_validator_is_quoted_with_the_field_at_fault() {
    let test = database().await;
    let schema = doc! { "$jsonSchema": { "properties": { "client": { "enum": ["a"] } } } };
    test.db.create_collection("games.events").validator(schema.clone()).await.unwrap();
    let appender = appender(&test.db).await;
    let error = appender.append(&game(), event("b")).await.unwrap_err();
    assert!(matches!(error, AppendError::Refused { appended: 0, .. }), "{error}");
    assert!(error.to_string().contains(r#""propertyName":"client""#), "{error}");
    let mut described = schema.clone();
    let client = described.get_document_mut("$jsonSchema").unwrap();
    let client = client.get_document_mut("properties").unwrap().get_document_mut("client").unwrap();
    client.insert("description", "client: one that we know");
    let change = doc! { "collMod": "games.events", "validator": described };
    test.db.run_command(change).await.unwrap();
    let error = appender.append(&game(), event("b")).await.unwrap_err().to_string();
    assert!(error.ends_with("failed validation: client: one that we know"), "{error}");
    let error = appender.insert(&game(), 0, vec![event("a"), event("b")]).await.unwrap_err();
    assert!(matches!(error, AppendError::Refused { appended: 1, .. }), "{error}");
}

#[tokio::test]
async fn reads_are_majority_reads_behind_what_went_before_and_writes_wait_for_the_majority() {
    let test = database().await;
    clustered_log(&test).await;
    let commands: Arc<Mutex<Vec<Document>>> = Arc::default();
    let seen = commands.clone();
    let db = through(&test, &test.uri, |options| {
        options.command_event_handler = Some(EventHandler::callback(move |event| {
            if let mongodb::event::command::CommandEvent::Started(started) = event {
                seen.lock().unwrap().push(started.command);
            }
        }));
    })
    .await;
    let appender = appender(&db).await;
    appender.append(&game(), event("a")).await.unwrap();
    appender.append(&game(), event("a")).await.unwrap();
    assert_eq!(appender.insert(&game(), 0, vec![event("b")]).await.unwrap(), 0);

    let commands = commands.lock().unwrap();
    let named = |name: &str| {
        commands.iter().filter(|command| command.contains_key(name)).collect::<Vec<_>>()
    };
    let (finds, inserts) = (named("find"), named("insert"));
    assert_eq!((finds.len(), inserts.len()), (3, 3));
    for insert in &inserts {
        let concern = insert.get_document("writeConcern").unwrap();
        assert_eq!(concern.get_str("w").unwrap(), "majority");
    }
    for (number, find) in finds.iter().enumerate() {
        let concern = find.get_document("readConcern").unwrap();
        assert_eq!(concern.get_str("level").unwrap(), "majority");
        assert_eq!(concern.contains_key("afterClusterTime"), number > 0, "{find}");
    }
    // The read after the duplicate key goes in the session of the insert that met it.
    let session = |command: &Document| command.get_document("lsid").unwrap().clone();
    assert_eq!(session(finds[2]), session(inserts[2]));
}

#[tokio::test]
async fn an_append_lands_in_no_other_log_than_the_one_whose_version_was_read() {
    let test = database().await;
    let log = clustered_log(&test).await;
    let appender = appender(&test.db).await;
    appender.append(&game(), event("a")).await.unwrap();
    let after = appender.last_version(&game()).await.unwrap();
    log.drop().await.unwrap();
    for is_replaced in [false, true] {
        if is_replaced {
            clustered_log(&test).await;
        }
        let refused = [
            appender.insert(&game(), after, vec![event("b")]).await.map(drop),
            appender.insert(&game(), after, vec![event("b"), event("b")]).await.map(drop),
            appender.append(&game(), event("b")).await.map(drop),
        ];
        for error in refused.map(Result::unwrap_err) {
            assert!(
                matches!(&error, AppendError::Database(error) if error.code() == Some(361)),
                "{error}"
            );
            assert!(error.to_string().contains("the log `games.events` (UUID "), "{error}");
        }
        assert_eq!(test.db.list_collection_names().await.unwrap().len(), usize::from(is_replaced));
        assert_eq!(clients(&log).await, []);
    }
}
