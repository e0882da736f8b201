//! What is claimed about MongoDB where logs are compacted, each claim as one test body.

use bson::{DateTime, RawDocumentBuf, Uuid, rawdoc};

use super::{
    Server,
    bodies::{event, first, id, keys, tail},
};
use crate::{
    log::{EventLog, LogSource, Start},
    model::{
        base::Base,
        clock::Clock,
        compaction::{LiveClient, Mark},
        position::LogId,
    },
    simulation::world::COLLECTION,
    store::{Bases, Over, Prune, PruneOutcome, QuarantineRows, Restore, Which},
};

fn create(document: &str) -> RawDocumentBuf {
    rawdoc! {
        "_id": { "d": document, "s": 1_i32 }, "client": "c", "op": "create", "state": { "n": 1 },
        "at": DateTime::MIN,
    }
}

fn base(document: &str, version: i64, pruned: i64) -> Base {
    let mut clock = Clock::new();
    clock.set("c", version);
    Base {
        key: rawdoc! { "d": document, "s": 1_i32 },
        id: id(document),
        version,
        clock,
        state: Some(rawdoc! { "n": version }),
        at: DateTime::MIN,
        at_max: DateTime::MIN,
        fold: 1,
        pruned,
        based_at: DateTime::from_millis(5),
        mark: None,
        erased_through: 0,
    }
}

async fn log_of<S: Server>(server: &S) -> <S::Source as LogSource>::Log {
    server.source().open_existing(COLLECTION).await.unwrap()
}

/// The versions that are there of a document.
async fn versions(server: &impl Server, document: &str) -> Vec<i64> {
    let now = server.source().now().await.unwrap();
    let page = log_of(server).await.read(&id(document), 0, 100, Some(now)).await.unwrap();
    keys(&page).into_iter().map(|key| key.version).collect()
}

async fn stored(server: &impl Server, document: &str) -> RawDocumentBuf {
    let now = server.source().now().await.unwrap();
    let page = log_of(server).await.first(&id(document), Some(now)).await.unwrap();
    let first = page.documents().unwrap().next().unwrap().unwrap();
    first.to_owned()
}

/// A document of `versions` events with a base.
async fn based(server: &impl Server, document: &str, versions: i64, base: &Base) {
    let mut events = vec![create(document)];
    events.extend((2..=versions).map(|version| event(document, version)));
    server.append(&events).await;
    let log = log_of(server).await.id();
    assert!(server.store().put_base(log, base, &Over::Create).await.unwrap());
}

pub(super) async fn a_base_takes_the_place_of_what_it_was_made_of_and_no_stream_tells_of_it(
    server: &impl Server,
) {
    let start = Start::At(server.source().now().await.unwrap());
    let (store, earlier, later) = (server.store(), base("a", 3, 1), base("a", 4, 1));
    based(server, "a", 4, &earlier).await;
    let log = log_of(server).await.id();
    assert_eq!(stored(server, "a").await, earlier.to_raw());
    assert!(!store.put_base(log, &later, &Over::Create).await.unwrap());
    let which = Which::from(&earlier);
    let others = [
        Which { version: 2, ..which.clone() },
        Which { hash: [7; 32], ..which.clone() },
        Which { pruned: 2, ..which.clone() },
    ];
    for other in others {
        assert!(!store.put_base(log, &later, &Over::Base(other)).await.unwrap());
    }
    assert_eq!(stored(server, "a").await, earlier.to_raw());
    let other_log = LogId(Uuid::new());
    let over = Over::Base(which);
    assert!(store.put_base(other_log, &later, &over).await.is_err());
    assert!(store.put_base(log, &later, &over).await.unwrap());
    assert!(!store.put_base(log, &later, &over).await.unwrap());
    assert_eq!(stored(server, "a").await, later.to_raw());
    // Of a document that is not there.
    assert!(!store.put_base(log, &base("b", 3, 1), &Over::Create).await.unwrap());
    assert_eq!(versions(server, "b").await, Vec::<i64>::new());
    server.append(&[event("a", 5)]).await;
    let (told, _) = first(&mut tail(server, &start).await, 5).await;
    assert_eq!(told, ["a 1", "a 2", "a 3", "a 4", "a 5"]);
}

pub(super) async fn steps_of_pruning_are_taken_together_or_not_at_all(server: &impl Server) {
    let store = server.store();
    let (a, b) = (base("a", 4, 1), base("b", 3, 1));
    based(server, "a", 5, &a).await;
    based(server, "b", 4, &b).await;
    let log = log_of(server).await.id();
    let step = |base: &Base, through| Prune { id: base.id.clone(), base: base.into(), through };
    let moved = Prune { base: Which { pruned: 2, ..Which::from(&b) }, ..step(&b, 2) };
    let outcome = async |steps: &[Prune]| store.prune(log, steps).await.unwrap();
    assert_eq!(outcome(&[step(&a, 3), moved]).await, PruneOutcome::Moved);
    assert_eq!(versions(server, "a").await, [1, 2, 3, 4, 5]);
    assert!(store.prune(LogId(Uuid::new()), &[step(&a, 3)]).await.is_err());
    assert_eq!(outcome(&[step(&a, 2), step(&b, 2)]).await, PruneOutcome::Done);
    assert_eq!(versions(server, "a").await, [1, 3, 4, 5]);
    assert_eq!(versions(server, "b").await, [1, 3, 4]);
    let pruned = Base { pruned: 2, ..a.clone() };
    assert_eq!(stored(server, "a").await, pruned.to_raw());
    // The same again, as after a lost answer.
    assert_eq!(outcome(&[step(&a, 2)]).await, PruneOutcome::Moved);
    assert_eq!(outcome(&[step(&pruned, 3)]).await, PruneOutcome::Done);
    assert_eq!(versions(server, "a").await, [1, 4, 5]);
}

pub(super) async fn a_step_of_pruning_that_finds_too_little_does_nothing(server: &impl Server) {
    let store = server.store();
    let c = base("c", 5, 1);
    server.append(&[create("c"), event("c", 2), event("c", 4), event("c", 5)]).await;
    let log = log_of(server).await.id();
    assert!(store.put_base(log, &c, &Over::Create).await.unwrap());
    let step = |through| Prune { id: id("c"), base: (&c).into(), through };
    assert_eq!(store.prune(log, &[step(4)]).await.unwrap(), PruneOutcome::Short);
    assert_eq!(versions(server, "c").await, [1, 2, 4, 5]);
    assert_eq!(stored(server, "c").await, c.to_raw());
    assert_eq!(store.prune(log, &[step(2)]).await.unwrap(), PruneOutcome::Done);
}

pub(super) async fn what_came_late_is_kept_on_record_and_taken_out(server: &impl Server) {
    let (store, a) = (server.store(), base("a", 5, 1));
    based(server, "a", 6, &a).await;
    let log = log_of(server).await.id();
    let step = Prune { id: id("a"), base: (&a).into(), through: 4 };
    assert_eq!(store.prune(log, &[step]).await.unwrap(), PruneOutcome::Done);
    let pruned = Base { pruned: 4, ..a.clone() };
    let late = async |limit| {
        let now = server.source().now().await.unwrap();
        store.late(log, &pruned, limit, now).await.unwrap()
    };
    assert_eq!(late(10).await, Vec::<RawDocumentBuf>::new());
    server.append(&[event("a", 2), event("a", 4)]).await;
    assert_eq!(late(10).await, [event("a", 2), event("a", 4)]);
    assert_eq!(late(1).await, [event("a", 2)]);
    let removed = async |base: &Base, event| store.remove_late(log, base, &event).await.unwrap();
    let mut other = event("a", 2);
    other.append(bson::raw::cstr!("more"), 1);
    assert!(!removed(&pruned, other).await);
    assert!(!removed(&a, event("a", 2)).await, "the base has moved");
    assert_eq!(versions(server, "a").await, [1, 2, 4, 5, 6]);
    assert!(removed(&pruned, event("a", 2)).await);
    assert!(!removed(&pruned, event("a", 2)).await);
    assert!(removed(&pruned, event("a", 4)).await);
    assert_eq!(versions(server, "a").await, [1, 5, 6]);
    assert_eq!(server.late_on_record().await, [event("a", 2), event("a", 4)]);
    assert_eq!(store.load_quarantine().await.unwrap(), []);
    // It is the same base still.
    assert_eq!(Base::from_raw(&stored(server, "a").await), Ok(pruned));
}

pub(super) async fn what_is_put_back_takes_free_places_together_with_its_base_or_not_at_all(
    server: &impl Server,
) {
    let (store, a) = (server.store(), base("a", 5, 1));
    based(server, "a", 6, &a).await;
    let log = log_of(server).await.id();
    let prune = Prune { id: id("a"), base: (&a).into(), through: 4 };
    assert_eq!(store.prune(log, &[prune]).await.unwrap(), PruneOutcome::Done);
    let step = |base: &Base, pruned, events: &[RawDocumentBuf]| Restore {
        id: id("a"),
        base: base.into(),
        pruned,
        events: events.to_vec(),
    };
    let (all, half) = (Base { pruned: 4, ..a.clone() }, Base { pruned: 2, ..a.clone() });
    let upper = step(&all, 2, &[event("a", 3), event("a", 4)]);
    let lower = step(&half, 0, &[create("a"), event("a", 2)]);
    let restored = async |step: &Restore| store.restore(log, step).await.unwrap();
    assert!(!restored(&step(&a, 2, &upper.events)).await, "the base has moved");
    assert!(!restored(&lower).await, "it is not so far yet");
    assert!(store.restore(LogId(Uuid::new()), &upper).await.is_err());
    // Something came late, and stands in the way.
    server.append(&[event("a", 4)]).await;
    assert!(!restored(&upper).await);
    assert_eq!(versions(server, "a").await, [1, 4, 5, 6]);
    assert_eq!(Base::from_raw(&stored(server, "a").await), Ok(all.clone()));
    assert!(store.remove_late(log, &all, &event("a", 4)).await.unwrap());
    assert!(restored(&upper).await);
    assert!(!restored(&upper).await, "as after a lost answer");
    assert_eq!(versions(server, "a").await, [1, 3, 4, 5, 6]);
    assert!(restored(&lower).await);
    assert!(!restored(&lower).await);
    assert_eq!(versions(server, "a").await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(stored(server, "a").await, create("a"));

    let ids = [id("a"), id("b")];
    store.hold(log, &ids[0], true).await.unwrap();
    assert_eq!(store.held(log, &ids).await.unwrap().into_iter().collect::<Vec<_>>(), [id("a")]);
    assert!(store.held(LogId(Uuid::new()), &ids).await.unwrap().is_empty());
    store.hold(log, &ids[0], false).await.unwrap();
    store.hold(log, &ids[1], false).await.unwrap();
    assert!(store.held(log, &ids).await.unwrap().is_empty());
}

pub(super) async fn marks_and_clients_are_those_of_the_log_and_of_the_documents(
    server: &impl Server,
) {
    let store = server.store();
    server.append(&[create("a"), create("b")]).await;
    let log = log_of(server).await.id();
    let mark = |version| Mark { version, at: DateTime::from_millis(version) };
    server.mark(log, &id("a"), &[mark(3), mark(7)]).await;
    server.mark(LogId(Uuid::new()), &id("b"), &[mark(3)]).await;
    let marks = store.marks(log, &[id("a"), id("b"), id("c")]).await.unwrap();
    assert_eq!(marks.into_iter().collect::<Vec<_>>(), [(id("a"), vec![mark(3), mark(7)])]);
    let client = |name: &str, count| {
        let mut clock = Clock::new();
        clock.set("c", count);
        LiveClient {
            name: name.into(),
            clock,
            seen_at: DateTime::from_millis(count),
            is_readable: true,
        }
    };
    server.acknowledge(&id("a"), client("phone", 1)).await;
    server.acknowledge(&id("a"), client("desk", 2)).await;
    server.acknowledge(&id("b"), client("phone", 3)).await;
    let mut clients = store.clients(&[id("a"), id("c")]).await.unwrap();
    let mut of_a = clients.remove(&id("a")).unwrap();
    of_a.sort_by_key(|client| client.seen_at);
    assert_eq!(of_a, [client("phone", 1), client("desk", 2)]);
    assert!(clients.is_empty());
}
