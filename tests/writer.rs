//! The typed writer on a real server, without a daemon: whatever it gives back comes from the log.

mod common;

use std::{collections::BTreeMap, sync::Arc};

use alluvium::{
    model::{
        clock::Clock,
        document::{Document, FoldLimits},
        event::{Event, EventKey},
        id::DocumentId,
        new_event::{NewChange, NewEvent},
    },
    writer::{By, EventSourced, UpdateError, WriteError, WriterOptions},
};
use bson::{DateTime, doc, oid::ObjectId, rawdoc};
use common::{TestDatabase, database};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Game {
    name: String,
    gold: i64,
    items: Vec<String>,
}

fn chess() -> Game {
    Game { name: "chess".into(), gold: 10, items: vec![] }
}

fn id() -> DocumentId {
    DocumentId::ObjectId(ObjectId::new())
}

async fn with_log() -> TestDatabase {
    let test = database().await;
    let key = mongodb::options::ClusteredIndex::default();
    test.db.create_collection("games.events").clustered_index(key).await.unwrap();
    test
}

fn games<T: Serialize + DeserializeOwned>(test: &TestDatabase) -> EventSourced<T> {
    EventSourced::new(&test.db, "games")
}

fn uncached(test: &TestDatabase) -> EventSourced<Game> {
    let options = WriterOptions { cache_bytes: 0, ..WriterOptions::default() };
    EventSourced::with_options(&test.db, "games", options)
}

fn clock(counts: &[(&str, i64)]) -> Clock {
    counts.iter().copied().collect()
}

fn patch(client: &str, patch: bson::RawDocumentBuf) -> NewEvent {
    NewEvent::new(client, NewChange::Patch { patch, array_filters: None }, DateTime::now())
}

/// Folds the log by itself and compares: versions dense, clock and state as the writer says.
async fn check_log(writer: &EventSourced<Game>, id: &DocumentId) -> Document {
    let history = writer.history(id, 0, 10_000).await.unwrap();
    let mut document = Document::new(id.clone());
    for event in &history.events {
        assert_eq!(event.version, document.version + 1);
        let event = Event::decode(&event.raw).unwrap();
        document.apply(&event, &Default::default());
    }
    assert_eq!(Some(document.version), history.events.last().map(|event| event.version));
    if let Some(current) = writer.get(id).await.unwrap() {
        assert_eq!((current.version, &current.clock), (document.version, &document.clock));
        let state = document.state().unwrap().to_raw();
        let state: Game = bson::deserialize_from_slice(state.as_bytes()).unwrap();
        assert_eq!(current.state, state);
    }
    document
}

#[tokio::test]
async fn a_document_lives_from_create_to_delete_and_again() {
    let test = with_log().await;
    let (games, id) = (games::<Game>(&test), id());
    assert!(games.get(&id).await.unwrap().is_none());
    assert!(matches!(games.delete(&id, "a").await, Err(WriteError::NotFound { .. })));
    assert!(matches!(games.update(&id, "a", |_| ()).await, Err(WriteError::NotFound { .. })));

    assert_eq!(games.create(&id, "a", &chess()).await.unwrap().version, 1);
    let updated = games.update(&id, "b", |game| game.gold += 5).await.unwrap();
    assert_eq!((updated.version, updated.state.gold), (2, 15));
    assert_eq!(updated.clock, clock(&[("a", 1), ("b", 1)]));
    let Some(NewChange::Patch { patch, .. }) = updated.diff else { panic!("{:?}", updated.diff) };
    assert_eq!(patch, rawdoc! { "$set": { "gold": 15_i64 } });
    assert!(matches!(games.create(&id, "a", &chess()).await, Err(WriteError::Exists { .. })));

    assert_eq!(games.delete(&id, "b").await.unwrap().version, 3);
    assert!(games.get(&id).await.unwrap().is_none());
    let error = games.update(&id, "a", |game| game.gold = 0).await.unwrap_err();
    assert!(matches!(error, WriteError::Deleted { version: 3, .. }), "{error}");
    assert_eq!(games.create(&id, "a", &chess()).await.unwrap().version, 4);
    assert_eq!(games.at_version(&id, 2).await.unwrap().unwrap().state.gold, 15);
    assert!(games.at_version(&id, 3).await.unwrap().is_none());
    check_log(&games, &id).await;
}

#[tokio::test]
async fn two_writers_racing_are_both_applied_without_a_hole() {
    let test = with_log().await;
    let (a, b, id) = (games::<Game>(&test), games::<Game>(&test), id());
    a.create(&id, "a", &chess()).await.unwrap();
    let race = async |writer: &EventSourced<Game>, client: &str| {
        for _ in 0..25 {
            writer.update(&id, client, |game| game.gold += 1).await.unwrap();
        }
    };
    tokio::join!(race(&a, "a"), race(&b, "b"));
    let document = check_log(&a, &id).await;
    assert_eq!(document.clock, clock(&[("a", 26), ("b", 25)]));
    assert_eq!(b.get(&id).await.unwrap().unwrap().state.gold, 60);
}

#[tokio::test]
async fn callers_of_one_document_in_one_process_queue_up() {
    let test = with_log().await;
    let (games, id) = (games::<Game>(&test), id());
    games.create(&id, "a", &chess()).await.unwrap();
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (games, id) = (games.clone(), id.clone());
            tokio::spawn(async move { games.update(&id, "a", |game| game.gold += 1).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(games.get(&id).await.unwrap().unwrap().state.gold, 74);
}

#[tokio::test]
async fn the_closure_runs_again_on_the_newer_state_when_another_was_quicker() {
    let test = with_log().await;
    let (ours, theirs, id) = (games::<Game>(&test), games::<Game>(&test), id());
    ours.create(&id, "a", &chess()).await.unwrap();
    theirs.update(&id, "b", |game| game.gold = 100).await.unwrap();
    let mut seen = Vec::new();
    let updated = ours
        .update(&id, "a", |game| {
            seen.push(game.gold);
            game.gold += 1;
        })
        .await
        .unwrap();
    assert_eq!((updated.state.gold, updated.version), (101, 3));
    assert_eq!(seen, [10, 100], "first the remembered state, then the one in the log");
    check_log(&ours, &id).await;
}

#[tokio::test]
async fn what_ends_without_an_event_is_decided_on_the_newest_state() {
    let test = with_log().await;
    let (ours, theirs, id) = (games::<Game>(&test), games::<Game>(&test), id());
    ours.create(&id, "a", &chess()).await.unwrap();
    theirs.update(&id, "b", |game| game.gold = 0).await.unwrap();
    // Nothing to do by what is remembered, and something to do in truth.
    let updated = ours.update(&id, "a", |game| game.gold = 10).await.unwrap();
    assert_eq!((updated.version, updated.diff.is_some()), (3, true));
    let updated = ours.update(&id, "a", |game| game.gold = 10).await.unwrap();
    assert_eq!((updated.version, updated.diff.is_none()), (3, true));

    theirs.update(&id, "b", |game| game.gold = 1_000).await.unwrap();
    let spend = |game: &mut Game| {
        let left = game.gold.checked_sub(500).filter(|left| *left >= 0);
        game.gold = left.ok_or_else(|| format!("only {} gold", game.gold))?;
        Ok::<(), String>(())
    };
    assert_eq!(ours.try_update(&id, "a", spend).await.unwrap().state.gold, 500);
    theirs.delete(&id, "b").await.unwrap();
    assert!(matches!(
        ours.try_update(&id, "a", spend).await,
        Err(UpdateError::Write(WriteError::Deleted { .. }))
    ));
    theirs.create(&id, "b", &chess()).await.unwrap();
    let declined = ours.try_update(&id, "a", spend).await.unwrap_err();
    assert!(matches!(&declined, UpdateError::Declined(reason) if reason == "only 10 gold"));
}

#[tokio::test]
async fn get_sees_events_that_are_not_folded_yet() {
    let test = with_log().await;
    let (games, id) = (games::<Game>(&test), id());
    games.create(&id, "a", &chess()).await.unwrap();
    games.update(&id, "a", |game| game.gold = 20).await.unwrap();
    // The row as a daemon would have left it one event ago.
    let history = games.history(&id, 0, 1).await.unwrap();
    let mut row = Document::new(id.clone());
    row.apply(&Event::decode(&history.events[0].raw).unwrap(), &Default::default());
    test.db.collection::<bson::RawDocumentBuf>("games").insert_one(row.to_raw()).await.unwrap();
    let current = games.get(&id).await.unwrap().unwrap();
    assert_eq!((current.state.gold, current.version), (20, 2));
    assert_eq!(current.clock, clock(&[("a", 2)]));
}

#[tokio::test]
async fn missing_events_are_exactly_those_that_the_clock_lacks() {
    let test = with_log().await;
    let (games, id) = (games::<Game>(&test), id());
    games.create(&id, "server", &chess()).await.unwrap();
    for (client, gold) in [("phone", 1), ("server", 2), ("phone", 3), ("desk", 4), ("server", 5)] {
        games.update(&id, client, |game| game.gold = gold).await.unwrap();
    }
    let missing = async |counts: &[(&str, i64)]| {
        let missing = games.missing_events(&id, &clock(counts)).await.unwrap();
        assert_eq!(missing.next_clock, clock(&[("server", 3), ("phone", 2), ("desk", 1)]));
        missing.events.into_iter().map(|event| (event.version, event.seq)).collect::<Vec<_>>()
    };
    assert_eq!(missing(&[]).await, [(1, 1), (2, 1), (3, 2), (4, 2), (5, 1), (6, 3)]);
    assert_eq!(missing(&[("server", 1)]).await, [(2, 1), (3, 2), (4, 2), (5, 1), (6, 3)]);
    assert_eq!(missing(&[("server", 3), ("phone", 1)]).await, [(4, 2), (5, 1)]);
    assert_eq!(missing(&[("server", 3), ("phone", 2), ("desk", 1)]).await, []);
    let error = games.missing_events(&id, &clock(&[("phone", 3)])).await.unwrap_err();
    assert!(error.to_string().contains("`phone`"), "{error}");
    let unknown = games.missing_events(&self::id(), &Clock::new()).await;
    assert!(matches!(unknown, Err(WriteError::NotFound { .. })));
}

#[tokio::test]
async fn hand_made_events_are_proven_to_fit_before_they_are_appended() {
    let test = with_log().await;
    let (games, id) = (games::<Game>(&test), id());
    let unfit = async |event: NewEvent, expected: &str| {
        let error = games.append(&id, event).await.unwrap_err();
        assert!(matches!(error, WriteError::Unfit { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error} does not say {expected}");
    };
    unfit(patch("a", rawdoc! {}), "begins with a create").await;
    games.create(&id, "a", &chess()).await.unwrap();
    unfit(patch("a", rawdoc! { "$inc": { "name": 1 } }), "name").await;
    unfit(patch("a", rawdoc! { "$nope": { "gold": 1 } }), "$nope").await;
    unfit(patch("a.b", rawdoc! {}), "`client`").await;
    let reserved = games.append(&id, patch("alluvium", rawdoc! {})).await.unwrap_err();
    assert!(matches!(reserved, WriteError::ReservedClient), "{reserved}");
    assert!(reserved.to_string().contains("choose another name"), "{reserved}");
    let create = NewChange::Create { state: rawdoc! {} };
    unfit(NewEvent::new("a", create, DateTime::now()), "exists").await;

    let event = patch("a", rawdoc! { "$inc": { "gold": 1 } });
    let event = event.event_type("found").meta(rawdoc! { "where": "cave" });
    assert_eq!(games.append_if_version(&id, 1, event.clone()).await.unwrap().version, 2);
    let error = games.append_if_version(&id, 1, event).await.unwrap_err();
    assert!(matches!(error, WriteError::VersionMismatch { expected: 1, found: 2, .. }), "{error}");
    let merge = NewChange::Merge { merge: rawdoc! { "gold": 50_i64 } };
    games.append(&id, NewEvent::new("b", merge, DateTime::now())).await.unwrap();
    assert_eq!(games.get(&id).await.unwrap().unwrap().state.gold, 50);

    let events = games.history(&id, 0, 10).await.unwrap().events;
    assert_eq!(events.len(), 3);
    assert_eq!(events[1].raw.get_str("type").unwrap(), "found");
    assert_eq!(events[1].raw.get_document("meta").unwrap().get_str("where").unwrap(), "cave");
}

#[tokio::test]
async fn an_event_records_what_its_writer_had_seen_and_what_it_is_called() {
    let test = with_log().await;
    let (games, id) = (uncached(&test), id());
    games.create(&id, "a", &chess()).await.unwrap();
    let by = By::client("b").event_type("levelled-up").meta(rawdoc! { "device": "phone" });
    games.update(&id, by, |game| game.gold = 11).await.unwrap();
    games.delete(&id, "b").await.unwrap();
    let events = games.history(&id, 0, 10).await.unwrap().events;
    let seen = |at: usize| Clock::from_raw(events[at].raw.get_document("seen").unwrap()).unwrap();
    assert!(events[0].raw.get_document("seen").is_err());
    assert_eq!((seen(1), seen(2)), (clock(&[("a", 1)]), clock(&[("a", 1), ("b", 1)])));
    assert_eq!(events[1].raw.get_str("type").unwrap(), "levelled-up");
}

#[tokio::test]
async fn fields_that_the_type_does_not_know_stay() {
    #[derive(Serialize, Deserialize)]
    struct Old {
        gold: i64,
        #[serde(default)]
        stats: Stats,
    }
    #[derive(Default, Serialize, Deserialize)]
    struct Stats {
        wins: i64,
        losses: i64,
    }
    let test = with_log().await;
    let (games, id) = (games::<Old>(&test), id());
    let state = rawdoc! { "guild": "owls", "gold": 1_i32 };
    let create = NewChange::Create { state };
    games.append(&id, NewEvent::new("new", create, DateTime::now())).await.unwrap();
    games.update(&id, "old", |game| game.gold += 1).await.unwrap();
    // Set alone, `stats.wins` would make a document that the type could not read back.
    games.update(&id, "old", |game| game.stats.wins += 1).await.unwrap();
    let state = self::games::<bson::Document>(&test).get(&id).await.unwrap().unwrap().state;
    let stats = doc! { "wins": 1_i64, "losses": 0_i64 };
    assert_eq!(state, doc! { "guild": "owls", "gold": 2_i64, "stats": stats });
}

#[tokio::test]
async fn names_that_no_path_can_express_are_written_as_a_merge() {
    type Scores = BTreeMap<String, Option<i64>>;
    let test = with_log().await;
    let (scores, id) = (games::<Scores>(&test), id());
    let start = Scores::from([("a.b".into(), Some(1)), ("plain".into(), Some(2))]);
    scores.create(&id, "a", &start).await.unwrap();
    let change = |scores: &mut Scores| {
        scores.insert("a.b".into(), Some(3));
        scores.insert("$".into(), Some(4));
        scores.remove("plain");
    };
    let updated = scores.update(&id, "a", change).await.unwrap();
    assert!(matches!(updated.diff, Some(NewChange::Merge { .. })), "{:?}", updated.diff);
    assert_eq!(scores.get(&id).await.unwrap().unwrap().state, updated.state);
    let nothing = |scores: &mut Scores| {
        scores.insert("a.b".into(), None);
    };
    let error = scores.update(&id, "a", nothing).await.unwrap_err();
    assert!(error.to_string().contains("`a.b`"), "{error}");
}

#[tokio::test]
async fn a_state_that_cannot_be_one_is_refused_with_its_type() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Keyed {
        #[serde(rename = "_id")]
        key: i64,
    }
    let test = with_log().await;
    let error = games::<Keyed>(&test).create(&id(), "a", &Keyed { key: 1 }).await.unwrap_err();
    assert!(error.to_string().contains("`_id`"), "{error}");
    let error = games::<i64>(&test).create(&id(), "a", &5).await.unwrap_err();
    assert!(error.to_string().contains("i64"), "{error}");
    let id = id();
    games(&test).create(&id, "a", &chess()).await.unwrap();
    let error = games::<Keyed>(&test).get(&id).await.unwrap_err();
    assert!(error.to_string().contains("Keyed"), "{error}");
}

#[tokio::test]
async fn without_a_cache_every_update_reads_first() {
    let test = with_log().await;
    let (games, other) = (Arc::new(uncached(&test)), uncached(&test));
    let id = id();
    games.create(&id, "a", &chess()).await.unwrap();
    for round in 0..5 {
        other.update(&id, "b", |game| game.items.push(format!("b{round}"))).await.unwrap();
        let updated =
            games.update(&id, "a", |game| game.items.push(format!("a{round}"))).await.unwrap();
        assert_eq!(updated.state.items.len(), 2 * (round + 1));
    }
    check_log(&games, &id).await;
}

#[tokio::test]
async fn a_document_that_waits_takes_no_more_events() {
    let test = with_log().await;
    let log = test.db.collection::<bson::RawDocumentBuf>("games.events");
    let raw = async |id: &DocumentId, version: i64, event: NewEvent| {
        let key = EventKey { document: id.clone(), version };
        log.insert_one(event.encode(&key)).await.unwrap();
    };
    let (games, parked, holed) = (uncached(&test), id(), id());
    games.create(&parked, "a", &chess()).await.unwrap();
    raw(&parked, 2, patch("b", rawdoc! { "$inc": { "name": 1 } })).await;
    let error = games.update(&parked, "a", |game| game.gold = 0).await.unwrap_err();
    assert!(matches!(&error, WriteError::Parked { mark, .. } if mark.version == 2), "{error}");
    assert_eq!(games.get(&parked).await.unwrap().unwrap().version, 1);

    games.create(&holed, "a", &chess()).await.unwrap();
    raw(&holed, 3, patch("b", rawdoc! { "$inc": { "gold": 1 } })).await;
    let error = games.update(&holed, "a", |game| game.gold = 0).await.unwrap_err();
    assert!(matches!(error, WriteError::Gap { version: 2, .. }), "{error}");
    raw(&holed, 2, patch("b", rawdoc! { "$inc": { "gold": 1 } })).await;
    let updated = games.update(&holed, "a", |game| game.gold += 1).await.unwrap();
    assert_eq!((updated.version, updated.state.gold), (4, 13));
}

#[tokio::test]
async fn a_log_is_never_made_by_a_write() {
    let test = database().await;
    let error = games::<Game>(&test).create(&id(), "a", &chess()).await.unwrap_err().to_string();
    assert!(error.contains("`games.events` does not exist in the database"), "{error}");
    assert_eq!(test.db.list_collection_names().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_writer_goes_on_with_the_log_that_takes_the_place_of_another() {
    let test = with_log().await;
    let (id, games) = (id(), games::<Game>(&test));
    games.create(&id, "a", &chess()).await.unwrap();
    assert_eq!(games.update(&id, "a", |game| game.gold += 1).await.unwrap().version, 2);
    test.db.collection::<bson::Document>("games.events").drop().await.unwrap();
    let error = games.update(&id, "a", |game| game.gold += 1).await.unwrap_err();
    assert!(error.to_string().contains("`games.events`"), "{error}");
    test.db.create_collection("games.events").await.unwrap();
    // Version 3 of the remembered document would stand behind a gap here.
    let error = games.update(&id, "a", |game| game.gold += 1).await.unwrap_err();
    assert!(matches!(error, WriteError::NotFound { .. }), "{error}");
    assert_eq!(games.create(&id, "a", &chess()).await.unwrap().version, 1);
}

#[tokio::test]
async fn an_event_beyond_the_limits_of_its_collection_is_refused() {
    let test = with_log().await;
    let limits = FoldLimits { event_bytes_max: 500, ..FoldLimits::default() };
    let options = WriterOptions { limits, ..WriterOptions::default() };
    let games = EventSourced::<Game>::with_options(&test.db, "games", options);
    let id = id();
    games.create(&id, "a", &chess()).await.unwrap();
    let large = patch("a", rawdoc! { "$set": { "name": "x".repeat(500) } });
    let error = games.append(&id, large.clone()).await.unwrap_err();
    assert!(matches!(error, WriteError::Unfit { .. }), "{error}");
    assert!(error.to_string().contains("`max_event_bytes` allows 500"), "{error}");
    // Under wider limits it fits, and then a reader with the narrow ones says why the document waits.
    self::games::<Game>(&test).append(&id, large).await.unwrap();
    let parked = games.append(&id, patch("a", rawdoc! {})).await.unwrap_err();
    assert!(matches!(parked, WriteError::Parked { .. }), "{parked}");
}
