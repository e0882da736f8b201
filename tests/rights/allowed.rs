//! What each role allows, by asking the server for everything.

use std::collections::BTreeSet;

use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::{
    Client, Database,
    error::{Error, ErrorKind},
};

use crate::{
    GAMES,
    secured::{DATABASE, Secured},
};

/// What may be done with a collection, by the names of the actions.
const VERBS: [&str; 9] = [
    "collMod",
    "createCollection",
    "createIndex",
    "dropCollection",
    "find",
    "insert",
    "listIndexes",
    "remove",
    "update",
];

/// All that there are, one that is none of the program's, and one of another database.
const COLLECTIONS: [&str; 14] = [
    "alluvium.archive",
    "alluvium.checkpoints",
    "alluvium.clients",
    "alluvium.jobs",
    "alluvium.leases",
    "alluvium.marks",
    "alluvium.meta",
    "alluvium.quarantine",
    "alluvium.skips",
    "games",
    "games.events",
    "games.snapshots",
    "somebodys",
    "other/games",
];

/// The code with which the server refuses what somebody has no right to.
const UNAUTHORIZED: i32 = 13;

/// Whether the server lets this in, whatever comes of it.
fn is_allowed(outcome: Result<Document, Error>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(error) => match *error.kind {
            ErrorKind::Command(ref command) => command.code != UNAUTHORIZED,
            ref other => panic!("{other}"),
        },
    }
}

/// A command that takes this action and changes nothing where it is allowed.
fn harmless(verb: &str, name: &str) -> Document {
    let nobody = doc! { "_id": "nobody", "never": true };
    // No collection has this identity, so that nothing is written.
    let nowhere = bson::Uuid::new();
    match verb {
        "collMod" => doc! { "collMod": name, "index": { "name": "none", "hidden": true } },
        "createCollection" => doc! { "create": name },
        "createIndex" => {
            let index = doc! { "key": { "_id": 1 }, "name": "_id_" };
            doc! { "createIndexes": name, "indexes": [index] }
        }
        "dropCollection" => doc! { "drop": name, "collectionUUID": nowhere },
        "find" => doc! { "find": name, "limit": 1, "singleBatch": true },
        "insert" => doc! { "insert": name, "documents": [nobody], "collectionUUID": nowhere },
        "listIndexes" => doc! { "listIndexes": name },
        "remove" => doc! { "delete": name, "deletes": [{ "q": nobody, "limit": 1 }] },
        "update" => {
            doc! { "update": name, "updates": [{ "q": nobody, "u": { "$set": { "x": 1 } } }] }
        }
        other => panic!("{other}"),
    }
}

/// What a user may do with each collection.
async fn allowed(uri: &str) -> Vec<(&'static str, String)> {
    let client = Client::with_uri_str(uri).await.unwrap();
    let mut allowed = Vec::new();
    for collection in COLLECTIONS {
        let (database, name) = collection.split_once('/').unwrap_or((DATABASE, collection));
        let mut verbs = Vec::new();
        for verb in VERBS {
            let command = harmless(verb, name);
            if is_allowed(client.database(database).run_command(command).await) {
                verbs.push(verb);
            }
        }
        allowed.push((collection, verbs.join(" ")));
    }
    allowed
}

/// A server on which everything is there.
async fn prepared() -> Secured {
    let secured = Secured::new(GAMES).await;
    let operator = secured.user("operator", "pw", "operator").await;
    let made = secured.run(&operator, GAMES, &["init"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    for collection in COLLECTIONS {
        let (database, name) = collection.split_once('/').unwrap_or((DATABASE, collection));
        let database = secured.db.client().database(database);
        let names = database.list_collection_names().await.unwrap();
        if !names.iter().any(|known| known == name) {
            database.create_collection(name).await.unwrap();
        }
    }
    secured
}

async fn check(secured: &Secured, role: &str, expected: &[(&str, &str)]) {
    let uri = secured.user(&format!("the {role}"), "pw", role).await;
    let found = allowed(&uri).await;
    let of = |collection: &str| {
        let known = expected.iter().find(|(name, _)| *name == collection);
        let mut verbs: BTreeSet<&str> =
            known.iter().flat_map(|(_, verbs)| verbs.split(' ')).collect();
        // Whoever may insert may also make the collection.
        verbs.extend(verbs.contains("insert").then_some("createCollection"));
        verbs.into_iter().collect::<Vec<_>>().join(" ")
    };
    for (collection, verbs) in &found {
        assert_eq!(verbs, &of(collection), "what the {role} may do with {collection}");
    }
    let client = Client::with_uri_str(&uri).await.unwrap();
    takes_nothing_over(&client).await;
    follows_the_stream(&client.database(DATABASE), role == "daemon").await;
    reads_the_oplog(&client, role == "daemon").await;
}

/// Nobody may do what makes more of himself, or ends others.
async fn takes_nothing_over(client: &Client) {
    let mine = doc! { "role": "root", "db": "admin" };
    for (database, command) in [
        (DATABASE, doc! { "dropDatabase": 1, "comment": "never" }),
        (DATABASE, doc! { "createUser": "x", "pwd": "x", "roles": [] }),
        (DATABASE, doc! { "create": "view", "viewOn": "somebodys", "pipeline": [] }),
        (DATABASE, doc! { "create": "games", "capped": true, "size": 4096 }),
        (DATABASE, doc! { "profile": 2 }),
        ("admin", doc! { "createRole": "x", "privileges": [], "roles": [] }),
        ("admin", doc! { "grantRolesToUser": "operator", "roles": [mine] }),
        ("admin", doc! { "renameCollection": "game.games.events", "to": "game.gone" }),
        ("admin", doc! { "killAllSessions": [] }),
        ("admin", doc! { "setParameter": 1, "notablescan": false }),
        ("admin", doc! { "serverStatus": 1 }),
        ("admin", doc! { "replSetGetConfig": 1 }),
        ("admin", doc! { "shutdown": 1 }),
    ] {
        let outcome = client.database(database).run_command(command.clone()).await;
        assert!(!is_allowed(outcome), "{command}");
    }
}

async fn follows_the_stream(database: &Database, expected: bool) {
    let watched = database.run_command(doc! {
        "aggregate": 1, "pipeline": [{ "$changeStream": {} }], "cursor": {},
    });
    assert_eq!(is_allowed(watched.await), expected);
}

async fn reads_the_oplog(client: &Client, expected: bool) {
    let find = doc! { "find": "oplog.rs", "limit": 1, "singleBatch": true };
    assert_eq!(is_allowed(client.database("local").run_command(find).await), expected);
    let write = doc! { "delete": "oplog.rs", "deletes": [{ "q": { "never": true }, "limit": 1 }] };
    assert!(!is_allowed(client.database("local").run_command(write).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_allows_what_it_is_for_and_nothing_else() {
    let secured = prepared().await;
    // The change stream is one over the database, and needs to find everything in it.
    let daemon = [
        ("alluvium.archive", "createIndex find insert remove update"),
        ("alluvium.checkpoints", "find insert remove update"),
        ("alluvium.clients", "createIndex find"),
        ("alluvium.jobs", "createIndex find insert update"),
        ("alluvium.leases", "find insert remove update"),
        ("alluvium.marks", "createIndex find insert update"),
        ("alluvium.meta", "find insert remove update"),
        ("alluvium.quarantine", "find insert remove update"),
        ("alluvium.skips", "find insert update"),
        ("games", "find insert remove update"),
        ("games.events", "find insert remove update"),
        ("games.snapshots", "find insert remove"),
        ("somebodys", "find"),
    ];
    check(&secured, "daemon", &daemon).await;
    let writer = [
        ("alluvium.meta", "find"),
        ("alluvium.quarantine", "find"),
        ("alluvium.skips", "find"),
        ("games", "find"),
        ("games.events", "find insert"),
    ];
    check(&secured, "writer", &writer).await;
    let operator = [
        ("alluvium.archive", "createIndex find"),
        ("alluvium.checkpoints", "find"),
        ("alluvium.clients", "createIndex find"),
        ("alluvium.jobs", "createIndex find insert update"),
        ("alluvium.leases", "find"),
        ("alluvium.marks", "createIndex find"),
        ("alluvium.meta", "find insert remove update"),
        ("alluvium.quarantine", "find"),
        ("alluvium.skips", "createCollection find"),
        ("games", "createCollection find"),
        ("games.events", "collMod createCollection find insert"),
        ("games.snapshots", "createCollection find"),
    ];
    check(&secured, "operator", &operator).await;
    let looked_at = COLLECTIONS.iter().filter(|name| {
        let others = ["alluvium.clients", "alluvium.marks", "somebodys", "other/games"];
        !others.contains(*name)
    });
    let reader: Vec<(&str, &str)> = looked_at.map(|name| (*name, "find")).collect();
    check(&secured, "reader", &reader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_can_be_pasted_again_and_bring_roles_up_to_date() {
    let secured = Secured::bare().await;
    let commands = secured.roles(GAMES).await;
    let named: BTreeSet<&str> =
        commands.iter().flat_map(|command| command.keys().next().map(String::as_str)).collect();
    assert_eq!(named, BTreeSet::from(["createRole", "updateRole"]));
    let paste = async |commands: &[Document]| {
        let mut codes = Vec::new();
        for command in commands {
            let outcome = secured.admin.run_command(command.clone()).await;
            codes.extend(outcome.err().map(|error| match *error.kind {
                ErrorKind::Command(ref command) => command.code,
                ref other => panic!("{other}"),
            }));
        }
        codes
    };
    assert_eq!(paste(&commands).await, Vec::<i32>::new());
    // An earlier version granted less, and there is one more collection by now.
    secured.change("revokePrivilegesFromRole", "daemon", "games.events", &["remove"]).await;
    let boats = format!("{GAMES}[[collections]]\nname = \"boats\"\n");
    let exist = 51_002;
    assert_eq!(paste(&secured.roles(&boats).await).await, [exist; 4]);
    for name in ["games.events", "boats.events"] {
        let granted = secured.granted("daemon", name).await;
        assert!(granted.contains(&"remove".to_owned()), "{granted:?}");
    }
    // As a program would take them.
    let uri = secured.uri("root", "correct");
    let printed = secured.run(&uri, &boats, &["init", "--roles", "--json"]).await;
    let printed: Vec<Document> = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(printed, secured.roles(&boats).await);
    let names = secured.db.list_collections().await.unwrap();
    let names: Vec<_> = names.try_collect().await.unwrap();
    assert!(names.is_empty(), "nothing is made with --roles");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_daemon_left_half_done_is_ended_by_one_of_the_same_user_alone() {
    let secured = prepared().await;
    let dead = secured.user("daemon", "pw", "daemon").await;
    let other = secured.user("another", "pw", "daemon").await;
    let database = async |uri: &str| Client::with_uri_str(uri).await.unwrap().database(DATABASE);
    let (next, dead) = (database(&dead).await, database(&dead).await);
    let other = database(&other).await;
    let mut session = dead.client().start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let rows = dead.collection::<Document>("games");
    rows.insert_one(doc! { "_id": "a" }).session(&mut session).await.unwrap();
    let kill = doc! { "killSessions": [session.id()] };
    let open = [
        doc! { "$currentOp": { "allUsers": true, "idleSessions": true } },
        doc! { "$match": { "lsid.id": session.id().get("id").unwrap(), "transaction": { "$exists": true } } },
    ];
    let is_open = async || {
        let mut open = secured.admin.aggregate(open.clone()).await.unwrap();
        open.advance().await.unwrap()
    };
    other.run_command(kill.clone()).await.unwrap();
    assert!(is_open().await);
    next.run_command(kill).await.unwrap();
    assert!(!is_open().await);
    assert_eq!(secured.refused(), Vec::<String>::new());
}
