//! A right that is missing is told in one sentence, with the action, the collection and what to do. Whatever can go on
//! without it does, and all goes on once it is there.

use bson::doc;
use serde_json::Value;

use crate::{
    GAMES,
    common::{Daemon, wait_for, wait_until},
    scene::{event, events},
    secured::{Ended, Secured},
};

const ROLES: &str = "`alluvium init --roles`";

/// Sees that a command failed with one line that says all this.
fn failed(ended: &Ended, parts: &[&str]) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    for part in parts.iter().chain([&ROLES]) {
        assert!(ended.err.contains(part), "{part} is not in {ended:?}");
    }
}

/// Waits until the daemon says this of `games`.
async fn says(daemon: &Daemon, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, async || {
        let (_, status) = daemon.get("/v1/status");
        let all = status["collections"].as_array()?.iter();
        all.filter(|one| one["name"] == "games").find(|one| wanted(one)).cloned()
    })
    .await
}

async fn projected(secured: &Secured, rows: &str, document: &str, version: i64) {
    let rows = secured.db.collection::<bson::Document>(rows);
    let row = doc! { "_id": document, "version": version };
    wait_until(document, async || rows.find_one(row.clone()).await.unwrap().is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_goes_is_named_stops_no_other_collection_and_may_come_back() {
    let both = format!("{GAMES}[[collections]]\nname = \"boats\"\n");
    let secured = Secured::new(&both).await;
    let uri = secured.user("daemon", "pw", "daemon").await;
    let mut daemon = secured.daemon(&uri, &both);
    daemon.ready().await;
    let log = |name: &str| secured.db.collection(name);
    for (collection, action) in [("games", "insert"), ("alluvium.checkpoints", "update")] {
        secured.change("revokePrivilegesFromRole", "daemon", collection, &[action]).await;
        log("games.events").insert_one(event(action, 1)).await.unwrap();
        let right = format!("`{action}` on `game.{collection}`");
        let right = match action {
            "update" => right.replace("`update`", "`update` and `insert`"),
            _ => right,
        };
        let told = says(&daemon, &right, |status| {
            status["last_error"]["message"].as_str().is_some_and(|said| said.contains(&right))
        });
        let told = told.await;
        assert!(told["last_error"]["advice"].as_str().unwrap().contains(ROLES), "{told}");
        if collection == "games" {
            log("boats.events").insert_one(event("boat", 1)).await.unwrap();
            projected(&secured, "boats", "boat", 1).await;
        }
        secured.change("grantPrivilegesToRole", "daemon", collection, &[action]).await;
        projected(&secured, "games", action, 1).await;
        says(&daemon, "it is well again", |status| status["last_error"].is_null()).await;
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_a_right_ends_with_the_right_that_is_missing() {
    let secured = Secured::new(GAMES).await;
    let uri = secured.user("daemon", "pw", "daemon").await;
    for (collection, action, right) in [
        ("", "listCollections", "`listCollections` on the database `game`"),
        ("alluvium.jobs", "createIndex", "`createIndex` on `game.alluvium.jobs`"),
        ("games.events", "insert", "`createCollection` or `insert` on `game.games.events`"),
    ] {
        secured.change("revokePrivilegesFromRole", "daemon", collection, &[action]).await;
        let mut daemon = secured.daemon(&uri, GAMES);
        let code = daemon.ended().await.code();
        wait_until("its last word", async || daemon.log().contains("error: ")).await;
        let err = daemon.log().lines().filter(|line| line.starts_with("error: ")).collect();
        failed(&Ended { code, out: String::new(), err }, &[right]);
        secured.change("grantPrivilegesToRole", "daemon", collection, &[action]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_with_the_role_of_somebody_else_says_what_it_lacks() {
    let secured = Secured::new(GAMES).await;
    let reader = secured.user("reader", "pw", "reader").await;
    let writer = secured.user("writer", "pw", "writer").await;
    // A daemon has led it.
    let lease = doc! { "_id": { "c": "games" } };
    secured.db.collection("alluvium.leases").insert_one(lease).await.unwrap();
    for (uri, arguments, right) in [
        (&reader, vec!["verify", "games"], "`insert` on `game.alluvium.jobs`"),
        (&reader, vec!["init"], "`insert` on `game.alluvium.meta`"),
        (&writer, vec!["status"], "`find` on `game.alluvium.leases`"),
        (&writer, vec!["jobs", "list"], "`find` on `game.alluvium.jobs`"),
    ] {
        failed(&secured.run(uri, GAMES, &arguments).await, &[right]);
    }

    // No printed role reads what is imported.
    secured.db.collection("old").insert_one(doc! { "_id": 1 }).await.unwrap();
    for (from, of) in [
        ("old", "db: \"game\", collection: \"old\""),
        ("shop.orders", "db: \"shop\", collection: \"orders\""),
    ] {
        let import = ["import", "games", "--from", from, "--client", "import"];
        let told = ["which --from names, may not be read with this login", of, "createRole"];
        failed(&secured.run(&writer, GAMES, &import).await, &told);
    }
}

/// Of what is older than five events nothing stays.
fn compacted() -> String {
    let compaction = "every = \"1s\"\nmin_age = \"0s\"\nkeep_events = 5\n";
    format!("{GAMES}[collections.compaction]\n{compaction}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_rights_compaction_stands_with_a_sentence_and_projecting_goes_on() {
    let secured = Secured::new(&compacted()).await;
    let daemon = secured.user("daemon", "pw", "daemon").await;
    let reader = secured.user("reader", "pw", "reader").await;
    let operator = secured.user("operator", "pw", "operator").await;
    let rights = ["update", "remove"];
    secured.change("revokePrivilegesFromRole", "daemon", "games.events", &rights).await;
    let mut daemon = secured.daemon(&daemon, &compacted());
    daemon.ready().await;
    let log = secured.db.collection("games.events");
    // The first right is needed for a base, the second one for what goes.
    for (document, right) in [("a", rights[0]), ("b", rights[1])] {
        log.insert_many(events(document, 1..=200)).await.unwrap();
        let named = format!("`{right}` on `game.games.events`");
        let told = says(&daemon, &named, |status| {
            status["compaction_stands"].as_str().is_some_and(|why| why.contains(&named))
        });
        let told = told.await;
        assert!(told["compaction_stands"].as_str().unwrap().contains(ROLES), "{told}");
        assert_eq!(told["phase"], "tailing", "{told}");
        log.insert_one(event(document, 201)).await.unwrap();
        projected(&secured, "games", document, 201).await;
        let shown = wait_for("an instance tells it to others", async || {
            let shown = secured.run(&reader, &compacted(), &["status"]).await;
            shown.out.contains(&named).then_some(shown)
        })
        .await;
        assert_eq!(shown.code, Some(4), "{shown:?}");
        assert!(shown.out.contains("nothing is compacted") && shown.out.contains(ROLES));
        let asked = secured.run(&operator, &compacted(), &["compact", "games", document]).await;
        failed(&asked, &[&named]);
        secured.change("grantPrivilegesToRole", "daemon", "games.events", &[right]).await;
    }
    says(&daemon, "it is compacted", |status| status["compaction_stands"].is_null()).await;
    let left = async || log.count_documents(doc! {}).await.unwrap();
    wait_until("what is older has gone", async || left().await < 30).await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}
