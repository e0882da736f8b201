//! Every way to log in: passwords with every character, in the configuration and in a file, and certificates.

use bson::doc;

use crate::{
    GAMES,
    common::Daemon,
    scene::event,
    secured::{Secured, config},
};

/// What means something in a URI, a TOML file, a shell or a regular expression, and what is not ASCII.
const NASTY: &str = "p@ss:/?#[]%25&=+;,$!*'\"\\()<>{}|^`~ _-.ü€";

/// Sees a daemon project an event, and stop.
async fn projects(secured: &Secured, mut daemon: Daemon, document: &str) {
    daemon.ready().await;
    let events = secured.db.collection("games.events");
    events.insert_one(event(document, 1)).await.unwrap();
    let path = format!("/v1/collections/games/documents/{document}?min_version=1&wait=30s");
    let (status, shown) = daemon.get(&path);
    assert_eq!((status, &shown["version"]), (200, &1.into()), "{shown}");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_may_have_any_character_in_the_configuration_and_in_a_file() {
    let secured = Secured::new(GAMES).await;
    let uri = secured.user("dae:mon@%/", NASTY, "daemon").await;
    let daemon = secured.daemon(&uri, GAMES);
    projects(&secured, daemon, "by-the-configuration").await;
    // As an editor leaves it.
    let file = secured.file("mongodb-uri", &format!("{uri}\n"));
    let named = format!("uri_file = \"{}\"", file.display());
    let daemon = Daemon::start(&config(&named, GAMES));
    projects(&secured, daemon, "by-the-file").await;
    for option in ["status", "init"] {
        let ended = secured.run(&uri, GAMES, &[option, "--uri", &uri]).await;
        assert!(ended.err.is_empty(), "{ended:?}");
    }
    let mistaken = secured.uri("dae:mon@%/", "p@ss");
    let ended = secured.run(&mistaken, GAMES, &["init"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("check user name, password (percent-encoded)"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_enough() {
    let secured = Secured::new(GAMES).await;
    let uri = secured.bearer("daemon", "daemon").await;
    let daemon = secured.daemon(&uri, GAMES);
    projects(&secured, daemon, "by-a-certificate").await;
    let reader = secured.bearer("reader", "reader").await;
    let got = secured.run(&reader, GAMES, &["get", "games", "by-a-certificate"]).await;
    assert_eq!(got.code, Some(0), "{got:?}");
    assert_eq!(secured.refused(), Vec::<String>::new());
    // Somebody whom the authority knows and the server does not.
    let stranger = uri.replace("daemon.pem", "stranger.pem");
    secured.authority.sign_for("stranger.pem", "stranger", "a.client");
    let ended = secured.run(&stranger, GAMES, &["init"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("refuses the login"), "{ended:?}");
    let users = secured.admin.client().database("$external");
    let users = users.run_command(doc! { "usersInfo": 1 }).await.unwrap();
    assert_eq!(users.get_array("users").unwrap().len(), 2);
}
