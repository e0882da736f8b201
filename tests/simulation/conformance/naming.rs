//! What is claimed about MongoDB where a log loses its name, each claim as one test body.

use bson::{RawDocumentBuf, raw::cstr, rawdoc};

use super::{
    Server,
    bodies::{event, id, keys, scanned},
};
use crate::{
    database::{Error, Verdict, code},
    log::{EventLog, LogSource, Mend, Scan},
    model::event::EventKey,
    simulation::world::COLLECTION,
};

/// How a log may lose its name.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Renamed,
    RenamedAndReplaced,
    Dropped,
    DroppedAndReplaced,
}

const LOSSES: [Loss; 4] =
    [Loss::Renamed, Loss::RenamedAndReplaced, Loss::Dropped, Loss::DroppedAndReplaced];

impl Loss {
    async fn happen(self, server: &impl Server) {
        match self {
            Self::Renamed => server.rename_log().await,
            Self::RenamedAndReplaced => {
                server.rename_log().await;
                server.make_log().await;
            }
            Self::Dropped => server.drop_log().await,
            Self::DroppedAndReplaced => {
                server.drop_log().await;
                server.make_log().await;
            }
        }
    }

    /// The log has its name back if it still exists; otherwise there is an empty one.
    async fn end(self, server: &impl Server) {
        match self {
            Self::Renamed => server.rename_log_back().await,
            Self::RenamedAndReplaced => {
                server.drop_log().await;
                server.rename_log_back().await;
            }
            Self::Dropped => server.make_log().await,
            Self::DroppedAndReplaced => {}
        }
    }

    fn is_for_good(self) -> bool {
        matches!(self, Self::Dropped | Self::DroppedAndReplaced)
    }
}

/// The errors of every command on `log`.
async fn refusals<S: Server>(server: &S, log: &<S::Source as LogSource>::Log) -> Vec<Error> {
    let now = server.source().now().await.unwrap();
    let after = EventKey { document: id("a"), version: 1 };
    let filler = [event("a", 7)];
    let outcomes = [
        log.read(&id("a"), 0, 9, Some(now)).await.map(drop),
        log.read(&id("nobody"), 0, 9, None).await.map(drop),
        scanned(log, None, now).await.map(drop),
        scanned(log, Some(&after), now).await.map(drop),
        log.insert(&filler).await,
    ];
    let count = outcomes.len();
    let errors: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(errors.is_empty() || errors.len() == count, "some commands were carried out");
    errors
}

pub(super) async fn every_command_is_refused_while_its_log_is_not_there(server: &impl Server) {
    for loss in LOSSES {
        server.append(&[event("a", 1), event("a", 2)]).await;
        let log = server.source().open_existing(COLLECTION).await.unwrap();
        assert!(refusals(server, &log).await.is_empty());
        loss.happen(server).await;
        for refusal in refusals(server, &log).await {
            assert_eq!(refusal.code(), Some(code::LOG_MISMATCH), "{loss:?}: {refusal}");
            assert!(matches!(refusal.verdict(), Verdict::Stop(_)), "{loss:?}: {refusal}");
            let (text, uuid) = (refusal.to_string(), log.id().to_string());
            assert!(text.contains("`games.events`") && text.contains(&uuid), "{text}");
        }
        assert!(!refusals(server, &log).await.is_empty(), "{loss:?}");
        loss.end(server).await;
        assert_eq!(refusals(server, &log).await.is_empty(), !loss.is_for_good(), "{loss:?}");
        server.drop_log().await;
        server.make_log().await;
    }
}

pub(super) async fn a_log_is_found_under_its_name_alone(server: &impl Server) {
    for loss in LOSSES {
        let open = async || {
            let found = server.source().open(COLLECTION).await.unwrap();
            found.map(|log| log.id())
        };
        let before = open().await;
        loss.happen(server).await;
        let meanwhile = open().await;
        loss.end(server).await;
        let is_replaced = matches!(loss, Loss::RenamedAndReplaced | Loss::DroppedAndReplaced);
        assert!(before.is_some() && before != meanwhile, "{loss:?}");
        assert_eq!(meanwhile.is_some(), is_replaced, "{loss:?}");
        assert_eq!(open().await == before, !loss.is_for_good(), "{loss:?}");
    }
}

pub(super) async fn a_scan_of_a_log_that_is_taken_away_fails<S: Server>(server: &S) {
    let events: Vec<RawDocumentBuf> =
        (1..=S::NOT_READ_AHEAD).map(|version| event("a", version)).collect();
    for loss in LOSSES {
        server.append(&events).await;
        let now = server.source().now().await.unwrap();
        let log = server.source().open_existing(COLLECTION).await.unwrap();
        let mut scan = log.scan(None, now).await.unwrap();
        assert!(scan.next().await.unwrap().is_some());
        loss.happen(server).await;
        let error = loop {
            match scan.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{loss:?}: the scan ends as if nothing had happened"),
                Err(error) => break error,
            }
        };
        // Whoever begins again behind the last event is told why.
        assert_eq!((error.code(), error.verdict()), (Some(175), Verdict::Retry), "{loss:?}");
        loss.end(server).await;
        server.drop_log().await;
        server.make_log().await;
    }
}

pub(super) async fn a_scan_whose_log_was_away_for_a_moment_gives_all_or_fails<S: Server>(
    server: &S,
) {
    let events: Vec<RawDocumentBuf> =
        (1..=S::NOT_READ_AHEAD).map(|version| event("a", version)).collect();
    server.append(&events).await;
    let now = server.source().now().await.unwrap();
    let log = server.source().open_existing(COLLECTION).await.unwrap();
    let mut scan = log.scan(None, now).await.unwrap();
    let mut count = keys(&scan.next().await.unwrap().unwrap()).len();
    server.rename_log().await;
    server.rename_log_back().await;
    loop {
        match scan.next().await {
            Ok(Some(batch)) => count += keys(&batch).len(),
            Ok(None) => break assert_eq!(count, events.len()),
            // The server was asked for more while the log was away.
            Err(error) => break assert_eq!(error.code(), Some(175)),
        }
    }
}

pub(super) async fn a_read_that_does_not_fit_in_one_reply_is_cut<S: Server>(server: &S) {
    let large = |version| {
        let mut event = event("a", version);
        event.append(cstr!("meta"), "x".repeat(S::LARGE_EVENT));
        event
    };
    server.append(&[large(1), large(2), event("a", 3), event("a", 5), large(6)]).await;
    let log = server.source().open_existing(COLLECTION).await.unwrap();
    for (after, limit, found, is_cut) in [
        (0, 9, &[1][..], true),
        (0, 1, &[1], false),
        (1, 9, &[2, 3, 5], true),
        (1, 3, &[2, 3, 5], false),
        (2, 9, &[3, 5, 6], false),
        (6, 9, &[], false),
    ] {
        let batch = log.read(&id("a"), after, limit, None).await.unwrap();
        let versions: Vec<i64> = keys(&batch).iter().map(|key| key.version).collect();
        assert_eq!((&versions[..], batch.is_cut()), (found, is_cut), "{limit} above {after}");
    }
}

pub(super) async fn a_read_passes_over_keys_that_are_none(server: &impl Server) {
    let stray = |version: f64| {
        rawdoc! { "_id": { "d": "a", "s": version }, "client": "c", "op": "update", "patch": {} }
    };
    let strays = [stray(1.5), stray(2.5), stray(3.5)];
    server.append(&[event("a", 1), event("a", 5)]).await;
    server.append(&strays).await;
    let log = server.source().open_existing(COLLECTION).await.unwrap();
    for (after, limit, found) in [
        (0, 9, &[1, 5][..]),
        (0, 1, &[1]),
        (0, 2, &[1, 5]),
        (1, 1, &[5]),
        (1, 9, &[5]),
        (5, 9, &[]),
    ] {
        let batch = log.read(&id("a"), after, limit, None).await.unwrap();
        let versions: Vec<i64> = keys(&batch).iter().map(|key| key.version).collect();
        assert_eq!((&versions[..], batch.is_cut()), (found, false), "{limit} above {after}");
        assert!(batch.read_at().is_some());
    }
}
