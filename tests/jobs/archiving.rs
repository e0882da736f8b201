//! Archives on the file system, over a real server: what goes is kept before, can be read, and comes back byte for byte.

use std::path::{Path, PathBuf};

use alluvium::{
    archive::{Archive, Place},
    model::id::DocumentId,
    read::{ReadError, ReadLimits, Reader},
};
use bson::{DateTime, Document, doc};
use futures::TryStreamExt;

use crate::{
    ask, became,
    compacting::{compact, log_of, scene, turn, versions},
    count, insert, run,
    scene::{Running, Scene},
};

/// A scene with an archive in a directory, and a daemon that has projected `upto` events.
pub(super) async fn archived(upto: i64) -> (Scene, Running, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut scene = scene(20).await;
    scene.games_config().compaction.archive =
        Some(Place::Directory(directory.path().join("archive")));
    let daemon = scene.start().await;
    scene.append((1..=upto).map(|version| turn("a", version))).await;
    scene.append((1..=upto).map(|version| turn("b", version))).await;
    scene.reached("a", upto).await;
    scene.reached("b", upto).await;
    daemon.says("it tails", |status| status.lag_seconds == Some(0.0)).await;
    (scene, daemon, directory)
}

pub(super) fn reader(scene: &Scene, directory: &Path) -> Reader {
    let place = Place::Directory(directory.join("archive"));
    let archive = Archive::at(&place, scene.db.name(), "games");
    Reader::new(&scene.db, "games", ReadLimits::default()).with_archive(Some(archive))
}

/// The whole log, as bytes.
async fn raw_log(scene: &Scene) -> Vec<Vec<u8>> {
    let log = scene.db.collection::<bson::RawDocumentBuf>("games.events");
    let found = log.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
    let events: Vec<bson::RawDocumentBuf> = found.try_collect().await.unwrap();
    events.into_iter().map(bson::RawDocumentBuf::into_bytes).collect()
}

pub(super) fn segments(directory: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(directory.join("archive/segments")).unwrap();
    found.map(|entry| entry.unwrap().path()).collect()
}

pub(super) async fn ended(scene: &Scene, job: Document, state: &str) -> Document {
    let id = insert(scene, job).await;
    became(scene, &id, state).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compacted_is_read_through_the_archive_and_restored_byte_for_byte() {
    let (scene, daemon, directory) = archived(1_500).await;
    let id = DocumentId::from_text("a").unwrap();
    let reader = reader(&scene, directory.path());
    let earlier = reader.at_version(&id, 1_200).await.unwrap().unwrap().to_raw();
    let history = reader.history(&id, 100, 50).await.unwrap();
    let before = raw_log(&scene).await;
    let row = scene.row("a").await.unwrap();
    let result = compact(&scene, doc! {}).await;
    assert_eq!((count(&result, "bases"), count(&result, "events")), (2, 2 * 1_478), "{result}");
    assert!(daemon.metric("archived_bytes_total", "").unwrap() > 1_000.0);

    // Below the base.
    assert_eq!(reader.at_version(&id, 1_200).await.unwrap().unwrap().to_raw(), earlier);
    let time = DateTime::from_millis(1_200_000);
    assert_eq!(reader.at_time(&id, time).await.unwrap().unwrap().to_raw(), earlier);
    assert_eq!(reader.whole_history(&id, 100, 50).await.unwrap(), history);
    let mut told = Vec::new();
    let mut next = Some(0);
    while let Some(after) = next {
        let page = reader.whole_history(&id, after, 400).await.unwrap();
        told.extend(page.events.iter().map(|event| event.version));
        next = page.next;
    }
    assert_eq!(told, (1..=1_500).collect::<Vec<_>>());
    let events = "/v1/collections/games/documents/a/events?after_version=5&limit=2";
    assert_eq!(ask(&daemon, "GET", events).await.status, 410);
    let answer = ask(&daemon, "GET", &format!("{events}&archive=true")).await;
    assert_eq!((answer.status, &answer.json["next"]), (200, &7.into()), "{answer:?}");
    let answer = ask(&daemon, "GET", "/v1/collections/games/documents/a?at_version=7").await;
    assert_eq!((answer.status, &answer.json["version"]), (200, &7.into()), "{answer:?}");

    // Restored while events go on, and held.
    scene.append([turn("b", 1_501)]).await;
    let restore = doc! { "kind": "restore", "collection": "games" };
    let result = ended(&scene, restore, "done").await;
    let result = result.get_document("result").unwrap();
    assert_eq!((count(result, "documents"), count(result, "differences")), (2, 0), "{result}");
    scene.reached("b", 1_501).await;
    let mut after = raw_log(&scene).await;
    after.pop();
    assert_eq!(after, before);
    assert_eq!(scene.row("a").await.unwrap(), row);
    let result = compact(&scene, doc! {}).await;
    assert_eq!((count(&result, "bases"), count(&result, "events")), (0, 0), "{result}");
    let held = result.get_document("pinned").unwrap();
    assert_eq!(held.get_i64("hold").unwrap(), 3_001, "{result}");
    let verified = ended(&scene, doc! { "kind": "verify", "collection": "games" }, "done").await;
    assert_eq!(count(verified.get_document("result").unwrap(), "differences"), 0);
    // Somebody asks for one of them, which is in the archive already.
    let kept = segments(directory.path());
    let result = compact(&scene, doc! { "document": "a" }).await;
    assert_eq!(count(&result, "events"), 1_478, "{result}");
    assert_eq!(segments(directory.path()), kept);
    assert_eq!(versions(&log_of(&scene, "b").await).len(), 1_501);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_away_or_anothers_stops_compaction_with_a_sentence_and_nothing_else() {
    let (mut scene, daemon, directory) = archived(200).await;
    let before = raw_log(&scene).await;
    let place = directory.path().join("archive");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("manifest.json"), r#"{"collection": "others"}"#).unwrap();
    let failed = ended(&scene, doc! { "kind": "compact", "collection": "games" }, "failed").await;
    let error = failed.get_str("error").unwrap();
    assert!(error.contains("others") && error.contains("an archive of its own"), "{error}");
    for damaged in ["", "{"] {
        std::fs::write(place.join("manifest.json"), damaged).unwrap();
        let order = doc! { "kind": "compact", "collection": "games" };
        let failed = ended(&scene, order, "failed").await;
        let error = failed.get_str("error").unwrap();
        assert!(error.contains("damaged") && error.contains("\"collection\":\"games\""), "{error}");
    }
    assert_eq!(raw_log(&scene).await, before);
    daemon.stop().await;
    // Its parent is missing; by policy, and told in the status.
    let compaction = &mut scene.games_config().compaction;
    compaction.archive = Some(Place::Directory(directory.path().join("not/mounted")));
    compaction.every = Some(std::time::Duration::from_secs(1));
    let daemon = scene.start().await;
    daemon
        .says("compaction stands", |status| {
            status.compaction_stands.as_ref().is_some_and(|why| why.contains("mount the directory"))
        })
        .await;
    scene.append([turn("a", 201)]).await;
    scene.reached("a", 201).await;
    assert_eq!(raw_log(&scene).await.len(), before.len() + 1);
    std::fs::create_dir(directory.path().join("not")).unwrap();
    let result = compact(&scene, doc! {}).await;
    assert_eq!(count(&result, "differences"), 0, "{result}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_from_the_archive_is_written_anew_before_it_goes_from_the_log() {
    let (scene, daemon, directory) = archived(60).await;
    let (a, restore) = (doc! { "document": "a" }, ["restore", "games", "a"]);
    let before = log_of(&scene, "a").await;
    for turn in 0..3 {
        assert!(count(&compact(&scene, a.clone()).await, "events") > 0);
        let restored = run(&scene, &restore).await;
        assert_eq!(restored.code, Some(0), "{turn}: {restored:?}");
        assert_eq!(log_of(&scene, "a").await, before, "{turn}");
        for segment in segments(directory.path()) {
            let mut bytes = std::fs::read(&segment).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            match turn {
                0 => std::fs::remove_file(&segment).unwrap(),
                _ => std::fs::write(&segment, bytes).unwrap(),
            }
        }
    }
    assert!(count(&compact(&scene, a).await, "events") > 0);
    let checked = run(&scene, &["archive", "check", "games"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_of_one_document_is_told_and_the_others_are_restored() {
    let (scene, daemon, _directory) = archived(60).await;
    compact(&scene, doc! {}).await;
    // Both are to have an event of this client at this moment, and only one may.
    let log = scene.collection("games.events");
    let index = mongodb::IndexModel::builder()
        .keys(doc! { "at": 1 })
        .options(
            mongodb::options::IndexOptions::builder()
                .unique(true)
                .partial_filter_expression(doc! { "at": DateTime::from_millis(5_000) })
                .build(),
        )
        .build();
    log.create_index(index).await.unwrap();
    let restored = run(&scene, &["restore", "games"]).await;
    assert_eq!(restored.code, Some(3), "{restored:?}");
    for told in ["1 documents whole again", "1 documents could not be restored", "at_1"] {
        assert!(restored.out.contains(told), "{told}: {restored:?}");
    }
    assert_eq!(versions(&log_of(&scene, "a").await).len(), 60);
    // Nothing of it was put back, so it is not held.
    let is_held = doc! { "hold": { "$exists": true } };
    let held = scene.collection("alluvium.marks").count_documents(is_held).await.unwrap();
    assert_eq!(held, 1);
    let unknown = run(&scene, &["restore", "games", "nobody"]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.err.contains("never written"), "{unknown:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_missing_segment_is_named_and_nothing_is_deleted_because_of_it() {
    let (scene, daemon, directory) = archived(200).await;
    compact(&scene, doc! {}).await;
    let checked = run(&scene, &["archive", "check", "games"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let after = raw_log(&scene).await;
    let segment = segments(directory.path()).pop().unwrap();
    let name = format!("segments/{}", segment.file_name().unwrap().to_string_lossy());
    let whole = std::fs::read(&segment).unwrap();
    let id = DocumentId::from_text("a").unwrap();
    let reader = reader(&scene, directory.path());
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [Some(&whole[..whole.len() / 2]), Some(&flipped), None] {
        match damaged {
            Some(bytes) => std::fs::write(&segment, bytes).unwrap(),
            None => std::fs::remove_file(&segment).unwrap(),
        }
        let checked = run(&scene, &["archive", "check", "games"]).await;
        assert_eq!(checked.code, Some(3), "{checked:?}");
        assert!(checked.out.contains(&name), "{checked:?}");
        let error = reader.at_version(&id, 5).await.unwrap_err();
        assert!(matches!(error, ReadError::Archive(_)), "{error}");
        let answer = ask(&daemon, "GET", "/v1/collections/games/documents/a?at_version=5").await;
        assert_eq!((answer.status, &answer.json["segment"]), (410, &name.clone().into()));
        let restored = run(&scene, &["restore", "games", "a"]).await;
        assert_eq!(restored.code, Some(1), "{restored:?}");
        assert!(restored.err.contains(&name), "{restored:?}");
        assert_eq!(raw_log(&scene).await, after);
    }
    std::fs::rename(directory.path().join("archive"), directory.path().join("aside")).unwrap();
    let answer = ask(&daemon, "GET", "/v1/collections/games/documents/a?at_version=5").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    std::fs::rename(directory.path().join("aside"), directory.path().join("archive")).unwrap();
    std::fs::write(&segment, &whole).unwrap();
    let checked = run(&scene, &["archive", "check", "games"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let restored = run(&scene, &["restore", "games", "a"]).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert_eq!(versions(&log_of(&scene, "a").await).len(), 200);
    daemon.stop().await;
}
