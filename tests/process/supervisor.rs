//! What a service manager hears from the service, over a socket as systemd makes it.

use std::os::unix::net::UnixDatagram;

use tempfile::TempDir;

use crate::{
    at,
    common::{Daemon, database, free_port, wait_for, wait_until},
    config,
};

/// The side of a service manager.
struct Manager {
    socket: UnixDatagram,
    path: String,
    lines: Vec<String>,
    _folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned(), lines: Vec::new(), _folder: folder }
    }

    /// Starts the service, which is to give a sign of life every three seconds.
    fn start(&self, config: &str) -> Daemon {
        let socket = format!("NOTIFY_SOCKET={}", self.path);
        Daemon::under(&["env", &socket, "WATCHDOG_USEC=3000000"], config, &[])
    }

    /// Waits until a line has come that begins with this, and gives all lines until now.
    async fn hears(&mut self, beginning: &str) -> &[String] {
        wait_for(beginning, async || {
            let mut buffer = [0; 4096];
            while let Ok(size) = self.socket.recv(&mut buffer) {
                let text = std::str::from_utf8(&buffer[..size]).unwrap();
                self.lines.extend(text.lines().map(str::to_owned));
            }
            self.lines.iter().any(|line| line.starts_with(beginning)).then_some(())
        })
        .await;
        &self.lines
    }
}

fn count(lines: &[String], line: &str) -> usize {
    lines.iter().filter(|heard| *heard == line).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_ready_after_the_first_look_and_alive_and_says_that_it_stops() {
    let (db, mut manager) = (database().await, Manager::new());
    let mut daemon = manager.start(&config(&db, free_port(), ""));
    manager.hears("READY=1").await;
    let names = db.db.list_collection_names().await.unwrap();
    assert!(names.contains(&"games.events".to_owned()), "ready before it looked");
    manager.hears("STATUS=games: leader, tailing, lag 0 s").await;
    let heard = manager.hears("WATCHDOG=1").await;
    assert_eq!(count(heard, "STOPPING=1"), 0, "{heard:?}");
    daemon.signal("TERM");
    let heard = manager.hears("STOPPING=1").await;
    assert_eq!(count(heard, "READY=1"), 1, "{heard:?}");
    assert_eq!(daemon.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_it_is_alive_and_not_ready_and_says_why() {
    let mut manager = Manager::new();
    let address = format!("127.0.0.1:{}", free_port());
    let uri = format!("mongodb://{address}/?serverSelectionTimeoutMS=500");
    let mut daemon = manager.start(&at(&uri, "game", free_port(), ""));
    let why = format!("STATUS=waiting for MongoDB: MongoDB at {address} cannot be reached");
    manager.hears(&why).await;
    let heard = manager.hears("WATCHDOG=1").await;
    assert_eq!(count(heard, "READY=1"), 0, "{heard:?}");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_that_cannot_be_told_does_no_harm() {
    let db = database().await;
    let mut manager = Manager::new();
    manager.path += "-gone";
    let mut daemon = manager.start(&config(&db, free_port(), ""));
    daemon.ready().await;
    wait_until("it complains", async || {
        daemon.log().contains("the service manager cannot be told")
    })
    .await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}
