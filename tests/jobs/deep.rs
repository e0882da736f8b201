//! What reaches below a base, through the archive: answers to clients that the base has passed, and proofs of bases.

use alluvium::{
    archive::{Archive, Place},
    model::{base::Base, clock::Clock, id::DocumentId},
    read::{Missing, MissingQuery, ReadLimits, Reader},
};
use bson::{Document, RawDocumentBuf, doc};

use crate::{
    archiving::{archived, ended, reader, segments},
    ask,
    compacting::{clock, compact, turn},
    count, run,
    scene::Scene,
};

/// What a client with this clock is told, page after page, until it has everything.
async fn told(
    reader: &Reader,
    clock: &Clock,
    limit: u32,
    archive: bool,
) -> Vec<(Vec<RawDocumentBuf>, Clock)> {
    let id = DocumentId::from_text("a").unwrap();
    let (mut clock, mut pages) = (clock.clone(), Vec::new());
    loop {
        let query = MissingQuery { clock, limit, archive, ..MissingQuery::default() };
        let Missing { events, snapshot, next_clock, more, .. } =
            reader.missing(&id, &query).await.unwrap().unwrap();
        assert!(snapshot.is_none());
        assert!(events.is_sorted_by_key(|event| event.version));
        pages.push((events.into_iter().map(|event| event.raw).collect(), next_clock.clone()));
        if !more {
            return pages;
        }
        clock = next_clock;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_the_base_has_passed_gets_every_event_as_before_if_it_wants_the_archive() {
    let (scene, daemon, directory) = archived(120).await;
    let (id, wide) = (DocumentId::from_text("a").unwrap(), reader(&scene, directory.path()));
    let place = Place::Directory(directory.path().join("archive"));
    let limits = ReadLimits { bytes_max: 1_500, ..ReadLimits::default() };
    let narrow = Reader::new(&scene.db, "games", limits);
    let narrow = narrow.with_archive(Some(Archive::at(&place, scene.db.name(), "games")));
    // Prefixes, and clocks that are none.
    let mut clocks = [0, 1, 50, 99, 100, 101, 120].map(clock).to_vec();
    for (client, upto) in [("desk", 3), ("phone", 119), ("server", 60)] {
        let mut sparse = clock(120);
        sparse.set(client, clock(upto).get(client));
        clocks.push(sparse);
        let mut alone = Clock::new();
        alone.set(client, clock(upto).get(client));
        clocks.push(alone);
    }
    let mut before = Vec::new();
    for clock in &clocks {
        for limit in [1, 7, 1_000] {
            before.push(told(&wide, clock, limit, false).await);
        }
        before.push(told(&narrow, clock, 1_000, false).await);
    }
    compact(&scene, doc! {}).await;
    let mut before = before.into_iter();
    for clock in &clocks {
        for limit in [1, 7, 1_000] {
            assert_eq!(Some(told(&wide, clock, limit, true).await), before.next(), "{clock:?}");
        }
        assert_eq!(Some(told(&narrow, clock, 1_000, true).await), before.next(), "{clock:?}");
    }
    // Who does not ask for it gets the base.
    let query = MissingQuery { limit: 10, ..MissingQuery::default() };
    assert!(wide.missing(&id, &query).await.unwrap().unwrap().snapshot.is_some());

    let missing = "/v1/collections/games/documents/a/missing?clock={}&limit=5";
    let answer = ask(&daemon, "GET", &format!("{missing}&archive=true")).await;
    assert_eq!((answer.status, &answer.json["answer"]), (200, &"events".into()), "{answer:?}");
    assert_eq!(answer.json["events"][0]["version"], 1, "{answer:?}");
    let answer = ask(&daemon, "GET", missing).await;
    assert_eq!(answer.json["answer"], "snapshot", "{answer:?}");
    let file = configuration(&scene, directory.path());
    let arguments = ["missing", "games", "a", "--clock", "{}", "--limit", "3", "--json"];
    let arguments = [&arguments[..], &["--archive", "--config", &file]].concat();
    let shown = run(&scene, &arguments).await;
    assert!(shown.out.contains("\"answer\": \"events\""), "{shown:?}");

    // Whatever is wrong with the archive is said, and no base given in its place.
    let segment = segments(directory.path()).pop().unwrap();
    let name = format!("segments/{}", segment.file_name().unwrap().to_string_lossy());
    let whole = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &whole[..whole.len() / 2]).unwrap();
    let answer = ask(&daemon, "GET", &format!("{missing}&archive=true")).await;
    assert_eq!((answer.status, &answer.json["segment"]), (410, &name.clone().into()), "{answer:?}");
    let answer = ask(&daemon, "GET", missing).await;
    assert_eq!((answer.status, &answer.json["answer"]), (200, &"snapshot".into()), "{answer:?}");
    std::fs::rename(directory.path().join("archive"), directory.path().join("aside")).unwrap();
    let answer = ask(&daemon, "GET", &format!("{missing}&archive=true")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.json["detail"].as_str().unwrap().contains(&name), "{answer:?}");
    daemon.stop().await;
}

/// The file of a configuration that knows the archive.
fn configuration(scene: &Scene, directory: &std::path::Path) -> String {
    let file = directory.join("alluvium.toml");
    let archive = directory.join("archive");
    let (uri, database) = (&scene.uri, scene.db.name());
    let config = format!(
        "[mongodb]\nuri = \"{uri}\"\ndatabase = \"{database}\"\n[[collections]]\nname = \"games\"\n\
         [collections.compaction]\narchive = \"file://{}\"\n",
        archive.display()
    );
    std::fs::write(&file, config).unwrap();
    file.to_string_lossy().into_owned()
}

fn deep() -> Document {
    doc! { "kind": "verify", "collection": "games", "deep": true }
}

async fn result(scene: &Scene, job: Document) -> Document {
    ended(scene, job, "done").await.get_document("result").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_verify_and_a_rebuild_prove_bases_by_everything_that_was_archived() {
    let (scene, daemon, directory) = archived(200).await;
    compact(&scene, doc! {}).await;
    let proven = |result: &Document| (count(result, "proven"), count(result, "unproven"));
    let found = result(&scene, deep()).await;
    assert_eq!((count(&found, "differences"), proven(&found)), (0, (2, 0)), "{found}");
    let rebuilt = result(&scene, doc! { "kind": "rebuild", "collection": "games" }).await;
    assert_eq!((count(&rebuilt, "differences"), proven(&rebuilt)), (0, (2, 0)), "{rebuilt}");
    let one = doc! { "document": "b" };
    let found = result(&scene, deep().into_iter().chain(one).collect()).await;
    assert_eq!(proven(&found), (1, 0), "{found}");
    let found = result(&scene, doc! { "kind": "verify", "collection": "games" }).await;
    assert!(!found.contains_key("proven"), "{found}");

    // A base that says something else, with a checksum that fits.
    let log = scene.db.collection::<RawDocumentBuf>("games.events");
    let stored = log.find_one(doc! { "op": "base", "_id.d": "a" }).await.unwrap().unwrap();
    let mut base = Base::from_raw(&stored).unwrap();
    let mut state = Document::try_from(base.state.as_ref().unwrap()).unwrap();
    state.insert("n", 999);
    base.state = Some(RawDocumentBuf::try_from(&state).unwrap());
    let key = doc! { "op": "base", "_id.d": "a" };
    log.replace_one(key.clone(), base.to_raw()).await.unwrap();
    let checked = run(&scene, &["verify", "games", "--deep"]).await;
    assert_eq!(checked.code, Some(3), "{checked:?}");
    assert!(
        checked.out.contains("its base is not what its archived events make: `state.n` differs"),
        "{checked:?}"
    );
    log.replace_one(key, stored).await.unwrap();

    let segment = segments(directory.path()).pop().unwrap();
    let name = format!("segments/{}", segment.file_name().unwrap().to_string_lossy());
    let whole = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &whole[..whole.len() / 2]).unwrap();
    for arguments in [&["verify", "games", "--deep"][..], &["rebuild", "games"]] {
        let checked = run(&scene, arguments).await;
        assert!(checked.code == Some(3) && checked.out.contains(&name), "{checked:?}");
    }
    assert_eq!(run(&scene, &["verify", "games"]).await.code, Some(0));
    std::fs::rename(directory.path().join("archive"), directory.path().join("aside")).unwrap();
    let failed = run(&scene, &["verify", "games", "--deep"]).await;
    assert!(failed.code == Some(1) && failed.err.contains("is it mounted?"), "{failed:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pruned_without_an_archive_is_not_proven_and_answered_by_the_base() {
    let (mut scene, daemon, directory) = archived(120).await;
    daemon.stop().await;
    let archive = scene.games_config().compaction.archive.take();
    let daemon = scene.start().await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    compact(&scene, doc! { "document": "a" }).await;
    let refused = run(&scene, &["verify", "games", "--deep"]).await;
    assert!(refused.code == Some(1) && refused.err.contains("has no archive"), "{refused:?}");
    daemon.stop().await;
    scene.games_config().compaction.archive = archive;
    let daemon = scene.start().await;
    scene.append((121..=240).map(|version| turn("a", version))).await;
    scene.reached("a", 240).await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    compact(&scene, doc! {}).await;
    let checked = run(&scene, &["verify", "games", "--deep"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let says =
        "1 bases proven through the archive, 1 stand for events that were pruned without one";
    assert!(checked.out.contains(says), "{checked:?}");
    let (id, reader) = (DocumentId::from_text("a").unwrap(), reader(&scene, directory.path()));
    for (upto, is_snapshot) in [(50, true), (101, false), (130, false)] {
        let archive = true;
        let query =
            MissingQuery { clock: clock(upto), limit: 500, archive, ..MissingQuery::default() };
        let answer = reader.missing(&id, &query).await.unwrap().unwrap();
        assert_eq!(answer.snapshot.is_some(), is_snapshot, "{upto}");
        assert_eq!((answer.next_clock, answer.more), (clock(240), false));
    }
    daemon.stop().await;
}
