//! The server that all tests of one binary share. It belongs to a thread with a runtime of its
//! own, because every test has a runtime that ends with it; the end of the process ends the
//! server.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use alluvium::embedded::{Mongod, Options};
use mongodb::{Client, Database};

/// The connection string of the shared server, which is started by whoever asks first.
///
/// # Panics
/// When it cannot be started.
pub fn server_uri() -> &'static str {
    static URI: OnceLock<Result<String, String>> = OnceLock::new();
    match URI.get_or_init(start) {
        Ok(uri) => uri,
        Err(error) => panic!("the tests need a MongoDB server: {error}"),
    }
}

fn start() -> Result<String, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // For failpoints; narrow them by `appName` or namespace, the others share the server.
            let args = ["--setParameter", "enableTestCommands=1"].map(str::to_owned).to_vec();
            match Mongod::start(Options { args, ..Options::default() }).await {
                Err(error) => sender.send(Err(error.to_string())).unwrap(),
                Ok(mongod) => {
                    sender.send(Ok(mongod.uri().to_owned())).unwrap();
                    std::future::pending::<()>().await;
                }
            }
        });
    });
    receiver.recv().unwrap_or_else(|_| Err("its thread panicked".to_owned()))
}

/// A database that no other test uses, with a client of the asking test's runtime.
#[derive(Debug, Clone)]
pub struct TestDatabase {
    /// The connection string of the server.
    pub uri: String,
    /// The database's name, which tells the test.
    pub name: String,
    /// A client with the driver's default settings.
    pub client: Client,
    /// The database.
    pub db: Database,
}

/// Hands out a fresh database on the shared server.
pub async fn database() -> TestDatabase {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let current = thread::current();
    let test = current.name().unwrap_or("test").rsplit("::").next().unwrap_or_default();
    let allowed = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    // MongoDB allows 63 bytes.
    let name = format!("t{number}_{}", test.chars().filter(allowed).take(40).collect::<String>());
    let uri = server_uri().to_owned();
    let client = Client::with_uri_str(&uri).await.unwrap();
    let db = client.database(&name);
    TestDatabase { uri, name, client, db }
}
